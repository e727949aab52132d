"""What the actor asks of a backend, and what it gets back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from sessionkeeper.answers import Trashed
from sessionkeeper.errors import CorruptDocument, SessionKeeperError
from sessionkeeper.fixed import fixed

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime
    from hashlib import blake2b
    from pathlib import Path

    from sessionkeeper.answers import BackupInfo, Erased, Saved
    from sessionkeeper.session import Chunk
    from sessionkeeper.storage.documents import Document, Record


@fixed
class Body:
    """The messages of a large version, written and synced by the thread that sent it.

    Attributes:
        session_id: The key of the session whose they are.
        temporary: The file that begins with them.
        length: How many bytes of it.
        digest: The checksum of those.
    """

    session_id: str
    temporary: Path
    length: int
    digest: blake2b


@fixed
class Put:
    """Store this version of a session, in place of the one before.

    Attributes:
        document: The version.
        body: Its messages, if they are on the medium already.
    """

    document: Document
    body: Body | None = field(default=None, compare=False)

    @property
    def record(self) -> Record:
        """The version that it makes."""
        return self.document.record


@fixed
class Append:
    """Add messages at the end of a session that exists.

    Attributes:
        record: The version that it makes.
        base: The version it is made upon.
        chunks: The messages that are added.
        whole: The session with them, if the one before was at hand.
    """

    record: Record
    base: Record
    chunks: tuple[Chunk, ...]
    whole: Document | None = None

    def upon(self, base: Document | None) -> Document:
        """The version that it makes, whole, given the one before.

        Raises:
            CorruptDocument: That is not the version it was made upon.
        """
        if self.whole is not None:
            return self.whole
        if base is None or base.record.lsn != self.base.lsn:
            raise CorruptDocument(
                "its file is not the version that was changed",
                session_id=self.record.session_id,
            )
        return base.with_appended(self.chunks, self.record)


@fixed
class Trash:
    """Move a session to the trash.

    Attributes:
        record: The version that goes.
        lsn: The number of this change.
        reason: Why, in words.
        at: When the grace begins.
        request_id: The command that asked for it.
    """

    record: Record
    lsn: int
    reason: str
    at: datetime
    request_id: str

    def listed(self) -> Trashed:
        """The removal as users see it."""
        return Trashed.of(self.record.session_id, self.at, self.reason)


Change = Put | Append | Trash


class CommitUncertain(SessionKeeperError):
    """A commit failed after its first rename: part of it may be visible, or durable.

    Only the recovery scan can tell; the actor crashes to get one.
    """

    default_hint = "The store looks at the disk again and answers what it finds."


SETTLE = 0.5
"""Seconds a damaged file must stay the same before it is taken to be finished: an editor that
writes in place leaves it empty, or cut, for a moment."""

ProblemKind = Literal[
    "corrupt",  # moved to the quarantine
    "rot",  # moved to the quarantine: its bytes changed while its name, size and time did not
    "unreadable",  # left alone: permission or input/output error
    "not-a-file",  # left alone: a folder, link, pipe, socket or device
    "newer-version",  # left alone
    "id-mismatch",  # moved to the quarantine
    "foreign",  # left alone: no session, in a folder that is not known to be a namespace
    "duplicate",  # left alone: another file holds a higher generation of the same session
    "remnant",  # moved to the quarantine: removed, and brought back by the medium
    "adopted",  # a hand-made file, taken
    "vanished",  # a file that was removed by hand
    "conflict",  # a hand edit that met a write, kept aside
    "healed",  # a damaged session brought back from its backup
    "journal",  # part of the journal is damaged; what could be read of it was used
]


@dataclass(frozen=True, slots=True)
class Problem:
    """Something in the folder that is not as the store left it.

    Attributes:
        kind: What it is.
        path: The file or folder.
        detail: What is wrong, in words.
        session_id: The session concerned, if it is known; outside the default namespace with
            that and a `/` before the id.
    """

    kind: ProblemKind
    path: Path
    detail: str
    session_id: str | None = None


@dataclass(slots=True)
class RecoveryReport:
    """What the recovery scan found.

    Attributes:
        records: Every session that can be used, by key: its id, outside the default namespace
            with that and a `/` before it.
        lsn: The highest log sequence number seen; 0 for none.
        problems: What was not as it should be, and what was done about it.
        replayed: How many changes the journal held that the files did not.
        swept: How many unpublished temporaries of a dead owner were removed.
        seconds: How long the scan took.
        removed: The requests that deletes in the trash fulfilled, and those that the deleted
            versions had fulfilled.
        looked_at: The sessions that were looked at, if not all were; the others are as they were,
            or as the index has them.
        counts: How many sessions there are in each namespace, as the index has it; None if that
            is known.
    """

    records: dict[str, Record] = field(default_factory=dict)
    lsn: int = 0
    problems: list[Problem] = field(default_factory=list)
    replayed: int = 0
    swept: int = 0
    seconds: float = 0.0
    removed: dict[str, Saved | bool] = field(default_factory=dict)
    looked_at: set[str] | None = None
    counts: Counter[str] | None = None
    _count: int = 0

    def let_go(self) -> None:
        """Forget the records, but not how many there were."""
        self._count, self.records = self.sessions, {}

    @property
    def sessions(self) -> int:
        """How many sessions were found."""
        return len(self.records) or self._count

    def answer(self, session_id: str, request_id: str) -> Saved | bool | None:
        """What a request achieved before the crash; None if it never happened."""
        record = self.records.get(session_id)
        if record is not None:
            found = fulfilled(record, request_id)
            if found is not None:
                return found
        return self.removed.get(request_id)

    def __str__(self) -> str:
        """The report for a person, one finding a line."""
        what = "recovered" if self.looked_at is None else "looked at again"
        lines = [f"{self.sessions} sessions {what} in {self.seconds:.3f} s"]
        if self.replayed:
            lines.append(f"{self.replayed} changes replayed from the journal")
        if self.swept:
            lines.append(f"{self.swept} unpublished temporaries removed")
        lines += [f"{p.kind}: {p.path.name}: {p.detail}" for p in self.problems]
        return "\n".join(lines)


def fulfilled(record: Record, request_id: str) -> Saved | None:
    """The answer to a request that this version contains, or None."""
    for request in record.requests:
        if request.request_id == request_id:
            return request.answer(record.session_id)
    return None


class Backend(Protocol):
    """Where sessions are kept. One thread commits; any thread reads.

    A `session_id` is a key, see `keys`: backends need not take it apart.
    """

    def recover(self) -> RecoveryReport:
        """Look at all there is; called before the first commit and after each crash."""
        ...

    def commit(self, batch: Sequence[Change]) -> None:
        """Apply changes in order; durable on return.

        Raises:
            StorageFailed: Nothing of the batch was written.
            PathBlocked: Something stands in the way of one; nothing of the batch was written.
            CommitUncertain: Part of it may have been written.
        """
        ...

    def read(self, session_id: str) -> Document | None:
        """The current version, or None if there is no such session.

        Raises:
            CorruptDocument: Its file is damaged.
            NewerVersion: Its file is of a newer version.
            PathBlocked: Its file cannot be read, or is no file.
        """
        ...

    def keys(self) -> Iterator[str]:
        """The ids of all sessions, in no order."""
        ...

    def trashed(self, session_id: str) -> Document | None:
        """The version deleted last that is still in the trash, or None."""
        ...

    def removals(self) -> list[Trashed]:
        """What lies in the trash, the newest removal last."""
        ...

    def backups(self, session_id: str) -> list[BackupInfo]:
        """The versions of a session that were replaced and are kept, the newest first."""
        ...

    def backup(self, session_id: str, generation: int | None) -> Document:
        """One of those versions; the newest that is whole if none is named.

        Raises:
            NoBackup: Nothing is kept, or not that one.
            BackupsDamaged: What is kept cannot be read.
        """
        ...

    def undeleted(self, session_id: str) -> None:
        """A session was brought back from the trash: give it the backups that went with it.

        What cannot be given back is told, and stays in the trash.
        """
        ...

    def purge(self, before: datetime) -> list[str]:
        """Remove for good what was trashed before that instant; returns the session ids."""
        ...

    def erase(self, session_id: str, lsn: int) -> Erased:
        """Leave no byte of a session: file, backups, trash, quarantine, journal.

        Args:
            session_id: The session; one that is gone may have left traces.
            lsn: The number of this change.

        Raises:
            StorageFailed: Nothing was changed.
            CommitUncertain: Part of it may be left; repeating it goes on.
        """
        ...

    def suspects(self) -> list[str]:
        """Names of files that are not as last published; called from any thread."""
        ...

    def changed(self, names: Iterable[str]) -> list[str]:
        """Those of the names whose files are not as last published; from any thread."""
        ...

    def file_name(self, session_id: str) -> str:
        """The name of the file that a session has, or would get."""
        ...

    def reconcile(self, names: Sequence[str], lsn: int) -> Reconciled:
        """Look at files that may have been changed by hand, and take what is valid.

        Args:
            names: File names, as `suspects` or a notification gave them.
            lsn: The highest number in use; changes taken get higher ones.
        """
        ...

    def close(self) -> None:
        """Let go of everything; no call follows."""
        ...


@dataclass(slots=True)
class Reconciled:
    """What `Backend.reconcile` found.

    Attributes:
        records: Sessions to show anew.
        vanished: Sessions that are gone.
        problems: What was not as it should be.
        unsettled: Names to look at again in `SETTLE` seconds: somebody may be writing them.
        lsn: The highest log sequence number in use now.
    """

    records: list[Record] = field(default_factory=list)
    vanished: list[str] = field(default_factory=list)
    unsettled: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    lsn: int = 0
