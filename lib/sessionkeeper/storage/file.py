"""The durability level `file`: every session file is durable when a commit returns."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sessionkeeper.errors import PathBlocked, SessionKeeperError, StorageFailed
from sessionkeeper.storage.backend import Append, CommitUncertain, Put, RecoveryReport, Trash
from sessionkeeper.storage.documents import encode_document
from sessionkeeper.storage.edits import EditableFolder
from sessionkeeper.storage.folder import Staged
from sessionkeeper.storage.index import Recalled
from sessionkeeper.storage.journal import segment_paths
from sessionkeeper.storage.journaled import JournaledBackend
from sessionkeeper.storage.trash import SESSION, stem_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from sessionkeeper.clock import Clock
    from sessionkeeper.events import Event
    from sessionkeeper.layout import Layout
    from sessionkeeper.storage.backend import Change
    from sessionkeeper.storage.documents import Document
    from sessionkeeper.storage.platform import FileSystem
    from sessionkeeper.storage.room import Room

_CLOSED = -1


@dataclass(slots=True)
class _BegunPut:
    """A version on its way; its descriptor is open until its bytes are durable."""

    document: Document
    stem: str
    temporary: Path
    descriptor: int
    staged: Staged | None = None


@dataclass(frozen=True, slots=True)
class _StagedTrash:
    change: Trash
    stem: str
    folder: Path


class FileBackend(EditableFolder):
    """The `Backend` of the durability level `file`.

    A commit stages every change first (temporaries written and synced, manifests of removals
    written), so that a full disk refuses the whole batch and changes nothing; then it renames in
    order; then it syncs the folders.
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
        room: Room | None = None,
    ) -> None:
        super().__init__(
            layout,
            clock,
            fs=fs,
            max_backups=max_backups,
            repairs=repairs,
            on_event=on_event,
            recall=recall,
            room=room,
        )
        self._max_backups = max_backups
        # Files published by a commit whose last sync failed: they are there, maybe not durably.
        self._doubtful: set[str] = set()
        # Files that such a commit removed: they are gone, maybe not durably.
        self._doubtful_removals: set[str] = set()
        # Removals that were moved, and whose own folder a crash may have left unsynced.
        self._removing: set[Path] = set()

    # --- commit -----------------------------------------------------------------------------

    def commit(self, batch: Sequence[Change]) -> None:
        """Apply changes in order; durable on return. See `Backend.commit`."""
        self._check_identity()
        begun = self._stage_all(batch)
        try:
            for change in begun:
                if isinstance(change, _StagedTrash):
                    self._publish_trash(change)
                elif change.staged is not None:
                    self._publish(change.staged)
            self._sync_folders(change.record.session_id for change in batch)
            if any(isinstance(change, _StagedTrash) for change in begun):
                self._trash.sync()
        except (OSError, PathBlocked) as error:
            self._doubtful.update(change.stem for change in begun)
            removals = [change for change in begun if isinstance(change, _StagedTrash)]
            self._doubtful_removals.update(removal.stem for removal in removals)
            raise CommitUncertain(
                f"publishing failed half-way: {error}",
                path=self._layout.sessions,
            ) from error

    def _stage_all(self, batch: Sequence[Change]) -> list[_BegunPut | _StagedTrash]:
        begun: list[_BegunPut | _StagedTrash] = []
        try:
            for change in batch:
                if isinstance(change, Trash):
                    stem = self._names.stem_for(change.record.session_id)
                    begun.append(_StagedTrash(change, stem, self._trash.stage(change, stem)))
                else:
                    begun.append(self._begin_put(change))
            # All are written before the first is synced: together they take far less time.
            for put in _puts(begun):
                descriptor, put.descriptor = put.descriptor, _CLOSED
                signature = self._fs.finish_new(descriptor)
                put.staged = Staged(put.document, put.stem, put.temporary, signature)
        except (OSError, SessionKeeperError) as error:
            self._unstage(begun)
            if isinstance(error, SessionKeeperError):
                raise
            raise StorageFailed(f"nothing was written: {error}", path=self._layout.root) from error
        finally:
            for put in _puts(begun):
                if put.descriptor != _CLOSED:
                    os.close(put.descriptor)
        return begun

    def _begin_put(self, change: Put | Append) -> _BegunPut:
        if isinstance(change, Append):
            base = None if change.whole is not None else self.read(change.record.session_id)
            document = change.upon(base)
        else:
            document = change.document
        stem = self._stem_for_put(document)
        # A medium that cannot keep an edit aside refuses the change before anything is renamed.
        self._keep_edit_aside(stem, self._path(stem), document.record.lsn)
        temporary = self._new_temporary()
        descriptor = self._fs.begin_new(temporary, encode_document(document))
        self._fs.start_writeback(descriptor)
        return _BegunPut(document, stem, temporary, descriptor)

    def _unstage(self, begun: Sequence[_BegunPut | _StagedTrash]) -> None:
        for put in _puts(begun):
            self._remove_temporary(put.temporary)
        try:
            self._trash.sweep()
        except OSError as error:  # the next recovery sweeps again
            self._tell("ignored", self._layout.trash, f"could not be swept: {error}")

    def _publish_trash(self, staged: _StagedTrash) -> None:
        self._removing.add(staged.folder)
        self._move_to_trash(staged.stem, staged.change.record.session_id, staged.folder)
        self._fs.sync_folder(staged.folder)
        self._removing.discard(staged.folder)

    # --- recovery ---------------------------------------------------------------------------

    def recover(self) -> RecoveryReport:
        """Look at the whole folder, take what is valid, set aside what is not.

        The folder is synced before the report is given: what it says was done is durable.
        """
        started = time.perf_counter()
        self._check_identity()
        report = RecoveryReport()
        self._finish_journal(report)
        report.swept += self._sweep()
        self._trash.sweep()
        hand_made = self._scan_folder(report)
        self._drop_undone_removals(report)
        removals = list(self._trash.entries())
        for entry in removals:
            report.removed.update(entry.answers)
            report.lsn = max(report.lsn, entry.lsn)
        self._set_aside(report.problems, self._backups_of_damaged(report))
        self._heal_at_recovery(report)
        for path, valid, known in hand_made:
            self._take_at_recovery(path, valid, known, report)
        self._publish_doubtful()
        for folder in sorted(self._removing):
            if self._fs.status(folder) is not None:
                self._fs.sync_folder(folder)
        self._removing.clear()
        self._sync_folders((*report.records, *(entry.session_id for entry in removals)))
        self._trash.sync()
        report.seconds = time.perf_counter() - started
        return report

    def _finish_journal(self, report: RecoveryReport) -> None:
        """Bring into the files what the level `journal` has left behind, and end that journal.

        Raises:
            StorageFailed: Not all of it could be brought there; nothing of it is lost.
        """
        if not segment_paths(self._fs, self._layout.journal):
            return
        journaled = JournaledBackend(
            self._layout,
            self._clock,
            fs=self._fs,
            max_backups=self._max_backups,
            repairs=self._repairs,
            on_event=self._on_event,
        )
        found = journaled.recover()
        report.problems += [problem for problem in found.problems if problem.kind == "journal"]
        report.lsn, report.replayed, report.swept = found.lsn, found.replayed, found.swept
        if not journaled.checkpoint(full=True) or journaled.live_bytes:
            raise StorageFailed(
                "the journal holds changes that cannot be brought into the files",
                path=self._layout.journal,
                hint='Open the store with durability="journal", or repair the files it reports.',
            )
        journaled.close()
        for segment in segment_paths(self._fs, self._layout.journal):
            self._fs.unlink(segment)
        self._fs.sync_folder(self._layout.journal)

    def _drop_undone_removals(self, report: RecoveryReport) -> None:
        """Forget removals whose session is still there: they were never acknowledged.

        A medium that had refused the move may show both, the copy in the trash being made anew.
        """
        for entry in list(self._trash.entries()):
            record = report.records.get(entry.session_id)
            stem = stem_of(entry.folder)
            if record is not None and self._trash.moved(entry.lsn, stem, record.lsn) is not None:
                self._trash.take_back(entry.folder)

    def _publish_doubtful(self) -> None:
        """Write anew what a failed sync may have lost: a second sync would prove nothing."""
        for stem in sorted(self._doubtful):
            known = self._files.get(stem)
            document = None if known is None else self.read(known.record.session_id)
            if document is not None:
                self.commit([Put(document)])
        # Not what was removed before: while it is there again for an instant, a crash would leave
        # a session whose removal was acknowledged.
        for stem in sorted(self._doubtful_removals):
            if stem not in self._files:
                self._remove_again(stem)
        self._doubtful.clear()
        self._doubtful_removals.clear()

    def _remove_again(self, stem: str) -> None:
        removals = [e for e in self._trash.entries() if stem_of(e.folder) == stem]
        if removals:
            folder = self._trash.renew(removals[-1].lsn, stem, self._new_temporary)
            self._write_absence(stem, self._fs.read(folder / SESSION)[0])


def _puts(begun: Sequence[_BegunPut | _StagedTrash]) -> list[_BegunPut]:
    return [change for change in begun if isinstance(change, _BegunPut)]
