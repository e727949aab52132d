"""File systems in images: mounted over loop devices, shut down as a power cut would do it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from sessionkeeper.testing import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Kind = Literal["ext4", "xfs", "btrfs"]

_SHUTDOWN: Final = 0x8004587D
_WITHOUT_LOG_FLUSH: Final = 2
_MAKE: Final[dict[Kind, list[str]]] = {
    "ext4": ["mkfs.ext4", "-q", "-F", "-O", "has_journal"],
    "xfs": ["mkfs.xfs", "-q", "-f"],
    "btrfs": ["mkfs.btrfs", "-q", "-f", "-M"],
}
# The smallest that their makers agree to.
_LEAST: Final[dict[Kind, int]] = {"ext4": 16, "xfs": 300, "btrfs": 64}
PROGRAMS: Final[dict[Kind, str]] = {
    "ext4": "mkfs.ext4:e2fsprogs",
    "xfs": "mkfs.xfs:xfsprogs",
    "btrfs": "mkfs.btrfs:btrfs-progs",
}


@dataclass(frozen=True)
class Image:
    """A file system in a file.

    Attributes:
        file: The image.
        folder: Where it is mounted.
    """

    file: Path
    folder: Path

    def mount(self) -> None:
        """Mount it; the file system replays its own log."""
        _run("mount", "-o", "loop", str(self.file), str(self.folder))

    def unmount(self) -> None:
        """Unmount it."""
        _unmount(self.folder)

    def shut_down(self) -> None:
        """Stop the file system at once: nothing that is not on the medium gets there any more."""
        if not os.path.ismount(self.folder) or self.folder.samefile("/"):
            raise AssertionError(f"{self.folder} is no image of ours")
        descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, _SHUTDOWN, struct.pack("i", _WITHOUT_LOG_FLUSH))
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def image(kind: Kind, place: Path, megabytes: int = 0) -> Iterator[Image]:
    """A new file system, mounted.

    Args:
        kind: Which.
        place: A folder for the image and its mount point.
        megabytes: Its size; the least possible unless given.
    """
    made = Image(place / f"{kind}.img", place / kind)
    made.folder.mkdir()
    with made.file.open("wb") as file:
        file.truncate(max(megabytes, _LEAST[kind]) << 20)
    _run(*_MAKE[kind], str(made.file))
    made.mount()
    try:
        yield made
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):
            made.unmount()


@contextlib.contextmanager
def memory(place: Path, size: str) -> Iterator[Path]:
    """A file system in memory with so much room."""
    place.mkdir()
    _run("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place))
    try:
        yield place
    finally:
        _unmount(place)


def _unmount(folder: Path) -> None:
    """Unmount, as soon as nobody uses it: a thread may be stuck in a call to a disk that fails."""

    def done() -> bool:
        try:
            _run("umount", str(folder))
        except subprocess.CalledProcessError as error:
            if b"busy" not in error.stderr:
                raise
            return False
        return True

    wait_until(done, timeout=30)


def _run(*command: str) -> None:
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    subprocess.run(
        command,
        check=True,
        capture_output=True,
        env={**os.environ, "PATH": path},
    )
