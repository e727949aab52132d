"""The file system, as one object that can be replaced by a faulty one.

Every byte the store writes goes through `FileSystem.begin_new`, and every name it changes
through `replace`, `link` or `unlink`. Differences between systems stay in here.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
import threading
import time
from itertools import islice
from typing import TYPE_CHECKING, Final, cast

from sessionkeeper.fixed import fixed
from sessionkeeper.layout import FILE_MODE, FOLDER_MODE
from sessionkeeper.slices import SLICE, Pace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from sessionkeeper.session import Chunk

IOV_MAX = 1024
# From so many files on, one sync of the whole file system is faster than one for each.
_MANY_FILES = 8
# So much is asked for at least, for a file may have grown since its size was looked at.
_LEAST_READ = 64 * 1024
# A session file is read whole; more than this is no session (a gigabyte of JSON).
MAX_FILE_BYTES = 1024**3
# The finest times that every system we care for keeps (NTFS: a tenth of it).
_STAMP_NS = 1000


@fixed
class Signature:
    """What tells one content of a path from another without reading it.

    Never ctime: our own links change it. No two files that a store writes are alike in it: the
    system may give a new file the number of one that was just removed, and the same time within
    a few milliseconds, so each is given a time of its own (`FileSystem.begin_new`).
    """

    inode: int
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Signature:
        """The signature of a file with that status."""
        return cls(status.st_ino, status.st_size, status.st_mtime_ns)


class NotRegularError(OSError):
    """The path is a folder, a link, a pipe, a socket or a device."""


class FileSystem:
    """The operations the store needs, on the real file system."""

    def make_folder(self, path: Path) -> None:
        """Create a folder for the owner only, with its parents; one that exists is left as is."""
        if not path.parent.is_dir():
            self.make_folder(path.parent)
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=FOLDER_MODE)

    def write_new(self, path: Path, chunks: Sequence[Chunk]) -> Signature:
        """Write a file that did not exist, readable by the owner only; its bytes are durable.

        Its name is not: that takes `sync_folder`.

        Returns:
            The signature, which stays with the file when it is renamed.

        Raises:
            OSError: As the system said; the file is removed again.
        """
        descriptor = self.begin_new(path, chunks)
        try:
            return self.finish_new(descriptor)
        except BaseException:
            with contextlib.suppress(OSError):
                path.unlink()
            raise

    def begin_new(self, path: Path, chunks: Sequence[Chunk]) -> int:
        """Write a file that did not exist; it is not durable yet.

        Returns:
            The open descriptor, for `finish_new`.

        Raises:
            OSError: As the system said; the file is removed again.
        """
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
        try:
            _write_all(descriptor, chunks)
        except BaseException:
            os.close(descriptor)
            with contextlib.suppress(OSError):
                path.unlink()
            raise
        _stamp(descriptor)
        return descriptor

    def write_unsynced(self, path: Path, chunks: Sequence[Chunk]) -> Signature:
        """Write a file that did not exist; its bytes become durable with `sync_files`.

        Raises:
            OSError: As the system said; the file is removed again.
        """
        descriptor = self.begin_new(path, chunks)
        try:
            return Signature.of(os.fstat(descriptor))
        finally:
            os.close(descriptor)

    def start_writeback(self, descriptor: int) -> None:
        """Let the medium begin with a file, without waiting for it.

        Many files begun before the first is finished are synced much faster than one by one:
        their blocks are on the way when the first sync is asked for.
        """
        if hasattr(os, "posix_fadvise"):
            # On Linux it does just that.
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)

    def finish_new(self, descriptor: int) -> Signature:
        """Make the bytes of a file that was begun durable, and close it in any case."""
        try:
            self.sync(descriptor)
            return Signature.of(os.fstat(descriptor))
        finally:
            os.close(descriptor)

    def sync(self, descriptor: int) -> None:
        """Make a file's bytes durable. A failure is final for that descriptor: never retried."""
        os.fsync(descriptor)

    def sync_files(self, folder: Path, paths: Sequence[Path]) -> None:
        """Make the bytes of many files of one file system durable; those gone are left out.

        Where the system can sync a whole file system, many files cost little more than one.
        """
        if len(paths) >= _MANY_FILES and _syncfs is not None:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                if _syncfs(descriptor) != 0:
                    number = ctypes.get_errno()
                    raise OSError(number, os.strerror(number), str(folder))
            finally:
                os.close(descriptor)
            return
        for path in paths:
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            except FileNotFoundError:
                continue
            try:
                self.sync(descriptor)
            finally:
                os.close(descriptor)

    # --- files that are written in place ----------------------------------------------------

    def create_blank(self, path: Path, head: bytes, size: int) -> None:
        """Make a file of `size` bytes, `head` and then zeros, all of it on the medium.

        Later writes into it need no new block, so a full disk cannot refuse them and a sync has
        no metadata to write. Its name takes `sync_folder`.

        Raises:
            OSError: As the system said; the file is removed again.
        """
        zeros = memoryview(bytes(min(size, SLICE)))
        rest = size - len(head)
        chunks: list[Chunk] = [head]
        chunks += [zeros[: min(SLICE, rest - at)] for at in range(0, rest, SLICE)]
        self.write_new(path, chunks)

    def open_blank(self, path: Path) -> int:
        """Open a file made by `create_blank`, to write in it."""
        return os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)

    def rewrite_end(self, path: Path, chunks: Sequence[Chunk], offset: int) -> Signature:
        """Let a file go on with other bytes from there, durably.

        Returns:
            Its signature, which stays with it when it is renamed.

        Raises:
            OSError: As the system said; what stands before `offset` is as it was.
        """
        descriptor = self.open_blank(path)
        try:
            os.ftruncate(descriptor, offset)
            self.write_at(descriptor, chunks, offset)
            _stamp(descriptor)
            self.sync(descriptor)
            return Signature.of(os.fstat(descriptor))
        finally:
            os.close(descriptor)

    def write_at(self, descriptor: int, chunks: Sequence[Chunk], offset: int) -> None:
        """Write in place, whole or with an error that leaves any part of it written."""
        _write_all(descriptor, chunks, offset)

    def sync_data(self, descriptor: int) -> None:
        """Make what was written in place durable. A failure is final, as in `sync`."""
        _fdatasync(descriptor)

    # --- names ------------------------------------------------------------------------------

    def replace(self, source: Path, target: Path) -> None:
        """Rename over whatever is there; atomic, not yet durable."""
        os.replace(source, target)  # noqa: PTH105 - a third of the time, on every save

    def link(self, source: Path, target: Path) -> None:
        """Give a file a second name, without following links."""
        os.link(source, target, follow_symlinks=False)

    def unlink(self, path: Path) -> None:
        """Remove a name."""
        os.unlink(path)  # noqa: PTH108 - as in `replace`

    def remove_folder(self, path: Path) -> None:
        """Remove an empty folder."""
        path.rmdir()

    def sync_folder(self, path: Path) -> None:
        """Make the names in a folder durable."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def status(self, path: Path) -> os.stat_result | None:
        """The status of what stands there, links not followed; None if nothing does."""
        try:
            return os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def read(self, path: Path) -> tuple[list[bytes], Signature]:
        """Read a regular file whole, never following a link and never blocking on a pipe.

        Returns:
            Its bytes in pieces of at most a `SLICE`, for other threads have their turn in
            between; and its signature.

        Raises:
            NotRegularError: It is no regular file.
            OSError: As the system said; EFBIG for more than `MAX_FILE_BYTES`.
        """
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            descriptor = os.open(path, flags)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENXIO, errno.ENODEV):
                raise NotRegularError(error.errno, "not a regular file", str(path)) from error
            raise
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise NotRegularError(errno.EINVAL, "not a regular file", str(path))
            if status.st_size > MAX_FILE_BYTES:
                raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
            return _read_all(descriptor, status.st_size), Signature.of(status)
        finally:
            os.close(descriptor)

    def entries(self, folder: Path) -> Iterator[os.DirEntry[str]]:
        """What stands in a folder, in no order."""
        with os.scandir(folder) as entries:
            yield from entries


class _Stamps:
    """The times of new files: now, and later than any given before."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0

    def next(self) -> int:
        now = time.time_ns() // _STAMP_NS * _STAMP_NS
        with self._lock:
            self._last = max(now, self._last + _STAMP_NS)
            return self._last


