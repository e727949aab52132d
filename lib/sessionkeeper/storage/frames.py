"""Frames: what one commit writes into the journal, and how it is told from anything else.

A segment is a file of 4 KiB blocks. Its first block names the journal it belongs to; the rest
holds frames, each beginning at a block of its own, so that a torn write never hurts an earlier
frame. All numbers are little-endian.

    segment  "SKJOURN1"  journal id (16)  crc32 (4)  zeros to 4096
    frame    "SKFR"  length (4)  sequence (8)  oldest (8)  voided (4)  previous (4)  digest (4)
             crc32 of these (4)  records …  padding to the next block
    record   length (4)  crc32 of the body (4)  body

`digest` is the crc32 of all record heads, so every byte is covered once. The header's crc begins
with the journal's id: bytes that a session carries cannot pass for a frame.
"""

from __future__ import annotations

import struct
from dataclasses import field
from typing import TYPE_CHECKING, Final
from zlib import crc32

from sessionkeeper.fixed import fixed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sessionkeeper.session import Chunk

BLOCK: Final = 4096
_SEGMENT_MAGIC: Final = b"SKJOURN1"
ID_BYTES: Final = 16
_FRAME_MAGIC: Final = b"SKFR"
_FRAME: Final = struct.Struct("<4sIQQIII")
_RECORD: Final = struct.Struct("<II")
_CRC: Final = struct.Struct("<I")
HEADER: Final = _FRAME.size + _CRC.size


@fixed
class Frame:
    """One frame as found on the medium.

    Attributes:
        sequence: Its number; frames are numbered without gaps over all segments.
        oldest: Frames before this one are retired: their changes are in the session files.
        voided: So many frames right before this one were given up; they count for nothing, also
            when they are intact.
        previous: The digest of the last frame before it that was not given up.
        digest: Its own.
        end: Where the next frame of the segment may begin.
        length: How much room it takes, padding included.
        records: The bodies that are intact.
        damaged: How many bodies are not; not 0 for a torn or rotten frame.
    """

    sequence: int
    oldest: int
    voided: int
    previous: int
    digest: int
    end: int
    length: int
    records: list[bytes] = field(repr=False)
    damaged: int


def segment_head(journal_id: bytes) -> bytes:
    """The first block of a segment."""
    named = _SEGMENT_MAGIC + journal_id
    return (named + _CRC.pack(crc32(named))).ljust(BLOCK, b"\0")


def journal_id_of(data: bytes) -> bytes | None:
    """The id of the journal that a segment says it belongs to, or None if it is unreadable."""
    named = data[: len(_SEGMENT_MAGIC) + ID_BYTES]
    crc = data[len(named) : len(named) + _CRC.size]
    if not named.startswith(_SEGMENT_MAGIC) or crc != _CRC.pack(crc32(named)):
        return None
    return named[len(_SEGMENT_MAGIC) :]


def padded(length: int) -> int:
    """The length, rounded up to whole blocks."""
    return -(-length // BLOCK) * BLOCK


@fixed
class Mark:
    """What a frame says beside its records; see `Frame`."""

    sequence: int
    oldest: int
    voided: int
    previous: int


def encode_frame(
    mark: Mark,
    records: Sequence[Sequence[Chunk]],
    journal_id: bytes,
) -> tuple[list[Chunk], int, int]:
    """Lay out one frame.

    Args:
        mark: Its number and what it says of the frames before it.
        records: Each record's body in pieces.
        journal_id: Of the journal it is written to.

    Returns:
        The pieces for one gathered write, their padded length, and the frame's digest.
    """
    pieces: list[Chunk] = [b""]
    digest, length = 0, 0
    for record in records:
        size, crc = 0, 0
        for piece in record:
            size += len(piece)
            crc = crc32(piece, crc)
        head = _RECORD.pack(size, crc)
        digest = crc32(head, digest)
        length += len(head) + size
        pieces.append(head)
        pieces += record
    header = _FRAME.pack(
        _FRAME_MAGIC,
        length,
        mark.sequence,
        mark.oldest,
        mark.voided,
        mark.previous,
        digest,
    )
    pieces[0] = header + _CRC.pack(crc32(header, crc32(journal_id)))
    whole = padded(HEADER + length)
    pieces.append(bytes(whole - HEADER - length))
    return pieces, whole, digest


def frames_in(data: bytes, journal_id: bytes) -> Iterator[Frame]:
    """All frames of a segment whose headers are intact, in the order in which they lie there.

    After anything else the search goes on at the next block, so a frame behind a bad one is found.
    """
    seed = crc32(journal_id)
    offset = BLOCK
    while offset + HEADER <= len(data):
        frame = _frame_at(data, offset, seed)
        if frame is not None:
            yield frame
        offset = frame.end if frame is not None and not frame.damaged else offset + BLOCK


def looks_begun(data: bytes, offset: int, journal_id: bytes) -> bool:
    """Whether a frame was begun there whose head is torn or damaged, but for one that is stale."""
    head = data[offset : offset + HEADER]
    named = head.startswith(_FRAME_MAGIC)
    mended = _FRAME_MAGIC + head[len(_FRAME_MAGIC) : _FRAME.size]
    intact = head[_FRAME.size :] == _CRC.pack(crc32(mended, crc32(journal_id)))
    return named != intact


def _frame_at(data: bytes, offset: int, seed: int) -> Frame | None:
    if not data.startswith(_FRAME_MAGIC, offset):
        return None
    header = data[offset : offset + _FRAME.size]
    crc = data[offset + _FRAME.size : offset + HEADER]
    if crc != _CRC.pack(crc32(header, seed)):
        return None
    _, length, sequence, oldest, voided, previous, digest = _FRAME.unpack(header)
    position, limit = offset + HEADER, offset + HEADER + length
    records: list[bytes] = []
    damaged = int(limit > len(data))
    found = 0
    while position + _RECORD.size <= min(limit, len(data)):
        size, expected = _RECORD.unpack_from(data, position)
        found = crc32(data[position : position + _RECORD.size], found)
        position += _RECORD.size
        if position + size > limit:
            break  # its length is damaged: where the next one begins is not known
        body = data[position : position + size]
        position += size
        if len(body) == size and crc32(body) == expected:
            records.append(body)
        else:
            damaged += 1
    if found != digest or position != limit:
        damaged = max(damaged, 1)
    whole = padded(HEADER + length)
    end = offset + whole
    return Frame(sequence, oldest, voided, previous, digest, end, whole, records, damaged)
