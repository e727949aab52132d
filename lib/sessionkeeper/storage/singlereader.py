"""Reading the single-file layout without owning it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn

from sessionkeeper.errors import (
    CorruptDocument,
    NewerVersion,
    PathBlocked,
    SessionKeeperError,
    StoreReadOnly,
)
from sessionkeeper.layout import plain_stem
from sessionkeeper.storage.backend import Problem, Reconciled, RecoveryReport
from sessionkeeper.storage.keptfiles import KeptFiles
from sessionkeeper.storage.onefile import Contents, Damage, Slot, decode_file
from sessionkeeper.storage.platform import FileSystem, NotRegularError, Signature
from sessionkeeper.storage.trash import TrashFolder

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime
    from pathlib import Path

    from sessionkeeper.answers import BackupInfo, Erased, Trashed
    from sessionkeeper.clock import Clock
    from sessionkeeper.layout import Layout
    from sessionkeeper.storage.backend import Change, ProblemKind
    from sessionkeeper.storage.documents import Document, Record


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
        report.records = records_of(self._state)
        report.lsn = max((r.lsn for r in report.records.values()), default=0)
        report.seconds = time.perf_counter() - started
        return report

    def _refresh(self) -> list[Problem]:
        found = self._look()
        if found is None:
            self._state, self._signature = State(), None
            return []
        if isinstance(found, Problem):
            self._state, self._signature = State(blocked=error_of(found)), self._current()
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

    def removals(self) -> list[Trashed]:
        """What lies in the trash, the newest removal last."""
        return self._trash.listed()

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
        before = records_of(self._state)
        result.problems = self._refresh()
        after = records_of(self._state)
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

    def undeleted(self, session_id: str) -> None:  # noqa: ARG002 - the protocol's
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


def records_of(state: State) -> dict[str, Record]:
    """The versions in the file, by id."""
    return {key: slot.record for key, slot in state.slots.items()}


def error_of(problem: Problem) -> SessionKeeperError:
    """What somebody is told who needs a file that cannot be used."""
    if problem.kind == "newer-version":
        return NewerVersion(problem.detail, path=problem.path)
    if problem.kind == "corrupt":
        return CorruptDocument(problem.detail, path=problem.path)
    text = f"{problem.path.name} is in the way: {problem.detail}"
    return PathBlocked(text, path=problem.path)
