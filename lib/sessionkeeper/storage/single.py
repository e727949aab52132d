"""The single-file layout: all sessions in one file, which each commit writes anew.

The sessions are also held in memory, encoded, so a commit copies those that did not change, and a
read touches no disk. What that takes is bounded: `MAX_SESSIONS`, `MAX_BYTES`.
"""

from __future__ import annotations

import itertools
import secrets
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, NoReturn

import orjson

from sessionkeeper.errors import (
    CorruptDocument,
    NewerVersion,
    PathBlocked,
    SessionKeeperError,
    StorageFailed,
    StoreFull,
    StoreGone,
    StoreReadOnly,
)
from sessionkeeper.events import Event
from sessionkeeper.layout import SUFFIX, plain_stem
from sessionkeeper.session import Erased
from sessionkeeper.storage.backend import (
    SETTLE,
    Append,
    CommitUncertain,
    Problem,
    Reconciled,
    RecoveryReport,
    Trash,
)
from sessionkeeper.storage.erasing import Eraser
from sessionkeeper.storage.index import Recalled
from sessionkeeper.storage.keptfiles import EVER, KeptFiles
from sessionkeeper.storage.onefile import Contents, Damage, Slot, decode_file, encode_file
from sessionkeeper.storage.platform import FileSystem, NotRegularError, Signature
from sessionkeeper.storage.quarantine import Quarantine
from sessionkeeper.storage.trash import SESSION, TrashFolder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from sessionkeeper.clock import Clock
    from sessionkeeper.events import EventKind
    from sessionkeeper.layout import Layout
    from sessionkeeper.session import BackupInfo
    from sessionkeeper.storage.backend import Change, ProblemKind
    from sessionkeeper.storage.documents import Document, Record
    from sessionkeeper.storage.trash import Entry

MAX_SESSIONS: Final = 10_000
MAX_BYTES: Final = 64 * 1024 * 1024

# What the file was when it was last published: tells rot from a hand edit after a restart.
_PUBLISHED: Final = "published.json"


@dataclass(frozen=True, slots=True)
class State:
    """What the file holds; replaced as a whole, so that any thread can read it.

    Attributes:
        slots: The sessions, by id.
        stuck: Parts that cannot be read and stay where they are.
        blocked: Why nothing in the file can be used.
    """

    slots: dict[str, Slot] = field(default_factory=dict)
    stuck: tuple[Damage, ...] = ()
    blocked: SessionKeeperError | None = None

    @property
    def size(self) -> int:
        """Bytes of all sessions."""
        return sum(slot.size for slot in self.slots.values())

    def raise_if_stuck(self, session_id: str, path: Path) -> None:
        """Refuse a session that cannot be read.

        Raises:
            NewerVersion: It is of a newer version.
            PathBlocked: It is damaged.
        """
        for damage in self.stuck:
            if damage.session_id == session_id:
                if damage.newer:
                    raise NewerVersion(damage.detail, session_id=session_id, path=path)
                text = f"{path.name} holds it damaged: {damage.detail}"
                raise PathBlocked(text, session_id=session_id, path=path)

    def encoded(self) -> list[Sequence[bytes | memoryview]]:
        """The bytes of each session, and of what is stuck."""
        return [
            *(slot.parts for slot in self.slots.values()),
            *((damage.data,) for damage in self.stuck),
        ]


