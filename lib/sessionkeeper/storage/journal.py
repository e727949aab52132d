"""The journal: what was acknowledged and may not be in the session files yet.

Frames are numbered without gaps. Frame n + 1 is written only when frame n is on the medium, so
after a crash a bad frame with a good one behind it is rot, and a bad last frame was never
acknowledged. Segments are only room for frames: they are made in advance, filled with zeros, and
used again when every frame in them is retired.

After a failed write or sync nothing tells what reached the medium, and asking again proves
nothing (the kernel reports an error once and then calls the pages clean). The frame is given up:
the same records go, under a new number, into another segment, with a mark that voids what was
given up, also if it should turn out to be intact.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from sessionkeeper.storage.frames import (
    BLOCK,
    ID_BYTES,
    Frame,
    Mark,
    encode_frame,
    frames_in,
    journal_id_of,
    segment_head,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sessionkeeper.session import Chunk
    from sessionkeeper.storage.platform import FileSystem

SUFFIX: Final = ".segment"
SMALLEST: Final = 1024 * 1024
LARGEST: Final = 16 * 1024 * 1024
_CLOSED: Final = -1


class JournalFailed(Exception):
    """The medium refused a frame twice.

    Attributes:
        untouched: Whether not one byte of it was written, so that it certainly never happened.
        cause: What the system said.
    """

    def __init__(self, cause: OSError, *, untouched: bool) -> None:
        super().__init__(str(cause))
        self.cause = cause
        self.untouched = untouched


@dataclass(slots=True)
class _Segment:
    path: Path
    size: int
    end: int = BLOCK
    newest: int = 0  # the highest frame number in it
    failed: bool = False  # the medium refused something in it: never used again


@dataclass(frozen=True, slots=True)
class Damage:
    """Part of the journal that was acknowledged once and cannot be read.

    Attributes:
        path: The segment it lay in, or the journal's folder if that is not known.
        detail: What is wrong.
    """

    path: Path
    detail: str


@dataclass(slots=True)
class Log:
    """What a journal holds.

    Attributes:
        records: The bodies of all records that count, in the order written.
        damage: What should be there and is not.
        torn: Whether there was a last frame that was never finished.
        damaged: The bytes of the segments that are damaged, which will be written over.
    """

    records: list[bytes] = field(default_factory=list, repr=False)
    damage: list[Damage] = field(default_factory=list)
    torn: bool = False
    damaged: dict[Path, bytes] = field(default_factory=dict, repr=False)

    def preserve(self, path: Path, data: bytes) -> None:
        """Keep the bytes of a segment if part of it is damaged."""
        if any(damage.path == path for damage in self.damage):
            self.damaged[path] = data


class Journal:
    """The journal in one folder. One thread uses it.

    Args:
        fs: The file system.
        folder: Where the segments lie; it exists.
    """

    def __init__(self, fs: FileSystem, folder: Path) -> None:
        self._fs = fs
        self._folder = folder
        self._reset()

    def _reset(self) -> None:
        self._id = b""
        self._sequence = 0  # of the last frame that was begun
        self._oldest = 1
        self._voided = 0  # frames given up since the last good one
        self._previous = 0
        self._used: list[_Segment] = []
        self._free: list[_Segment] = []
        self._active: _Segment | None = None
        self._descriptor = _CLOSED
        self._unsynced = False
        self._live: deque[tuple[int, int]] = deque()  # number and length of frames not retired
        self.live_bytes = 0

    @property
    def sequence(self) -> int:
        """The number of the last frame that was begun; 0 for none."""
        return self._sequence

    @property
    def suspended(self) -> bool:
        """Whether the medium refused the last frame."""
        return self._voided > 0

    # --- writing ----------------------------------------------------------------------------

    def append(self, records: Sequence[Sequence[Chunk]], *, sync: bool = True) -> None:
        """Write the records of one commit as one frame.

        Args:
            records: Each record's body, in pieces.
            sync: Whether to return only when it is on the medium; else `sync` makes it so.

        Raises:
            JournalFailed: The medium refused it, and refused a second segment too.
        """
        touched = False
        for last in (False, True):
            begun = self._sequence
            try:
                self._write(records, sync=sync)
            except OSError as error:
                touched = touched or self._sequence > begun
                self._give_up_active()
                if last:
                    raise JournalFailed(error, untouched=not touched) from error
            else:
                return

    def _write(self, records: Sequence[Sequence[Chunk]], *, sync: bool) -> None:
        if not self._id:
            self._id = secrets.token_bytes(ID_BYTES)
        mark = Mark(self._sequence + 1, self._oldest, self._voided, self._previous)
        pieces, length, digest = encode_frame(mark, records, self._id)
        segment = self._room_for(length)
        self._sequence += 1
        self._voided += 1  # until it is known to be good
        self._fs.write_at(self._descriptor, pieces, segment.end)
        if sync:
            self._fs.sync_data(self._descriptor)
        self._unsynced = not sync
        self._voided = 0
        self._previous = digest
        segment.end += length
        segment.newest = self._sequence
        self._live.append((self._sequence, length))
        self.live_bytes += length

    def sync(self) -> None:
        """Make what was appended with `sync=False` durable.

        Raises:
            OSError: As the system said. What was written since the last sync may be lost: the
                caller must bring it to the medium in another way.
        """
        if self._unsynced:
            self._unsynced = False
            try:
                self._fs.sync_data(self._descriptor)
            except OSError:
                self._give_up_active()
                raise

    def _room_for(self, length: int) -> _Segment:
        active = self._active
        if active is not None and active.end + length <= active.size:
            return active
        self.sync()
        self._leave_active()
        segment = self._take_free(length) or self._create(length)
        self._descriptor = self._fs.open_blank(segment.path)
        self._active = segment
        self._used.append(segment)
        if not self._free:
            # So that there is room for deletes when the disk is full. Not having one is no
            # reason to refuse what does fit.
            with contextlib.suppress(OSError):
                self._free.append(self._create(0))
        return segment

    def _take_free(self, length: int) -> _Segment | None:
        for index, segment in enumerate(self._free):
            if BLOCK + length <= segment.size:
                del self._free[index]
                segment.end, segment.newest = BLOCK, 0
                return segment
        return None

    def _create(self, length: int) -> _Segment:
        # As large as all before together: a small store stays small.
        total = sum(segment.size for segment in (*self._used, *self._free))
        size = max(min(max(total, SMALLEST), LARGEST), BLOCK + length)
        path = self._folder / f"{secrets.token_hex(8)}{SUFFIX}"
        self._fs.create_blank(path, segment_head(self._id), size)
        self._fs.sync_folder(self._folder)
        return _Segment(path, size)

    def _give_up_active(self) -> None:
        if self._active is not None:
            self._active.failed = True
        self._leave_active()

    def _leave_active(self) -> None:
        self._active = None
        if self._descriptor != _CLOSED:
            descriptor, self._descriptor = self._descriptor, _CLOSED
            os.close(descriptor)

    # --- retiring ---------------------------------------------------------------------------

    def retire(self, up_to: int) -> None:
        """Say durably that no frame up to that one is needed any more, and use its room again.

        Raises:
            JournalFailed: It could not be said; nothing is retired.
        """
        before = self._oldest
        self._oldest = max(before, up_to + 1)
        try:
            # The mark must be on the medium before anything it retires is written over: else a
            # crash could show an old change without the one that undid it.
            self.append([])
        except JournalFailed:
            self._oldest = before
            raise
        while self._live and self._live[0][0] < self._oldest:
            self.live_bytes -= self._live.popleft()[1]
        for segment in [s for s in self._used if s.newest < self._oldest and s is not self._active]:
            self._used.remove(segment)
            if segment.failed:
                self._remove(segment)
            else:
                self._free.append(segment)

    def shrink(self) -> None:
        """Give back the room that an idle store does not need: all free segments but one."""
        for segment in self._free[1:]:
            self._remove(segment)
        del self._free[1:]

    def _remove(self, segment: _Segment) -> None:
        with contextlib.suppress(OSError):  # the next recovery finds it, holding nothing
            self._fs.unlink(segment.path)

    def close(self) -> None:
        """Let go of the open segment; a `recover` follows before the next `append`."""
        self._leave_active()

    # --- recovery ---------------------------------------------------------------------------

    def recover(self) -> Log:
        """Read all segments; what they hold is on the medium when this returns.

        Raises:
            OSError: A segment cannot be read or synced.
        """
        log = self.read()
        # What was read may only be in memory: a process that died had no time to sync it.
        for segment in self._used:
            descriptor = self._fs.open_blank(segment.path)
            try:
                self._fs.sync_data(descriptor)
            finally:
                os.close(descriptor)
        return log

    def read(self) -> Log:
        """Read all segments and change nothing; enough for whoever does not write.

        Raises:
            OSError: A segment cannot be read.
        """
        self._leave_active()
        begun, given_up = self._sequence, self._voided
        self._reset()
        contents = self._read_segments()
        frames: dict[int, tuple[_Segment, Frame]] = {}
        for segment, data in contents:
            for frame in frames_in(data, self._id):
                segment.newest = max(segment.newest, frame.sequence)
                # Of two with one number the intact one counts.
                other = frames.get(frame.sequence)
                if other is None or other[1].damaged:
                    frames[frame.sequence] = (segment, frame)
        # This object may know more than the medium: frames it gave up, whose mark is not written.
        for number in range(begun - given_up + 1, begun + 1):
            frames.pop(number, None)
        log = Log()
        self._sequence = max(frames, default=begun)
        if frames and frames[self._sequence][1].damaged:
            # Behind it is nothing: it was never acknowledged.
            log.torn = True
            del frames[self._sequence]
        self._sequence = max(self._sequence, begun)
        self._voided = self._sequence
        if frames:
            self._evaluate(frames, log)
        for segment, data in contents:
            log.preserve(segment.path, data)
            (self._used if segment.newest >= self._oldest else self._free).append(segment)
        return log

    def _read_segments(self) -> list[tuple[_Segment, bytes]]:
        contents: list[tuple[_Segment, bytes]] = []
        ids: Counter[bytes] = Counter()
        if self._fs.status(self._folder) is None:
            return contents
        for entry in sorted(self._fs.entries(self._folder), key=lambda entry: entry.name):
            if not entry.name.endswith(SUFFIX) or not entry.is_file(follow_symlinks=False):
                continue
            path = self._folder / entry.name
            data = b"".join(self._fs.read(path)[0])
            found = journal_id_of(data)
            if found is not None:
                ids[found] += 1
            contents.append((_Segment(path, len(data)), data))
        # All name the same journal, unless one is damaged or was copied here.
        self._id = max(ids, key=lambda i: ids[i]) if ids else b""
        return contents

    def _evaluate(self, frames: dict[int, tuple[_Segment, Frame]], log: Log) -> None:
        newest = frames[max(frames)][1]
        self._oldest, self._previous = newest.oldest, newest.digest
        self._voided = self._sequence - newest.sequence
        void = {
            number
            for _, frame in frames.values()
            for number in range(frame.sequence - frame.voided, frame.sequence)
        }
        previous: int | None = None
        for number in range(newest.oldest, newest.sequence + 1):
            if number in void:
                continue
            if number not in frames:
                log.damage.append(Damage(self._folder, f"frame {number} is missing"))
                previous = None
                continue
            segment, frame = frames[number]
            if frame.damaged:
                detail = f"frame {number} is damaged; {len(frame.records)} of its records are not"
                log.damage.append(Damage(segment.path, detail))
            elif previous is not None and frame.previous != previous:
                detail = f"frame {number} does not follow the one before it"
                log.damage.append(Damage(segment.path, detail))
            previous = frame.digest
            log.records += frame.records
            self._live.append((number, frame.length))
            self.live_bytes += frame.length
