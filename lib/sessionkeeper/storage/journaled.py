"""The durability level `journal`: a change is durable in the journal, files follow."""

from __future__ import annotations

import contextlib
import errno
import threading
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sessionkeeper.errors import (
    OutcomeUnknown,
    SessionKeeperError,
    StorageFailed,
)
from sessionkeeper.events import Event
from sessionkeeper.session import Chunk
from sessionkeeper.storage.backend import (
    Append,
    Body,
    CommitUncertain,
    Problem,
    Put,
    Reconciled,
    RecoveryReport,
    Trash,
)
from sessionkeeper.storage.documents import encode_beginning, encode_document, encode_ending
from sessionkeeper.storage.edits import DAMAGED, EditableFolder
from sessionkeeper.storage.entries import (
    ForgetEntry,
    TrashEntry,
    append_entry,
    forget_entry,
    put_entry,
    reference_entry,
    trash_entry,
)
from sessionkeeper.storage.folder import Staged
from sessionkeeper.storage.index import Recalled
from sessionkeeper.storage.journal import Journal, JournalFailed
from sessionkeeper.storage.lines import weight
from sessionkeeper.storage.pending import Pending
from sessionkeeper.storage.platform import FileSystem
from sessionkeeper.storage.replay import Entries, Hands, replay
from sessionkeeper.storage.syncs import WatchedSyncs
from sessionkeeper.storage.trash import SESSION

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from sessionkeeper.clock import Clock
    from sessionkeeper.layout import Layout
    from sessionkeeper.storage.backend import Change
    from sessionkeeper.storage.documents import Document, Record
    from sessionkeeper.storage.entries import Entry
    from sessionkeeper.storage.examine import Known, Valid
    from sessionkeeper.storage.journal import Log

# A document up to this size goes into the journal whole; a larger one is synced on its own.
INLINE_BYTES = 64 * 1024
# A file up to this size is rewritten by a checkpoint; a larger one only for as much again as
# half of it, so that appending to a long session costs what is appended.
REWRITE_BYTES = 1024 * 1024

# So many sessions are prepared, and then renamed, together.
GROUP = 64

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


