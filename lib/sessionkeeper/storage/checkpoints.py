"""Checkpoints: session files are brought up to date and made durable, and the journal is freed."""

from __future__ import annotations

import contextlib
import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sessionkeeper.errors import SessionKeeperError, StorageFailed
from sessionkeeper.layout import SUFFIX
from sessionkeeper.storage.commits import CommittingFolder
from sessionkeeper.storage.documents import encode_document
from sessionkeeper.storage.entries import append_entry, put_entry, trash_entry
from sessionkeeper.storage.folder import Staged
from sessionkeeper.storage.journal import JournalFailed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sessionkeeper.storage.commits import JournalRecord, Removal
    from sessionkeeper.storage.examine import Known
    from sessionkeeper.storage.pending import Pending

# A file up to this size is rewritten by a checkpoint; a larger one only for as much again as
# half of it, so that appending to a long session costs what is appended.
REWRITE_BYTES = 1024 * 1024

# So many sessions are prepared, and then renamed, together.
GROUP = 64


@dataclass(slots=True)
class Checkpoint:
    """One pass that makes the session files current and durable, and frees the journal.

    Attributes:
        up_to: The last frame that it makes superfluous.
        sessions: The sessions whose files are behind.
        files: Published files whose bytes may not be durable yet: the version of each, by stem.
        removals: Those that may not be durable yet, by session.
        full: Whether long sessions are rewritten too, however little was added to them.
        refused: How many syncs had failed when it began.
    """

    up_to: int
    sessions: list[str]
    files: dict[str, int]
    removals: dict[str, Removal]
    full: bool
    refused: int

    def groups(self) -> Iterator[list[str]]:
        """The sessions, in groups of which each is prepared and published together."""
        for start in range(0, len(self.sessions), GROUP):
            yield self.sessions[start : start + GROUP]


