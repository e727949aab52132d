"""The writing side of the single-file layout: publishing, keeping aside, setting aside."""

from __future__ import annotations

import itertools
import secrets
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import orjson

from sessionkeeper.errors import StoreGone
from sessionkeeper.events import Event
from sessionkeeper.layout import SUFFIX, plain_stem
from sessionkeeper.storage.backend import CommitUncertain, Problem, Reconciled, RecoveryReport
from sessionkeeper.storage.index import Recalled
from sessionkeeper.storage.keptfiles import KeptFiles
from sessionkeeper.storage.onefile import Contents, Damage, Slot, encode_file
from sessionkeeper.storage.platform import FileSystem, Signature
from sessionkeeper.storage.quarantine import Quarantine
from sessionkeeper.storage.singlereader import SingleFileReader, State, error_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from sessionkeeper.clock import Clock
    from sessionkeeper.events import EventKind
    from sessionkeeper.layout import Layout
    from sessionkeeper.storage.documents import Document, Record


# What the file was when it was last published: tells rot from a hand edit after a restart.
_PUBLISHED: Final = "published.json"


@dataclass(frozen=True, slots=True)
class Edit:
    """A hand edit that met a commit.

    Attributes:
        contents: What the file held.
        base: What it was made upon.
    """

    contents: Contents
    base: dict[str, Slot]


class SingleFileWriter(SingleFileReader):
    """Writes the file, and keeps whatever that would lose.

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
        self._quarantine = Quarantine(self._fs, layout, clock)
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
        self._edits: list[Edit] = []
        # A damaged file that may be in the making, and since when it is as it is.
        self._damaged: tuple[Signature | None, float] | None = None
        self._identity = self._identify()

    def keep_backups(self, limit: int) -> None:
        """Keep so many replaced files from now on."""
        self._kept.resize(limit)

    def read(self, session_id: str) -> Document | None:
        """The current version. See `Backend.read`."""
        return self._held(session_id)

    # --- publishing -------------------------------------------------------------------------

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
            raise error_of(found)
        if found is None:
            return None
        aside = self._kept.keep_edit(self._file, lsn)
        self._keep_state()
        self._tell("conflict", self._file, f"its hand-made version is kept as {aside.name}")
        self._signature = found[1]
        return found[0]

    # --- what is found ----------------------------------------------------------------------

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
        taken = renumbered(slot, max(record.generation, least), report.lsn)
        detail = "made or edited by hand"
        report.problems.append(self._problem("adopted", detail, record.session_id))
        self._tell("adopted", self._file, detail, record.session_id)
        return taken

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

    def _as_seen(self) -> bool:
        current = self._current()
        if current is not None and current == self._blocked_as:
            return True
        usable = self._state.blocked is None
        return usable and current == self._signature and not self._edits

    def _vanish(self, gone: Iterable[str], problems: list[Problem], detail: str) -> None:
        for session_id in gone:
            problems.append(self._problem("vanished", detail, session_id))
            self._tell("vanished", self._file, detail, session_id)

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
        self._on_event(Event.of(kind, session_id, detail, path))


def read_published(fs: FileSystem, layout: Layout) -> Signature | None:
    """What the file was when an owner last looked after it; None if that is not known."""
    try:
        fields = orjson.loads(b"".join(fs.read(layout.private / _PUBLISHED)[0]))
        return Signature(int(fields["inode"]), int(fields["size"]), int(fields["mtime_ns"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def renumbered(slot: Slot, generation: int, lsn: int) -> Slot:
    """The same session as another generation."""
    record = replace(
        slot.record,
        generation=generation,
        lsn=lsn,
        requests=tuple(r for r in slot.record.requests if r.keyed),
    )
    return Slot.of(replace(slot.document, record=record))
