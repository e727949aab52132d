"""Plain tar archives as streams: one file after the other, and nothing else in them.

What `tar` can do beyond that (links, devices, sparse files, extended headers) is refused, so no
entry can point anywhere, and nothing is ever held but the entry at hand.
"""

from __future__ import annotations

import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Final, Protocol

from sessionkeeper.errors import ImportRefused
from sessionkeeper.transfer.reading import refusing_failures

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from sessionkeeper.session import Chunk

MAGIC: Final = b"ustar"
MAGIC_AT: Final = 257
_STEP: Final = 1024 * 1024
_LATEST: Final = 8**11 - 1  # what the field of the time can hold


class Stream(Protocol):
    """Something to read from."""

    def read(self, size: int, /) -> bytes:
        """The next bytes, at most so many; none at the end."""
        ...


def write_entry(file: BinaryIO, name: str, size: int, chunks: Iterable[Chunk], time: float) -> None:
    """Write one file into an archive.

    Args:
        file: Where to.
        name: Its name.
        size: Bytes of all chunks together.
        chunks: Its content.
        time: When it was changed, in seconds since 1970.
    """
    info = tarfile.TarInfo(name)
    info.size = size
    info.mode = 0o600
    info.mtime = max(0, min(int(time), _LATEST))
    file.write(info.tobuf(tarfile.USTAR_FORMAT))
    file.writelines(chunks)
    file.write(bytes(-size % tarfile.BLOCKSIZE))


def write_end(file: BinaryIO) -> None:
    """Write what ends an archive."""
    file.write(bytes(2 * tarfile.BLOCKSIZE))


@dataclass(slots=True)
class Entry:
    """One file of an archive that is being read.

    Attributes:
        name: Its name, as the archive has it; not to be used as a path.
        size: Its bytes.
        left: How many of them have not been read.
    """

    name: str
    size: int
    left: int
    _archive: Archive

    def read(self, size: int) -> bytes:
        """The next bytes; fewer than asked for only at the end."""
        data = self._archive.exactly(min(size, self.left))
        self.left -= len(data)
        return data


class Archive:
    """An archive that is read from its beginning to its end."""

    def __init__(self, stream: Stream, path: Path, max_bytes: int) -> None:
        self._stream = stream
        self._path = path
        self._left = max_bytes

    def __iter__(self) -> Iterator[Entry]:
        """The entries; what is left of one is passed over when the next is asked for.

        Raises:
            ImportRefused: Something in it is no plain file, it is damaged or cut, or there is
                more of it than allowed.
        """
        while (block := self.exactly(tarfile.BLOCKSIZE)).strip(b"\0"):
            entry = self._entry(block)
            padding = -entry.size % tarfile.BLOCKSIZE
            yield entry
            while entry.left:
                entry.read(_STEP)
            self.exactly(padding)
        self._check_end()

    def exactly(self, size: int) -> bytes:
        """The next bytes, so many and no less."""
        if size > self._left:
            raise self.refusal("it holds more than is allowed")
        self._left -= size
        data = self._some(size)
        while len(data) < size:
            more = self._some(size - len(data))
            if not more:
                raise self.refusal("it is cut off")
            data += more
        return data

    def _some(self, size: int) -> bytes:
        with refusing_failures(self._path):
            return self._stream.read(size)

    def refusal(self, reason: str) -> ImportRefused:
        """The error for something in it."""
        return ImportRefused(f"{self._path}: {reason}", path=self._path)

    def _entry(self, block: bytes) -> Entry:
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except (tarfile.HeaderError, ValueError) as error:
            raise self.refusal(f"no entry of an archive: {error}") from error
        if info.type != tarfile.REGTYPE or info.size < 0:
            raise self.refusal(f"the entry {info.name[:80]!r} is no plain file")
        return Entry(info.name, info.size, info.size, self)

    def _check_end(self) -> None:
        while data := self._some(_STEP):
            self._left -= len(data)
            if self._left < 0:
                raise self.refusal("it holds more than is allowed")
            if data.strip(b"\0"):
                raise self.refusal("there is something behind its end")
