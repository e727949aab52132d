"""The writing side of a session folder: staging, publishing, keeping aside, setting aside."""

from __future__ import annotations

import contextlib
import itertools
import secrets
import stat
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from sessionkeeper.errors import (
    CorruptDocument,
    InvalidConfig,
    PathBlocked,
    StorageFailed,
    StoreGone,
)
from sessionkeeper.events import Event
from sessionkeeper.fixed import fixed
from sessionkeeper.keys import namespace_of
from sessionkeeper.layout import hashed_stem, plain_stem
from sessionkeeper.storage import trash
from sessionkeeper.storage.backend import CommitUncertain
from sessionkeeper.storage.backups import Backups
from sessionkeeper.storage.documents import decode_document
from sessionkeeper.storage.erasing import Eraser
from sessionkeeper.storage.examine import Known
from sessionkeeper.storage.index import Recalled
from sessionkeeper.storage.platform import FileSystem, Signature
from sessionkeeper.storage.quarantine import Quarantine
from sessionkeeper.storage.shelving import ShelvedFolder

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Container, Iterable, Sequence
    from datetime import datetime
    from pathlib import Path

    from sessionkeeper.answers import Erased
    from sessionkeeper.clock import Clock
    from sessionkeeper.events import EventKind
    from sessionkeeper.layout import Layout
    from sessionkeeper.session import Chunk
    from sessionkeeper.storage.backend import Change, Problem
    from sessionkeeper.storage.documents import Document
    from sessionkeeper.storage.room import Room

# These are moved to the quarantine; all other problems are left where they are.
_QUARANTINED = frozenset({"corrupt", "rot", "id-mismatch"})
# Of these an event has told already.
_TOLD = frozenset({"adopted", "vanished", "healed", "journal"})


@fixed
class Staged:
    """A version in a temporary of its own, ready to be renamed."""

    document: Document
    stem: str
    temporary: Path
    signature: Signature


def prepare_folders(fs: FileSystem, layout: Layout) -> None:
    """Create the folders of a store that are missing, and make their names durable.

    A process may be killed between the two: only the last folder says that all others are durable,
    so it is made when they are, and its own name is synced each time.

    Raises:
        InvalidConfig: One of them is a link to, or a mount of, another file system.
        OSError: As the system said.
    """
    *others, last = layout.folders()
    missing = [folder for folder in others if fs.status(folder) is None]
    if missing or fs.status(last) is None:
        for folder in missing:
            fs.make_folder(folder)
        for parent in dict.fromkeys(folder.parent for folder in others):
            fs.sync_folder(parent)
        for parent in layout.root.parent.parents:
            # They may be as new as the store, or not ours to open.
            with contextlib.suppress(OSError):
                fs.sync_folder(parent)
        fs.make_folder(last)
    fs.sync_folder(last.parent)
    device = layout.sessions.stat().st_dev
    for folder in (layout.temporaries, layout.backups, layout.trash, layout.quarantine):
        if folder.stat().st_dev != device:
            raise InvalidConfig(
                f"{folder} lies on another file system than the sessions",
                path=folder,
                hint="Session files are linked and renamed between the two: have both on one.",
            )


