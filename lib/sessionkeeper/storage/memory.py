"""The memory backend: the durability level `memory`. Nothing touches the disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sessionkeeper.answers import BackupInfo, Erased, Trashed
from sessionkeeper.errors import NoBackup
from sessionkeeper.keys import named
from sessionkeeper.storage.backend import Append, Put, Reconciled, RecoveryReport, Trash

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime

    from sessionkeeper.storage.backend import Change
    from sessionkeeper.storage.documents import Document


class MemoryBackend:
    """A `Backend` in a dict; it survives crashes of the actor, not the process."""

    def __init__(self) -> None:
        self._documents: dict[str, Document] = {}
        self._removed: list[tuple[Trash, Document]] = []

    def recover(self) -> RecoveryReport:
        """What the dict holds."""
        records = {key: document.record for key, document in self._documents.items()}
        report = RecoveryReport(records=records)
        report.lsn = max((record.lsn for record in records.values()), default=0)
        for change, document in self._removed:
            report.removed[change.request_id] = True
            for request in document.record.requests:
                report.removed[request.request_id] = request.answer(document.record.session_id)
            report.lsn = max(report.lsn, change.lsn)
        return report

    def commit(self, batch: Sequence[Change]) -> None:
        """Apply changes in order. See `Backend.commit`."""
        for change in batch:
            if isinstance(change, Put):
                self._documents[change.record.session_id] = change.document
            elif isinstance(change, Append):
                session_id = change.record.session_id
                self._documents[session_id] = change.upon(self._documents.get(session_id))
            else:
                document = self._documents.pop(change.record.session_id)
                self._removed.append((change, document))

    def read(self, session_id: str) -> Document | None:
        """The current version, or None."""
        return self._documents.get(session_id)

    def keys(self) -> Iterator[str]:
        """The ids of all sessions."""
        return iter(list(self._documents))

    def trashed(self, session_id: str) -> Document | None:
        """The version deleted last that is still in the trash."""
        for change, document in reversed(self._removed):
            if change.record.session_id == session_id:
                return document
        return None

    def removals(self) -> list[Trashed]:
        """What was removed and not purged, the newest removal last."""
        return [change.listed() for change, _ in self._removed]

    def backups(self, session_id: str) -> list[BackupInfo]:
        """None: what is replaced is gone."""
        del session_id
        return []

    def backup(self, session_id: str, generation: int | None) -> Document:
        """None: what is replaced is gone."""
        del generation
        raise NoBackup(f"no backup of session {named(session_id)}", session_id=session_id)

    def undeleted(self, session_id: str) -> None:
        """There is nothing to give back: what is replaced is gone."""

    def purge(self, before: datetime) -> list[str]:
        """Remove for good what was trashed before that instant."""
        gone = [change.record.session_id for change, _ in self._removed if change.at < before]
        self._removed = [entry for entry in self._removed if entry[0].at >= before]
        return gone

    def erase(self, session_id: str, lsn: int) -> Erased:
        """Leave nothing of a session. See `Backend.erase`."""
        del lsn
        self._documents.pop(session_id, None)
        self._removed = [r for r in self._removed if r[0].record.session_id != session_id]
        return Erased.of(session_id, 0, 0)

    def suspects(self) -> list[str]:
        """None: nobody else can reach the dict."""
        return []

    def changed(self, names: Iterable[str]) -> list[str]:
        """None: nobody else can reach the dict."""
        del names
        return []

    def file_name(self, session_id: str) -> str:
        """The id: there are no files."""
        return session_id

    def reconcile(self, names: Sequence[str], lsn: int) -> Reconciled:
        """Nothing to look at."""
        del names
        return Reconciled(lsn=lsn)

    def close(self) -> None:
        """Let go of all sessions."""
        self._documents.clear()
        self._removed.clear()