class JournaledBackend(EditableFolder):
    """The `Backend` of the durability levels `journal` and `os`.

    A commit stages what it can, writes one frame, and renames. The frame decides: what fails
    after it is made good by the next checkpoint, never reported as failed. Appends change no
    file at all until then.

    Args:
        layout: The folders; they exist (`prepare_folders`).
        clock: For the times of hand-made files and of the quarantine.
        fs: The file system.
        max_backups: How many replaced versions of each session are kept.
        sync: Whether each commit is on the medium when it returns; else `sync` makes it so.
        on_event: Called for whatever is found or done that nobody asked for.
        recall: See `SessionFolder`.
        on_filed: Called with each version that a checkpoint brought into its file.
    """

    def __init__(
        self,
        layout: Layout,
        clock: Clock,
        *,
        fs: FileSystem | None = None,
        max_backups: int = 5,
        sync: bool = True,
        on_event: Callable[[Event], None] = lambda _: None,
        recall: Callable[[], Recalled] = Recalled,
        on_filed: Callable[[Record], object] = lambda _: None,
    ) -> None:
        self._syncs = WatchedSyncs(fs or FileSystem())
        super().__init__(
            layout,
            clock,
            fs=self._syncs,
            max_backups=max_backups,
            on_event=on_event,
            recall=recall,
        )
        self._on_filed = on_filed
        self._sync = sync
        self._journal = Journal(self._fs, layout.journal)
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
        beginning = encode_beginning(session_id, "", messages)
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
        if document.record.namespace:
            return None
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

        In the trash it gets another folder. The old place may still hold it on the medium, whose
        folder shows it again only for an instant, so that its absence is written once more.
        """
        self._log([trash_entry(change, repeated=True)])
        stem = self._names.stem_for(session_id)
        folder = self._trash.renew(change.lsn, stem, self._new_temporary)
        self._unsynced_removals[session_id] = Removal(change, folder)
        path = self._path(stem)
        if self._fs.status(path) is None:
            temporary = self._new_temporary()
            self._fs.write_new(temporary, self._fs.read(folder / SESSION)[0])
            self._fs.replace(temporary, path)
            self._fs.unlink(path)
        self._fs.sync_folder(self._layout.sessions)

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
            self._trash_now(change, stem, None if anew else pending)
        except (OSError, SessionKeeperError) as error:  # its record is in the journal all the same
            self._tell("ignored", self._path(stem), f"not moved to the trash yet: {error}")
            return False
        del self._unmoved[session_id]
        if anew:
            self._names.bind(session_id, stem)
        else:
            self._pending.pop(session_id, None)
        return True

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

    # --- recovery ---------------------------------------------------------------------------

    def recover(self) -> RecoveryReport:
        """Look at the folder and replay the journal. See `Backend.recover`.

        What the journal holds beyond the files is kept in memory until the next checkpoint.
        """
        started = time.perf_counter()
        self._check_identity()
        log = self._journal.recover()
        entries = Entries.of(log.records)
        report = RecoveryReport(swept=self._sweep(entries.temporaries()), lsn=entries.lsn)
        self._report_damage(log, entries, report)
        self._pending, self._unmoved = {}, {}
        self._trash.sweep()
        published = dict(self._files)
        hand_made = self._scan_folder(report, entries.by_session)
        self._forget_vanished(published, entries, report)
        self._set_aside(report.problems)
        damaged = self._backups_of_damaged(report)
        for session_id, own in entries.by_session.items():
            self._replay(session_id, own, report, damaged.get(session_id))
        self._heal_at_recovery(report)
        for path, valid, known in hand_made:
            self._take_unless_older(path, valid, known, report)
        for entry in self._trash.entries():
            report.removed.update(entry.answers)
            report.lsn = max(report.lsn, entry.lsn)
        report.seconds = time.perf_counter() - started
        return report

    def _report_damage(self, log: Log, entries: Entries, report: RecoveryReport) -> None:
        path = self._layout.journal
        for damage in log.damage:
            report.problems.append(Problem("journal", damage.path, damage.detail))
        for body, reason in entries.unreadable:
            report.problems.append(Problem("journal", path, reason))
            self._quarantine.copy(path / "record.bin", "journal", reason, [body])
        for segment, data in log.damaged.items():
            self._quarantine.copy(segment, "journal", "damaged", [data])
        for problem in report.problems:
            self._tell("damaged", problem.path, problem.detail)

    def _forget_vanished(
        self,
        published: dict[str, Known],
        entries: Entries,
        report: RecoveryReport,
    ) -> None:
        """Let go of files that this process published and that a person has removed since.

        A process that finds them missing when it comes up cannot tell whether they were ever
        renamed; this one can.
        """
        for stem, known in published.items():
            record = known.record
            own = entries.by_session.get(record.session_id)
            if own is None or stem in self._files or self._fs.status(self._path(stem)) is not None:
                continue
            if self._trash.holds(own[-1].lsn, stem, record.lsn):
                continue
            report.lsn += 1
            self._log([forget_entry(record.session_id, report.lsn)])
            own.append(ForgetEntry(record.session_id, report.lsn))
            self._tell("vanished", self._path(stem), "it was removed by hand", record.session_id)

    def _backups_of_damaged(self, report: RecoveryReport) -> dict[str, Document]:
        """What the journal's records are applied to where the session's own file is damaged."""
        found: dict[str, Document] = {}
        for problem in report.problems:
            backup = super()._newest_copy(problem.path.stem) if problem.kind in DAMAGED else None
            if backup is not None:
                found[backup.record.session_id] = backup
        return found

    def _newest_copy(self, stem: str) -> Document | None:
        """The newest backup, with whatever the live journal holds of the session since."""
        backup = super()._newest_copy(stem)
        filed = None if backup is None else backup.record
        for own in Entries.of(Journal(self._fs, self._layout.journal).read().records).of_stem(stem):
            hands = Hands(self._load_reference, lambda _change, _pending: None, lambda _entry: True)
            found = replay(own, filed, hands, None if backup is None else Pending(backup))
            if found.pending is not None and found.pending.base is not None:
                return found.pending.upon(found.pending.base)
        return backup

    def _replay(
        self,
        session_id: str,
        entries: Sequence[Entry],
        report: RecoveryReport,
        backup: Document | None,
    ) -> None:
        problems = len(report.problems)
        found = self._enter_replayed(session_id, entries, report, self._replay_removal, backup)
        for problem in report.problems[problems:]:
            self._tell("damaged", problem.path, problem.detail, session_id)
        stem = self._names.stem_for(session_id)
        if found.record is not None:
            self._unsynced[stem] = found.record.lsn  # it may have been renamed and not synced
        elif stem in self._files and session_id not in self._unmoved:
            if self._is_remnant(stem, entries[-1]):
                self._keep_remnant(stem, session_id)
            else:
                self._put_back(stem, session_id, report)

    def _is_remnant(self, stem: str, last: Entry) -> bool:
        """Whether a removed session's file is there only because the medium lost the move."""
        filed = self._files[stem].record
        return isinstance(last, TrashEntry) and last.repeated and filed.lsn <= last.base_lsn

    def _keep_remnant(self, stem: str, session_id: str) -> None:
        self._files.pop(stem)
        detail = "removed long since; the medium had lost that"
        self._move_to_quarantine(Problem("remnant", self._path(stem), detail, session_id))

    def _replay_removal(self, change: Trash, pending: Pending | None) -> None:
        session_id = change.record.session_id
        if pending is not None:
            self._pending[session_id] = pending
        self._unmoved[session_id] = change
        self._move_removed(session_id)

    def _lies_in_trash(self, entry: TrashEntry, stem: str) -> bool:
        """Whether the session was moved to the trash; what a crash left undone is done."""
        moved = self._trash.moved(entry.lsn, stem, entry.base_lsn)
        if moved is None:
            return False
        change = Trash(moved.record, entry.lsn, entry.reason, entry.at, entry.request_id)
        if not self._trash.is_named(entry.lsn, stem):
            self._trash.stage(change, stem, sync=False)
        # Nothing tells whether the move is durable, or was only seen in memory.
        with contextlib.suppress(OSError, SessionKeeperError):
            self._sync_removal(entry.session_id)  # an earlier one of that session
        folder = self._trash.folder_of(entry.lsn, stem)
        self._unsynced_removals[entry.session_id] = Removal(change, folder)
        return True

    def _put_back(self, stem: str, session_id: str, report: RecoveryReport) -> None:
        """Take a file that was removed, lies complete in the trash, and is there all the same."""
        document = self._read_file(session_id)
        if document is None:
            return
        report.lsn += 1
        record = replace(
            document.record,
            generation=document.record.generation + 1,
            lsn=report.lsn,
            requests=tuple(r for r in document.record.requests if r.keyed),
        )
        self.commit([Put(replace(document, record=record))])
        report.records[session_id] = record
        report.problems.append(Problem("adopted", self._path(stem), "put back by hand", session_id))
        self._tell("adopted", self._path(stem), "put back by hand", session_id)

    def _take_unless_older(
        self,
        path: Path,
        valid: Valid,
        known: Known | None,
        report: RecoveryReport,
    ) -> None:
        pending = self._pending.get(valid.document.record.session_id)
        if pending is None or pending.base is None:
            self._take_at_recovery(path, valid, known, report)
            return
        # The journal holds a later version: the next checkpoint keeps this one aside as it
        # replaces it, because it is not what was last published there.
        self._files.pop(path.stem, None)

    # --- hand-made changes ------------------------------------------------------------------

    def _with_unpublished(self, document: Document) -> Document:
        pending = self._pending.get(document.record.session_id)
        if pending is None or not pending.appends:
            return document
        for append in pending.appends:
            before, after = append.base, append.record
            record = replace(
                document.record,
                # One more than the version that was edited, and than any made meanwhile.
                generation=max(document.record.generation, after.generation) + 1,
                lsn=after.lsn,
                updated_at=max(document.record.updated_at, after.updated_at),
                persisted_until=after.persisted_until,
                message_count=document.record.message_count
                + after.message_count
                - before.message_count,
                total_cost=document.record.total_cost + after.total_cost - before.total_cost,
                requests=after.requests,
            )
            document = document.with_appended(append.chunks, record)
        return document

    def reconcile(self, names: Sequence[str], lsn: int) -> Reconciled:
        """Look at files that may have been changed by hand. See `Backend.reconcile`."""
        found = super().reconcile(names, lsn)
        if found.vanished:
            # Else a crash would bring back what a person has removed.
            found.lsn = max(found.lsn, lsn) + 1
            self._log([forget_entry(session_id, found.lsn) for session_id in found.vanished])
            for session_id in found.vanished:
                self._pending.pop(session_id, None)
        return found

    # --- checkpoint -------------------------------------------------------------------------

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
        doubtful = [
            self._files[stem].record.session_id for stem in self._doubtful & set(self._files)
        ]
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
        if stem is None:
            return None
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
            suspects.append(self._path(staged.stem).name)
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
                entries.append(trash_entry(unmoved, repeated=True))
            if pending is None:
                continue
            if pending.base is not None:
                entries.append(put_entry(encode_document(pending.base)))
            entries += [append_entry(append) for append in pending.appends]
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
            self._fs.sync_folder(self._layout.sessions)
            self._trash.sync()

    def _follow_up(self) -> None:
        """If a sync has failed since the last look, believe none that comes after it."""
        if self._syncs.refused != self._followed_up:
            self._doubt_all_unsynced()

    def _doubt_all_unsynced(self) -> None:
        """Have the next checkpoint write anew whatever a failed sync may have lost."""
        self._followed_up = self._syncs.refused
        self._doubtful |= self._unsynced.keys()
        self._doubtful_removals |= self._unsynced_removals.keys()

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

    def finish_files(self) -> None:
        """Bring the files up to date for good; only `close` may follow."""
        if self._files_finished:
            return
        self._files_finished = True
        try:
            if self._identify() == self._identity:
                if self.checkpoint(full=True):
                    self._sweep()  # what a checkpoint under way had prepared
                self._journal.shrink()
        except (OSError, SessionKeeperError, CommitUncertain) as error:
            # Nothing is lost: the next recovery reads it from the journal.
            self._tell("ignored", self._layout.journal, f"the last checkpoint failed: {error}")

    def close(self) -> None:
        """Bring the files up to date, unless that is done, and let go of everything."""
        self.finish_files()
        self._journal.close()
        super().close()