class SessionFolder(ShelvedFolder, ABC):
    """What both durability levels on the disk have in common.

    One thread commits; any thread reads.

    Args:
        layout: The folders; they exist (`prepare_folders`).
        clock: For the times of hand-made files and of the quarantine.
        fs: The file system.
        max_backups: How many replaced versions of each session are kept.
        repairs: Whether what is damaged is set aside and brought back. Else it stays where it
            is, and the session is refused until somebody has seen to it.
        on_event: Called for whatever is found or done that nobody asked for.
        recall: Says what files were published before, so that they need not be read.
        room: See `ShelvedFolder`.
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
        super().__init__(layout, fs or FileSystem(), clock, room)
        self._on_event = on_event
        self._repairs = repairs
        self._recall = recall
        # Whether this is no longer the first that the process sees of the folder.
        self._has_looked = False
        # Not the process id: in a container the next process has the same, and a temporary that
        # the journal names outlives the one that wrote it.
        self._run = secrets.token_hex(6)
        self._numbers = itertools.count(1)
        self._temporaries = layout.temporaries
        self._backups = Backups(self._fs, layout.backups, max_backups)
        self._quarantine = Quarantine(self._fs, layout, clock)
        # Edits kept aside for a change that is still to replace them.
        self._kept_aside: dict[str, Signature] = {}
        # Damaged files that may be in the making, and since when they are as they are.
        self._damaged: dict[str, tuple[Signature, float]] = {}
        self._identity = self._identify()

    def keep_backups(self, limit: int) -> None:
        """Keep so many replaced versions of each session from now on."""
        self._backups.resize(limit)

    @abstractmethod
    def commit(self, batch: Sequence[Change]) -> None:
        """Apply changes in order. See `Backend.commit`."""

    # --- publishing -------------------------------------------------------------------------

    def _stem_for_put(self, document: Document) -> str:
        """The stem of the file that is to be written.

        Raises:
            PathBlocked: Something stands there that is not to be replaced.
        """
        session_id = document.record.session_id
        stem = self._names.stem_for(session_id)
        self._raise_if_blocked(stem, session_id)
        self._make_way(session_id)
        target = self._path(stem)
        status = self._fs.status(target)
        if status is not None and not stat.S_ISREG(status.st_mode):
            raise PathBlocked(f"{target.name} is no file", session_id=session_id, path=target)
        return stem

    def _make_way(self, session_id: str) -> None:
        """Have the folder of its namespace there, durably, and marked as the store's own.

        Raises:
            PathBlocked: Something else stands there.
            OSError: As the system said.
        """
        namespace = namespace_of(session_id)
        if not namespace:
            return
        folder = self._layout.folder_of(namespace)
        status = self._fs.status(folder)
        if status is None:
            self._make_durably(folder)
        elif not stat.S_ISDIR(status.st_mode):
            # A link neither: what it leads to may be anybody's.
            text = f"{folder.name} is no folder, and no namespace then"
            raise PathBlocked(text, session_id=session_id, path=folder)
        elif self._identity is not None and status.st_dev != self._identity[0]:
            text = f"{folder.name} lies on another file system than the store"
            raise PathBlocked(text, session_id=session_id, path=folder)
        if not self._is_own(namespace):
            if status is not None:
                self._fs.sync_folder(self._layout.sessions)  # whoever has made it may not have
            if self._fs.status(self._layout.namespaces) is None:
                self._make_durably(self._layout.namespaces)
            self._make_durably(self._layout.namespaces / namespace)
            self._marked.add(namespace)

    def _make_durably(self, folder: Path) -> None:
        self._fs.make_folder(folder)
        try:
            self._fs.sync_folder(folder.parent)
        except OSError:
            # Another sync of it would prove nothing; the next try is to make it anew.
            with contextlib.suppress(OSError):
                self._fs.remove_folder(folder)
            raise

    def _settle_marks(self) -> None:
        """Make the marks durable that a killed process may have left."""
        marks = self._layout.namespaces
        if self._fs.status(marks) is None:
            return
        try:
            self._fs.sync_folder(marks)
            self._fs.sync_folder(self._layout.private)
        except OSError as error:  # no session depends on it
            self._tell("ignored", marks, f"could not be synced: {error}")

    def _sync_folders(self, keys: Iterable[str]) -> None:
        """Make the names of session files durable: of all in the folders of these sessions."""
        self._fs.sync_folder(self._layout.sessions)
        for namespace in sorted({namespace_of(key) for key in keys} - {""}):
            folder = self._layout.folder_of(namespace)
            if self._fs.status(folder) is not None:  # else a person has removed it
                self._fs.sync_folder(folder)

    def _new_temporary(self) -> Path:
        return self._temporaries / f"{self._run}-{next(self._numbers)}.tmp"

    def _remove_temporary(self, path: Path) -> bool:
        try:
            self._fs.unlink(path)
        except FileNotFoundError:
            return False  # a sweep was faster
        except OSError as error:  # the next recovery sweeps again
            self._tell("ignored", path, f"could not be removed: {error}")
            return False
        return True

    def _publish(self, staged: Staged) -> None:
        """Rename a temporary to the session's file; what it replaces is kept.

        Raises:
            OSError: As the system said; the file is as it was.
        """
        target = self._path(staged.stem)
        record = staged.document.record
        self._make_way(record.session_id)
        if not self._keep_edit_aside(staged.stem, target, record.lsn):
            self._back_up(staged.stem, target)
        self._fs.replace(staged.temporary, target)
        self._enter(staged.stem, Known(record, staged.signature))
        self._kept_aside.pop(staged.stem, None)

    def _back_up(self, stem: str, target: Path) -> None:
        known = self._files.get(stem)
        if known is None:
            return
        try:
            self._backups.keep(stem, target, known.record)
        except OSError as error:  # a backup is no reason to refuse the change
            self._tell("ignored", target, f"no backup was kept: {error}")

    def _move_to_trash(self, stem: str, session_id: str, folder: Path) -> None:
        """Move a session's file and backups into the folder of a removal.

        Raises:
            OSError: As the system said; the session's file moves first.
        """
        target, backups = self._path(stem), self._backups.of(stem)
        if self._fs.status(target) is not None:
            self._fs.replace(target, folder / trash.SESSION)
        if self._fs.status(backups) is not None:
            self._fs.replace(backups, folder / trash.BACKUPS)
        self._backups.forget(stem)
        self._files.pop(stem)
        self._names.release(session_id)

    def _write_absence(self, stem: str, content: Sequence[Chunk]) -> None:
        """Make durable that a session's file is gone, when a sync of that has failed.

        The old place may still hold it on the medium. So it is there again for an instant, whole,
        and its going is written once more.
        """
        path = self._path(stem)
        if self._fs.status(path) is None:
            temporary = self._new_temporary()
            self._fs.write_new(temporary, content)
            self._fs.replace(temporary, path)
            self._fs.unlink(path)
        self._fs.sync_folder(path.parent)

    def _keep_edit_aside(self, stem: str, target: Path, lsn: int) -> bool:
        """Keep what is about to be replaced, if it is not what was last published there."""
        status = self._fs.status(target)
        known = self._files.get(stem)
        if status is None:
            return True
        signature = Signature.of(status)
        if signature == self._kept_aside.get(stem):
            return True
        if known and signature == known.signature:
            return False
        aside = self._backups.keep_edit(stem, target, lsn)
        self._kept_aside[stem] = signature
        self._tell("conflict", target, f"its hand-made version is kept as {aside.name}")
        return True

    # --- recovery ---------------------------------------------------------------------------

    def _sweep(self, keep: Collection[str] = ()) -> int:
        """Remove the temporaries of a dead owner, but for those named."""
        swept = 0
        for entry in list(self._fs.entries(self._layout.temporaries)):
            if entry.is_file(follow_symlinks=False) and entry.name not in keep:
                swept += self._remove_temporary(self._layout.temporaries / entry.name)
        return swept

    def undeleted(self, session_id: str) -> None:
        """Give a session the backups that lie in the trash with it. See `Backend.undeleted`."""
        stem, folder = self._names.find(session_id), self._trash.backups_of(session_id)
        if stem is None or folder is None:
            return
        try:
            self._backups.take_over(stem, folder)
        except OSError as error:
            self._tell("ignored", folder, f"its backups stay in the trash: {error}", session_id)

    def purge(self, before: datetime) -> list[str]:
        """Remove for good what was trashed before that instant.

        Raises:
            StorageFailed: The medium refused; what is left is tried again the next time.
        """
        try:
            return self._trash.purge(before)
        except OSError as error:
            raise StorageFailed(f"the trash was not purged: {error}") from error

    def erase(self, session_id: str, lsn: int) -> Erased:
        """Leave no byte of a session. See `Backend.erase`."""
        del lsn
        self._check_identity()
        stems = {
            stem
            for stem in (plain_stem(session_id), hashed_stem(session_id))
            if self._names.owner(stem) in (None, session_id)
        }
        try:
            erased = Eraser(self._fs, self._layout, session_id, stems).erase()
        except OSError as error:
            raise CommitUncertain(
                f"not all of it could be erased: {error}",
                session_id=session_id,
                path=self._layout.root,
            ) from error
        for stem in stems:
            self._backups.forget(stem)
            self._files.pop(stem)
            self._blocked.pop(stem, None)
            self._kept_aside.pop(stem, None)
        self._names.release(session_id)
        return erased

    def _set_aside(self, problems: Sequence[Problem], staying: Container[Path] = ()) -> None:
        """Bring what cannot be read to the quarantine, and report the rest.

        Args:
            problems: What was found.
            staying: Files that keep their names until another version replaces them, or
                `_take_away` is called: a process that is killed before finds them again.
        """
        for problem in problems:
            if problem.kind in _QUARANTINED and self._repairs:
                self._move_to_quarantine(problem, stays=problem.path in staying)
            elif problem.kind not in _TOLD:
                self._tell("ignored", problem.path, f"{problem.kind}: {problem.detail}")

    def _move_to_quarantine(self, problem: Problem, *, stays: bool = False) -> None:
        """Move a file that cannot be read out of the way, with a note that says why."""
        why = (problem.path, problem.kind, problem.detail)
        try:
            if stays:
                signature = Signature.of(problem.path.lstat())
                aside = self._quarantine.keep(*why)
                self._kept_aside[self._stem_at(problem.path)] = signature
            else:
                aside = self._quarantine.take(*why)
        except FileNotFoundError:
            return  # somebody took it away meanwhile
        except OSError as error:
            # It stays where it is, blocked; it is neither used nor replaced.
            self._tell("ignored", problem.path, f"{problem.detail}; not moved: {error}")
            return
        self._blocked.pop(self._stem_at(problem.path), None)
        self._tell("quarantined", problem.path, f"{problem.detail}; now {aside.name}")

    def _take_away(self, path: Path) -> None:
        """Remove a damaged file that stayed, unless something has replaced it."""
        kept, status = self._kept_aside.pop(self._stem_at(path), None), self._fs.status(path)
        if kept is None or status is None or Signature.of(status) != kept:
            return
        try:
            self._fs.unlink(path)
        except OSError as error:
            self._tell("ignored", path, f"could not be removed: {error}")

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
        kind: EventKind,
        path: Path,
        detail: str,
        session_id: str | None = None,
    ) -> None:
        self._on_event(Event.of(kind, session_id, detail, path))
