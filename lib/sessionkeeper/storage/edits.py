"""Files made, changed or removed by hand: told from rot, taken, and never lost."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sessionkeeper.errors import PathBlocked, SessionKeeperError, StorageFailed
from sessionkeeper.layout import hashed_stem, plain_stem
from sessionkeeper.storage.backend import (
    SETTLE,
    CommitUncertain,
    Problem,
    Put,
    Reconciled,
    RecoveryReport,
)
from sessionkeeper.storage.examine import Known, Valid
from sessionkeeper.storage.folder import SessionFolder
from sessionkeeper.storage.platform import Signature

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Sequence
    from pathlib import Path

    from sessionkeeper.storage.documents import Document, Record


# Kinds of problems after which a session's own file is of no use.
DAMAGED = frozenset({"corrupt", "rot"})


class EditableFolder(SessionFolder):
    """A session folder that people may work in while the store is open, or closed."""

    # --- when the store comes up ------------------------------------------------------------

    def _scan_folder(
        self,
        report: RecoveryReport,
        unsure: Container[str] = (),
    ) -> list[tuple[Path, Valid, Known | None]]:
        """Examine every file and enter what can be used; returns what was made by hand.

        A file whose signature is as it was published is not read again, neither by the process
        that published it nor, if the index knows it, by the next.

        Args:
            report: What is found goes in here.
            unsure: Ids of sessions whose files may not have reached the medium: after a power
                loss such a file can have the right signature and the wrong bytes.
        """
        before = {**self._recalled(report, unsure), **dict(self._files.all_in_memory())}
        self._start_over()
        if self._room is not None:
            self._room.is_lost = False
        self._settle_marks()
        hand_made: list[tuple[Path, Valid, Known | None]] = []
        for path in self._session_paths():
            known = before.get(self._stem_at(path))
            if known is not None and self._unchanged(path, known):
                self._admit(path, known, report)
                continue
            valid = self._scan(path, known, report)
            if valid is not None and _is_hand_made(valid, known):
                hand_made.append((path, valid, known))
        self._has_looked = True
        return hand_made

    def _look_at(
        self,
        session_ids: Iterable[str],
        report: RecoveryReport,
    ) -> list[tuple[Path, Valid, Known | None]]:
        """Examine the files of some sessions, as `_scan_folder` does those of all.

        The others are as they were published, or are found to be changed when they are compared
        with what the index has.

        Raises:
            IndexFailed: It cannot be read.
        """
        edited = [known for _, known in self._files.all_in_memory() if known.edited]
        looked_at = {*session_ids, *(known.record.session_id for known in edited)}
        self._fetch(looked_at)
        before: dict[str, Known | None] = {}
        for session_id in sorted(looked_at):
            named = self._names.find(session_id)
            stems = {plain_stem(session_id), hashed_stem(session_id), named or ""} - {""}
            for stem in sorted(stems):
                known = self._files.in_memory(stem)
                if known is None or known.record.session_id == session_id:
                    # Of those that the journal names only this process knows what it published.
                    before[stem] = known if self._has_looked else None
                    if known is not None or stem == named:
                        self._files.pop(stem)
            self._names.release(session_id)
        hand_made: list[tuple[Path, Valid, Known | None]] = []
        for stem, known in before.items():
            path = self._path(stem)
            if known is not None and self._unchanged(path, known):
                self._admit(path, known, report)
                continue
            valid = self._scan(path, known, report)
            if valid is not None and _is_hand_made(valid, known):
                hand_made.append((path, valid, known))
        report.looked_at = looked_at
        self._has_looked = True
        return hand_made

    def _recalled(self, report: RecoveryReport, unsure: Container[str]) -> dict[str, Known]:
        """What the index says was published; else this process knows it for itself."""
        if self._has_looked and not self.is_shelved:
            return {}
        recalled = self._recall()
        # A number is never used twice, also if the file with the highest is gone.
        report.lsn = max(report.lsn, recalled.lsn)
        return {
            stem: known
            for stem, known in recalled.files.items()
            if known.record.session_id not in unsure
        }

    def _backups_of_damaged(self, report: RecoveryReport) -> dict[Path, Document]:
        """The newest backup of each damaged file that has one."""
        damaged = [problem.path for problem in report.problems if problem.kind in DAMAGED]
        found = {path: self._backups.newest_valid(self._stem_at(path)) for path in damaged}
        return {path: backup for path, backup in found.items() if backup is not None}

    def _heal_at_recovery(self, report: RecoveryReport) -> None:
        """Bring back the sessions whose files were just set aside, from the newest copy.

        Whatever was not brought back, and has no copy, is taken away.
        """
        damaged = [p for p in report.problems if p.kind in DAMAGED and self._repairs]
        for problem in damaged:
            copy = self._newest_copy(self._stem_at(problem.path))
            if copy is None or copy.record.session_id in report.records:
                self._take_away(problem.path)
                continue
            try:
                healed = self._heal(problem.path, copy, report.lsn + 1)
            except (StorageFailed, CommitUncertain, PathBlocked) as error:
                self._tell("ignored", problem.path, f"could not be brought back: {error}")
                continue
            report.lsn = healed.lsn
            report.records[healed.session_id] = healed
            detail = f"brought back as generation {healed.generation}"
            report.problems.append(Problem("healed", problem.path, detail, healed.session_id))
            self._take_away(problem.path)

    def _heal(self, path: Path, copy: Document, lsn: int) -> Record:
        """Make a copy the session's file again.

        It becomes a generation of its own, so that nobody takes it for the one that was lost.

        Raises:
            SessionKeeperError: It could not be written.
        """
        record = replace(
            copy.record,
            generation=copy.record.generation + 1,
            lsn=lsn,
            requests=tuple(r for r in copy.record.requests if r.keyed),
        )
        self.commit([Put(replace(copy, record=record))])
        detail = f"generation {copy.record.generation} was brought back"
        self._tell("healed", path, detail, record.session_id)
        return record

    def _newest_copy(self, stem: str) -> Document | None:
        """The newest version of a session that can be had from anywhere but its file."""
        return self._backups.newest_valid(stem)

    def _take_at_recovery(
        self,
        path: Path,
        found: Valid,
        known: Known | None,
        report: RecoveryReport,
    ) -> None:
        session_id = found.document.record.session_id
        if self._names.find(session_id) != self._stem_at(path):
            return  # a duplicate displaced it
        try:
            taken = self._take(path, found, known, report.lsn + 1)
        except (StorageFailed, CommitUncertain, PathBlocked) as error:
            self._leave(path, None, session_id)
            report.problems.append(_not_taken(path, session_id, error))
            del report.records[session_id]
            return
        report.lsn = taken.record.lsn
        report.records[session_id] = taken.record
        report.problems.append(_adopted(path, session_id))

    def _unchanged(self, path: Path, known: Known) -> bool:
        status = self._fs.status(path)
        return status is not None and Signature.of(status) == known.signature

    # --- hand-made changes ------------------------------------------------------------------

    def reconcile(self, names: Sequence[str], lsn: int) -> Reconciled:
        """Look at files that may have been changed by hand. See `Backend.reconcile`."""
        self._check_identity()
        result = Reconciled(lsn=lsn)
        lost: list[tuple[Path, Known]] = []
        for path in self._reconcilable(names):
            self._reconcile_one(path, result, lost)
        healing = {
            path for path, _ in lost if self._backups.newest_valid(self._stem_at(path)) is not None
        }
        self._set_aside(result.problems, healing)
        for path, known in lost:
            self._heal_or_forget(path, known, result)
        return result

    def _heal_or_forget(self, path: Path, known: Known, result: Reconciled) -> None:
        stem = self._stem_at(path)
        copy = self._newest_copy(stem) if self._repairs else None
        if copy is not None:
            try:
                healed = self._heal(path, copy, result.lsn + 1)
            except (StorageFailed, PathBlocked) as error:
                self._tell("ignored", path, f"could not be brought back: {error}")
            else:
                self._take_away(path)
                result.lsn = healed.lsn
                result.records.append(healed)
                return
        self._take_away(path)
        self._forget(stem, known, result, "it is damaged, and there is no other copy")

    def _reconcile_one(
        self,
        path: Path,
        result: Reconciled,
        lost: list[tuple[Path, Known]],
    ) -> None:
        stem = self._stem_at(path)
        known = self._files.get(stem)
        try:
            found = self._examine(path, known)
        except FileNotFoundError:
            self._blocked.pop(stem, None)
            if known is not None:
                self._forget(stem, known, result, "it was removed by hand")
            return
        if isinstance(found, Problem):
            if found.kind == "corrupt" and not self._settled(path):
                result.unsettled.append(self._name_at(path))
                return
            if known is not None and found.kind in DAMAGED:
                lost.append((path, known))
            elif known is not None:
                self._forget(stem, known, result, found.detail)
            self._block(found)
            result.problems.append(found)
            return
        self._reconcile_valid(path, found, known, result)

    def _settled(self, path: Path) -> bool:
        """Whether a damaged file has been as it is for a while."""
        stem = self._stem_at(path)
        status = self._fs.status(path)
        now = self._clock.monotonic()
        since = self._damaged.get(stem)
        if status is not None and since is not None and since[0] == Signature.of(status):
            if now - since[1] < SETTLE:
                return False
            del self._damaged[stem]
            return True
        if status is not None:
            self._damaged[stem] = (Signature.of(status), now)
        return False

    def _reconcile_valid(
        self,
        path: Path,
        found: Valid,
        known: Known | None,
        result: Reconciled,
    ) -> None:
        if known is not None and found.signature == known.signature:
            return
        record = found.document.record
        stem = self._stem_at(path)
        other = self._names.find(record.session_id)
        if other is not None and other != stem:
            double = Problem("duplicate", path, f"{other}.json is in use", record.session_id)
            self._block(double)
            result.problems.append(double)
            return
        if known is not None and found.ours and record == known.record:
            self._enter(stem, Known(record, found.signature))  # touched, or copied back
            return
        try:
            taken = self._take(path, found, known, result.lsn + 1)
        except (StorageFailed, PathBlocked) as error:
            self._leave(path, known, record.session_id)
            result.problems.append(_not_taken(path, record.session_id, error))
            return
        result.lsn = taken.record.lsn
        result.records.append(taken.record)
        result.problems.append(_adopted(path, record.session_id))

    def _take(self, path: Path, found: Valid, known: Known | None, lsn: int) -> Document:
        """Make a hand-made version the session's next generation, its own bytes kept aside.

        Raises:
            StorageFailed: There is no room for it; the file is as it was.
            PathBlocked: Something came in the way.
        """
        record = found.document.record
        stem = self._stem_at(path)
        merged = self._with_unpublished(found.document)
        generation = merged.record.generation
        if known is not None:
            generation = max(generation, known.record.generation + 1)
        taken = replace(
            merged,
            record=replace(
                merged.record,
                generation=generation,
                lsn=lsn,
                requests=tuple(r for r in merged.record.requests if r.keyed),
            ),
        )
        try:
            self._backups.keep_edit(stem, path, lsn)
        except OSError as error:
            raise StorageFailed(f"no copy could be kept: {error}", path=path) from error
        self._kept_aside[stem] = found.signature
        # An edit that follows this one has another signature, and is kept aside as well.
        self._enter(stem, Known(record, found.signature, edited=True))
        self.commit([Put(taken)])
        self._tell("adopted", path, "made or edited by hand", record.session_id)
        return taken

    def _with_unpublished(self, document: Document) -> Document:
        """A hand-made version, with whatever was acknowledged upon the version before it."""
        return document

    def _leave(self, path: Path, known: Known | None, session_id: str) -> None:
        """Go back to what was known; the next comparison of the folder tries again."""
        if known is not None:
            self._enter(self._stem_at(path), known)
            return
        self._files.pop(self._stem_at(path))
        self._names.release(session_id)

    def _forget(self, stem: str, known: Known, result: Reconciled, detail: str) -> None:
        session_id = known.record.session_id
        self._files.pop(stem)
        self._names.release(session_id)
        result.vanished.append(session_id)
        result.problems.append(Problem("vanished", self._path(stem), detail, session_id))
        self._tell("vanished", self._path(stem), detail, session_id)


def _is_hand_made(valid: Valid, known: Known | None) -> bool:
    """Whether a person wrote it: no checksum of ours, or an older version put back.

    A version newer than the one known was published just before a crash.
    """
    if not valid.ours:
        return True
    return known is not None and valid.document.record.lsn < known.record.lsn


def _not_taken(path: Path, session_id: str, error: SessionKeeperError) -> Problem:
    detail = f"made or edited by hand, and not taken yet: {error.args[0]}"
    return Problem("unreadable", path, detail, session_id)


def _adopted(path: Path, session_id: str) -> Problem:
    return Problem("adopted", path, "made or edited by hand", session_id)