_stamps: Final = _Stamps()


def _stamp(descriptor: int) -> None:
    stamp = _stamps.next()
    with contextlib.suppress(OSError):  # a file system without times is no reason to refuse
        os.utime(descriptor, ns=(stamp, stamp))


def _load_syncfs() -> Callable[[int], int] | None:
    """The system's syncfs(2), which Python does not offer; None where there is none."""
    try:
        function = ctypes.CDLL(None, use_errno=True).syncfs
    except (OSError, AttributeError):
        return None
    function.argtypes = [ctypes.c_int]
    function.restype = ctypes.c_int
    return cast("Callable[[int], int]", function)


_syncfs: Final = _load_syncfs()
_fdatasync: Final = getattr(os, "fdatasync", os.fsync)


def _write_all(descriptor: int, chunks: Sequence[Chunk], offset: int | None = None) -> None:
    size = sum(map(len, chunks))
    written = 0
    if size <= SLICE and 0 < len(chunks) <= IOV_MAX:
        written = _write_some(descriptor, chunks, offset)
        if written == size:
            return
    _write_rest(descriptor, chunks, written, offset)


def _write_rest(
    descriptor: int,
    chunks: Sequence[Chunk],
    begun: int,
    offset: int | None,
) -> None:
    """Write what is left after so many bytes, in pieces that one call can take."""
    if offset is not None:
        offset += begun
    pending = list(_sliced(_behind(chunks, begun)))
    done = 0
    while done < len(pending):
        batch = list(_next_batch(pending, done))
        written = _write_some(descriptor, batch, offset)
        if offset is not None:
            offset += written
        for chunk in batch:
            if written < len(chunk):
                break
            written -= len(chunk)
            done += 1
        if written:  # a short write stops anywhere, also inside a chunk
            pending[done] = memoryview(pending[done])[written:]


