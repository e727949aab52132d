"""Files of JSON Lines that somebody may still be writing, or died while writing."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

from sessionkeeper.storage.codec import StrictError, decode_strict
from sessionkeeper.transfer.reading import refusing_failures

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import BufferedReader
    from pathlib import Path

MAX_LINE_BYTES: Final = 64 * 1024 * 1024
"""Longer lines are left out."""

_SPACE: Final = b" \t\r\n"
_STEP: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Damage:
    """A line that is no object.

    Attributes:
        line: Its number, from 1.
        torn: Whether the file ends in the middle of it, so that the rest may still come.
        detail: What is wrong with it.
    """

    line: int
    torn: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Object:
    """A line that is an object.

    Attributes:
        line: Its number, from 1.
        value: The object.
        size: Its bytes.
    """

    line: int
    value: dict[str, Any]
    size: int


class Records:
    """The lines of one file, one at a time.

    Attributes:
        offset: What was read for good ends here: whole lines, a torn one is not among them.
        line: The number of the line that begins there.
    """

    def __init__(self, file: BufferedReader, path: Path) -> None:
        self.offset = 0
        self.line = 1
        self._file = file
        self._path = path
        self._digest = blake2b(digest_size=16)

    def digest(self) -> str:
        """The digest of everything down to the offset."""
        return self._digest.hexdigest()

    def skip(self, offset: int) -> bool:
        """Pass over the beginning of the file; whether it is that long."""
        while left := offset - self.offset:
            with refusing_failures(self._path):
                chunk = self._file.read(min(left, _STEP))
            if not chunk:
                return False
            self._take(chunk)
        return True

    def __iter__(self) -> Iterator[Object | Damage]:
        """The lines from the offset on; empty ones are left out.

        Raises:
            ImportRefused: The file cannot be read.
        """
        while raw := self._readline(MAX_LINE_BYTES + 1):
            line = self.line
            found = self._decoded(raw)
            if isinstance(found, Damage) and not raw.endswith(b"\n"):
                if len(raw) > MAX_LINE_BYTES and self._pass_over(raw):
                    yield Damage(line, torn=False, detail=f"longer than {MAX_LINE_BYTES} bytes")
                    continue
                yield Damage(line, torn=True, detail=found.detail)
                return
            self._take(raw)
            if found is not None:
                yield found

    def _decoded(self, raw: bytes) -> Object | Damage | None:
        if not raw.strip(_SPACE):
            return None
        if len(raw) > MAX_LINE_BYTES:
            return Damage(self.line, torn=False, detail="the file ends within a very long line")
        try:
            value = decode_strict(raw)
        except StrictError as error:
            return Damage(self.line, torn=False, detail=str(error))
        if not isinstance(value, dict):
            return Damage(self.line, torn=False, detail=f"{type(value).__name__}, not an object")
        return Object(self.line, value, len(raw))

    def _pass_over(self, begun: bytes) -> bool:
        """Go to the end of a long line; whether it has one."""
        digest, size = self._digest.copy(), len(begun)
        digest.update(begun)
        while chunk := self._readline(_STEP):
            digest.update(chunk)
            size += len(chunk)
            if chunk.endswith(b"\n"):
                self._digest = digest
                self.offset += size
                self.line += 1
                return True
        return False

    def _readline(self, size: int) -> bytes:
        with refusing_failures(self._path):
            return self._file.readline(size)

    def _take(self, raw: bytes) -> None:
        self._digest.update(raw)
        self.offset += len(raw)
        self.line += raw.count(b"\n")
