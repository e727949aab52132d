"""Commits at the durability level `journal`: one frame decides, files follow."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sessionkeeper.errors import OutcomeUnknown, SessionKeeperError, StorageFailed
from sessionkeeper.events import Event
from sessionkeeper.session import Chunk
from sessionkeeper.storage.backend import Append, Body, Trash
from sessionkeeper.storage.documents import encode_beginning, encode_document, encode_ending
from sessionkeeper.storage.edits import EditableFolder
from sessionkeeper.storage.entries import append_entry, put_entry, reference_entry, trash_entry
from sessionkeeper.storage.folder import Staged
from sessionkeeper.storage.index import Recalled
from sessionkeeper.storage.journal import Journal, JournalFailed
from sessionkeeper.storage.lines import weight
from sessionkeeper.storage.pending import Pending
from sessionkeeper.storage.platform import FileSystem
from sessionkeeper.storage.syncs import WatchedSyncs
from sessionkeeper.storage.trash import SESSION

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime
    from pathlib import Path

    from sessionkeeper.clock import Clock
    from sessionkeeper.layout import Layout
    from sessionkeeper.storage.backend import Change
    from sessionkeeper.storage.documents import Document, Record
    from sessionkeeper.storage.room import Room

# A document up to this size goes into the journal whole; a larger one is synced on its own.
INLINE_BYTES = 64 * 1024

JournalRecord = list[Chunk]


@dataclass(frozen=True, slots=True)
class Removal:
    """A removal that is done, and may not be durable yet.

    Attributes:
        change: What was done.
        folder: Where the session lies now.
    """

    change: Trash
    folder: Path


class CommittingFolder(EditableFolder):
    """Session files behind a journal: what a commit does, and what it leaves to be done.

    A commit stages what it can, writes one frame, and renames. The frame decides: what fails
    after it is made good by the next checkpoint, never reported as failed. Appends change no
    file at all until then.

    Args:
        layout: The folders; they exist (`prepare_folders`).
        clock: For the times of hand-made files and of the quarantine.
        fs: The file system.
        max_backups: How many replaced versions of each session are kept.
        repairs: See `SessionFolder`.
        sync: Whether each commit is on the medium when it returns; else `sync` makes it so.
        on_event: Called for whatever is found or done that nobody asked for.
        recall: See `SessionFolder`.
        room: See `SessionFolder`.
        on_filed: Called with each version that a checkpoint brought into its file.
    """

    def __init__(
        self,
        layout: Layout,
        clock: Clock,
        *,
        fs: FileSystem | None = None,
        max_backups: int = 5,
        repairs: bool = True,
        sync: bool = True,
        on_event: Callable[[Event], None] = lambda _: None,
        recall: Callable[[], Recalled] = Recalled,
        room: Room | None = None,
        on_filed: Callable[[Record], object] = lambda _: None,
    ) -> None:
        self._syncs = WatchedSyncs(fs or FileSystem())
        super().__init__(
            layout,
            clock,
            fs=self._syncs,
            max_backups=max_backups,
            repairs=repairs,
            on_event=on_event,
            recall=recall,
            room=room,
        )
        self._on_filed = on_filed
        self._sync = sync
        self._journal = Journal(self._fs, layout.journal)
        # What the files of removed sessions lack that could not be moved yet.
        self._for_trash: dict[str, Pending] = {}
        # Files renamed since the last checkpoint, whose bytes are not synced: the LSN of each.
        self._unsynced: dict[str, int] = {}
        # Removals since then, by session, whose folders are not synced.
        self._unsynced_removals: dict[str, Removal] = {}
        # Files whose sync failed: what memory shows of them proves nothing.
        self._doubtful: set[str] = set()
        # Removals of these sessions, likewise.
        self._doubtful_removals: set[str] = set()
        # So many failed syncs are followed up: all that they may have lost is marked as doubtful.
        self._followed_up = 0
        self._settling = threading.Lock()
        self._suspended = False
        self._files_finished = False

    @property
    def live_bytes(self) -> int:
        """How much of the journal a recovery would have to read."""
        return self._journal.live_bytes

    # --- commit -----------------------------------------------------------------------------

    def commit(self, batch: Sequence[Change]) -> None:
        """Apply changes in order; durable on return. See `Backend.commit`.

        Raises:
            OutcomeUnknown: The medium refused the journal while it was written; the next recovery
                decides.
        """
        self._check_identity()
        staged: dict[int, Staged] = {}
        try:
            entries = [self._stage(change, staged) for change in batch]
            self._log(entries)
        except (OSError, SessionKeeperError) as error:
            unknown = isinstance(error, OutcomeUnknown)
            for put in staged.values():
                # What may be decided all the same names those of large versions; the next
                # recovery sweeps them.
                if not unknown or put.signature.size <= INLINE_BYTES:
                    self._remove_temporary(put.temporary)
            if isinstance(error, SessionKeeperError):
                raise
            raise StorageFailed(f"nothing was written: {error}", path=self._layout.root) from error
        for change in batch:
            self._apply(change, staged.get(id(change)))

    def _log(self, entries: Sequence[JournalRecord]) -> None:
        try:
            self._journal.append(entries, sync=self._sync)
        except JournalFailed as error:
            self._suspend(str(error))
            path = self._layout.journal
            if error.untouched:
                raise StorageFailed(f"nothing was written: {error}", path=path) from error
            raise OutcomeUnknown(f"the journal could not be written: {error}", path=path) from error
        if self._suspended:
            self._suspended = False
            self._on_event(Event("resumed", None, "the journal can be written", self._layout.root))

    def _suspend(self, reason: str) -> None:
        if not self._suspended:
            self._suspended = True
            self._on_event(Event("suspended", None, reason, self._layout.root))

    def _stage(self, change: Change, staged: dict[int, Staged]) -> JournalRecord:
        """Do what may fail before anything is decided; returns the journal record."""
        if isinstance(change, Trash):
            return trash_entry(change)
        if isinstance(change, Append):
            session_id = change.record.session_id
            self._raise_if_blocked(self._names.stem_for(session_id), session_id)
            return append_entry(change)
        document = change.document
        stem = self._stem_for_put(document)
        if change.body is not None:
            whole = self._completed(change.body, document, stem)
            if whole is not None:
                staged[id(change)] = whole
                name = whole.temporary.name
                return reference_entry(change.body.session_id, change.record.lsn, name)
        pieces = encode_document(document)
        temporary = self._new_temporary()
        if weight(pieces) <= INLINE_BYTES:
            signature = self._fs.write_unsynced(temporary, pieces)
            staged[id(change)] = Staged(document, stem, temporary, signature)
            return put_entry(pieces)
        signature = self._fs.write_new(temporary, pieces)
        staged[id(change)] = Staged(document, stem, temporary, signature)
        # The record is no use without the name of the temporary.
        self._fs.sync_folder(self._layout.temporaries)
        record = document.record
        return reference_entry(record.session_id, record.lsn, temporary.name)

    def stage_body(self, session_id: str, messages: Sequence[Chunk]) -> Body:
        """Bring the messages of a large version to the medium; called from any thread.

        So that the actor, and everybody who waits for it, need not.

        Raises:
            StorageFailed: The medium refused.
        """
        beginning = encode_beginning(session_id, messages)
        temporary = self._new_temporary()
        try:
            self._fs.write_new(temporary, beginning.parts)
            # The journal's record is no use without the name of the temporary.
            self._fs.sync_folder(self._layout.temporaries)
        except OSError as error:
            self._remove_temporary(temporary)
            raise StorageFailed(
                f"nothing was written: {error}",
                session_id=session_id,
                path=self._layout.root,
            ) from error
        return Body(session_id, temporary, beginning.length, beginning.digest)

    def discard_body(self, body: Body) -> None:
        """Remove messages that no version will use; from any thread."""
        self._remove_temporary(body.temporary)

    def _completed(self, body: Body, document: Document, stem: str) -> Staged | None:
        """The version whose messages are staged; None if they are gone, or not all of it fits.

        A recovery sweeps what no journal record names; then the version is written anew.
        """
        ending = encode_ending(document, body.digest)
        try:
            signature = self._fs.rewrite_end(body.temporary, [ending], body.length)
        except FileNotFoundError:
            return None
        return Staged(document, stem, body.temporary, signature)

    # --- what is decided is done, now or at a checkpoint ------------------------------------

    def _apply(self, change: Change, staged: Staged | None) -> None:
        session_id = change.record.session_id
        if isinstance(change, Append):
            self._pending.setdefault(session_id, Pending()).appends.append(change)
        elif isinstance(change, Trash):
            self._unmoved[session_id] = change
            self._keep_for_trash(session_id, self._pending.get(session_id))
            self._move_removed(session_id)
        elif staged is not None:
            self._apply_put(staged)

    def _apply_put(self, staged: Staged) -> None:
        document = staged.document
        session_id = document.record.session_id
        if self._move_removed(session_id):
            try:
                self._sync_removal(session_id)
                self._publish(staged)
            except (OSError, SessionKeeperError) as error:
                self._tell("ignored", self._path(staged.stem), f"not renamed yet: {error}")
            else:
                self._unsynced[staged.stem] = document.record.lsn
                self._pending.pop(session_id, None)
                return
        self._names.bind(session_id, staged.stem)
        self._pending[session_id] = Pending(document)
        if staged.signature.size <= INLINE_BYTES:
            self._remove_temporary(staged.temporary)
        # Else the journal holds its name only: it stays until the sweep of a recovery that does
        # not find it there any more.

    def _sync_removal(self, session_id: str) -> None:
        """Make a removal durable before a session of that name is made anew.

        Else the new file could reach the medium in the place of the one that was moved, and the
        removed version would be nowhere.
        """
        removal = self._unsynced_removals.get(session_id)
        if removal is None:
            return
        self._follow_up()
        try:
            if session_id in self._doubtful_removals:
                self._remove_again(session_id, removal.change)
                self._doubtful_removals.discard(session_id)
            else:
                self._trash.settle(removal.folder)
                self._trash.sync()
        except (OSError, SessionKeeperError):
            self._doubtful_removals.add(session_id)
            raise
        del self._unsynced_removals[session_id]

    def _remove_again(self, session_id: str, change: Trash) -> None:
        """Make a removal durable anew: a sync of it failed, and another would prove nothing.

        In the trash it gets another folder.
        """
        stem = self._names.stem_for(session_id)
        if self._fs.status(self._unsynced_removals[session_id].folder / SESSION) is None:
            # The trash was emptied by hand: there is nothing left to write anew.
            self._fs.sync_folder(self._path(stem).parent)
            return
        self._log([trash_entry(change, repeated=True)])
        folder = self._trash.renew(change.lsn, stem, self._new_temporary)
        self._unsynced_removals[session_id] = Removal(change, folder)
        self._write_absence(stem, self._fs.read(folder / SESSION)[0])

    def _move_removed(self, session_id: str) -> bool:
        """Move a removed session's file to the trash; False if the medium refuses."""
        change = self._unmoved.get(session_id)
        if change is None:
            return True
        stem = self._names.stem_for(session_id)
        pending = self._pending.get(session_id)
        # A session that was made under that name since waits until this one is out of its way.
        anew = pending is not None and pending.begins_after(change.lsn)
        try:
            self._trash_now(change, stem, self._for_trash.get(session_id))
        except (OSError, SessionKeeperError) as error:  # its record is in the journal all the same
            self._tell("ignored", self._path(stem), f"not moved to the trash yet: {error}")
            return False
        del self._unmoved[session_id]
        self._for_trash.pop(session_id, None)
        if anew:
            self._names.bind(session_id, stem)
        else:
            self._pending.pop(session_id, None)
        return True

    def _keep_for_trash(self, session_id: str, pending: Pending | None) -> None:
        """Keep what a removed session's file does not hold, until it is moved with the file."""
        if pending is None:
            self._for_trash.pop(session_id, None)
        else:
            self._for_trash[session_id] = pending

    def _trash_now(self, change: Trash, stem: str, pending: Pending | None) -> None:
        session_id = change.record.session_id
        folder = self._trash.stage(change, stem, sync=False)
        if pending is not None:
            # The trash gets the session with all that was appended to it.
            whole = self._whole(session_id, pending)
            if whole is not None:
                temporary = self._new_temporary()
                signature = self._fs.write_new(temporary, encode_document(whole))
                self._publish(Staged(whole, stem, temporary, signature))
        self._move_to_trash(stem, session_id, folder)
        self._unsynced.pop(stem, None)
        self._unsynced_removals[session_id] = Removal(change, folder)
        if stem in self._doubtful:
            self._doubtful.discard(stem)
            self._doubtful_removals.add(session_id)

    def purge(self, before: datetime) -> list[str]:
        """Remove for good what was trashed before that instant. See `SessionFolder.purge`."""
        # Durable first: nothing could make it so once it has left the trash.
        try:
            for session_id, removal in list(self._unsynced_removals.items()):
                if removal.change.at < before:
                    self._sync_removal(session_id)
        except OSError as error:
            raise StorageFailed(f"the trash was not purged: {error}") from error
        return super().purge(before)

    def sync(self) -> None:
        """Make everything committed durable, at the level `os`.

        Raises:
            StorageFailed: The medium refused; the next commit goes to another segment.
        """
        try:
            self._journal.sync()
        except OSError as error:
            self._suspend(str(error))
            raise StorageFailed(f"{error}", path=self._layout.journal) from error

    # --- what a failed sync may have lost ---------------------------------------------------

    def _follow_up(self) -> None:
        """If a sync has failed since the last look, believe none that comes after it."""
        if self._syncs.refused != self._followed_up:
            self._doubt_all_unsynced()

    def _doubt_all_unsynced(self) -> None:
        """Have the next checkpoint write anew whatever a failed sync may have lost."""
        self._followed_up = self._syncs.refused
        self._doubtful |= self._unsynced.keys()
        self._doubtful_removals |= self._unsynced_removals.keys()
