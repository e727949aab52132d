"""What a store whose persistence is switched off has changed: in memory, over what is stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NoReturn

from sessionkeeper.errors import NoBackup, OutcomeUnknown, PersistenceOff, StorageFailed
from sessionkeeper.keys import named
from sessionkeeper.storage.backend import (
    Append,
    CommitUncertain,
    Put,
    Reconciled,
    RecoveryReport,
    Trash,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from sessionkeeper.answers import BackupInfo, Erased, Trashed
    from sessionkeeper.storage.backend import Backend, Change
    from sessionkeeper.storage.documents import Document, Record

# So many changes are written together when persistence is switched on.
BATCH: Final = 256


class Overlay:
    """A `Backend` that reads through another one and writes nothing into it.

    It survives crashes of the actor, as the backend below does, and not the process.

    Args:
        below: What is stored.
        records: The sessions in there that can be used.
        lsn: The highest number in use.
    """

    def __init__(self, below: Backend, records: Mapping[str, Record], lsn: int) -> None:
        self._below = below
        self._records = dict(records)
        self._lsn = lsn
        # Sessions as they are now; None: removed.
        self._documents: dict[str, Document | None] = {}
        # What is to be written of each session: a version, or a removal, after the other.
        self._changes: dict[str, list[Put | Trash]] = {}
        self._removed: list[tuple[Trash, Document]] = []
        # Brought back from the trash; their backups lie there still.
        self._undeleted: list[str] = []
        self._uncertain = False

    def __len__(self) -> int:
        """How many sessions are not stored as they are now."""
        return len(self._changes)

    def save(self) -> None:
        """Write into the backend below whatever was changed; durable on return.

        Raises:
            StorageFailed: Not all of it was written; the rest is kept, and can be tried again.
            CommitUncertain: A recovery has to find out how much was.
        """
        waiting = [change for changes in self._changes.values() for change in changes]
        waiting.sort(key=_lsn_of)
        for start in range(0, len(waiting), BATCH):
            batch = waiting[start : start + BATCH]
            try:
                self._below.commit(batch)
            except CommitUncertain:
                self._uncertain = True
                raise
            except OutcomeUnknown as error:
                # To be written again, whatever became of it: that changes nothing.
                raise StorageFailed(str(error.args[0]), path=error.path) from error
            for change in batch:
                self._forget(change)
        for key in self._undeleted:
            self._below.undeleted(key)
        self._undeleted.clear()

    def _forget(self, change: Put | Trash) -> None:
        key = change.record.session_id
        self._changes[key].remove(change)
        if not self._changes[key]:
            del self._changes[key]
        if isinstance(change, Put):
            self._records[key] = change.record
        else:
            self._records.pop(key, None)

    # --- what the actor asks for ------------------------------------------------------------

    def recover(self) -> RecoveryReport:
        """What there was when persistence was switched off, and what was changed since."""
        if self._uncertain:
            self._look_again()
        report = RecoveryReport(records=dict(self._records), lsn=self._lsn)
        for key, document in self._documents.items():
            report.records.pop(key, None)
            if document is not None:
                report.records[key] = document.record
        for change, document in self._removed:
            report.removed[change.request_id] = True
            for request in document.record.requests:
                report.removed[request.request_id] = request.answer(document.record.session_id)
        return report

    def _look_again(self) -> None:
        """Find out how much of what was to be written is stored."""
        found = self._below.recover()
        self._lsn = max(self._lsn, found.lsn)
        self._records = found.records
        self._uncertain = False
        for change in [each for changes in self._changes.values() for each in changes]:
            record = found.records.get(change.record.session_id)
            if isinstance(change, Trash):
                stored = change.request_id in found.removed
            else:
                stored = record is not None and record.lsn >= change.record.lsn
            if stored:
                self._forget(change)
        self._records = found.records

    def commit(self, batch: Sequence[Change]) -> None:
        """Keep changes in mind, all or none."""
        made: dict[str, Document | None] = {}
        wanted: list[tuple[Put | Trash, Document]] = []
        for change in batch:
            key = change.record.session_id
            before = made[key] if key in made else self.read(key)
            if isinstance(change, Trash):
                if before is not None:
                    wanted.append((change, before))
                made[key] = None
                continue
            document = change.upon(before) if isinstance(change, Append) else change.document
            wanted.append((Put(document), document))
            made[key] = document
        for kept, document in wanted:
            self._enter(kept, document)
        self._documents.update(made)

    def _enter(self, change: Put | Trash, document: Document) -> None:
        self._lsn = max(self._lsn, _lsn_of(change))
        changes = self._changes.setdefault(change.record.session_id, [])
        if isinstance(change, Trash):
            self._removed.append((change, document))
        elif changes and isinstance(changes[-1], Put):
            changes.pop()  # of versions that nobody saw on the disk the last one is enough
        changes.append(change)

    def read(self, session_id: str) -> Document | None:
        """The version in mind, or else the one that is stored."""
        if session_id in self._documents:
            return self._documents[session_id]
        return self._below.read(session_id)

    def keys(self) -> Iterator[str]:
        """The ids of all sessions."""
        return iter(self.recover().records)

    def trashed(self, session_id: str) -> Document | None:
        """The version deleted last."""
        for change, document in reversed(self._removed):
            if change.record.session_id == session_id:
                return document
        return self._below.trashed(session_id)

    def removals(self) -> list[Trashed]:
        """What lies in the trash, and what was removed since; the newest removal last."""
        return [*self._below.removals(), *(change.listed() for change, _ in self._removed)]

    def backups(self, session_id: str) -> list[BackupInfo]:
        """Those that are stored; what is replaced now is gone."""
        return [] if self._was_removed(session_id) else self._below.backups(session_id)

    def backup(self, session_id: str, generation: int | None) -> Document:
        """One of those."""
        if self._was_removed(session_id):
            raise NoBackup(f"no backup of session {named(session_id)}", session_id=session_id)
        return self._below.backup(session_id, generation)

    def _was_removed(self, session_id: str) -> bool:
        """Whether what is stored is of a session that was removed; there may be another one now."""
        changes = self._changes.get(session_id, ())
        return any(isinstance(change, Trash) for change in changes)

    def undeleted(self, session_id: str) -> None:
        """Its backups are given back when it is stored."""
        self._undeleted.append(session_id)

    def purge(self, before: datetime) -> list[str]:
        """Nothing: what is stored stays as it is."""
        del before
        return []

    def erase(self, session_id: str, lsn: int) -> Erased:  # noqa: ARG002 - the protocol's
        """Refused: a session has bytes in what is stored."""
        self._refuse(session_id)

    def _refuse(self, session_id: str) -> NoReturn:
        raise PersistenceOff("nothing can be erased from the disk now", session_id=session_id)

    def suspects(self) -> list[str]:
        """None: whatever was changed by hand is looked at when persistence is switched on."""
        return []

    def changed(self, names: Iterable[str]) -> list[str]:
        """None; see `suspects`."""
        del names
        return []

    def file_name(self, session_id: str) -> str:
        """The name of the file that a session has, or will get."""
        return self._below.file_name(session_id)

    def reconcile(self, names: Sequence[str], lsn: int) -> Reconciled:
        """Nothing; see `suspects`."""
        del names
        return Reconciled(lsn=lsn)

    def close(self) -> None:
        """Let go of everything."""
        self._below.close()


def _lsn_of(change: Put | Trash) -> int:
    return change.lsn if isinstance(change, Trash) else change.record.lsn
