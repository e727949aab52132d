"""Erasing: every byte of one session goes, wherever in the store's folder it may lie."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING, Any, Final

import orjson

from sessionkeeper.answers import Erased
from sessionkeeper.keys import namespace_of, split_key
from sessionkeeper.layout import SUFFIX, aside_name
from sessionkeeper.storage.quarantine import NOTE_SUFFIX
from sessionkeeper.storage.trash import read_removal, stem_of

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from sessionkeeper.layout import Layout
    from sessionkeeper.storage.platform import FileSystem

# The id stands at the very beginning of every document.
_HEAD: Final = 4096


class Eraser:
    """Removes what belongs to one session from the folders; the journal is its owner's business.

    Args:
        fs: The file system.
        layout: The folders.
        session_id: The session.
        stems: The file names it may have, without suffix.
    """

    def __init__(
        self,
        fs: FileSystem,
        layout: Layout,
        session_id: str,
        stems: Collection[str],
    ) -> None:
        self._fs = fs
        self._layout = layout
        self._session_id = session_id
        self._stems = stems
        namespace, bare = split_key(session_id)
        self._needle = orjson.dumps(bare)
        # As every document of it begins.
        self._beginning = b'"session_id":%s,"namespace":%s' % (
            self._needle,
            orjson.dumps(namespace),
        )
        self._files = 0
        self._bytes = 0

    def erase(self) -> Erased:
        """Take it all away, durably.

        Returns:
            How many files there were, and their bytes.

        Raises:
            OSError: As the system said; repeating it goes on where it stopped.
        """
        for stem in self._stems:
            self._remove(self._layout.sessions / f"{stem}{SUFFIX}")
            self._remove_folder(self._layout.backups / aside_name(stem))
        erased = self.erase_aside()
        folder = self._layout.folder_of(namespace_of(self._session_id))
        if self._fs.status(folder) is not None:  # of that namespace there may be nothing
            self._fs.sync_folder(folder)
        self._fs.sync_folder(self._layout.backups)
        return erased

    def erase_aside(self) -> Erased:
        """Take away, durably, what lies elsewhere than in its file and its backups.

        Raises:
            OSError: As the system said; repeating it goes on where it stopped.
        """
        self._from_trash()
        self._from_quarantine()
        self._from_temporaries()
        for folder in (self._layout.trash, self._layout.quarantine, self._layout.temporaries):
            self._fs.sync_folder(folder)
        return Erased.of(self._session_id, self._files, self._bytes)

    def _from_trash(self) -> None:
        for folder in self._inside(self._layout.trash):
            removal = read_removal(self._fs, folder)
            named = stem_of(folder) in self._stems
            # Whose removal cannot be read, and has its file name, may be of it.
            if removal.session_id == self._session_id if removal is not None else named:
                self._remove_folder(folder)

    def _from_quarantine(self) -> None:
        """Also parts of the journal that were set aside, if anything of it is in them."""
        for path in self._inside(self._layout.quarantine):
            if path.name.endswith(NOTE_SUFFIX):
                continue
            note = path.with_suffix(NOTE_SUFFIX)
            if self._is_of_it(path, self._read_note(note)):
                self._remove(path)
                self._remove(note)

    def _is_of_it(self, path: Path, note: dict[str, Any]) -> bool:
        single = self._layout.file
        of_many = single is not None and note.get("file") == single.name
        if of_many or note.get("kind") == "journal" or "file" not in note:
            return self._needle in self._content(path)
        name = str(note["file"])
        return name.endswith(SUFFIX) and name.removesuffix(SUFFIX) in self._stems

    def _read_note(self, path: Path) -> dict[str, Any]:
        try:
            note = orjson.loads(self._content(path))
        except orjson.JSONDecodeError:
            return {}
        return note if isinstance(note, dict) else {}

    def _from_temporaries(self) -> None:
        for path in self._inside(self._layout.temporaries):
            if self._beginning in self._content(path)[:_HEAD]:
                self._remove(path)

    def _content(self, path: Path) -> bytes:
        try:
            return b"".join(self._fs.read(path)[0])
        except FileNotFoundError:
            return b""  # whoever used it has removed it

    def _inside(self, folder: Path) -> list[Path]:
        return [folder / entry.name for entry in list(self._fs.entries(folder))]

    def _remove(self, path: Path) -> None:
        status = self._fs.status(path)
        if status is None:
            return
        self._fs.unlink(path)
        self._files += 1
        self._bytes += status.st_size

    def _remove_folder(self, folder: Path) -> None:
        status = self._fs.status(folder)
        if status is None or not stat.S_ISDIR(status.st_mode):
            return
        for path in self._inside(folder):
            inner = self._fs.status(path)
            if inner is not None and stat.S_ISDIR(inner.st_mode):
                self._remove_folder(path)
            else:
                self._remove(path)
        self._fs.remove_folder(folder)
