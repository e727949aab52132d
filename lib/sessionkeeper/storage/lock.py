"""One owner for each folder, by flock.

flock, not lockf: a POSIX record lock vanishes when any descriptor of the file is closed. A lock
belongs to the open file, so a second store in the same process is refused as well. After a fork
the child shares that open file: it closes its descriptor and never unlocks, or it would keep the
folder locked beyond its parent's death, or free it under the parent's hands.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import sys
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from sessionkeeper.errors import StoreLocked
from sessionkeeper.layout import FILE_MODE

if TYPE_CHECKING:
    from sessionkeeper.clock import Clock
    from sessionkeeper.layout import Layout

LOCK_TABLE = Path("/proc/locks")
"""Where Linux lists the locks of all processes."""

_held: weakref.WeakSet[FolderLock] = weakref.WeakSet()


class FolderLock:
    """The lock on one store's folder, held from `acquire` to `release`."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._descriptor: int | None = None

    def acquire(self, clock: Clock) -> None:
        """Take the lock, or say who has it.

        Raises:
            StoreLocked: Another owner is alive; the error carries what it wrote about itself.
            OSError: As the system said; the lock is free again.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(self._layout.lock, flags, FILE_MODE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise
            holder = read_holder(self._layout)
            who = f"process {holder['pid']} on {holder['host']}" if holder else "another process"
            raise StoreLocked(
                f"the store is owned by {who}",
                path=self._layout.root,
                holder=holder,
            ) from error
        self._descriptor = descriptor
        _held.add(self)
        try:
            self._write_holder(clock)
        except BaseException:
            # What the one before left there stays: it says that the store was not closed.
            self._let_go()
            raise

    def release(self) -> None:
        """Give the lock up; a second call does nothing."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):  # the medium may have become read-only
                self._layout.holder.unlink()
            self._let_go()

    def _let_go(self) -> None:
        _held.discard(self)
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def forget_in_child(self) -> None:
        """After a fork, in the child: close the shared descriptor without unlocking."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def _write_holder(self, clock: Clock) -> None:
        holder = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": clock.now().isoformat(),
            "command": " ".join(sys.argv)[:200],
        }
        temporary = self._layout.temporaries / f"holder-{os.getpid()}.tmp"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(temporary, flags, FILE_MODE)
        with os.fdopen(descriptor, "wb") as file:
            file.write(orjson.dumps(holder, default=str))
        temporary.replace(self._layout.holder)


def read_holder(layout: Layout) -> dict[str, Any]:
    """What the owner wrote about itself; empty if there is none or it cannot be read."""
    try:
        holder = orjson.loads(layout.holder.read_bytes())
    except (OSError, ValueError):
        return {}
    return holder if isinstance(holder, dict) and {"pid", "host"} <= holder.keys() else {}


def owner_of(layout: Layout) -> dict[str, Any]:
    """What the owner of a folder wrote about itself, if it is alive; empty if there is none.

    It takes no lock, not even for a moment: that would be in the way of somebody who opens the
    store just then.
    """
    try:
        inode = layout.lock.stat().st_ino
    except OSError:
        return {}
    holder = read_holder(layout)
    return holder if holder and _is_locked(inode, holder) else {}


def _is_locked(inode: int, holder: dict[str, Any]) -> bool:
    try:
        table = LOCK_TABLE.read_text()
    except OSError:
        return holder["host"] == socket.gethostname() and _is_running(holder["pid"])
    locks = (line.split() for line in table.splitlines())
    # One line: number, kind, mode, type, process, device:device:inode, and the range.
    return any(
        fields[1] == "FLOCK" and fields[5].rpartition(":")[2] == str(inode) for fields in locks
    )


def _is_running(pid: object) -> bool:
    try:
        os.kill(int(str(pid)), 0)
    except PermissionError:
        return True
    except (OSError, ValueError, OverflowError):
        return False
    return True


def _forget_all() -> None:
    for lock in list(_held):
        lock.forget_in_child()


os.register_at_fork(after_in_child=_forget_all)
