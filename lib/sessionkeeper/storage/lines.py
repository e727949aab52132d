r"""Message lines: encoded messages joined by `,\n`, in chunks of bounded size.

Chunks keep every single step short: nothing copies, encodes or decodes a long session in one go,
so other threads (and event loops) get the interpreter in between.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, islice
from typing import TYPE_CHECKING, Any, Final, overload

from sessionkeeper.errors import InvalidValue
from sessionkeeper.session import grouped
from sessionkeeper.slices import CHUNK, SLICE, Pace
from sessionkeeper.storage.codec import encode

if TYPE_CHECKING:
    from sessionkeeper.session import Chunk

JOINT: Final = b",\n"

_BREAK: Final = ord("\n")


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
        try:
            line = encode(message)
        except InvalidValue:
            line = encode(message, where=f"messages[{index}]")  # to say which
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
            chunks += (view[a : b - len(JOINT)] for a, b in _cuts(piece, at, cut))
            begun = [view[cut:last]] if cut < last else []
            pace.step()
        if begun:
            chunks.append(b"".join(begun))
        return tuple(chunks)


def _cuts(piece: bytes, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Where whole lines that follow one another are to be cut so that no chunk is too long."""
    while start < end:
        cut = end
        if end - start > CHUNK:
            cut = piece.rfind(b"\n", start, start + CHUNK) + 1
            cut = cut or piece.find(b"\n", start + CHUNK, end) + 1
        yield start, cut
        start = cut


class Lines(Sequence["Chunk"]):
    """The message lines of one version of a session, in chunks.

    Versions that follow one another by appending share one list: the newest adds to its end and
    the older ones see no further than they did. So an append costs what is appended, however
    long the session is. A version that is added to a second time gets a list of its own.
    """

    __slots__ = ("_count", "_shared", "size")

    def __init__(self, chunks: Iterable[Chunk] = ()) -> None:
        self._shared = list(chunks)
        self._count = len(self._shared)
        self.size = weight(self._shared)

    def extended(self, more: Sequence[Chunk]) -> Lines:
        """These lines followed by more of them; these stay as they are."""
        longer = Lines.__new__(Lines)
        with _EXTENDING:
            shared = self._shared
            if len(shared) != self._count:
                shared = shared[: self._count]
            shared.extend(more)
            longer._shared = shared  # noqa: SLF001 - of its own class
            longer._count = len(shared)  # noqa: SLF001 - of its own class
        longer.size = self.size + weight(more)
        return longer

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Chunk]:
        return islice(self._shared, self._count)

    def __reversed__(self) -> Iterator[Chunk]:
        return reversed(self._shared[: self._count])

    @overload
    def __getitem__(self, index: int) -> Chunk: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Chunk]: ...
    def __getitem__(self, index: int | slice) -> Chunk | Sequence[Chunk]:
        if isinstance(index, slice):
            return self._shared[: self._count][index]
        return self._shared[range(self._count)[index]]

    def __eq__(self, other: object) -> bool:
        """Whether both hold the same lines, wherever they are cut into chunks."""
        if not isinstance(other, Lines):
            return NotImplemented
        return JOINT.join(self) == JOINT.join(other)

    __hash__ = None  # type: ignore[assignment]  # compared in tests, never a key

    def __repr__(self) -> str:
        return f"Lines({self._count} chunks, {self.size} bytes)"


# Two threads that extend one version at once must not both take it for the newest.
_EXTENDING = threading.Lock()


def last_lines(chunks: Sequence[Chunk], count: int) -> tuple[Chunk, ...]:
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


def lines_between(
    chunks: Sequence[Chunk],
    count: int,
    start: int,
    stop: int,
) -> Iterator[Chunk]:
    """The lines from one number to another, in chunks; of the others only the ends are looked for.

    Args:
        chunks: All lines.
        count: How many those are: what is nearer to the end is looked for from there.
        start: The first line wanted, counted from 0.
        stop: The first one behind those wanted.
    """
    left = stop - start
    index, skipped = _place_of(chunks, count, start)
    while left > 0 and index < len(chunks):
        chunk = chunks[index]
        length = _line_count(chunk) - skipped
        if skipped or length > left:
            chunk = JOINT.join(bytes(chunk).split(JOINT)[skipped : skipped + left])
        yield chunk
        left -= length
        index, skipped = index + 1, 0


def _place_of(chunks: Sequence[Chunk], count: int, line: int) -> tuple[int, int]:
    """Which chunk a line is in, and how many lines come before it there."""
    pace = Pace()
    if 2 * line <= count:
        for index, chunk in enumerate(chunks):
            length = _line_count(chunk)
            if line < length:
                return index, line
            line -= length
            pace.step()
        return len(chunks), 0
    for index, chunk in zip(range(len(chunks) - 1, -1, -1), reversed(chunks), strict=True):
        count -= _line_count(chunk)
        if count <= line:
            return index, line - count
        pace.step()
    return 0, 0


def _line_count(chunk: Chunk) -> int:
    # No message holds a line break, so there is one in each joint and nowhere else.
    return bytes(chunk).count(b"\n") + 1


def interleaved(chunks: Iterable[Chunk]) -> list[Chunk]:
    """The chunks with what joins them in between, for one gathered write; short ones in one."""
    parts: list[Chunk] = []
    for group in grouped(chunks):
        if parts:
            parts.append(JOINT)
        parts.append(group[0] if len(group) == 1 else JOINT.join(group))
    return parts


def weight(chunks: Iterable[Chunk]) -> int:
    """Bytes of all chunks together."""
    return sum(map(len, chunks))
