"""Parts of a session: what is asked for comes back, and nothing else is decoded."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sessionkeeper import AsyncSessionStore, SessionNotFound, SessionStore, StoreClosed
from sessionkeeper import session as session_module
from sessionkeeper.slices import CHUNK
from sessionkeeper.storage.lines import JOINT, lines_between

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LONG = 5_000
MESSAGES = [{"n": number, "text": "x" * 40} for number in range(LONG)]


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, threading.Thread]]:
    """How many messages each step decoded, of how many bytes, and in which thread."""
    steps: list[tuple[int, int, threading.Thread]] = []

    def loads(data: bytes) -> Any:
        found = orjson.loads(data)
        if isinstance(found, list):
            steps.append((len(found), len(data), threading.current_thread()))
        return found

    monkeypatch.setattr(session_module, "orjson", SimpleNamespace(loads=loads))
    return steps


@pytest.fixture(params=["saved", "appended", "read"])
def long(folder: Path, request: pytest.FixtureRequest) -> Iterator[SessionStore]:
    """A long session in few large chunks, or in one for each message, or from its file."""
    messages = MESSAGES
    cache = 1 if request.param == "read" else 2**26
    with SessionStore.open(folder, watch=False, cache_bytes=cache) as store:
        if request.param == "appended":
            store.save_session("s1", messages[: LONG // 2])
            for start in range(LONG // 2, LONG, 100):
                store.append("s1", messages[start : start + 100])
        else:
            store.save_session("s1", messages)
        yield store


def numbers(messages: Any) -> list[int]:
    return [message["n"] for message in messages]


BOUNDS = [0, 1, 99, 100, LONG // 2, LONG - 1, LONG, LONG + 5, -1, -50, -LONG, -LONG - 5]


def test_a_part_is_what_a_slice_of_the_list_is(long: SessionStore) -> None:
    everything = list(range(LONG))
    for start in BOUNDS:
        for stop in (*BOUNDS, None, start + 3):
            found = numbers(long.iter_messages("s1", start=start, stop=stop))
            assert found == everything[start:stop], (start, stop)


@pytest.mark.parametrize(
    ("start", "stop"),
    [(0, 50), (LONG // 2 - 25, LONG // 2 + 25), (LONG // 3, LONG // 3 + 50), (-50, None)],
)
def test_nothing_else_is_decoded(
    start: int,
    stop: int | None,
    long: SessionStore,
    decoded: list[tuple[int, int, threading.Thread]],
) -> None:
    found = list(long.iter_messages("s1", start=start, stop=stop))
    assert sum(count for count, _, _ in decoded) == len(found) == 50


def test_the_last_ones_alone_are_decoded(
    long: SessionStore,
    decoded: list[tuple[int, int, threading.Thread]],
) -> None:
    assert numbers(long.load_session("s1", last=50).messages) == list(range(LONG - 50, LONG))
    assert sum(count for count, _, _ in decoded) == 50


def test_an_iteration_decodes_no_further_than_it_gets(
    long: SessionStore,
    decoded: list[tuple[int, int, threading.Thread]],
) -> None:
    messages = long.iter_messages("s1")
    assert decoded == []
    assert next(messages)["n"] == 0
    assert len(decoded) == 1
    assert numbers(messages) == list(range(1, LONG))
    assert max(size for _, size, _ in decoded) < 2 * CHUNK


def test_all_is_of_one_version(store: SessionStore) -> None:
    store.save_session("s1", [1, 2, 3])
    messages = store.iter_messages("s1", start=1)
    assert next(messages) == 2
    store.append("s1", [4])
    store.rewind("s1", message=1)
    store.delete_session("s1")
    assert list(messages) == [3]


def test_values_are_what_they_were(folder: Path) -> None:
    moment = datetime(2025, 1, 1, tzinfo=UTC)
    with SessionStore.open(folder, watch=False, codec="tagged") as store:
        store.save_session("s1", [{"at": moment}, {"at": None}])
        assert list(store.iter_messages("s1", stop=1)) == [{"at": moment}]


def test_a_part_belongs_to_whoever_asked(store: SessionStore) -> None:
    store.save_session("s1", [{"a": []}])
    next(store.iter_messages("s1"))["a"].append(1)
    assert next(store.iter_messages("s1")) == {"a": []}


def test_each_namespace_has_its_own(store: SessionStore) -> None:
    store.save_session("s1", [1, 2])
    store.scope("team").save_session("s1", [3, 4])
    assert list(store.scope("team").iter_messages("s1", start=-1)) == [4]


def test_what_is_wrong_is_said_at_once(store: SessionStore) -> None:
    store.save_session("s1", [1])
    with pytest.raises(SessionNotFound):
        store.iter_messages("s9")
    for bounds in ({"start": None}, {"start": 1.0}, {"stop": "1"}, {"stop": True}):
        with pytest.raises(ValueError, match="whole number"):
            store.iter_messages("s1", **bounds)
    messages = store.iter_messages("s1")
    store.close()
    assert list(messages) == [1], "it was read before"
    with pytest.raises(StoreClosed):
        store.iter_messages("s1")


def test_on_an_event_loop_it_is_decoded_elsewhere_in_steps(
    folder: Path,
    decoded: list[tuple[int, int, threading.Thread]],
) -> None:
    async def scenario() -> None:
        async with await AsyncSessionStore.open(folder, watch=False) as store:
            await store.save_session("s1", MESSAGES)
            decoded.clear()
            part = [m["n"] async for m in store.iter_messages("s1", start=100, stop=-100)]
            assert part == list(range(100, LONG - 100))
            assert sum(count for count, _, _ in decoded) == len(part)
            assert len(decoded) > 2
            assert max(size for _, size, _ in decoded) < 2 * CHUNK
            assert threading.current_thread() not in {thread for _, _, thread in decoded}
            decoded.clear()
            messages = store.iter_messages("s1")
            assert (await anext(messages))["n"] == 0
            assert len(decoded) == 1
            with pytest.raises(SessionNotFound):
                await anext(store.iter_messages("s9"))
            with pytest.raises(ValueError, match="whole number"):
                await anext(store.iter_messages("s1", start="0"))  # type: ignore[arg-type]
            scope = store.scope("team")
            await scope.save_session("s1", [7, 8])
            assert [message async for message in scope.iter_messages("s1", start=1)] == [8]

    asyncio.run(scenario())


@given(st.lists(st.integers(1, 4), max_size=8), st.integers(0, 40), st.integers(0, 40))
@example([1, 1, 1], 1, 2)
@example([4], 3, 4)
def test_lines_are_found_wherever_they_are_cut(sizes: list[int], start: int, stop: int) -> None:
    lines = iter(range(100))
    chunks = [JOINT.join(b"%d" % next(lines) for _ in range(size)) for size in sizes]
    count = sum(sizes)
    start, stop = min(start, count), min(stop, count)
    for kind in (bytes, memoryview):
        found = list(lines_between([kind(chunk) for chunk in chunks], count, start, stop))
        text = JOINT.join(found)
        assert text.split(JOINT) == [b"%d" % n for n in range(start, stop)] or (
            not found and stop <= start
        )
