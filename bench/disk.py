"""Where the rounds that write take place: on a new file system of its own, where that can be had.

The file system that happens to hold a folder may have no journal, be nearly full, or be slow
since thousands of files were removed from it. So where this process may mount one, every run of
peers gets an ext4 image made for it, with a journal, as most users' disks have it.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import TYPE_CHECKING, Protocol

from bench.machine import file_system

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

GIB = 2**30
_TOOLS = ("mkfs.ext4", "mount", "umount")

# An image takes room only for what is written to it; others need some of that room too.
_SHARE = 2
_LEAST = GIB


class Disk(Protocol):
    """A place for folders."""

    @property
    def description(self) -> str:
        """What file system it is, in words."""
        ...

    def fresh(self, *, large: bool = False) -> AbstractContextManager[Path]:
        """An empty folder.

        Args:
            large: Whether so much will be in it that its room must be free again afterwards.
        """
        ...


class Here:
    """Folders in a folder.

    What was written stays until the folder goes: removing many files would slow down what is
    measured next.

    Args:
        folder: It exists.
        reason: Why there is no image, for the description.
    """

    def __init__(self, folder: Path, reason: str = "no image") -> None:
        self._folder = folder
        self._reason = reason

    @property
    def description(self) -> str:
        """See `Disk.description`."""
        return f"{file_system(self._folder)} ({self._reason})"

    @contextmanager
    def fresh(self, *, large: bool = False) -> Iterator[Path]:
        """See `Disk.fresh`."""
        made = Path(mkdtemp(dir=self._folder))
        try:
            yield made
        finally:
            if large:
                shutil.rmtree(made)


class Image:
    """File systems made for the purpose, each in a file.

    Args:
        folder: Where the files of the images lie, one at a time; it exists.
        size: How large each of them is; only what is written to it takes room.

    Raises:
        subprocess.CalledProcessError: It cannot be made, or not be mounted.
    """

    def __init__(self, folder: Path, size: int) -> None:
        self._folder = folder
        self._size = size
        with self.fresh() as made:
            inside = file_system(made)
        outside = file_system(folder)
        self.description = f"{inside}, an image of {size / GIB:.0f} GiB on {outside}"

    @contextmanager
    def fresh(self, *, large: bool = False) -> Iterator[Path]:
        """See `Disk.fresh`: the top folder of a new file system."""
        del large  # all of it goes in any case
        with TemporaryDirectory(prefix="image-", dir=self._folder) as made:
            image, point = Path(made) / "ext4", Path(made) / "mounted"
            with image.open("wb") as file:
                file.truncate(self._size)
            # All at once: else the kernel would go on with it during the first rounds.
            now = "lazy_itable_init=0,lazy_journal_init=0,nodiscard"
            _run("mkfs.ext4", "-q", "-F", "-m", "0", "-O", "has_journal", "-E", now, image)
            point.mkdir()
            try:
                _run("mount", "-t", "ext4", "-o", "loop", image, point)
                work = point / "work"
                work.mkdir()
                yield work
            finally:
                _unmount(point)


def choose(folder: Path, wanted: int, *, here: bool) -> Disk:
    """An image if there can be one, else the folder itself.

    Args:
        folder: It exists.
        wanted: How large an image should be.
        here: Whether no image is wanted.
    """
    reason = "no image: not wanted" if here else _reason_against(folder)
    if reason is None:
        try:
            return Image(folder, min(wanted, _room(folder)))
        except subprocess.CalledProcessError as error:
            detail = str(error.stderr).strip().splitlines()[-1:] or [str(error)]
            reason = f"no image: {detail[0]}"
    return Here(folder, reason)


def _reason_against(folder: Path) -> str | None:
    if sys.platform != "linux":
        return "no image: only on Linux"
    if os.geteuid() != 0:
        return "no image: only root can mount one"
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if missing:
        return f"no image: there is no {missing[0]}"
    if _room(folder) < _LEAST:
        return "no image: the disk is nearly full"
    return None


def _room(folder: Path) -> int:
    return shutil.disk_usage(folder).free // _SHARE


def settle(folder: Path) -> None:
    """Have what was written reach the medium, so that no round pays for the one before it.

    What peers without fsync left in memory would otherwise be written while others sync.
    """
    syncfs = getattr(ctypes.CDLL(None), "syncfs", None)
    if syncfs is None:
        os.sync()
        return
    # Not of the whole machine: others may have much to write.
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        syncfs(descriptor)
    finally:
        os.close(descriptor)


def _unmount(point: Path) -> None:
    with _undisturbed():
        if not point.is_mount():
            return
        try:
            _run("umount", point)
        except subprocess.CalledProcessError:
            # A peer that failed may hold on to a file. It goes when that is closed.
            _run("umount", "--lazy", point)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Let nobody interrupt this: the mount would outlive the process."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    signals = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _run(*command: str | Path) -> None:
    # A session of its own: Ctrl-C is for us, who clean up.
    subprocess.run(  # noqa: S603 - the tools of `_TOOLS` on paths of our own
        command,
        check=True,
        capture_output=True,
        encoding="utf-8",
        start_new_session=True,
    )
