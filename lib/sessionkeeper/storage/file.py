"""The file backend: one JSON document for each session, durable when a commit returns."""

from __future__ import annotations

import itertools
import os
import stat
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import orjson

from sessionkeeper.errors import (
    CorruptDocument,
    PathBlocked,
    SessionKeeperError,
    StorageFailed,
    StoreGone,
)
from sessionkeeper.events import Event
from sessionkeeper.storage import trash
from sessionkeeper.storage.backend import (
    SETTLE,
    CommitUncertain,
    Problem,
    Put,
    Reconciled,
    RecoveryReport,
    Trash,
)
from sessionkeeper.storage.documents import decode_document, encode_document
from sessionkeeper.storage.examine import Known, Valid, examine
from sessionkeeper.storage.platform import FileSystem, Signature
from sessionkeeper.storage.reader import FolderReader

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime
    from pathlib import Path

    from sessionkeeper.clock import Clock
    from sessionkeeper.layout import Layout
    from sessionkeeper.storage.backend import Change
    from sessionkeeper.storage.documents import Document

_CLOSED = -1

# These are moved to the quarantine; all other problems are left where they are.
_QUARANTINED = frozenset({"corrupt", "rot", "id-mismatch"})


@dataclass(slots=True)
class _StagedPut:
    """A version on its way; its descriptor is open until its bytes are durable."""

    document: Document
    stem: str
    temporary: Path
    descriptor: int
    signature: Signature | None = None


@dataclass(frozen=True, slots=True)
class _StagedTrash:
    change: Trash
    stem: str
    folder: Path


def prepare_folders(fs: FileSystem, layout: Layout) -> None:
    """Create the folders of a store that are missing, and make their names durable."""
    missing = [folder for folder in layout.folders() if fs.status(folder) is None]
    for folder in missing:
        fs.make_folder(folder)
    for parent in dict.fromkeys(folder.parent for folder in missing):
        fs.sync_folder(parent)


