r"""Message lines: encoded messages joined by `,\n`, in chunks of bounded size.

Chunks keep every single step short: nothing copies, encodes or decodes a long session in one go,
so other threads (and event loops) get the interpreter in between.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final

from sessionkeeper.slices import CHUNK, SLICE, Pace
from sessionkeeper.storage.codec import encode

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from sessionkeeper.session import Chunk

JOINT: Final = b",\n"

_BREAK: Final = ord("\n")

# Small chunks are copied together, so that many short appends do not make many chunks.
_SMALL: Final = 32 * 1024


def encode_lines(messages: Iterable[Any]) -> tuple[Chunk, ...]:
    """Encode messages, one at a time, so that other threads have their turn in between.

    Raises:
        InvalidValue: One of them would not come back equal; the text says which and where.
    """
    chunks: list[Chunk] = []
    lines: list[bytes] = []
    size = 0
    pace = Pace()
    for index, message in enumerate(messages):
        line = encode(message, where=f"messages[{index}]")
        lines.append(line)
        size += len(line) + len(JOINT)
        if size >= CHUNK:
            chunks.append(JOINT.join(lines))
            lines, size = [], 0
        pace.step()
    if lines:
        chunks.append(JOINT.join(lines))
    return tuple(chunks)


class Pieces:
    """A text that was read in pieces, addressed as if it stood in one.

    Only single bytes are searched for: nothing longer is found where two pieces meet.
    """

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self._pieces = pieces
        self._starts = [0, *accumulate(map(len, pieces))]

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, part: slice) -> bytes:
        """A copy of one part."""
        if len(self._pieces) == 1:  # as nearly all files are
            return self._pieces[0][part]
        spans = list(self.spans(*part.indices(len(self))[:2]))
        if len(spans) == 1:
            piece, start, end = spans[0]
            return piece[start:end]
        return b"".join(memoryview(piece)[start:end] for piece, start, end in spans)

    def spans(self, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
        """The pieces that make up one part, and from where to where, never over a `SLICE`."""
        index = bisect_right(self._starts, start) - 1
        while start < end:
            offset = self._starts[index]
            piece = self._pieces[index]
            first = start - offset
            last = min(end - offset, len(piece), first + SLICE)
            yield piece, first, last
            start = offset + last
            index += last == len(piece)

    def find(self, byte: bytes) -> int:
        """Where a byte stands first; -1 if it does not."""
        for start, piece in zip(self._starts, self._pieces, strict=False):
            found = piece.find(byte)
            if found >= 0:
                return start + found
        return -1

    def rfind(self, byte: bytes, end: int) -> int:
        """Where a byte stands last before `end`; -1 if it does not."""
        for index in range(min(bisect_right(self._starts, end), len(self._pieces)) - 1, -1, -1):
            start = self._starts[index]
            found = self._pieces[index].rfind(byte, 0, end - start)
            if found >= 0:
                return start + found
        return -1

    def lines(self, start: int, end: int) -> tuple[Chunk, ...]:
        """The lines of one part as chunks, copying of a long part only what joins two pieces."""
        if end <= start:
            return ()
        if end - start <= CHUNK:
            return (self[start:end],)
        pace = Pace()
        chunks: list[Chunk] = []
        begun: list[memoryview] = []  # of a line that goes on in the next piece
        for piece, first, last in self.spans(start, end):
            view, at = memoryview(piece), first
            if begun:
                at = piece.find(b"\n", first, last) + 1 or last
                begun.append(view[first:at])
                if piece[at - 1] != _BREAK:
                    continue
                chunks.append(memoryview(b"".join(begun))[: -len(JOINT)])
            cut = piece.rfind(b"\n", at, last) + 1 or at
            chunks += (view[a : b - len(JOINT)] for a, b in _grouped(piece, at, cut))
            begun = [view[cut:last]] if cut < last else []
            pace.step()
        if begun:
            chunks.append(b"".join(begun))
        return tuple(chunks)


def _grouped(piece: bytes, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Where whole lines that follow one another are to be cut so that no chunk is too long."""
    while start < end:
        cut = end
        if end - start > CHUNK:
            cut = piece.rfind(b"\n", start, start + CHUNK) + 1
            cut = cut or piece.find(b"\n", start + CHUNK, end) + 1
        yield start, cut
        start = cut


def extended(chunks: tuple[Chunk, ...], more: tuple[Chunk, ...]) -> tuple[Chunk, ...]:
    """The chunks followed by more of them."""
    if chunks and more and len(chunks[-1]) + len(more[0]) <= _SMALL:
        return (*chunks[:-1], JOINT.join((chunks[-1], more[0])), *more[1:])
    return (*chunks, *more)


def last_lines(chunks: tuple[Chunk, ...], count: int) -> tuple[Chunk, ...]:
    """The last `count` lines; those before are not looked at."""
    found: list[Chunk] = []
    for chunk in reversed(chunks):
        if count <= 0:
            break
        lines = bytes(chunk).rsplit(JOINT, count)
        kept = lines[1:] if len(lines) > count else lines
        found.append(JOINT.join(kept))
        count -= len(kept)
    return tuple(reversed(found))


def interleaved(chunks: tuple[Chunk, ...]) -> list[Chunk]:
    """The chunks with what joins them in between, for one gathered write."""
    parts: list[Chunk] = []
    for chunk in chunks:
        if parts:
            parts.append(JOINT)
        parts.append(chunk)
    return parts


def weight(chunks: Sequence[Chunk]) -> int:
    """Bytes of all chunks together."""
    return sum(map(len, chunks))
