r"""Message lines: encoded messages joined by `,\n`, in chunks of bounded size.

Chunks keep every single step short: nothing copies, encodes or decodes a long session in one go,
so other threads (and event loops) get the interpreter in between.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from sessionkeeper.storage.codec import encode

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sessionkeeper.session import Chunk

JOINT: Final = b",\n"

SLICE: Final = 256 * 1024
"""Bytes after which a chunk ends and the interpreter is offered to other threads."""

# Small chunks are copied together, so that many short appends do not make many chunks.
_SMALL: Final = 32 * 1024


def encode_lines(messages: Iterable[Any]) -> tuple[Chunk, ...]:
    """Encode messages, offering the interpreter to other threads after each `SLICE`.

    Raises:
        InvalidValue: One of them would not come back equal; the text says which and where.
    """
    chunks: list[Chunk] = []
    lines: list[bytes] = []
    size = 0
    for index, message in enumerate(messages):
        line = encode(message, where=f"messages[{index}]")
        lines.append(line)
        size += len(line)
        if size >= SLICE:
            chunks.append(JOINT.join(lines))
            lines, size = [], 0
            time.sleep(0)
    if lines:
        chunks.append(JOINT.join(lines))
    return tuple(chunks)


def split_lines(data: bytes, start: int, end: int) -> tuple[Chunk, ...]:
    """The lines that stand in `data[start:end]` as chunks, without copying long ones."""
    if end <= start:
        return ()
    if end - start <= SLICE:
        return (data[start:end],)
    view = memoryview(data)
    chunks: list[Chunk] = []
    while start < end:
        cut = end
        if end - start > SLICE:
            cut = data.rfind(JOINT, start, start + SLICE)
            if cut < 0:  # one message longer than a slice
                cut = data.find(JOINT, start, end)
            if cut < 0:
                cut = end
        chunks.append(view[start:cut])
        start = cut + len(JOINT)
    return tuple(chunks)


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