class CheckpointedFolder(CommittingFolder):
    """Session files behind a journal that checkpoints free.

    The actor begins, publishes and finishes; preparing and settling, which wait for the medium,
    may be done by another thread.
    """

    def begin_checkpoint(self, *, full: bool) -> Checkpoint | None:
        """Say what a checkpoint now has to do; None if there is nothing to do.

        Args:
            full: Whether every file is to be current afterwards. Else what was added to long
                sessions may stay in the journal, so that it costs what was added.
        """
        if not self._journal.live_bytes:
            return None
        self._follow_up()
        for session_id in list(self._unmoved):
            self._move_removed(session_id)
        for session_id in list(self._doubtful_removals):
            # Else it is tried again the next time.
            with contextlib.suppress(OSError, SessionKeeperError):
                self._sync_removal(session_id)
        known = (self._files.get(stem) for stem in self._doubtful)
        doubtful = [each.record.session_id for each in known if each is not None]
        return Checkpoint(
            self._journal.sequence,
            [*self._pending, *doubtful],
            dict(self._unsynced),
            dict(self._unsynced_removals),
            full,
            self._followed_up,
        )

    def prepare(self, checkpoint: Checkpoint, session_ids: Sequence[str]) -> list[Staged]:
        """Write new files for some of the sessions, durable and not yet renamed.

        Called from any thread.

        Raises:
            OSError: As the system said; nothing is left behind.
        """
        prepared: list[Staged] = []
        try:
            for session_id in session_ids:
                staged = self._prepare_one(session_id, full=checkpoint.full)
                if staged is not None:
                    prepared.append(staged)
            with self._settling:
                temporaries = [staged.temporary for staged in prepared]
                self._fs.sync_files(self._layout.temporaries, temporaries)
        except BaseException:
            for staged in prepared:
                self._remove_temporary(staged.temporary)
            raise
        return prepared

    def _prepare_one(self, session_id: str, *, full: bool) -> Staged | None:
        stem = self._names.find(session_id)
        pending = self._pending.get(session_id)
        if stem is None or stem in self._blocked:
            return None  # what stands there is not to be replaced
        if not full and pending is not None and self._is_small_part(stem, pending):
            return None
        try:
            document = self.read(session_id)
        except SessionKeeperError:
            return None  # its changes stay in the journal; the reconciliation looks into it
        if document is None:
            return None
        temporary = self._new_temporary()
        signature = self._fs.write_unsynced(temporary, encode_document(document))
        return Staged(document, stem, temporary, signature)

    def _is_small_part(self, stem: str, pending: Pending) -> bool:
        """Whether rewriting the file would cost far more than what is to be added to it."""
        known = self._files.get(stem)
        if known is None or pending.base is not None:
            return False
        size = known.signature.size
        return size > REWRITE_BYTES and pending.size < size // 2

    def publish(self, prepared: Sequence[Staged]) -> list[str]:
        """Rename prepared files, but for those that are behind again.

        Returns:
            Names of files that are not as last published; they were left as they are.
        """
        suspects: list[str] = []
        self.discard([put for put in prepared if not self._publish_prepared(put, suspects)])
        return suspects

    def discard(self, prepared: Sequence[Staged]) -> None:
        """Remove prepared files that are not wanted any more."""
        for staged in prepared:
            self._remove_temporary(staged.temporary)

    def _publish_prepared(self, staged: Staged, suspects: list[str]) -> bool:
        record = staged.document.record
        pending = self._pending.get(record.session_id)
        known = self._files.get(staged.stem)
        if self._is_behind(staged, pending, known):
            return False
        if known is not None and not self._unchanged(self._path(staged.stem), known):
            suspects.append(staged.stem + SUFFIX)
            return False
        try:
            self._sync_removal(record.session_id)
            self._publish(staged)
        except (OSError, SessionKeeperError) as error:
            self._tell("ignored", self._path(staged.stem), f"not renamed yet: {error}")
            return False
        self._doubtful.discard(staged.stem)
        # Its bytes are durable, its name is not.
        self._unsynced[staged.stem] = record.lsn
        self._on_filed(record)
        left = None if pending is None else pending.after(record.lsn)
        if left is None:
            self._pending.pop(record.session_id, None)
        else:
            self._pending[record.session_id] = left
        return True

    def _is_behind(self, staged: Staged, pending: Pending | None, known: Known | None) -> bool:
        """Whether a prepared file is not what the session's file should be any more."""
        record = staged.document.record
        doubtful = staged.stem in self._doubtful
        if known is not None:
            lsn = known.record.lsn
            if lsn > record.lsn or (lsn == record.lsn and not doubtful):
                return True
        if self._names.find(record.session_id) != staged.stem or (pending is None and not doubtful):
            return True
        if record.session_id in self._unmoved:
            return True  # what was removed has to go first
        # A later version may be there that could not be renamed.
        return pending is not None and pending.begins_after(record.lsn)

    def carry(self, checkpoint: Checkpoint) -> None:
        """Write again into the journal what the checkpoint could not bring into the files.

        Raises:
            SessionKeeperError: The journal cannot be written; the checkpoint frees nothing.
        """
        entries: list[JournalRecord] = []
        for session_id in dict.fromkeys((*checkpoint.sessions, *self._unmoved)):
            pending = self._pending.get(session_id)
            unmoved = self._unmoved.get(session_id)
            if unmoved is not None:
                entries += _entries_of(self._for_trash.get(session_id))
                entries.append(trash_entry(unmoved, repeated=True))
            # If nothing was made anew, both are the same.
            if pending is not self._for_trash.get(session_id):
                entries += _entries_of(pending)
        if entries:
            self._log(entries)

    def settle(self, checkpoint: Checkpoint) -> None:
        """Make files and names durable. Called from any thread.

        Raises:
            OSError: As the system said; nothing of it may be taken for durable.
        """
        # One at a time: a checkpoint that is overtaken may be at it still, and if the medium
        # refuses it, the system calls the lost pages clean for whoever asks next.
        with self._settling:
            if self._syncs.refused != checkpoint.refused:
                raise OSError(errno.EIO, "a sync has failed, and not all is written anew")
            paths = [self._path(stem) for stem in sorted(checkpoint.files)]
            self._fs.sync_files(self._layout.sessions, paths)
            for removal in checkpoint.removals.values():
                if self._fs.status(removal.folder) is not None:
                    self._trash.settle(removal.folder)
            concerned = *checkpoint.sessions, *checkpoint.files, *checkpoint.removals
            self._sync_folders(concerned)
            self._trash.sync()

    def finish(self, checkpoint: Checkpoint, *, settled: bool) -> None:
        """End a checkpoint: what it made superfluous in the journal is free again.

        Raises:
            StorageFailed: The journal cannot be written; nothing is freed.
        """
        settled = settled and self._settle_late_removals(checkpoint)
        # Any sync counts, also of another file: nothing says which pages a medium let go of.
        settled = settled and self._syncs.refused == checkpoint.refused
        doubtful = self._doubtful & checkpoint.files.keys()
        if not settled or doubtful or self._doubtful_removals & checkpoint.removals.keys():
            self._doubt_all_unsynced()
            return
        for stem, lsn in checkpoint.files.items():
            if self._unsynced.get(stem) == lsn:  # else it was renamed anew meanwhile
                del self._unsynced[stem]
        for session_id, removal in checkpoint.removals.items():
            if self._unsynced_removals.get(session_id) == removal:
                del self._unsynced_removals[session_id]
        try:
            self._journal.retire(checkpoint.up_to)
        except JournalFailed as error:
            self._suspend(str(error))
            raise StorageFailed(f"{error}", path=self._layout.journal) from error

    def _settle_late_removals(self, checkpoint: Checkpoint) -> bool:
        """Make removals durable that took away a file before the checkpoint could sync it."""
        concerned = {self._names.stem_for(session_id) for session_id in checkpoint.sessions}
        concerned |= checkpoint.files.keys()
        late = [
            session_id
            for session_id, removal in self._unsynced_removals.items()
            if checkpoint.removals.get(session_id) != removal
            and self._names.stem_for(session_id) in concerned
        ]
        try:
            for session_id in late:
                self._sync_removal(session_id)
        except (OSError, SessionKeeperError) as error:
            self._tell("ignored", self._layout.trash, f"not durable yet: {error}")
            return False
        return True

    def checkpoint(self, *, full: bool) -> bool:
        """Do a whole checkpoint in this thread, which is the one that commits.

        Args:
            full: See `begin_checkpoint`.

        Returns:
            Whether the medium took it all.

        Raises:
            StorageFailed: The journal cannot be written.
        """
        checkpoint = self.begin_checkpoint(full=full)
        if checkpoint is None:
            return True
        settled = False
        try:
            for group in checkpoint.groups():
                self.publish(self.prepare(checkpoint, group))
            self.carry(checkpoint)
            self.settle(checkpoint)
            settled = True
        except OSError as error:
            self._tell("ignored", self._layout.sessions, f"the checkpoint failed: {error}")
        self.finish(checkpoint, settled=settled)
        return settled


def _entries_of(pending: Pending | None) -> list[JournalRecord]:
    if pending is None:
        return []
    base = [] if pending.base is None else [put_entry(encode_document(pending.base))]
    return [*base, *(append_entry(append) for append in pending.appends)]
