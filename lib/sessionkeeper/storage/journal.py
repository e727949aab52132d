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
        """Keep the bytes of a segment if part of it is damaged, or may be what is missing."""
        places = {damage.path for damage in self.damage}
        if path in places or (path.parent in places and not _is_blank(data[BLOCK:])):
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
        # Segments in which the medium refused something, or whose head says nothing: what they
        # hold is read, and never taken for durable, and nothing more is written there.
        self._refused: set[Path] = set()
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
    def identity(self) -> bytes:
        """What tells it from other journals; empty before the first frame."""
        return self._id

    @property
    def oldest(self) -> int:
        """The number of the first frame that counts."""
        return self._oldest

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
                if self._sequence > begun:
                    touched = True
                    self._give_up_active()
                # Else there was no room for it; where there is room, smaller ones still fit.
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
        if records:
            self._enter_live(self._sequence, length)

    def _enter_live(self, sequence: int, length: int) -> None:
        self._live.append((sequence, length))
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
        segment = self._take_free(length) or self._create(length)
        descriptor = self._fs.open_blank(segment.path)
        self._leave_active()
        self._active, self._descriptor = segment, descriptor
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
            self._refused.add(self._active.path)
        self._leave_active()

    def _leave_active(self) -> None:
        self._active = None
        if self._descriptor != _CLOSED:
            descriptor, self._descriptor = self._descriptor, _CLOSED
            os.close(descriptor)

    # --- retiring ---------------------------------------------------------------------------

    def retire(self, up_to: int, records: Sequence[Sequence[Chunk]] = ()) -> None:
        """Say durably that no frame up to that one is needed any more, and use its room again.

        Args:
            up_to: The number of the frame.
            records: What is to be kept of them.

        Raises:
            JournalFailed: It could not be said; nothing is retired.
        """
        before = self._oldest
        self._oldest = max(before, up_to + 1)
        try:
            # The mark must be on the medium before anything it retires is written over: else a
            # crash could show an old change without the one that undid it.
            self.append(records)
        except JournalFailed:
            self._oldest = before
            raise
        while self._live and self._live[0][0] < self._oldest:
            self.live_bytes -= self._live.popleft()[1]
        for segment in [s for s in self._used if s.newest < self._oldest and s is not self._active]:
            self._used.remove(segment)
            if segment.path in self._refused:
                self._remove(segment)
            else:
                self._free.append(segment)

    def scrub(self) -> None:
        """Take away every byte of frames that are retired; all of them must be.

        Raises:
            JournalFailed: The medium refused a new segment; everything is as before.
            OSError: An old segment cannot be removed.
        """
        if self._live:
            raise AssertionError("the journal holds frames that are needed")
        before, oldest = [*self._used, *self._free], self._oldest
        self._leave_active()
        self._used, self._free = [], []
        # The frame that retired the last ones goes too; the next one says that it is the first.
        self._oldest = self._sequence + 1
        try:
            self.append([])
        except JournalFailed:
            self._used += before
            self._oldest = oldest
            raise
        for segment in before:
            self._fs.unlink(segment.path)
            self._refused.discard(segment.path)
        self._fs.sync_folder(self._folder)

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
            OSError: A segment cannot be read, or the medium refuses it.
        """
        log = self.read()
        # A segment that nobody synced the name of must not be written to.
        self._fs.sync_folder(self._folder)
        # What was read may only be in memory: a process that died had no time to sync it.
        used = [segment for segment in self._used if segment.newest >= self._oldest]
        doubtful = [segment for segment in used if not self._is_durable(segment)]
        if doubtful:
            # Asking again would prove nothing, now or in the next incarnation. What is damaged
            # stays until the caller has seen to it.
            try:
                kept = [[body] for body in log.records]
                self.retire(0 if log.damage else self._sequence, kept)
            except JournalFailed as error:
                raise error.cause from error
        return log

    def _is_durable(self, segment: _Segment) -> bool:
        if segment.path in self._refused:
            return False
        descriptor = self._fs.open_blank(segment.path)
        try:
            self._fs.sync_data(descriptor)
        except OSError:
            self._refused.add(segment.path)
            return False
        finally:
            os.close(descriptor)
        return True

    def read(self) -> Log:
        """Read all segments and change nothing; enough for whoever does not write.

        Raises:
            OSError: A segment cannot be read.
        """
        self._leave_active()
        # This object may know more than the medium: frames it gave up, whose mark is not
        # written, and frames it acknowledged, which are gone.
        begun, oldest, acknowledged = self._sequence, self._oldest, self._sequence - self._voided
        self._reset()
        log = Log()
        contents = self._read_segments(log)
        frames: dict[int, tuple[_Segment, Frame]] = {}
        for segment, data in contents:
            for frame in frames_in(data, self._id):
                segment.newest = max(segment.newest, frame.sequence)
                # Of two with one number the intact one counts.
                other = frames.get(frame.sequence)
                if other is None or other[1].damaged:
                    frames[frame.sequence] = (segment, frame)
        for number in range(acknowledged + 1, begun + 1):
            frames.pop(number, None)
        last = max(frames, default=0)
        self._sequence = max(last, begun)
        if last > acknowledged and frames[last][1].damaged:
            # Behind it is nothing: it was never acknowledged. Nor was what it gave up.
            log.torn = True
            torn = frames[last][1]
            for number in [n for n in frames if n >= torn.sequence - torn.voided]:
                del frames[number]
        self._voided = self._sequence
        self._oldest = oldest
        self._evaluate(frames, log, acknowledged)
        for segment, data in contents:
            log.preserve(segment.path, data)
            spare = segment.newest < self._oldest and segment.path not in self._refused
            (self._free if spare else self._used).append(segment)
        return log

    def _read_segments(self, log: Log) -> list[tuple[_Segment, bytes]]:
        found: list[tuple[Path, bytes, bytes | None]] = []
        for path in segment_paths(self._fs, self._folder):
            try:
                data = b"".join(self._fs.read(path)[0])
            except FileNotFoundError:
                continue  # its owner gave the room back meanwhile
            found.append((path, data, journal_id_of(data)))
        # All name the same journal, unless one is damaged or was copied here.
        ids = Counter(named for _, _, named in found if named is not None)
        self._id = max(ids, key=lambda i: ids[i]) if ids else b""
        contents: list[tuple[_Segment, bytes]] = []
        for path, data, named in found:
            if named is not None and named != self._id:
                detail = "it belongs to another journal and is left alone"
                log.damage.append(Damage(path, detail))
                continue
            if named is None:
                self._refused.add(path)  # or it could become the only one that names the journal
                if not _is_blank(data):
                    log.damage.append(Damage(path, "its head is damaged"))
            contents.append((_Segment(path, len(data)), data))
        return contents

    def _evaluate(
        self,
        frames: dict[int, tuple[_Segment, Frame]],
        log: Log,
        acknowledged: int,
    ) -> None:
        newest = 0
        if frames:
            last = frames[max(frames)][1]
            newest = last.sequence
            self._oldest, self._previous = last.oldest, last.digest
            self._voided = self._sequence - newest
        void = {
            number
            for _, frame in frames.values()
            for number in range(frame.sequence - frame.voided, frame.sequence)
        }
        previous: int | None = None
        for number in range(self._oldest, max(newest, acknowledged) + 1):
            if number in void:
                continue
            if number not in frames:
                log.damage.append(Damage(self._folder, f"frame {number} is missing"))
                self._enter_live(number, BLOCK)  # until a checkpoint has seen to it
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
            if frame.records or frame.damaged:
                self._enter_live(number, frame.length)


def segment_paths(fs: FileSystem, folder: Path) -> list[Path]:
    """The files in which a journal may lie, by name; none if there is no such folder."""
    if fs.status(folder) is None:
        return []
    return sorted(
        folder / entry.name
        for entry in fs.entries(folder)
        if entry.name.endswith(SUFFIX) and entry.is_file(follow_symlinks=False)
    )


def _is_blank(data: bytes) -> bool:
    return data.count(0) == len(data)
