"""Reading a store's folder without owning it."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, NoReturn

from sessionkeeper.errors import (
    CorruptDocument,
    IdMismatch,
    NewerVersion,
    PathBlocked,
    SessionKeeperError,
    StoreReadOnly,
)
from sessionkeeper.events import logger
from sessionkeeper.keys import named, namespace_of
from sessionkeeper.layout import SUFFIX, is_file_name, is_namespace, plain_stem
from sessionkeeper.storage.backend import Problem, Reconciled, RecoveryReport
from sessionkeeper.storage.backups import Backups
from sessionkeeper.storage.documents import decode_document, decode_foreign
from sessionkeeper.storage.examine import Known, Valid, examine
from sessionkeeper.storage.journal import Journal
from sessionkeeper.storage.known import KnownFiles
from sessionkeeper.storage.names import NameTable
from sessionkeeper.storage.pending import Pending
from sessionkeeper.storage.platform import Signature
from sessionkeeper.storage.replay import Entries, Hands, Replayed, replay
from sessionkeeper.storage.trash import TrashFolder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from datetime import datetime
    from pathlib import Path

    from sessionkeeper.answers import BackupInfo, Erased, Trashed
    from sessionkeeper.clock import Clock
    from sessionkeeper.layout import Layout
    from sessionkeeper.storage.backend import Change, Trash
    from sessionkeeper.storage.documents import Document, Record
    from sessionkeeper.storage.entries import Entry, ReferenceEntry, TrashEntry
    from sessionkeeper.storage.platform import FileSystem

# So many are remembered: more than one turn of the actor changes.
_PATHS = 1024


# What a file of another program would be taken for.
_DOUBTFUL = frozenset({"corrupt", "id-mismatch"})


class FolderReader:
    """The read side of a folder: what each file is, and one session at a time.

    It changes nothing, and works beside a live owner: files are replaced whole.
    """

    def __init__(self, layout: Layout, fs: FileSystem, clock: Clock) -> None:
        self._layout = layout
        self._fs = fs
        self._clock = clock
        # Where in the path of a session file its name begins; asked for each file at an opening.
        self._below = len(str(layout.sessions)) + 1
        self._names = NameTable()
        # A save asks for its path several times, and joining paths is slow.
        self._path = lru_cache(_PATHS)(lambda stem: layout.sessions / (stem + SUFFIX))
        # The file of each session in use, by stem; also read by other threads, one get at a time.
        self._files = KnownFiles()
        # What stands where a session's file could be, and must not be replaced.
        self._blocked: dict[str, tuple[Signature | None, SessionKeeperError]] = {}
        # Namespaces whose mark has been seen, or made; see `Layout.namespaces`.
        self._marked: set[str] = set()
        self._trash = TrashFolder(fs, layout.trash)
        self._backups = Backups(self._fs, layout.backups, 0)
        # What the journal holds and the files do not, by session; also read by other threads.
        self._pending: dict[str, Pending] = {}
        # Removals that are decided and whose files are still there, by session.
        self._unmoved: dict[str, Trash] = {}

    def recover(self) -> RecoveryReport:
        """Look at every file; whatever cannot be used is reported and left alone.

        Another time only those are read that are not as they were last seen.
        """
        started = time.perf_counter()
        report = RecoveryReport()
        # Before the files: an owner brings changes into the files first, and frees them here then.
        entries = Entries.of(Journal(self._fs, self._layout.journal).read().records)
        seen = self._files
        self._start_over()
        for path in self._session_paths():
            known = seen.get(self._stem_at(path))
            if known is not None and self._is_as(path, known.signature):
                self._admit(path, known, report)
            else:
                self._scan(path, None, report)
        report.lsn = max(report.lsn, entries.lsn)
        self._pending, self._unmoved = {}, {}
        for session_id, own in entries.by_session.items():
            self._enter_replayed(session_id, own, report, self._hide)
        report.seconds = time.perf_counter() - started
        return report

    def _hide(self, change: Trash, pending: Pending | None) -> None:
        """Hold back a session that is removed, and whose file the owner has not moved yet."""
        del pending
        self._unmoved[change.record.session_id] = change

    def _enter_replayed(
        self,
        session_id: str,
        entries: Sequence[Entry],
        report: RecoveryReport,
        remove: Callable[[Trash, Pending | None], None],
        backup: Document | None = None,
    ) -> Replayed:
        """Apply a session's journal records to what its file holds, and enter what comes out.

        Args:
            session_id: The session.
            entries: Its records.
            report: What was found in the files; what comes out is entered there.
            remove: Called for a removal that is not complete.
            backup: What stands in for the session's file, if that is damaged.
        """
        stem = self._names.stem_for(session_id)
        hands = Hands(
            self._load_reference,
            remove,
            lambda entry: self._lies_in_trash(entry, stem),
        )
        record = report.records.get(session_id)
        if record is None and backup is not None:
            found = replay(entries, backup.record, hands, Pending(backup))
        else:
            found = replay(entries, record, hands)
        report.replayed += found.changes
        for detail in found.problems:
            report.problems.append(Problem("journal", self._path(stem), detail, session_id))
        if found.record is None:
            report.records.pop(session_id, None)
            return found
        report.records[session_id] = found.record
        if found.pending is not None:
            self._pending[session_id] = found.pending
            self._names.bind(session_id, stem)
        return found

    def _lies_in_trash(self, entry: TrashEntry, stem: str) -> bool:
        """Whether a removal lies complete in the trash."""
        return self._trash.holds(entry.lsn, stem, entry.base_lsn)

    def _load_reference(self, entry: ReferenceEntry) -> Document | None:
        """The document that a journal record names, if it was not renamed yet."""
        try:
            document = decode_document(self._fs.read(self._layout.temporaries / entry.temporary)[0])
        except (OSError, CorruptDocument, NewerVersion):
            return None
        if document is None or document.record.lsn != entry.lsn:
            return None
        return document

    def read(self, session_id: str) -> Document | None:
        """The version in the session's file and what was added since; see `Backend.read`."""
        pending = self._pending.get(session_id)
        if self._is_removed(session_id, pending):
            return None
        if pending is None:
            return self._read_file(session_id)
        return self._whole(session_id, pending)

    def _is_removed(self, session_id: str, pending: Pending | None) -> bool:
        """Whether all there is of it was removed, and only waits to be moved to the trash."""
        removal = self._unmoved.get(session_id)
        if removal is None:
            return False
        return pending is None or not pending.begins_after(removal.lsn)

    def _whole(self, session_id: str, pending: Pending) -> Document | None:
        base = pending.base or self._read_file(session_id)
        return None if base is None else pending.upon(base)

    def _read_file(self, session_id: str) -> Document | None:
        stem = self._names.find(session_id)
        if stem is None:
            self._raise_if_blocked(plain_stem(session_id), session_id)
            return None
        path = self._path(stem)
        try:
            pieces, _ = self._fs.read(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _blocked_error(path, session_id, str(error.strerror)) from error
        document = self._decode(pieces, path, session_id)
        if document.record.session_id != session_id:
            # The folder says which namespace it is.
            document = document.placed(namespace_of(session_id))
        if document.record.session_id != session_id:
            raise IdMismatch(
                f"{path.name} says it is {named(document.record.session_id)}",
                session_id=session_id,
                path=path,
            )
        return document

    def keys(self) -> Iterator[str]:
        """The ids of all sessions."""
        ids = dict.fromkeys(known.record.session_id for _, known in self._files.all_in_memory())
        for session_id in list(self._unmoved):
            ids.pop(session_id, None)
        for session_id, pending in list(self._pending.items()):
            if pending.base is not None and not self._is_removed(session_id, pending):
                ids[session_id] = None
        return iter(ids)

    def published(self, record: Record) -> tuple[str, Signature] | None:
        """The stem and signature of the file that holds this very version; from any thread.

        None if there is none: the version is in the journal, or not current any more.
        """
        stem = self._names.find(record.session_id)
        known = None if stem is None else self._files.get(stem)
        if stem is None or known is None or known.edited or known.record.lsn != record.lsn:
            return None
        return stem, known.signature

    def trashed(self, session_id: str) -> Document | None:
        """The version deleted last that is still in the trash."""
        return self._trash.find(session_id)

    def removals(self) -> list[Trashed]:
        """What lies in the trash, the newest removal last."""
        return self._trash.listed()

    def backups(self, session_id: str) -> list[BackupInfo]:
        """The versions that were replaced and are kept. See `Backend.backups`."""
        return self._backups.infos(self._names.stem_for(session_id), session_id)

    def backup(self, session_id: str, generation: int | None) -> Document:
        """One of those versions. See `Backend.backup`."""
        return self._backups.load(self._names.stem_for(session_id), session_id, generation)

    def suspects(self) -> list[str]:
        """Names of files that are not as last seen, and of those that are gone."""
        present = {self._name_at(path) for path in self._session_paths()}
        stems = [stem for stem, _ in self._files.all_in_memory()]
        known = {stem + SUFFIX for stem in (*stems, *dict(self._blocked))}
        return self.changed(sorted(present | known))

    def changed(self, names: Iterable[str]) -> list[str]:
        """Those of the names whose files are not as last seen."""
        paths = self._reconcilable(names)
        return [self._name_at(path) for path in paths if not self._as_seen(path)]

    def _as_seen(self, path: Path) -> bool:
        stem = self._stem_at(path)
        known = self._files.get(stem)
        stop = self._blocked.get(stem)
        expected = known.signature if known else stop[0] if stop else None
        return self._is_as(path, expected)

    def _is_as(self, path: Path, expected: Signature | None) -> bool:
        status = self._fs.status(path)
        return expected == (None if status is None else Signature.of(status))

    def commit(self, batch: Sequence[Change]) -> None:  # noqa: ARG002 - the protocol's
        """Refused."""
        self._refuse()

    def erase(self, session_id: str, lsn: int) -> Erased:  # noqa: ARG002 - the protocol's
        """Refused."""
        self._refuse()

    def undeleted(self, session_id: str) -> None:  # noqa: ARG002 - the protocol's
        """Refused."""
        self._refuse()

    def purge(self, before: datetime) -> list[str]:  # noqa: ARG002 - the protocol's
        """Refused."""
        self._refuse()

    def file_name(self, session_id: str) -> str:
        """The name of the file that a session has, or would get."""
        return self._names.stem_for(session_id) + SUFFIX

    def reconcile(self, names: Sequence[str], lsn: int) -> Reconciled:
        """Look at files again that an owner, or a person, may have changed."""
        report = RecoveryReport(lsn=lsn)
        result = Reconciled()
        for path in self._reconcilable(names):
            known = self._files.pop(self._stem_at(path))
            if known is not None:
                self._names.release(known.record.session_id)
            self._blocked.pop(self._stem_at(path), None)
            if self._scan(path, None, report) is None and known is not None:
                result.vanished.append(known.record.session_id)
        result.records = list(report.records.values())
        result.problems = report.problems
        result.lsn = report.lsn
        return result

    def _reconcilable(self, names: Iterable[str]) -> list[Path]:
        """The paths of those names, from outside, that a session file can have."""
        folder = self._layout.sessions
        return [folder / name for name in dict.fromkeys(names) if is_file_name(name)]

    def close(self) -> None:
        """Nothing is held."""
        self._start_over()

    # --- for the writer ---------------------------------------------------------------------

    def _refuse(self) -> NoReturn:
        raise StoreReadOnly("the store is open for reading only", path=self._layout.root)

    def _decode(self, pieces: Sequence[bytes], path: Path, session_id: str) -> Document:
        try:
            return decode_document(pieces) or decode_foreign(b"".join(pieces), self._clock.now())
        except CorruptDocument as error:
            raise _named(error, path, session_id) from error
        except NewerVersion as error:
            raise NewerVersion(str(error.args[0]), session_id=session_id, path=path) from error

    def _start_over(self) -> None:
        self._names = NameTable()
        self._files = KnownFiles()
        self._blocked = {}

    def _stem_at(self, path: Path) -> str:
        return str(path)[self._below : -len(SUFFIX)]

    def _name_at(self, path: Path) -> str:
        return str(path)[self._below :]

    def _session_paths(self) -> list[Path]:
        paths, folders = self._paths_in(self._layout.sessions)
        for namespace in folders:
            folder = self._layout.folder_of(namespace)
            try:
                paths += self._paths_in(folder)[0]
            except FileNotFoundError:
                continue  # removed by hand meanwhile
            except OSError as error:
                if self._is_own(namespace):
                    raise  # its sessions are not gone
                logger.warning("%s cannot be read and is left alone: %s", folder, error)
        return paths

    def _paths_in(self, folder: Path) -> tuple[list[Path], list[str]]:
        """The session files in a folder, and the names of folders that may be namespaces."""
        names: list[str] = []
        folders: list[str] = []
        for entry in self._fs.entries(folder):
            if entry.name.endswith(SUFFIX):
                names.append(entry.name)
            elif is_namespace(entry.name) and entry.is_dir(follow_symlinks=False):
                folders.append(entry.name)
        paths = [folder / name for name in sorted(names) if not name.startswith(".")]
        return paths, sorted(folders)

    def _scan(self, path: Path, known: Known | None, report: RecoveryReport) -> Valid | None:
        """Examine one file and enter what it is; None unless it holds a session to be used."""
        try:
            found = self._examine(path, known)
        except FileNotFoundError:
            return None
        if isinstance(found, Problem):
            self._block(found)
            report.problems.append(found)
            return None
        entered = Known(found.document.record, found.signature, edited=not found.ours)
        if self._admit(path, entered, report):
            return found
        return None

    def _examine(self, path: Path, known: Known | None) -> Valid | Problem:
        """What a file is; see `examine`.

        Raises:
            FileNotFoundError: There is no such file any more.
        """
        stem = self._stem_at(path)
        found = examine(self._fs, path, known, self._clock.now(), stem)
        if isinstance(found, Problem) and found.kind in _DOUBTFUL and known is None:
            # A folder beside the sessions may be anybody's: only what is a session is taken there.
            return found if self._is_own(namespace_of(stem)) else replace(found, kind="foreign")
        return found

    def _is_own(self, namespace: str) -> bool:
        """Whether the store has made the folder of a namespace, or taken something from it."""
        if not namespace or namespace in self._marked:
            return True
        if self._fs.status(self._layout.namespaces / namespace) is None:
            return False
        self._marked.add(namespace)
        return True

    def _admit(self, path: Path, known: Known, report: RecoveryReport) -> bool:
        """Enter a file that holds a session, unless another holds a newer version of it."""
        record = known.record
        other = report.records.get(record.session_id)
        if other is not None and other.generation >= record.generation:
            detail = f"another file holds generation {other.generation}"
            double = Problem("duplicate", path, detail, record.session_id)
            self._block(double)
            report.problems.append(double)
            return False
        if other is not None:
            self._displace(record.session_id, record.generation, report)
        self._enter(self._stem_at(path), known)
        report.records[record.session_id] = record
        report.lsn = max(report.lsn, record.lsn)
        return True

    def _displace(self, session_id: str, generation: int, report: RecoveryReport) -> None:
        stem = self._names.stem_for(session_id)
        self._files.pop(stem)
        self._names.release(session_id)
        detail = f"another file holds generation {generation}"
        double = Problem("duplicate", self._path(stem), detail, session_id)
        self._block(double)
        report.problems.append(double)

    def _enter(self, stem: str, known: Known) -> None:
        self._files[stem] = known
        self._names.bind(known.record.session_id, stem)
        self._blocked.pop(stem, None)

    def _block(self, problem: Problem) -> None:
        status = self._fs.status(problem.path)
        signature = None if status is None else Signature.of(status)
        error: SessionKeeperError
        if problem.kind == "newer-version":
            error = NewerVersion(problem.detail, path=problem.path)
        else:
            error = _blocked_error(problem.path, None, problem.detail)
        self._blocked[self._stem_at(problem.path)] = (signature, error)

    def _raise_if_blocked(self, stem: str, session_id: str) -> None:
        stop = self._blocked.get(stem)
        if stop is not None:
            raise type(stop[1])(str(stop[1].args[0]), session_id=session_id, path=stop[1].path)


def _blocked_error(path: Path, session_id: str | None, detail: str) -> PathBlocked:
    return PathBlocked(f"{path.name} is in the way: {detail}", session_id=session_id, path=path)


def _named(error: CorruptDocument, path: Path, session_id: str) -> CorruptDocument:
    message = f"{path.name} is damaged: {error.args[0]}"
    return CorruptDocument(message, session_id=session_id, path=path, offset=error.offset)