def _behind(chunks: Iterable[Chunk], begun: int) -> Iterator[Chunk]:
    for chunk in chunks:
        if begun < len(chunk):
            yield memoryview(chunk)[begun:] if begun else chunk
        begun = max(0, begun - len(chunk))


def _sliced(chunks: Iterable[Chunk]) -> Iterator[Chunk]:
    for chunk in chunks:
        if len(chunk) <= SLICE:
            if len(chunk):
                yield chunk
            continue
        view = memoryview(chunk)
        for start in range(0, len(chunk), SLICE):
            yield view[start : start + SLICE]


def _next_batch(pending: Sequence[Chunk], start: int) -> Iterator[Chunk]:
    size = 0
    for chunk in islice(pending, start, start + IOV_MAX):
        size += len(chunk)
        if size > SLICE and size > len(chunk):
            return
        yield chunk


def _write_some(descriptor: int, chunks: Sequence[Chunk], offset: int | None) -> int:
    if offset is None:
        return os.writev(descriptor, chunks)
    return os.pwritev(descriptor, chunks, offset)


def _read_all(descriptor: int, expected: int) -> list[bytes]:
    pieces: list[bytes] = []
    pace = Pace()
    while True:
        piece = os.read(descriptor, min(max(expected, _LEAST_READ), SLICE))
        if not piece:
            return pieces
        pieces.append(piece)
        expected -= len(piece)
        pace.step()
