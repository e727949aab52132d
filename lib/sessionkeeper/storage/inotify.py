"""The kernel's notices of what happens in a folder: inotify(7), as Linux has it.

They are left where they are, in the kernel, until somebody reads them all in one go. A store that
saves a thousand sessions a second causes as many notices of its own; whoever takes each as it
comes has a thread woken for each, and the threads that save wait for that one.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import struct
import sys
from typing import TYPE_CHECKING, Final

from sessionkeeper.fixed import fixed

if TYPE_CHECKING:
    from pathlib import Path

_MODIFY: Final = 0x2
_ATTRIBUTES: Final = 0x4
_CLOSE_WRITE: Final = 0x8
_MOVED_FROM: Final = 0x40
_MOVED_TO: Final = 0x80
_CREATE: Final = 0x100
_DELETE: Final = 0x200
_OVERFLOW: Final = 0x4000
_ONLY_FOLDERS: Final = 0x1000000
_IS_FOLDER: Final = 0x40000000
# Not of reading: each load would cause two.
_CHANGES: Final = _MODIFY | _ATTRIBUTES | _CLOSE_WRITE
_ENTRIES: Final = _CREATE | _DELETE | _MOVED_FROM | _MOVED_TO

_HEAD: Final = struct.Struct("iIII")
# Well over a thousand notices; what is left is read the next time.
_READ: Final = 64 * 1024


def _system() -> ctypes.CDLL | None:
    if sys.platform != "linux":
        return None
    system = ctypes.CDLL(None, use_errno=True)
    return system if hasattr(system, "inotify_init1") else None


_SYSTEM: Final = _system()
AVAILABLE: Final = _SYSTEM is not None


@fixed
class Notice:
    """What the kernel says of one entry of a folder.

    Attributes:
        watch: The number of the watch; see `Inotify.watch`.
        name: The name of the entry.
        is_folder: Whether it is a folder.
        went: Whether it is not there any more, under that name.
    """

    watch: int
    name: str
    is_folder: bool
    went: bool


class Inotify:
    """Watches folders, not what lies below their folders.

    One thread waits, any other one watches and reads.

    Raises:
        OSError: The system has no inotify, or allows no more of them.
    """

    def __init__(self) -> None:
        self._descriptor = _call("inotify_init1", os.O_NONBLOCK | os.O_CLOEXEC)
        self._stopped = os.eventfd(0)
        self._epoll = select.epoll()
        self._epoll.register(self._stopped, select.EPOLLIN)
        self._epoll.register(self._descriptor, select.EPOLLIN | select.EPOLLONESHOT)

    def watch(self, folder: Path) -> int:
        """Give notice of the entries of a folder from now on.

        Returns:
            The number by which notices name it. It is never used again for another one.

        Raises:
            OSError: It is not there, is no folder, or the system allows no more.
        """
        mask = _CHANGES | _ENTRIES | _ONLY_FOLDERS
        return _call("inotify_add_watch", self._descriptor, os.fsencode(folder), mask)

    def unwatch(self, watch: int) -> None:
        """Give no more notice of a folder; it may be gone."""
        try:
            _call("inotify_rm_watch", self._descriptor, watch)
        except OSError as error:
            if error.errno != errno.EINVAL:  # the kernel let go of it with the folder
                raise

    def wait(self) -> bool:
        """Return when there is something to read, once until it is read.

        Returns:
            Whether to go on: False after `stop`.
        """
        return self._stopped not in [descriptor for descriptor, _ in self._epoll.poll()]

    def stop(self) -> None:
        """Have `wait` return False."""
        os.eventfd_write(self._stopped, 1)

    def read(self) -> tuple[list[Notice], bool]:
        """Take what is there, without waiting, and let `wait` tell of what comes.

        Returns:
            The notices, oldest first, and whether some were lost.
        """
        try:
            data = os.read(self._descriptor, _READ)
        except BlockingIOError:
            data = b""
        self._epoll.modify(self._descriptor, select.EPOLLIN | select.EPOLLONESHOT)
        return _parse(data)

    def close(self) -> None:
        """Let go of it; nobody waits any more."""
        self._epoll.close()
        os.close(self._stopped)
        os.close(self._descriptor)


def _call(name: str, *arguments: int | bytes) -> int:
    if _SYSTEM is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    result: int = getattr(_SYSTEM, name)(*arguments)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def _parse(data: bytes) -> tuple[list[Notice], bool]:
    notices: list[Notice] = []
    lost = False
    position = 0
    while position < len(data):
        watch, mask, _, length = _HEAD.unpack_from(data, position)
        position += _HEAD.size
        name = os.fsdecode(data[position : position + length].rstrip(b"\0"))
        position += length
        lost = lost or bool(mask & _OVERFLOW)
        if name:
            went = bool(mask & (_DELETE | _MOVED_FROM))
            notices.append(Notice(watch, name, bool(mask & _IS_FOLDER), went))
    return notices, lost
