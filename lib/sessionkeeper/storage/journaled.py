"""The durability levels `journal` and `os`: a change is durable in the journal, files follow."""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from sessionkeeper.errors import SessionKeeperError, StorageFailed
from sessionkeeper.layout import hashed_stem, plain_stem
from sessionkeeper.storage.backend import (
    CommitUncertain,
    Problem,
    Put,
    Reconciled,
    RecoveryReport,
    Trash,
)
from sessionkeeper.storage.checkpoints import CheckpointedFolder
from sessionkeeper.storage.commits import Removal
from sessionkeeper.storage.database import IndexFailed
from sessionkeeper.storage.documents import encode_document
from sessionkeeper.storage.entries import ForgetEntry, TrashEntry, forget_entry, put_entry
from sessionkeeper.storage.journal import Journal, JournalFailed
from sessionkeeper.storage.pending import Pending
from sessionkeeper.storage.replay import Entries, Hands, replay

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from sessionkeeper.answers import Erased
    from sessionkeeper.storage.documents import Document
    from sessionkeeper.storage.entries import Entry
    from sessionkeeper.storage.examine import Known, Valid
    from sessionkeeper.storage.journal import Log
    from sessionkeeper.storage.trash import Entry as Removed


class JournaledBackend(CheckpointedFolder):
    """The `Backend` of the durability levels `journal` and `os`; see `CommittingFolder`."""

    # --- recovery ---------------------------------------------------------------------------

    def recover(self) -> RecoveryReport:
        """Look at the folder and replay the journal. See `Backend.recover`.

        What the journal holds beyond the files is kept in memory until the next checkpoint.
        """
        try:
            return self._recover()
        except IndexFailed:
            if self._room is None:
                raise
            self._room.is_lost = True
            return self._recover()

    def _recover(self) -> RecoveryReport:
        started = time.perf_counter()
        self._check_identity()
        log = self._journal.recover()
        entries = Entries.of(log.records)
        report = RecoveryReport(swept=self._sweep(entries.temporaries()), lsn=entries.lsn)
        self._report_damage(log, entries, report)
        self._pending, self._unmoved, self._for_trash = {}, {}, {}
        published = self._published_before(entries)
        hand_made = self._look(entries, report)
        self._forget_vanished(published, entries, report)
        backups = self._backups_of_damaged(report)
        self._set_aside(report.problems, _staying(backups, entries))
        damaged = {backup.record.session_id: backup for backup in backups.values()}
        for session_id, own in entries.by_session.items():
            self._replay(session_id, own, report, damaged.get(session_id))
        self._log_replayed(damaged)
        self._heal_at_recovery(report)
        for path, valid, known in hand_made:
            self._take_unless_older(path, valid, known, report)
        for removal in self._removals(entries, report):
            report.removed.update(removal.answers)
            report.lsn = max(report.lsn, removal.lsn)
        report.seconds = time.perf_counter() - started
        return report

    def _published_before(self, entries: Entries) -> dict[str, tuple[str, Known]]:
        """What this process published of the sessions that the journal names, by id."""
        found: dict[str, tuple[str, Known]] = {}
        if not self._has_looked or self._is_lost:
            return found
        self._fetch(entries.by_session)
        for session_id in entries.by_session:
            stem = self._names.find(session_id)
            known = None if stem is None else self._files.get(stem)
            if stem is not None and known is not None:
                found[session_id] = stem, known
        return found

    def _look(
        self,
        entries: Entries,
        report: RecoveryReport,
    ) -> list[tuple[Path, Valid, Known | None]]:
        """Look at the files: at all, or only at those of which the index may not be right.

        Returns:
            What was made by hand.
        """
        room = self._room
        trusted = None
        journal = self._journal
        if room is not None and not self._has_looked:
            trusted = room.trusted(journal.identity, journal.oldest, journal.sequence)
        is_known = trusted is not None or self.is_shelved
        # What a damaged journal does not tell may be of any session.
        if room is None or self._is_lost or report.problems or not is_known:
            self._trash.sweep()
            return self._scan_folder(report, entries.by_session)
        unsure = dict.fromkeys(entries.by_session)
        if trusted is not None:
            self._start_over()
            self._shelve(room)
            self._settle_marks()
            report.counts = trusted.counts
            report.lsn = max(report.lsn, trusted.lsn)
            unsure.update(dict.fromkeys(trusted.unfiled))
        return self._look_at(unsure, report)

    def mark(self) -> tuple[bytes, int]:
        """The id of the journal and its last frame; asked by the thread that commits."""
        return self._journal.identity, self._journal.sequence

    @property
    def _is_lost(self) -> bool:
        return self._room is not None and self._room.is_lost

    def _removals(self, entries: Entries, report: RecoveryReport) -> Iterator[Removed]:
        """The removals in the trash; if only a part was looked at, those that the journal names."""
        if report.looked_at is None:
            yield from self._trash.entries()
            return
        removed = (e for own in entries.by_session.values() for e in own)
        for entry in removed:
            if not isinstance(entry, TrashEntry):
                continue
            for stem in (plain_stem(entry.session_id), hashed_stem(entry.session_id)):
                found = self._trash.entry_of(entry.lsn, stem)
                if found is not None:
                    yield found

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
        published: dict[str, tuple[str, Known]],
        entries: Entries,
        report: RecoveryReport,
    ) -> None:
        """Let go of files that this process published and that a person has removed since.

        A process that finds them missing when it comes up cannot tell whether they were ever
        renamed; this one can.
        """
        for session_id, (stem, known) in published.items():
            record = known.record
            own = entries.by_session[session_id]
            if stem in self._files or self._fs.status(self._path(stem)) is not None:
                continue
            if self._trash.holds(own[-1].lsn, stem, record.lsn):
                continue
            report.lsn += 1
            self._log([forget_entry(record.session_id, report.lsn)])
            own.append(ForgetEntry(record.session_id, report.lsn))
            self._tell("vanished", self._path(stem), "it was removed by hand", record.session_id)

    def _log_replayed(self, damaged: Iterable[str]) -> None:
        """Have the journal hold the backups that its records were applied to.

        The damaged files go now, and without them nothing would say what those records add to.
        """
        pending = {session_id: self._pending.get(session_id) for session_id in damaged}
        bases = {name: each.base for name, each in pending.items() if each and each.base}
        if not bases:
            return
        try:
            self._log([put_entry(encode_document(base)) for base in bases.values()])
        except SessionKeeperError as error:
            self._tell("ignored", self._layout.journal, f"damaged files stay there: {error}")
            for session_id in bases:
                self._kept_aside.pop(self._names.stem_for(session_id), None)

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
        for entry in found.unusable:  # the next checkpoint frees the frame that holds it
            path = self._layout.sessions / f"{stem}.added.jsonl"
            detail = f"messages added by change {entry.lsn} to a session that is not there"
            self._quarantine.copy(path, "journal", detail, [entry.lines.replace(b",\n", b"\n")])
        if found.record is not None:
            self._unsynced[stem] = found.record.lsn  # it may have been renamed and not synced
        elif (known := self._files.get(stem)) is not None and session_id not in self._unmoved:
            if _is_remnant(known, entries[-1]):
                self._keep_remnant(stem, session_id)
            else:
                self._put_back(stem, session_id, report)

    def _keep_remnant(self, stem: str, session_id: str) -> None:
        self._files.pop(stem)
        detail = "removed long since; the medium had lost that"
        self._move_to_quarantine(Problem("remnant", self._path(stem), detail, session_id))

    def _replay_removal(self, change: Trash, pending: Pending | None) -> None:
        session_id = change.record.session_id
        if pending is not None:
            self._pending[session_id] = pending
        self._unmoved[session_id] = change
        self._keep_for_trash(session_id, pending)
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
        self._files.pop(self._stem_at(path))

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

    # --- erasing ----------------------------------------------------------------------------

    def erase(self, session_id: str, lsn: int) -> Erased:
        """Leave no byte of a session, in the journal neither. See `Backend.erase`."""
        self._check_identity()
        stem = self._names.stem_for(session_id)
        # First of all: a crash in what follows must not bring it back.
        self._log([forget_entry(session_id, lsn)])
        self._pending.pop(session_id, None)
        self._unmoved.pop(session_id, None)
        self._for_trash.pop(session_id, None)
        self._unsynced_removals.pop(session_id, None)
        self._doubtful_removals.discard(session_id)
        self._unsynced.pop(stem, None)
        self._doubtful.discard(stem)
        erased = super().erase(session_id, lsn)
        try:
            self.checkpoint(full=True)
            if self.live_bytes:
                raise StorageFailed("the journal could not be freed", path=self._layout.journal)
            self._journal.scrub()
        except (OSError, SessionKeeperError, JournalFailed) as error:
            raise CommitUncertain(
                f"the journal may still hold parts of it: {error}",
                session_id=session_id,
                path=self._layout.journal,
            ) from error
        return erased

    # --- the end ----------------------------------------------------------------------------

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


def _is_remnant(known: Known, last: Entry) -> bool:
    """Whether a removed session's file is there only because the medium lost the move."""
    return isinstance(last, TrashEntry) and last.repeated and known.record.lsn <= last.base_lsn


def _staying(backups: Mapping[Path, Document], entries: Entries) -> set[Path]:
    """Damaged files that keep their names until something stands in for them.

    What the journal removes goes at once: it is not to reach the trash.
    """
    return {
        path
        for path, backup in backups.items()
        if not any(
            isinstance(entry, TrashEntry)
            for entry in entries.by_session.get(backup.record.session_id, ())
        )
    }
