"""Notices every sync that the medium refuses, whoever asked for it."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sessionkeeper.storage.platform import FileSystem

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from sessionkeeper.session import Chunk
    from sessionkeeper.storage.platform import Signature


class WatchedSyncs(FileSystem):
    """Another file system, with a count of the syncs that failed.

    A kernel reports what it could not write to one caller, once, and takes the pages for clean
    from then on. So a later sync that succeeds says nothing of what was unsynced before: whoever
    relies on one compares the count with what it was when the bytes were written.

    Attributes:
        refused: How many syncs have failed.
    """

    def __init__(self, inner: FileSystem) -> None:
        self._inner = inner
        self._lock = threading.Lock()
        self.refused = 0

    @contextmanager
    def _noticed(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise  # it was removed meanwhile: there is nothing that could be lost
        except OSError:
            with self._lock:
                self.refused += 1
            raise

    def sync(self, descriptor: int) -> None:
        """See `FileSystem`."""
        with self._noticed():
            self._inner.sync(descriptor)

    def sync_data(self, descriptor: int) -> None:
        """See `FileSystem`."""
        with self._noticed():
            self._inner.sync_data(descriptor)

    def sync_files(self, folder: Path, paths: Sequence[Path]) -> None:
        """See `FileSystem`."""
        with self._noticed():
            self._inner.sync_files(folder, paths)

    def sync_folder(self, path: Path) -> None:
        """See `FileSystem`."""
        with self._noticed():
            self._inner.sync_folder(path)

    # --- all else is left to the other one ------------------------------------------------------

    def make_folder(self, path: Path) -> None:
        """See `FileSystem`."""
        self._inner.make_folder(path)

    def begin_new(self, path: Path, chunks: Sequence[Chunk]) -> int:
        """See `FileSystem`."""
        return self._inner.begin_new(path, chunks)

    def start_writeback(self, descriptor: int) -> None:
        """See `FileSystem`."""
        self._inner.start_writeback(descriptor)

    def open_blank(self, path: Path) -> int:
        """See `FileSystem`."""
        return self._inner.open_blank(path)

    def write_at(self, descriptor: int, chunks: Sequence[Chunk], offset: int) -> None:
        """See `FileSystem`."""
        self._inner.write_at(descriptor, chunks, offset)

    def replace(self, source: Path, target: Path) -> None:
        """See `FileSystem`."""
        self._inner.replace(source, target)

    def link(self, source: Path, target: Path) -> None:
        """See `FileSystem`."""
        self._inner.link(source, target)

    def unlink(self, path: Path) -> None:
        """See `FileSystem`."""
        self._inner.unlink(path)

    def remove_folder(self, path: Path) -> None:
        """See `FileSystem`."""
        self._inner.remove_folder(path)

    def status(self, path: Path) -> os.stat_result | None:
        """See `FileSystem`."""
        return self._inner.status(path)

    def read(self, path: Path) -> tuple[list[bytes], Signature]:
        """See `FileSystem`."""
        return self._inner.read(path)

    def entries(self, folder: Path) -> Iterator[os.DirEntry[str]]:
        """See `FileSystem`."""
        return self._inner.entries(folder)
