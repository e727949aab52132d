"""A file system that notes every operation for `simdisk`, and fails where it is told to."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from simdisk import (
    Disk,
    MakeFile,
    MakeFolder,
    Mark,
    Move,
    SetName,
    SyncFile,
    SyncFolder,
    Write,
)

from sessionkeeper.layout import FOLDER_MODE
from sessionkeeper.storage.platform import FileSystem

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from simdisk import Operation

    from sessionkeeper.session import Chunk


class RecordingFileSystem(FileSystem):
    """The real file system below one folder, with a log; nothing is really synced.

    Args:
        top: The folder; what is in it now is what `disk` shows while the machine is up.
        disk: The disk before the log.
    """

    def __init__(self, top: Path, disk: Disk | None = None) -> None:
        self.top = top
        self.disk = disk or Disk()
        self.log: list[Operation] = []
        self.lock = threading.RLock()
        # Says of a sync, by its name and path, whether the medium refuses it.
        self.refuses: Callable[[str, Path | None], bool] = lambda _, __: False
        self._nodes = self.disk.nodes()
        self._next = max(self._nodes.values()) + 1
        self._open: dict[int, tuple[int, Path]] = {}

    def mark(self, what: object) -> None:
        """Note something that happened above the disk."""
        with self.lock:
            self.log.append(Mark(what))

    def _key(self, path: Path) -> str:
        key = str(path.relative_to(self.top))
        return "" if key == "." else key

    def _node(self, path: Path) -> int:
        return self._nodes[self._key(path)]

    def _new(self, path: Path) -> int:
        self._next += 1
        self._nodes[self._key(path)] = self._next
        return self._next

    # --- files ------------------------------------------------------------------------------

    def make_folder(self, path: Path) -> None:
        """See `FileSystem`."""
        with self.lock:
            if not path.parent.is_dir():
                self.make_folder(path.parent)
            try:
                path.mkdir(mode=FOLDER_MODE)
            except FileExistsError:
                return
            self.log.append(MakeFolder(self._new(path), self._node(path.parent), path.name))

    def begin_new(self, path: Path, chunks: Sequence[Chunk]) -> int:
        """See `FileSystem`."""
        with self.lock:
            descriptor = super().begin_new(path, chunks)
            node = self._new(path)
            self._open[descriptor] = node, path
            self.log.append(MakeFile(node, self._node(path.parent), path.name))
            self.log.append(Write(node, 0, b"".join(chunks)))
            return descriptor

    def start_writeback(self, descriptor: int) -> None:
        """Nothing is begun."""

    def sync(self, descriptor: int) -> None:
        """See `FileSystem`."""
        with self.lock:
            node, path = self._open[descriptor]
            self._sync(SyncFile(node), "sync", path)

    def sync_files(self, folder: Path, paths: Sequence[Path]) -> None:
        """See `FileSystem`; only what was named is taken to be durable."""
        with self.lock:
            for path in paths:
                if path.exists():
                    self._sync(SyncFile(self._node(path)), "sync_files", path)

    def open_blank(self, path: Path) -> int:
        """See `FileSystem`."""
        with self.lock:
            descriptor = super().open_blank(path)
            self._open[descriptor] = self._node(path), path
            return descriptor

    def write_at(self, descriptor: int, chunks: Sequence[Chunk], offset: int) -> None:
        """See `FileSystem`."""
        with self.lock:
            super().write_at(descriptor, chunks, offset)
            node, _ = self._open[descriptor]
            self.log.append(Write(node, offset, b"".join(chunks), in_place=True))

    def sync_data(self, descriptor: int) -> None:
        """See `FileSystem`."""
        with self.lock:
            node, path = self._open[descriptor]
            self._sync(SyncFile(node, data_only=True), "sync_data", path)

    # --- names ------------------------------------------------------------------------------

    def replace(self, source: Path, target: Path) -> None:
        """See `FileSystem`."""
        with self.lock:
            super().replace(source, target)
            old, new = self._key(source), self._key(target)
            node = self._nodes[old]
            inner = [key for key in self._nodes if key == old or key.startswith(f"{old}/")]
            for key in inner:
                self._nodes[new + key[len(old) :]] = self._nodes.pop(key)
            folders = self._node(source.parent), self._node(target.parent)
            self.log.append(Move(folders[0], source.name, folders[1], target.name, node))

    def link(self, source: Path, target: Path) -> None:
        """See `FileSystem`."""
        with self.lock:
            super().link(source, target)
            node = self._nodes[self._key(target)] = self._node(source)
            self.log.append(SetName(self._node(target.parent), target.name, node))

    def unlink(self, path: Path) -> None:
        """See `FileSystem`."""
        with self.lock:
            super().unlink(path)
            self._removed(path)

    def remove_folder(self, path: Path) -> None:
        """See `FileSystem`."""
        with self.lock:
            super().remove_folder(path)
            self._removed(path)

    def _removed(self, path: Path) -> None:
        # What the folder's lock wrote past this object was never noted.
        if self._nodes.pop(self._key(path), None) is not None:
            self.log.append(SetName(self._node(path.parent), path.name, None))

    def sync_folder(self, path: Path) -> None:
        """See `FileSystem`."""
        with self.lock:
            if path.is_relative_to(self.top):
                self._sync(SyncFolder(self._node(path)), "sync_folder", path)

    def _sync(self, done: SyncFile | SyncFolder, name: str, path: Path) -> None:
        if self.refuses(name, path):
            if isinstance(done, SyncFile):
                self.log.append(SyncFile(done.node, done.data_only, failed=True))
            else:
                self.log.append(SyncFolder(done.node, failed=True))
            raise OSError(5, os.strerror(5), str(path))
        self.log.append(done)