class SingleFileReader:
    """Reads a file without owning it, anew whenever the owner has replaced it."""

    def __init__(self, layout: Layout, fs: FileSystem, clock: Clock) -> None:
        if layout.file is None:
            raise ValueError("the layout has no single file")
        self._file = layout.file
        self._layout = layout
        self._fs = fs
        self._clock = clock
        self._trash = TrashFolder(fs, layout.trash)
        self._kept = KeptFiles(fs, layout.backups, 0, clock)
        self._state = State()
        # Of the file whose content is accounted for: published from here, or kept aside.
        self._signature: Signature | None = None

    def recover(self) -> RecoveryReport:
        """Read the file; whatever cannot be used is reported and left alone."""
        started = time.perf_counter()
        report = RecoveryReport()
        report.problems = self._refresh()
        report.records = _records_of(self._state)
        report.lsn = max((r.lsn for r in report.records.values()), default=0)
        report.seconds = time.perf_counter() - started
        return report

    def _refresh(self) -> list[Problem]:
        found = self._look()
        if found is None:
            self._state, self._signature = State(), None
            return []
        if isinstance(found, Problem):
            self._state, self._signature = State(blocked=_error_of(found)), self._current()
            return [found]
        contents, signature = found
        slots: dict[str, Slot] = {}
        problems: list[Problem] = []
        for slot in contents.slots:
            problems += self._enter(slots, slot)
        problems += [self._problem("corrupt", d.detail, d.session_id) for d in contents.damaged]
        if contents.torn is not None:
            problems.append(self._problem("corrupt", contents.torn))
        self._state, self._signature = State(slots, tuple(contents.damaged)), signature
        return problems

    def read(self, session_id: str) -> Document | None:
        """The current version. See `Backend.read`."""
        if self._current() != self._signature:
            self._refresh()
        return self._held(session_id)

    def _held(self, session_id: str) -> Document | None:
        state = self._state
        if state.blocked is not None:
            raise type(state.blocked)(
                str(state.blocked.args[0]),
                session_id=session_id,
                path=self._file,
            )
        state.raise_if_stuck(session_id, self._file)
        slot = state.slots.get(session_id)
        return None if slot is None else slot.document

    def keys(self) -> Iterator[str]:
        """The ids of all sessions."""
        return iter(list(self._state.slots))

    def published(self, record: Record) -> tuple[str, Signature] | None:
        """What tells this very version in the file from any other; None if it is not there.

        Not the signature of the file, which each commit changes for all sessions.
        """
        slot = self._state.slots.get(record.session_id)
        if slot is None or slot.record is not record:
            return None
        checksum = slot.checksum
        signature = Signature(int(checksum[:12], 16), slot.size, int(checksum[12:24], 16))
        return plain_stem(record.session_id), signature

    def trashed(self, session_id: str) -> Document | None:
        """The version deleted last that is still in the trash."""
        return self._trash.find(session_id)

    def backups(self, session_id: str) -> list[BackupInfo]:
        """The versions that were replaced, in the files that are kept. See `Backend.backups`."""
        return self._kept.versions(session_id, *self._bounds(session_id))

    def backup(self, session_id: str, generation: int | None) -> Document:
        """One of those versions. See `Backend.backup`."""
        return self._kept.load(session_id, generation, *self._bounds(session_id)).document

    def _bounds(self, session_id: str) -> tuple[int, int]:
        """The number of its last removal, and that of the version in force."""
        removed = [e.lsn for e in self._trash.entries() if e.session_id == session_id]
        slot = self._state.slots.get(session_id)
        return max(removed, default=-1), -1 if slot is None else slot.record.lsn

    def suspects(self) -> list[str]:
        """The name of the file, if it is not as last seen."""
        return self.changed([self._file.name])

    def changed(self, names: Iterable[str]) -> list[str]:
        """The name of the file, if it is among them and not as last seen."""
        wanted = self._file.name in set(names)
        return [self._file.name] if wanted and not self._as_seen() else []

    def _as_seen(self) -> bool:
        return self._current() == self._signature

    def file_name(self, session_id: str) -> str:
        """The name of the file, whatever the session."""
        del session_id
        return self._file.name

    def reconcile(self, names: Sequence[str], lsn: int) -> Reconciled:
        """Look at the file again, which its owner may have replaced."""
        result = Reconciled(lsn=lsn)
        if self._file.name not in names:
            return result
        before = _records_of(self._state)
        result.problems = self._refresh()
        after = _records_of(self._state)
        result.records = [record for key, record in after.items() if before.get(key) != record]
        result.vanished = [session_id for session_id in before if session_id not in after]
        result.lsn = max([lsn, *(record.lsn for record in after.values())])
        return result

    def commit(self, batch: Sequence[Change]) -> None:  # noqa: ARG002 - the protocol's
        """Refused."""
        self._refuse()

    def erase(self, session_id: str, lsn: int) -> Erased:  # noqa: ARG002 - the protocol's
        """Refused."""
        self._refuse()

    def purge(self, before: datetime) -> list[str]:  # noqa: ARG002 - the protocol's
        """Refused."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise StoreReadOnly("the store is open for reading only", path=self._layout.root)

    def close(self) -> None:
        """Let go of all sessions."""
        self._state = State()

    # --- for the writer ---------------------------------------------------------------------

    def _look(self) -> tuple[Contents, Signature] | Problem | None:
        """Read the file; None if there is none."""
        try:
            pieces, signature = self._fs.read(self._file)
            contents = decode_file(b"".join(pieces), self._clock.now())
        except FileNotFoundError:
            return None
        except NotRegularError as error:
            return self._problem("not-a-file", error.strerror or str(error))
        except OSError as error:
            return self._problem("unreadable", error.strerror or str(error))
        except NewerVersion as error:
            return self._problem("newer-version", str(error.args[0]))
        return contents, signature

    def _enter(self, slots: dict[str, Slot], slot: Slot) -> list[Problem]:
        """Enter a session; of two that say they are the same one the newer counts."""
        session_id = slot.record.session_id
        other = slots.get(session_id)
        if other is None or other.record.generation < slot.record.generation:
            slots[session_id] = slot
        if other is None:
            return []
        generation = slots[session_id].record.generation
        detail = f"it is there twice; generation {generation} counts"
        return [self._problem("duplicate", detail, session_id)]

    def _problem(self, kind: ProblemKind, detail: str, session_id: str | None = None) -> Problem:
        return Problem(kind, self._file, detail, session_id)

    def _current(self) -> Signature | None:
        status = self._fs.status(self._file)
        return None if status is None else Signature.of(status)


@dataclass(frozen=True, slots=True)
class _Edit:
    """A hand edit that met a commit.

    Attributes:
        contents: What the file held.
        base: What it was made upon.
    """

    contents: Contents
    base: dict[str, Slot]


class SingleFileBackend(SingleFileReader):
    """The `Backend` of the layout `single`; durable as the level `file` is.

    A commit writes the whole file beside the old one, syncs it, keeps the old one as a backup,
    renames, and syncs the folder.

    Args:
        layout: The folders; they exist (`prepare_folders`).
        clock: For the times of backups and of what is set aside.
        fs: The file system.
        max_backups: How many replaced files are kept.
        repairs: Whether what is damaged is set aside and brought back. Else it stays where it is.
        on_event: Called for whatever is found or done that nobody asked for.
        recall: Says, once, what versions other processes published.
    """

    def __init__(
        self,
        layout: Layout,
        clock: Clock,
        *,
        fs: FileSystem | None = None,
        max_backups: int = 5,
        repairs: bool = True,
        on_event: Callable[[Event], None] = lambda _: None,
        recall: Callable[[], Recalled] = Recalled,
    ) -> None:
        super().__init__(layout, fs or FileSystem(), clock)
        self._kept = KeptFiles(self._fs, layout.backups, max_backups, clock)
        self._quarantine = Quarantine(self._fs, layout.quarantine, clock)
        self._repairs = repairs
        self._on_event = on_event
        self._recall: Callable[[], Recalled] | None = recall
        self._run = secrets.token_hex(6)
        self._numbers = itertools.count(1)
        self._lsn = 0
        # Whether a sync failed behind a rename: the file is there, maybe not durably.
        self._doubtful = False
        # Of the file with nothing in it but what a store wrote.
        self._own: Signature | None = None
        # Whether the file lacks what is in memory.
        self._behind = False
        self._blocked_as: Signature | None = None
        self._edits: list[_Edit] = []
        # A damaged file that may be in the making, and since when it is as it is.
        self._damaged: tuple[Signature | None, float] | None = None
        self._identity = self._identify()

    def keep_backups(self, limit: int) -> None:
        """Keep so many replaced files from now on."""
        self._kept.resize(limit)

    def read(self, session_id: str) -> Document | None:
        """The current version. See `Backend.read`."""
        return self._held(session_id)

    # --- commit -----------------------------------------------------------------------------

    def commit(self, batch: Sequence[Change]) -> None:
        """Apply changes in order; durable on return. See `Backend.commit`.

        Raises:
            StoreFull: There would be more sessions, or bytes, than one file may hold.
        """
        self._check_identity()
        slots, removals = self._applied(batch)
        state = replace(self._state, slots=slots)
        self._check_room(state)
        staged: list[Path] = []
        try:
            for change, slot in removals:
                staged.append(self._trash.folder_of(change.lsn, plain_stem(slot.record.session_id)))
                self._stage_removal(change, slot)
            if removals:
                self._trash.sync()
            edit = self._meet_edit(_highest(batch))
            temporary, signature = self._write(state)
        except (OSError, SessionKeeperError) as error:
            self._unstage(staged)
            if isinstance(error, SessionKeeperError):
                raise
            raise StorageFailed(f"nothing was written: {error}", path=self._file) from error
        base = self._state
        self._publish(state, temporary, signature, keep=edit is None)
        self._lsn = max(self._lsn, _highest(batch))
        if edit is not None:
            self._edits.append(_Edit(edit, base.slots))

    def _applied(
        self,
        batch: Sequence[Change],
    ) -> tuple[dict[str, Slot], list[tuple[Trash, Slot]]]:
        """What the sessions would be, and those that would go."""
        state = self._state
        if state.blocked is not None:
            raise type(state.blocked)(str(state.blocked.args[0]), path=self._file)
        slots = dict(state.slots)
        removals: list[tuple[Trash, Slot]] = []
        for change in batch:
            session_id = change.record.session_id
            state.raise_if_stuck(session_id, self._file)
            if isinstance(change, Trash):
                removals.append((change, slots.pop(session_id)))
            elif isinstance(change, Append):
                base = slots.get(session_id)
                slots[session_id] = Slot.of(change.upon(base.document if base else None))
            else:
                slots[session_id] = Slot.of(change.document)
        return slots, removals

    def _check_room(self, state: State) -> None:
        count, size = len(state.slots), state.size
        # What is too much already, by hand, may still shrink.
        if count > MAX_SESSIONS and count > len(self._state.slots):
            raise StoreFull(f"one file holds at most {MAX_SESSIONS} sessions", path=self._file)
        if size > MAX_BYTES and size > self._state.size:
            text = f"one file holds at most {MAX_BYTES} bytes, this would make it {size}"
            raise StoreFull(text, path=self._file)

    def _stage_removal(self, change: Trash, slot: Slot) -> None:
        """Copy a session to the trash, durably."""
        folder = self._trash.stage(change, plain_stem(slot.record.session_id))
        path = folder / SESSION
        if self._fs.status(path) is not None:
            self._fs.unlink(path)  # of a removal that was refused
        self._fs.write_new(path, slot.parts)
        self._fs.sync_folder(folder)

    def _unstage(self, folders: Sequence[Path]) -> None:
        for folder in folders:
            try:
                self._trash.take_back(folder)
            except OSError as error:  # the next recovery takes it back
                self._tell("ignored", folder, f"could not be swept: {error}")

    def _write(self, state: State) -> tuple[Path, Signature]:
        temporary = self._new_temporary()
        return temporary, self._fs.write_new(temporary, encode_file(state.encoded()))

    def _publish(
        self,
        state: State,
        temporary: Path,
        signature: Signature,
        *,
        keep: bool = True,
    ) -> None:
        """Rename what was written to the file; with `keep` what it replaces becomes a backup.

        Raises:
            CommitUncertain: It may have happened.
        """
        try:
            if keep:
                self._back_up()
            self._fs.replace(temporary, self._file)
            self._state, self._signature, self._own = state, signature, signature
            self._behind = False
            self._fs.sync_folder(self._layout.root)
        except OSError as error:
            self._doubtful = True
            text = f"publishing failed half-way: {error}"
            raise CommitUncertain(text, path=self._file) from error

    def _back_up(self) -> None:
        if self._current() is None:
            return
        try:
            self._kept.keep(self._file, self._lsn)
        except OSError as error:  # a backup is no reason to refuse the change
            self._tell("ignored", self._file, f"no backup was kept: {error}")

    def _keep_state(self) -> None:
        """Keep as a backup what no file holds any more, because somebody edited that."""
        if not self._state.slots:
            return
        content = encode_file(self._state.encoded())
        temporary = self._new_temporary()
        try:
            self._kept.keep_bytes(temporary, content, self._lsn)
        except OSError as error:
            self._tell("ignored", self._file, f"no backup was kept: {error}")

    def _meet_edit(self, lsn: int) -> Contents | None:
        """Keep aside what is about to be replaced, if it is not what is accounted for.

        Returns:
            What it holds, for that is still to be taken; None if nobody has edited the file.

        Raises:
            OSError: As the system said.
            PathBlocked: Something stands there that is not to be replaced.
        """
        current = self._current()
        if current is None or current == self._signature:
            return None
        found = self._look_as_owner()
        if isinstance(found, Problem):
            raise _error_of(found)
        if found is None:
            return None
        aside = self._kept.keep_edit(self._file, lsn)
        self._keep_state()
        self._tell("conflict", self._file, f"its hand-made version is kept as {aside.name}")
        self._signature = found[1]
        return found[0]

    # --- recovery ---------------------------------------------------------------------------

    def recover(self) -> RecoveryReport:
        """Read the file, take what is valid, set aside what is not; durable when it is said."""
        started = time.perf_counter()
        self._check_identity()
        report = RecoveryReport(lsn=self._lsn)
        report.swept = self._sweep()
        self._trash.sweep()
        removals = list(self._trash.entries())
        known = self._known(report)
        rewrite = self._take_in(report, known, removals)
        report.records = _records_of(self._state)
        for removal in removals:
            report.lsn = max(report.lsn, removal.lsn)
            if not self._take_back_removal(removal):
                report.removed.update(removal.answers)
        report.lsn = max([report.lsn, *(record.lsn for record in report.records.values())])
        self._lsn = report.lsn
        if rewrite or self._doubtful:
            self._rewrite_at_recovery()
        self._doubtful = False
        self._fs.sync_folder(self._layout.root)
        self._trash.sync()
        self._remember_signature()
        report.seconds = time.perf_counter() - started
        return report

    def _known(self, report: RecoveryReport) -> dict[str, Record]:
        """The versions that were published, from here or by the process before."""
        if self._recall is None:
            return _records_of(self._state)
        recalled, self._recall = self._recall(), None
        # A number is never used twice, also if the file with the highest is gone.
        report.lsn = max(report.lsn, recalled.lsn)
        return {known.record.session_id: known.record for known in recalled.files.values()}

    def _take_in(
        self,
        report: RecoveryReport,
        known: Mapping[str, Record],
        removals: Sequence[Entry],
    ) -> bool:
        """Make the state what the file holds; returns whether the file is to be written anew."""
        found = self._look_as_owner()
        if found is None:
            if self._state.slots or self._kept.names():
                self._vanish(self._state.slots, report.problems, "the file was removed by hand")
            self._state, self._signature = State(), None
            return False
        if isinstance(found, Problem):
            self._state, self._signature = State(blocked=_error_of(found)), None
            self._note(found, report.problems)
            return False
        contents, signature = found
        published = signature in (self._own, read_published(self._fs, self._layout))
        slots: dict[str, Slot] = {}
        damaged = list(contents.damaged)
        for slot in contents.slots:
            if published and not slot.ours:
                detail = "its bytes changed, the size and time of the file did not"
                damaged.append(Damage(detail, b"".join(slot.parts), slot.record.session_id))
            else:
                report.problems += self._enter(slots, slot)
        edited = [
            key
            for key, slot in slots.items()
            if not slot.ours or (key in known and slot.record.lsn < known[key].lsn)
        ]
        aside = bool(edited) or len(slots) + len(damaged) < len(contents.slots)
        accounted = self._set_aside(report, contents, damaged, aside=aside)
        report.lsn = max([report.lsn, *(slot.record.lsn for slot in slots.values())])
        for key in edited:
            slots[key] = self._adopted(slots[key], known.get(key), report)
        lost = [d for d in damaged if not d.newer] if self._repairs else []
        stuck = tuple(d for d in damaged if d not in lost)
        self._heal(slots, lost, contents.torn, removals, report)
        self._state = State(slots, stuck)
        self._signature = signature if accounted else None
        self._own = signature if contents.whole and not aside else None
        self._blocked_as = None
        return accounted and (aside or bool(lost) or contents.torn is not None)

    def _set_aside(
        self,
        report: RecoveryReport,
        contents: Contents,
        damaged: Sequence[Damage],
        *,
        aside: bool,
    ) -> bool:
        """Keep what the next write would lose; returns whether all of it is kept."""
        for damage in damaged:
            kind: ProblemKind = "newer-version" if damage.newer else "corrupt"
            report.problems.append(self._problem(kind, damage.detail, damage.session_id))
        if contents.torn is not None:
            report.problems.append(self._problem("corrupt", contents.torn))
        try:
            if aside:
                self._kept.keep_edit(self._file, report.lsn)
            if self._repairs:
                self._quarantine_all(damaged, contents.torn)
        except OSError as error:
            # It stays where it is until it can be kept.
            self._tell("ignored", self._file, f"what is damaged could not be kept: {error}")
            return False
        return True

    def _quarantine_all(self, damaged: Sequence[Damage], torn: str | None) -> None:
        for damage in damaged:
            if not damage.newer:
                path = self._file
                if damage.session_id is not None:
                    path = self._layout.root / (plain_stem(damage.session_id) + SUFFIX)
                kept = self._quarantine.copy(path, "corrupt", damage.detail, [damage.data])
                detail = f"{damage.detail}; now {kept.name}"
                self._tell("quarantined", self._file, detail, damage.session_id)
        if torn is not None:
            pieces, _ = self._fs.read(self._file)
            kept = self._quarantine.copy(self._file, "corrupt", torn, pieces)
            self._tell("quarantined", self._file, f"{torn}; now {kept.name}")

    def _adopted(
        self, slot: Slot, before: Record | None, report: RecoveryReport | Reconciled
    ) -> Slot:
        """A hand-made version, as the session's next generation."""
        record = slot.record
        least = 1 if before is None else before.generation + 1
        report.lsn += 1
        taken = _renumbered(slot, max(record.generation, least), report.lsn)
        detail = "made or edited by hand"
        report.problems.append(self._problem("adopted", detail, record.session_id))
        self._tell("adopted", self._file, detail, record.session_id)
        return taken

    def _heal(
        self,
        slots: dict[str, Slot],
        lost: Sequence[Damage],
        torn: str | None,
        removals: Sequence[Entry],
        report: RecoveryReport,
    ) -> None:
        """Bring back what is damaged, each session as the newest version that is kept."""
        found = self._kept.newest_of({damage.session_id for damage in lost} - slots.keys())
        if torn is not None or any(damage.session_id is None for damage in lost):
            # Nobody can say who is missing: whoever was there and was not removed since.
            whole = self._kept.newest_whole()
            removed = {removal.session_id: removal.lsn for removal in removals}
            found += [
                slot
                for slot in (whole.slots if whole is not None else ())
                if slot.record.lsn > removed.get(slot.record.session_id, -1)
            ]
        for copy in found:
            session_id = copy.record.session_id
            if session_id in slots:
                continue
            report.lsn += 1
            slots[session_id] = _renumbered(copy, copy.record.generation + 1, report.lsn)
            detail = f"generation {copy.record.generation} was brought back"
            report.problems.append(self._problem("healed", detail, session_id))
            self._tell("healed", self._file, detail, session_id)

    def _take_back_removal(self, removal: Entry) -> bool:
        """Undo a removal that a crash, or the medium, kept from happening: it is still there."""
        slot = self._state.slots.get(removal.session_id)
        if slot is None or slot.record.lsn >= removal.lsn:
            return False
        stem = plain_stem(removal.session_id)
        if self._trash.moved(removal.lsn, stem, slot.record.lsn) is None:
            return False
        self._trash.take_back(removal.folder)
        return True

    def _rewrite_at_recovery(self) -> None:
        try:
            temporary, signature = self._write(self._state)
        except OSError as error:  # the next change writes it
            self._behind = True
            self._tell("ignored", self._file, f"not written yet: {error}")
            return
        self._publish(self._state, temporary, signature, keep=False)

    def _look_as_owner(self) -> tuple[Contents, Signature] | Problem | None:
        """Read the file; one that is torn, and is not to be repaired, is a problem."""
        found = self._look()
        if isinstance(found, tuple) and found[0].torn is not None and not self._repairs:
            return self._problem("corrupt", found[0].torn)
        return found

    def _note(self, problem: Problem, problems: list[Problem]) -> None:
        """Report a file that cannot be used; it is not touched until it is another."""
        # What the system refuses to read it may give another time.
        self._blocked_as = None if problem.kind == "unreadable" else self._current()
        problems.append(problem)
        self._tell("ignored", self._file, f"{problem.kind}: {problem.detail}")

    def _sweep(self) -> int:
        """Remove the temporaries of a dead owner."""
        swept = 0
        for entry in list(self._fs.entries(self._layout.temporaries)):
            if entry.is_file(follow_symlinks=False):
                path = self._layout.temporaries / entry.name
                try:
                    self._fs.unlink(path)
                    swept += 1
                except OSError as error:  # the next recovery sweeps again
                    self._tell("ignored", path, f"could not be removed: {error}")
        return swept

    # --- hand-made changes ------------------------------------------------------------------

    def _as_seen(self) -> bool:
        current = self._current()
        if current is not None and current == self._blocked_as:
            return True
        usable = self._state.blocked is None
        return usable and current == self._signature and not self._edits

    def reconcile(self, names: Sequence[str], lsn: int) -> Reconciled:
        """Look at the file, which may have been changed by hand. See `Backend.reconcile`."""
        self._check_identity()
        result = Reconciled(lsn=lsn)
        if self._file.name not in names:
            return result
        found = self._look_as_owner()
        if isinstance(found, Problem):
            # What is in memory is served; a change would have to replace the file.
            self._note(found, result.problems)
            return result
        state = self._state
        current = None if found is None else found[1]
        changed = current != self._signature or state.blocked is not None
        if changed and self._may_be_unfinished(found, current):
            result.unsettled.append(self._file.name)
            return result
        edits, self._edits = self._edits, []
        for edit in edits:
            state = self._merged(edit, state, result)
        if changed:
            state = self._taken(found, state, result)
        if state is not self._state:
            self._store(state, result)
        elif changed and current != self._signature:
            self._edits = edits  # what could not be kept is tried again, in the same order
        return result

    def _may_be_unfinished(
        self,
        found: tuple[Contents, Signature] | None,
        current: Signature | None,
    ) -> bool:
        """Whether a file that is gone, or damaged, has not been so for long."""
        if found is not None and found[0].torn is None and not found[0].damaged:
            self._damaged = None
            return False
        now = self._clock.monotonic()
        if self._damaged is not None and self._damaged[0] == current:
            if now - self._damaged[1] < SETTLE:
                return True
            self._damaged = None
            return False
        self._damaged = (current, now)
        return True

    def _taken(
        self,
        found: tuple[Contents, Signature] | None,
        state: State,
        result: Reconciled,
    ) -> State:
        """The state with what somebody made of the file; what that replaces is kept.

        Nothing is written to the file yet.
        """
        if found is None:
            result.vanished += list(state.slots)
            self._keep_state()
            self._vanish(state.slots, result.problems, "the file was removed by hand")
            self._signature = None
            return State()
        contents, signature = found
        merged = state
        if contents.torn is None:
            merged = self._merged(_Edit(contents, state.slots), state, result)
        if merged.slots == state.slots and contents.torn is None and not contents.damaged:
            self._signature = signature
            # Only laid out anew, or what could not be read has gone.
            return state if merged == state else merged
        try:
            self._kept.keep_edit(self._file, result.lsn)
            if self._repairs:
                self._quarantine_all(contents.damaged, contents.torn)
        except OSError as error:
            self._tell("ignored", self._file, f"not taken yet, it could not be kept: {error}")
            detail = f"made or edited by hand, and not taken yet: {error}"
            result.problems[:] = [self._problem("unreadable", detail)]
            result.vanished.clear()
            result.records.clear()
            return self._state
        if contents.torn is not None:
            result.problems.append(self._problem("corrupt", contents.torn))
        self._keep_state()
        self._signature = signature
        # A new object: the file is to be written, also if it was only damaged.
        return replace(merged)

    def _merged(self, edit: _Edit, state: State, result: Reconciled) -> State:
        """The state with an edit, but for sessions that were changed since."""
        slots = dict(state.slots)
        made: dict[str, Slot] = {}
        for slot in edit.contents.slots:
            result.problems += self._enter(made, slot)
        for key, slot in made.items():
            before = edit.base.get(key)
            if before is not None and slot.document == before.document:
                continue
            if state.slots.get(key) is not before:
                continue  # a write came before it, and the edit is kept aside
            slots[key] = self._adopted(slot, before.record if before else None, result)
            result.records.append(slots[key].record)
        stuck = self._stuck_after(edit.contents, made, result)
        unnamed = any(damage.session_id is None for damage in edit.contents.damaged)
        damaged = {d.session_id for d in edit.contents.damaged if not d.newer and self._repairs}
        if edit.contents.torn is None and not unnamed:
            missing = {
                key: slot
                for key, slot in edit.base.items()
                if key not in made and key not in damaged and state.slots.get(key) is slot
            }
            for key in missing:
                del slots[key]
            result.vanished += missing
            self._vanish(missing, result.problems, "it was removed by hand")
        for healed in damaged & slots.keys():
            self._tell("healed", self._file, "its damaged version was replaced", healed)
        return State(slots, stuck)

    def _stuck_after(
        self,
        contents: Contents,
        made: Mapping[str, Slot],
        result: Reconciled,
    ) -> tuple[Damage, ...]:
        for damage in contents.damaged:
            kind: ProblemKind = "newer-version" if damage.newer else "corrupt"
            result.problems.append(self._problem(kind, damage.detail, damage.session_id))
        return tuple(
            damage
            for damage in contents.damaged
            if (damage.newer or not self._repairs) and damage.session_id not in made
        )

    def _store(self, state: State, result: Reconciled) -> None:
        """Bring the file up to what was taken."""
        if self._current() is None and not state.slots and not state.stuck:
            self._state = state
            return
        try:
            temporary, signature = self._write(state)
        except OSError as error:  # it is all kept aside; the next change writes it
            self._state, self._behind = state, True
            self._tell("ignored", self._file, f"not written yet: {error}")
        else:
            self._publish(state, temporary, signature, keep=False)
        self._lsn = max(self._lsn, result.lsn)

    def _vanish(self, gone: Iterable[str], problems: list[Problem], detail: str) -> None:
        for session_id in gone:
            problems.append(self._problem("vanished", detail, session_id))
            self._tell("vanished", self._file, detail, session_id)

    # --- the end of sessions ----------------------------------------------------------------

    def purge(self, before: datetime) -> list[str]:
        """Remove for good what was trashed before that instant, and its versions.

        Raises:
            StorageFailed: The medium refused; what is left is tried again the next time.
        """
        due = {e.session_id: e.lsn for e in self._trash.entries() if e.at < before}
        if not due:
            return []
        try:
            self._kept.strip(due, self._new_temporary)
            return self._trash.purge(before)
        except OSError as error:
            raise StorageFailed(f"the trash was not purged: {error}") from error

    def erase(self, session_id: str, lsn: int) -> Erased:
        """Leave no byte of a session. See `Backend.erase`."""
        self._check_identity()
        state = self._state
        if state.blocked is not None:
            raise type(state.blocked)(str(state.blocked.args[0]), path=self._file)
        try:
            edit = self._meet_edit(lsn)
        except OSError as error:
            raise StorageFailed(f"nothing was erased: {error}", path=self._file) from error
        if edit is not None:
            self._edits.append(_Edit(edit, state.slots))
        own = [slot.size for key, slot in state.slots.items() if key == session_id]
        own += [len(damage.data) for damage in state.stuck if damage.session_id == session_id]
        try:
            if own or edit is not None or self._behind:
                slots = {key: slot for key, slot in state.slots.items() if key != session_id}
                stuck = tuple(d for d in state.stuck if d.session_id != session_id)
                left = State(slots, stuck)
                self._publish(left, *self._write(left), keep=False)
            count, size = self._kept.strip({session_id: EVER}, self._new_temporary)
            eraser = Eraser(self._fs, self._layout, session_id, {plain_stem(session_id)})
            aside = eraser.erase_aside()
        except OSError as error:
            text = f"not all of it could be erased: {error}"
            raise CommitUncertain(text, session_id=session_id, path=self._file) from error
        self._edits = [_without(edit, session_id) for edit in self._edits]
        self._lsn = max(self._lsn, lsn)
        return Erased(session_id, len(own) + count + aside.files, sum(own) + size + aside.size)

    def close(self) -> None:
        """Note what the file is, and let go of all sessions."""
        self._remember_signature()
        super().close()

    # --- the folder itself ------------------------------------------------------------------

    def _remember_signature(self) -> None:
        signature = self._own
        if signature is None or self._current() != signature:
            return
        if read_published(self._fs, self._layout) == signature:
            return
        fields = {"inode": signature.inode, "size": signature.size, "mtime_ns": signature.mtime_ns}
        path = self._layout.private / _PUBLISHED
        temporary = self._new_temporary()
        try:
            self._fs.write_unsynced(temporary, [orjson.dumps(fields)])
            self._fs.replace(temporary, path)
        except OSError as error:  # without it rot cannot be told from a hand edit, once
            self._tell("ignored", path, f"could not be written: {error}")

    def _new_temporary(self) -> Path:
        return self._layout.temporaries / f"{self._run}-{next(self._numbers)}.tmp"

    def _identify(self) -> tuple[int, int] | None:
        status = self._fs.status(self._layout.root)
        return None if status is None else (status.st_dev, status.st_ino)

    def _check_identity(self) -> None:
        if self._identify() != self._identity:
            raise StoreGone("the store's folder was removed or replaced", path=self._layout.root)

    def _tell(
        self,
        kind: EventKind,
        path: Path,
        detail: str,
        session_id: str | None = None,
    ) -> None:
        self._on_event(Event(kind, session_id, detail, path))


