"""No step of a long session's way is long: a call into C keeps every other thread waiting."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from sessionkeeper import slices
from sessionkeeper.slices import CHUNK, SLICE, Pace
from sessionkeeper.storage.documents import decode_document, decode_foreign, encode_document
from sessionkeeper.storage.lines import encode_lines
from sessionkeeper.storage.platform import FileSystem

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from sessionkeeper.storage.documents import Document

MESSAGE = {"role": "user", "content": "x" * 50_000}
MESSAGES: list[Any] = [MESSAGE] * 100


def make(messages: list[Any]) -> Document:
    fields = {"format": "sessionkeeper", "version": 1, "session_id": "s1", "messages": messages}
    return decode_foreign(orjson.dumps(fields), datetime(2025, 1, 1, tzinfo=UTC))


class Watch:
    """A clock that stands still unless it is told, and counts how often somebody gave way."""

    def __init__(self) -> None:
        self.now = 0.0
        self.gave_way = 0

    def perf_counter(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0, "a sleep of 0 may be over before anybody has woken up"
        self.gave_way += 1

    def slowed(self, work: Callable[..., Any]) -> Callable[..., Any]:
        """The same work, but it takes a tenth of a second each time."""

        def slow(*arguments: Any, **options: Any) -> Any:
            self.now += 0.1
            return work(*arguments, **options)

        return slow


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    watch = Watch()
    monkeypatch.setattr(slices, "time", watch)
    return watch


def test_a_thread_gives_way_once_in_a_millisecond(watch: Watch) -> None:
    pace = Pace()
    for _ in range(10):
        pace.step()
    assert watch.gave_way == 0
    for _ in range(4):
        watch.now += 0.0006
        pace.step()
    assert watch.gave_way == 2


def test_a_file_is_read_and_written_in_slices(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[int] = []
    plain_read, plain_write = os.read, os.writev

    def read(descriptor: int, count: int) -> bytes:
        calls.append(count)
        return plain_read(descriptor, count)

    def writev(descriptor: int, buffers: Sequence[memoryview]) -> int:
        calls.append(sum(map(len, buffers)))
        return plain_write(descriptor, buffers)

    monkeypatch.setattr(os, "read", read)
    monkeypatch.setattr(os, "writev", writev)
    document = make(MESSAGES)
    FileSystem().write_new(tmp_path / "f", encode_document(document))
    pieces, signature = FileSystem().read(tmp_path / "f")
    assert sum(map(len, pieces)) == signature.size > 5_000_000
    assert max(calls) <= SLICE
    decoded = decode_document(pieces)
    assert decoded is not None
    assert decoded.session() == document.session()


def test_others_have_their_turn_between_two_messages_that_are_encoded(
    watch: Watch,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(orjson, "dumps", watch.slowed(orjson.dumps))
    encode_lines(MESSAGES)
    assert watch.gave_way == len(MESSAGES)


def test_others_have_their_turn_between_two_reads(
    watch: Watch,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    FileSystem().write_new(tmp_path / "f", encode_document(make(MESSAGES)))
    monkeypatch.setattr(os, "read", watch.slowed(os.read))
    pieces, _ = FileSystem().read(tmp_path / "f")
    assert watch.gave_way == len(pieces)


@pytest.mark.parametrize("size", [100, 5000, 50_000])
def test_messages_are_decoded_a_chunk_at_a_time(
    size: int,
    watch: Watch,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    messages = ["x" * size] * (2_000_000 // size)
    data = b"".join(encode_document(make(messages)))
    pieces = [data[start : start + SLICE] for start in range(0, len(data), SLICE)]
    decoded: list[int] = []
    plain = orjson.loads

    def loads(encoded: bytes) -> Any:
        decoded.append(len(encoded))
        watch.now += 0.1
        return plain(encoded)

    written, read = make(messages), decode_document(pieces)
    assert read is not None
    monkeypatch.setattr(orjson, "loads", loads)
    for document in (written, read):
        loaded = document.session()
        decoded.clear()
        watch.gave_way = 0
        assert loaded.messages == messages
        assert max(decoded) <= CHUNK + size + 10
        assert watch.gave_way == len(decoded) >= 2_000_000 // (CHUNK + size)
