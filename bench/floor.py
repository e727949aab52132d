"""The floor: what the disk itself takes, without anything that makes a store of it."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

import orjson

from bench import payloads
from bench.measure import Job, WorkNotDone

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

# It is written over from its beginning again and again: there is always room.
FILE_BYTES = 32 * 2**20
_BLOCK = payloads.MESSAGE_BYTES


class FloorTrial:
    """One message for each thread, written in place, and then one fdatasync for all of them.

    One thread does the work of all: whoever commits in groups can do no better than this. The
    file is filled with zeros before, so a sync has no metadata to write.

    Args:
        folder: It exists and is empty.
        gathered: Whether all messages are written by one call, instead of one call for each.
    """

    def __init__(self, folder: Path, *, gathered: bool = False) -> None:
        self._path = folder / "floor"
        self._gathered = gathered
        self._message = orjson.dumps(payloads.message(0))
        self._offset = 0
        self._path.write_bytes(bytes(FILE_BYTES))
        self._descriptor = os.open(self._path, os.O_RDWR)
        os.fsync(self._descriptor)

    @contextmanager
    def worker(self, number: int, threads: int) -> Iterator[Job | None]:
        """See `Trial.worker`: the first thread works, the others look on."""
        if number:
            yield None
        else:
            write = self._write_gathered if self._gathered else self._write_each
            yield Job(self._batch(write, threads), count=threads, stands_for=threads)

    def _batch(self, write: Callable[[int, int], None], size: int) -> Callable[[], None]:
        def batch() -> None:
            if self._offset + size * _BLOCK > FILE_BYTES:
                self._offset = 0
            write(self._offset, size)
            os.fdatasync(self._descriptor)
            self._offset += size * _BLOCK

        return batch

    def _write_each(self, offset: int, size: int) -> None:
        for number in range(size):
            os.pwrite(self._descriptor, self._message, offset + number * _BLOCK)

    def _write_gathered(self, offset: int, size: int) -> None:
        os.pwritev(self._descriptor, [self._message] * size, offset)

    def verify(self, operations: int) -> None:
        """Check that the last message is there and the file has not grown."""
        found = os.pread(self._descriptor, _BLOCK, self._offset - _BLOCK) if operations else b""
        if found != self._message or os.fstat(self._descriptor).st_size != FILE_BYTES:
            raise WorkNotDone("the last message is not what was written")

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)