def read_published(fs: FileSystem, layout: Layout) -> Signature | None:
    """What the file was when an owner last looked after it; None if that is not known."""
    try:
        fields = orjson.loads(b"".join(fs.read(layout.private / _PUBLISHED)[0]))
        return Signature(int(fields["inode"]), int(fields["size"]), int(fields["mtime_ns"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _records_of(state: State) -> dict[str, Record]:
    return {key: slot.record for key, slot in state.slots.items()}


def _renumbered(slot: Slot, generation: int, lsn: int) -> Slot:
    record = replace(
        slot.record,
        generation=generation,
        lsn=lsn,
        requests=tuple(r for r in slot.record.requests if r.keyed),
    )
    return Slot.of(replace(slot.document, record=record))


def _highest(batch: Sequence[Change]) -> int:
    return max((c.lsn if isinstance(c, Trash) else c.record.lsn for c in batch), default=0)


def _without(edit: _Edit, session_id: str) -> _Edit:
    slots = [slot for slot in edit.contents.slots if slot.record.session_id != session_id]
    base = {key: slot for key, slot in edit.base.items() if key != session_id}
    damaged = [damage for damage in edit.contents.damaged if damage.session_id != session_id]
    return _Edit(Contents(slots, damaged, edit.contents.torn), base)


def _error_of(problem: Problem) -> SessionKeeperError:
    if problem.kind == "newer-version":
        return NewerVersion(problem.detail, path=problem.path)
    if problem.kind == "corrupt":
        return CorruptDocument(problem.detail, path=problem.path)
    text = f"{problem.path.name} is in the way: {problem.detail}"
    return PathBlocked(text, path=problem.path)
