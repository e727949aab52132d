"""The single-file layout: all sessions in one file, which each commit writes anew.

The sessions are also held in memory, encoded, so a commit copies those that did not change, and a
read touches no disk. What that takes is bounded: `MAX_SESSIONS`, `MAX_BYTES`.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from sessionkeeper.answers import Erased
from sessionkeeper.errors import SessionKeeperError, StorageFailed, StoreFull
from sessionkeeper.layout import plain_stem
from sessionkeeper.storage.backend import (
    Append,
    CommitUncertain,
    Problem,
    RecoveryReport,
    Trash,
)
from sessionkeeper.storage.erasing import Eraser
from sessionkeeper.storage.keptfiles import EVER
from sessionkeeper.storage.onefile import Contents, Damage, Slot
from sessionkeeper.storage.singleedits import EditableSingleFile
from sessionkeeper.storage.singlereader import State, error_of, records_of
from sessionkeeper.storage.singlewriter import Edit, read_published, renumbered
from sessionkeeper.storage.trash import SESSION

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from sessionkeeper.storage.backend import Change, ProblemKind
    from sessionkeeper.storage.documents import Record
    from sessionkeeper.storage.trash import Entry


MAX_SESSIONS: Final = 10_000
MAX_BYTES: Final = 64 * 1024 * 1024


class SingleFileBackend(EditableSingleFile):
    """The `Backend` of the layout `single`; durable as the level `file` is.

    A commit writes the whole file beside the old one, syncs it, keeps the old one as a backup,
    renames, and syncs the folder.
    """

    # --- commit -----------------------------------------------------------------------------

    def commit(self, batch: Sequence[Change]) -> None:
        """Apply changes in order; durable on return. See `Backend.commit`.

        Raises:
            StoreFull: There would be more sessions, or bytes, than one file may hold.
        """
        self._check_identity()
        slots, removals = self._applied(batch)
        state = replace(self._state, slots=slots)
        self._check_room(state)
        staged: list[Path] = []
        try:
            for change, slot in removals:
                staged.append(self._trash.folder_of(change.lsn, plain_stem(slot.record.session_id)))
                self._stage_removal(change, slot)
            if removals:
                self._trash.sync()
            edit = self._meet_edit(_highest(batch))
            temporary, signature = self._write(state)
        except (OSError, SessionKeeperError) as error:
            self._unstage(staged)
            if isinstance(error, SessionKeeperError):
                raise
            raise StorageFailed(f"nothing was written: {error}", path=self._file) from error
        base = self._state
        self._publish(state, temporary, signature, keep=edit is None)
        self._lsn = max(self._lsn, _highest(batch))
        if edit is not None:
            self._edits.append(Edit(edit, base.slots))

    def _applied(
        self,
        batch: Sequence[Change],
    ) -> tuple[dict[str, Slot], list[tuple[Trash, Slot]]]:
        """What the sessions would be, and those that would go."""
        state = self._state
        if state.blocked is not None:
            raise type(state.blocked)(str(state.blocked.args[0]), path=self._file)
        slots = dict(state.slots)
        removals: list[tuple[Trash, Slot]] = []
        for change in batch:
            session_id = change.record.session_id
            state.raise_if_stuck(session_id, self._file)
            if isinstance(change, Trash):
                removals.append((change, slots.pop(session_id)))
            elif isinstance(change, Append):
                base = slots.get(session_id)
                slots[session_id] = Slot.of(change.upon(base.document if base else None))
            else:
                slots[session_id] = Slot.of(change.document)
        return slots, removals

    def _check_room(self, state: State) -> None:
        count, size = len(state.slots), state.size
        # What is too much already, by hand, may still shrink.
        if count > MAX_SESSIONS and count > len(self._state.slots):
            raise StoreFull(f"one file holds at most {MAX_SESSIONS} sessions", path=self._file)
        if size > MAX_BYTES and size > self._state.size:
            text = f"one file holds at most {MAX_BYTES} bytes, this would make it {size}"
            raise StoreFull(text, path=self._file)

    def _stage_removal(self, change: Trash, slot: Slot) -> None:
        """Copy a session to the trash, durably."""
        folder = self._trash.stage(change, plain_stem(slot.record.session_id))
        path = folder / SESSION
        if self._fs.status(path) is not None:
            self._fs.unlink(path)  # of a removal that was refused
        self._fs.write_new(path, slot.parts)
        self._fs.sync_folder(folder)

    def _unstage(self, folders: Sequence[Path]) -> None:
        for folder in folders:
            try:
                self._trash.take_back(folder)
            except OSError as error:  # the next recovery takes it back
                self._tell("ignored", folder, f"could not be swept: {error}")

    # --- recovery ---------------------------------------------------------------------------

    def recover(self) -> RecoveryReport:
        """Read the file, take what is valid, set aside what is not; durable when it is said."""
        started = time.perf_counter()
        self._check_identity()
        report = RecoveryReport(lsn=self._lsn)
        report.swept = self._sweep()
        self._trash.sweep()
        removals = list(self._trash.entries())
        known = self._known(report)
        rewrite = self._take_in(report, known, removals)
        report.records = records_of(self._state)
        for removal in removals:
            report.lsn = max(report.lsn, removal.lsn)
            if not self._take_back_removal(removal):
                report.removed.update(removal.answers)
        report.lsn = max([report.lsn, *(record.lsn for record in report.records.values())])
        self._lsn = report.lsn
        if rewrite or self._doubtful:
            self._rewrite_at_recovery()
        self._doubtful = False
        self._fs.sync_folder(self._layout.root)
        self._trash.sync()
        self._remember_signature()
        report.seconds = time.perf_counter() - started
        return report

    def _known(self, report: RecoveryReport) -> dict[str, Record]:
        """The versions that were published, from here or by the process before."""
        if self._recall is None:
            return records_of(self._state)
        recalled, self._recall = self._recall(), None
        # A number is never used twice, also if the file with the highest is gone.
        report.lsn = max(report.lsn, recalled.lsn)
        return {known.record.session_id: known.record for known in recalled.files.values()}

    def _take_in(
        self,
        report: RecoveryReport,
        known: Mapping[str, Record],
        removals: Sequence[Entry],
    ) -> bool:
        """Make the state what the file holds; returns whether the file is to be written anew."""
        found = self._look_as_owner()
        if found is None:
            if self._state.slots or self._kept.names():
                self._vanish(self._state.slots, report.problems, "the file was removed by hand")
            self._state, self._signature = State(), None
            return False
        if isinstance(found, Problem):
            self._state, self._signature = State(blocked=error_of(found)), None
            self._note(found, report.problems)
            return False
        contents, signature = found
        published = signature in (self._own, read_published(self._fs, self._layout))
        slots: dict[str, Slot] = {}
        damaged = list(contents.damaged)
        for slot in contents.slots:
            if published and not slot.ours:
                detail = "its bytes changed, the size and time of the file did not"
                damaged.append(Damage(detail, b"".join(slot.parts), slot.record.session_id))
            else:
                report.problems += self._enter(slots, slot)
        edited = [
            key
            for key, slot in slots.items()
            if not slot.ours or (key in known and slot.record.lsn < known[key].lsn)
        ]
        aside = bool(edited) or len(slots) + len(damaged) < len(contents.slots)
        accounted = self._set_aside(report, contents, damaged, aside=aside)
        report.lsn = max([report.lsn, *(slot.record.lsn for slot in slots.values())])
        for key in edited:
            slots[key] = self._adopted(slots[key], known.get(key), report)
        lost = [d for d in damaged if not d.newer] if self._repairs else []
        stuck = tuple(d for d in damaged if d not in lost)
        self._heal(slots, lost, contents.torn, removals, report)
        self._state = State(slots, stuck)
        self._signature = signature if accounted else None
        self._own = signature if contents.whole and not aside else None
        self._blocked_as = None
        return accounted and (aside or bool(lost) or contents.torn is not None)

    def _set_aside(
        self,
        report: RecoveryReport,
        contents: Contents,
        damaged: Sequence[Damage],
        *,
        aside: bool,
    ) -> bool:
        """Keep what the next write would lose; returns whether all of it is kept."""
        for damage in damaged:
            kind: ProblemKind = "newer-version" if damage.newer else "corrupt"
            report.problems.append(self._problem(kind, damage.detail, damage.session_id))
        if contents.torn is not None:
            report.problems.append(self._problem("corrupt", contents.torn))
        try:
            if aside:
                self._kept.keep_edit(self._file, report.lsn)
            if self._repairs:
                self._quarantine_all(damaged, contents.torn)
        except OSError as error:
            # It stays where it is until it can be kept.
            self._tell("ignored", self._file, f"what is damaged could not be kept: {error}")
            return False
        return True

    def _heal(
        self,
        slots: dict[str, Slot],
        lost: Sequence[Damage],
        torn: str | None,
        removals: Sequence[Entry],
        report: RecoveryReport,
    ) -> None:
        """Bring back what is damaged, each session as the newest version that is kept."""
        found = self._kept.newest_of({damage.session_id for damage in lost} - slots.keys())
        if torn is not None or any(damage.session_id is None for damage in lost):
            # Nobody can say who is missing: whoever was there and was not removed since.
            whole = self._kept.newest_whole()
            removed = {removal.session_id: removal.lsn for removal in removals}
            found += [
                slot
                for slot in (whole.slots if whole is not None else ())
                if slot.record.lsn > removed.get(slot.record.session_id, -1)
            ]
        for copy in found:
            session_id = copy.record.session_id
            if session_id in slots:
                continue
            report.lsn += 1
            slots[session_id] = renumbered(copy, copy.record.generation + 1, report.lsn)
            detail = f"generation {copy.record.generation} was brought back"
            report.problems.append(self._problem("healed", detail, session_id))
            self._tell("healed", self._file, detail, session_id)

    def _take_back_removal(self, removal: Entry) -> bool:
        """Undo a removal that a crash, or the medium, kept from happening: it is still there."""
        slot = self._state.slots.get(removal.session_id)
        if slot is None or slot.record.lsn >= removal.lsn:
            return False
        stem = plain_stem(removal.session_id)
        if self._trash.moved(removal.lsn, stem, slot.record.lsn) is None:
            return False
        self._trash.take_back(removal.folder)
        return True

    def _rewrite_at_recovery(self) -> None:
        try:
            temporary, signature = self._write(self._state)
        except OSError as error:  # the next change writes it
            self._behind = True
            self._tell("ignored", self._file, f"not written yet: {error}")
            return
        self._publish(self._state, temporary, signature, keep=False)

    def _sweep(self) -> int:
        """Remove the temporaries of a dead owner."""
        swept = 0
        for entry in list(self._fs.entries(self._layout.temporaries)):
            if entry.is_file(follow_symlinks=False):
                path = self._layout.temporaries / entry.name
                try:
                    self._fs.unlink(path)
                    swept += 1
                except OSError as error:  # the next recovery sweeps again
                    self._tell("ignored", path, f"could not be removed: {error}")
        return swept

    # --- the end of sessions ----------------------------------------------------------------

    def undeleted(self, session_id: str) -> None:
        """There is nothing to give back: replaced versions lie in the files that are kept."""

    def purge(self, before: datetime) -> list[str]:
        """Remove for good what was trashed before that instant, and its versions.

        Raises:
            StorageFailed: The medium refused; what is left is tried again the next time.
        """
        due = {e.session_id: e.lsn for e in self._trash.entries() if e.at < before}
        if not due:
            return []
        try:
            self._kept.strip(due, self._new_temporary)
            return self._trash.purge(before)
        except OSError as error:
            raise StorageFailed(f"the trash was not purged: {error}") from error

    def erase(self, session_id: str, lsn: int) -> Erased:
        """Leave no byte of a session. See `Backend.erase`."""
        self._check_identity()
        state = self._state
        if state.blocked is not None:
            raise type(state.blocked)(str(state.blocked.args[0]), path=self._file)
        try:
            edit = self._meet_edit(lsn)
        except OSError as error:
            raise StorageFailed(f"nothing was erased: {error}", path=self._file) from error
        if edit is not None:
            self._edits.append(Edit(edit, state.slots))
        own = [slot.size for key, slot in state.slots.items() if key == session_id]
        own += [len(damage.data) for damage in state.stuck if damage.session_id == session_id]
        try:
            if own or edit is not None or self._behind:
                slots = {key: slot for key, slot in state.slots.items() if key != session_id}
                stuck = tuple(d for d in state.stuck if d.session_id != session_id)
                left = State(slots, stuck)
                self._publish(left, *self._write(left), keep=False)
            count, size = self._kept.strip({session_id: EVER}, self._new_temporary)
            eraser = Eraser(self._fs, self._layout, session_id, {plain_stem(session_id)})
            aside = eraser.erase_aside()
        except OSError as error:
            text = f"not all of it could be erased: {error}"
            raise CommitUncertain(text, session_id=session_id, path=self._file) from error
        self._edits = [_without(edit, session_id) for edit in self._edits]
        self._lsn = max(self._lsn, lsn)
        return Erased.of(session_id, len(own) + count + aside.files, sum(own) + size + aside.size)

    def close(self) -> None:
        """Note what the file is, and let go of all sessions."""
        self._remember_signature()
        super().close()


def _highest(batch: Sequence[Change]) -> int:
    return max((c.lsn if isinstance(c, Trash) else c.record.lsn for c in batch), default=0)


def _without(edit: Edit, session_id: str) -> Edit:
    slots = [slot for slot in edit.contents.slots if slot.record.session_id != session_id]
    base = {key: slot for key, slot in edit.base.items() if key != session_id}
    damaged = [damage for damage in edit.contents.damaged if damage.session_id != session_id]
    return Edit(Contents(slots, damaged, edit.contents.torn), base)