class FileBackend(FolderReader):
    """The `Backend` of the durability level `file`.

    A commit stages every change first (temporaries written and synced, manifests of removals
    written), so that a full disk refuses the whole batch and changes nothing; then it renames in
    order; then it syncs the folders. One thread commits; any thread reads.

    Args:
        layout: The folders; they exist (`prepare_folders`).
        clock: For the times of hand-made files and of the quarantine.
        fs: The file system.
        on_event: Called for whatever is found or done that nobody asked for.
    """

    def __init__(
        self,
        layout: Layout,
        clock: Clock,
        *,
        fs: FileSystem | None = None,
        on_event: Callable[[Event], None] = lambda _: None,
    ) -> None:
        super().__init__(layout, fs or FileSystem(), clock)
        self._on_event = on_event
        self._counter = 0
        # Removals that were moved, and whose own folder a crash may have left unsynced.
        self._removing: set[Path] = set()
        # Edits kept aside for a commit that is still to replace them.
        self._kept_aside: dict[str, Signature] = {}
        # Damaged files that may be in the making, and since when they are as they are.
        self._damaged: dict[str, tuple[Signature, float]] = {}
        # Files published by a commit whose last sync failed: they are there, maybe not durably.
        self._doubtful: set[str] = set()
        self._identity = self._identify()

    # --- commit -----------------------------------------------------------------------------

    def commit(self, batch: Sequence[Change]) -> None:
        """Apply changes in order; durable on return. See `Backend.commit`."""
        self._check_identity()
        staged = self._stage_all(batch)
        try:
            for change in staged:
                self._publish(change)
            self._fs.sync_folder(self._layout.sessions)
            if any(isinstance(change, _StagedTrash) for change in staged):
                self._trash.sync()
        except OSError as error:
            self._doubtful.update(change.stem for change in staged)
            raise CommitUncertain(
                f"publishing failed half-way: {error}",
                path=self._layout.sessions,
            ) from error

    def _stage_all(self, batch: Sequence[Change]) -> list[_StagedPut | _StagedTrash]:
        staged: list[_StagedPut | _StagedTrash] = []
        try:
            for change in batch:
                if isinstance(change, Put):
                    staged.append(self._stage_put(change.document))
                else:
                    stem = self._names.stem_for(change.record.session_id)
                    staged.append(_StagedTrash(change, stem, self._trash.stage(change, stem)))
            # All are written before the first is synced: together they take far less time.
            for put in _puts(staged):
                descriptor, put.descriptor = put.descriptor, _CLOSED
                put.signature = self._fs.finish_new(descriptor)
        except (OSError, SessionKeeperError) as error:
            self._unstage(staged)
            if isinstance(error, SessionKeeperError):
                raise
            raise StorageFailed(f"nothing was written: {error}", path=self._layout.root) from error
        finally:
            for put in _puts(staged):
                if put.descriptor != _CLOSED:
                    os.close(put.descriptor)
        return staged

    def _stage_put(self, document: Document) -> _StagedPut:
        session_id = document.record.session_id
        stem = self._names.stem_for(session_id)
        self._raise_if_blocked(stem, session_id)
        target = self._path(stem)
        status = self._fs.status(target)
        if status is not None and not stat.S_ISREG(status.st_mode):
            raise PathBlocked(
                f"{target.name} is no file",
                session_id=session_id,
                path=target,
            )
        # A medium that cannot keep an edit aside refuses the change before anything is renamed.
        self._keep_edit_aside(stem, target, document.record.lsn)
        self._counter += 1
        temporary = self._layout.temporaries / f"{os.getpid()}-{self._counter}.tmp"
        descriptor = self._fs.begin_new(temporary, encode_document(document))
        return _StagedPut(document, stem, temporary, descriptor)

    def _unstage(self, staged: Sequence[_StagedPut | _StagedTrash]) -> None:
        for put in _puts(staged):
            self._remove_temporary(put.temporary)
        try:
            self._trash.sweep()
        except OSError as error:  # the next recovery sweeps again
            self._tell("ignored", self._layout.trash, f"could not be swept: {error}")

    def _remove_temporary(self, path: Path) -> bool:
        try:
            self._fs.unlink(path)
        except OSError as error:  # the next recovery sweeps again
            self._tell("ignored", path, f"could not be removed: {error}")
            return False
        return True

    def _publish(self, change: _StagedPut | _StagedTrash) -> None:
        target = self._path(change.stem)
        if isinstance(change, _StagedPut):
            record = change.document.record
            self._keep_edit_aside(change.stem, target, record.lsn)
            self._fs.replace(change.temporary, target)
            if change.signature is not None:
                self._enter(change.stem, Known(record, change.signature))
            self._kept_aside.pop(change.stem, None)
            return
        backups = self._layout.backups / change.stem
        self._removing.add(change.folder)
        if self._fs.status(target) is not None:
            self._fs.replace(target, change.folder / trash.SESSION)
        if self._fs.status(backups) is not None:
            self._fs.replace(backups, change.folder / trash.BACKUPS)
        self._fs.sync_folder(change.folder)
        self._removing.discard(change.folder)
        self._files.pop(change.stem, None)
        self._names.release(change.change.record.session_id)

    def _keep_edit_aside(self, stem: str, target: Path, lsn: int) -> None:
        """Keep what is about to be replaced, if it is not what was last published there."""
        status = self._fs.status(target)
        known = self._files.get(stem)
        if status is None:
            return
        signature = Signature.of(status)
        if signature == self._kept_aside.get(stem) or (known and signature == known.signature):
            return
        aside = self._keep_aside(stem, target, lsn)
        self._kept_aside[stem] = signature
        self._tell("conflict", target, f"its hand-made version is kept as {aside.name}")

    def _keep_aside(self, stem: str, target: Path, lsn: int) -> Path:
        folder = self._layout.backups / stem
        self._fs.make_folder(folder)
        # A crash after the link leaves the number unused: the next try meets its own copy.
        for copy in itertools.count(1):
            aside = folder / f"{lsn:016x}-edited-{copy}.json"
            there = self._fs.status(aside)
            if there is None:
                self._fs.link(target, aside)
            if there is None or os.path.samestat(there, target.lstat()):
                break
        self._fs.sync_folder(folder)
        self._fs.sync_folder(folder.parent)
        return aside

    # --- recovery ---------------------------------------------------------------------------

    def recover(self) -> RecoveryReport:
        """Look at the whole folder, take what is valid, set aside what is not.

        A file whose signature is as it was published is not read again, so that a restart within
        one process is quick. The folder is synced before the report is given: what it says was
        done is durable.
        """
        started = time.perf_counter()
        self._check_identity()
        report = RecoveryReport(swept=self._sweep())
        self._trash.sweep()
        before = self._files
        self._start_over()
        hand_made: list[tuple[Path, Valid, Known | None]] = []
        for path in self._session_paths():
            known = before.get(path.stem)
            if known is not None and self._unchanged(path, known):
                self._admit(path, known, report)
                continue
            valid = self._scan(path, known, report)
            if valid is not None and _is_hand_made(valid, known):
                hand_made.append((path, valid, known))
        for entry in self._trash.entries():
            report.removed.update(entry.answers)
            report.lsn = max(report.lsn, entry.lsn)
        self._set_aside(report.problems)
        for path, valid, known in hand_made:
            self._take_at_recovery(path, valid, known, report)
        self._publish_doubtful()
        for folder in sorted(self._removing):
            if self._fs.status(folder) is not None:
                self._fs.sync_folder(folder)
        self._removing.clear()
        self._fs.sync_folder(self._layout.sessions)
        self._trash.sync()
        report.seconds = time.perf_counter() - started
        return report

    def _take_at_recovery(
        self,
        path: Path,
        found: Valid,
        known: Known | None,
        report: RecoveryReport,
    ) -> None:
        session_id = found.document.record.session_id
        if self._names.find(session_id) != path.stem:
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

    def _publish_doubtful(self) -> None:
        """Write anew what a failed sync may have lost: a second sync would prove nothing."""
        for stem in sorted(self._doubtful & self._files.keys()):
            document = self.read(self._files[stem].record.session_id)
            if document is not None:
                self.commit([Put(document)])
        self._doubtful.clear()

    def _unchanged(self, path: Path, known: Known) -> bool:
        status = self._fs.status(path)
        return status is not None and Signature.of(status) == known.signature

    def _sweep(self) -> int:
        swept = 0
        for entry in list(self._fs.entries(self._layout.temporaries)):
            if entry.is_file(follow_symlinks=False):
                swept += self._remove_temporary(self._layout.temporaries / entry.name)
        return swept

    def purge(self, before: datetime) -> list[str]:
        """Remove for good what was trashed before that instant.

        Raises:
            StorageFailed: The medium refused; what is left is tried again the next time.
        """
        try:
            return self._trash.purge(before)
        except OSError as error:
            raise StorageFailed(f"the trash was not purged: {error}") from error

    # --- hand-made changes ------------------------------------------------------------------

    def reconcile(self, names: Sequence[str], lsn: int) -> Reconciled:
        """Look at files that may have been changed by hand. See `Backend.reconcile`."""
        self._check_identity()
        result = Reconciled(lsn=lsn)
        for path in self._reconcilable(names):
            self._reconcile_one(path, result)
        self._set_aside(result.problems)
        return result

    def _reconcile_one(self, path: Path, result: Reconciled) -> None:
        known = self._files.get(path.stem)
        try:
            found = examine(self._fs, path, known, self._clock.now())
        except FileNotFoundError:
            self._blocked.pop(path.stem, None)
            if known is not None:
                self._forget(path.stem, known, result, "it was removed by hand")
            return
        if isinstance(found, Problem):
            if found.kind == "corrupt" and not self._settled(path):
                result.unsettled.append(path.name)
                return
            if known is not None:
                self._forget(path.stem, known, result, found.detail)
            self._block(found)
            result.problems.append(found)
            return
        self._reconcile_valid(path, found, known, result)

    def _settled(self, path: Path) -> bool:
        """Whether a damaged file has been as it is for a while."""
        status = self._fs.status(path)
        now = self._clock.monotonic()
        since = self._damaged.get(path.stem)
        if status is not None and since is not None and since[0] == Signature.of(status):
            if now - since[1] < SETTLE:
                return False
            del self._damaged[path.stem]
            return True
        if status is not None:
            self._damaged[path.stem] = (Signature.of(status), now)
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
        stem = self._names.find(record.session_id)
        if stem is not None and stem != path.stem:
            double = Problem("duplicate", path, f"{stem}.json is in use", record.session_id)
            self._block(double)
            result.problems.append(double)
            return
        if known is not None and found.ours and record == known.record:
            self._enter(path.stem, Known(record, found.signature))  # touched, or copied back
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
        generation = record.generation
        if known is not None:
            generation = max(generation, known.record.generation + 1)
        taken = replace(
            found.document,
            record=replace(
                record,
                generation=generation,
                lsn=lsn,
                requests=tuple(r for r in record.requests if r.keyed),
            ),
        )
        try:
            self._keep_aside(path.stem, path, lsn)
        except OSError as error:
            raise StorageFailed(f"no copy could be kept: {error}", path=path) from error
        # An edit that follows this one has another signature, and is kept aside as well.
        self._enter(path.stem, Known(record, found.signature))
        self.commit([Put(taken)])
        self._tell("adopted", path, "made or edited by hand", record.session_id)
        return taken

    def _leave(self, path: Path, known: Known | None, session_id: str) -> None:
        """Go back to what was known; the next comparison of the folder tries again."""
        if known is not None:
            self._enter(path.stem, known)
            return
        self._files.pop(path.stem, None)
        self._names.release(session_id)

    def _forget(self, stem: str, known: Known, result: Reconciled, detail: str) -> None:
        session_id = known.record.session_id
        del self._files[stem]
        self._names.release(session_id)
        result.vanished.append(session_id)
        result.problems.append(Problem("vanished", self._path(stem), detail, session_id))
        self._tell("vanished", self._path(stem), detail, session_id)

    # --- quarantine -------------------------------------------------------------------------

    def _set_aside(self, problems: Sequence[Problem]) -> None:
        for problem in problems:
            if problem.kind in _QUARANTINED:
                self._quarantine(problem)
            elif problem.kind not in ("adopted", "vanished"):
                self._tell("ignored", problem.path, f"{problem.kind}: {problem.detail}")

    def _quarantine(self, problem: Problem) -> None:
        """Move a file that cannot be read out of the way, with a note that says why."""
        self._counter += 1
        now = self._clock.now()
        stamp = f"{now:%Y%m%dT%H%M%S}-{os.getpid()}-{self._counter}"
        folder = self._layout.quarantine
        aside = folder / f"{problem.path.stem}.{stamp}.json"
        note = {
            "file": problem.path.name,
            "kind": problem.kind,
            "detail": problem.detail,
            "at": now.isoformat(),
        }
        try:
            self._fs.write_new(aside.with_suffix(".why.json"), [orjson.dumps(note)])
            self._fs.replace(problem.path, aside)
            self._fs.sync_folder(folder)
        except FileNotFoundError:
            return  # somebody took it away meanwhile
        except OSError as error:
            # It stays where it is, blocked; it is neither used nor replaced.
            self._tell("ignored", problem.path, f"{problem.detail}; not moved: {error}")
            return
        self._blocked.pop(problem.path.stem, None)
        self._tell("quarantined", problem.path, f"{problem.detail}; now {aside.name}")

    # --- the folder itself ------------------------------------------------------------------

    def _decode(self, pieces: Sequence[bytes], path: Path, session_id: str) -> Document:
        document = decode_document(pieces)
        if document is None:
            # Rot or a hand edit: the actor looks into it, a reader must not guess.
            raise CorruptDocument(
                f"{path.name} is not as it was written",
                session_id=session_id,
                path=path,
            )
        return document

    def _identify(self) -> tuple[int, int] | None:
        status = self._fs.status(self._layout.sessions)
        return None if status is None else (status.st_dev, status.st_ino)

    def _check_identity(self) -> None:
        if self._identify() != self._identity:
            raise StoreGone("the store's folder was removed or replaced", path=self._layout.root)

    def _tell(
        self,
        kind: Literal["adopted", "vanished", "quarantined", "ignored", "conflict"],
        path: Path,
        detail: str,
        session_id: str | None = None,
    ) -> None:
        self._on_event(Event(kind, session_id, detail, path))


def _puts(staged: Sequence[_StagedPut | _StagedTrash]) -> list[_StagedPut]:
    return [change for change in staged if isinstance(change, _StagedPut)]


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
