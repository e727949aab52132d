from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING

from sessionkeeper import SessionStore
from sessionkeeper.engine.cache import ENTRY_OVERHEAD, SessionCache
from sessionkeeper.storage.documents import Document, Record
from sessionkeeper.testing.clock import START

if TYPE_CHECKING:
    from pathlib import Path

    from sessionkeeper.testing import FakeClock

RECORD = Record(
    session_id="s",
    generation=1,
    lsn=1,
    created_at=START,
    updated_at=START,
    completed_at=None,
    persisted_until=None,
    status=None,
    title=None,
    summary=None,
    tags=(),
    message_count=0,
    total_cost=0.0,
)


def document(session_id: str, size: int, lsn: int = 1) -> Document:
    state = b'"' + b"x" * (size - 2 - len(RECORD.metadata)) + b'"'
    return Document(replace(RECORD, session_id=session_id, lsn=lsn), state=state)


def test_it_is_bounded_in_bytes(clock: FakeClock) -> None:
    cache = SessionCache(10 * (1000 + ENTRY_OVERHEAD), 60, clock)
    for number in range(100):
        cache.put(document(f"s{number}", 1000))
        assert cache.stored_bytes() <= 10 * (1000 + ENTRY_OVERHEAD)
    assert len(cache) == 10
    assert cache.get("s99") is not None
    assert cache.get("s0") is None


def test_what_does_not_fit_bypasses_it_and_drops_the_older_version(clock: FakeClock) -> None:
    cache = SessionCache(5000, 60, clock)
    cache.put(document("s", 1000))
    cache.put(document("s", 6000, lsn=2))
    assert cache.get("s") is None
    assert len(cache) == 0


def test_an_entry_dies_at_its_time(clock: FakeClock) -> None:
    cache = SessionCache(5000, 60, clock)
    cache.put(document("s", 100))
    clock.advance(59.9)
    assert cache.get("s") is not None
    clock.advance(0.2)
    assert cache.get("s") is None
    assert (cache.hits, cache.misses) == (1, 1)


def test_threads_may_share_it(clock: FakeClock) -> None:
    cache = SessionCache(20_000, 60, clock)

    def work(number: int) -> None:
        for turn in range(500):
            cache.put(document(f"s{(number + turn) % 30}", 1000))
            cache.get(f"s{turn % 30}")
            cache.discard(f"s{turn % 7}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cache.stored_bytes() == len(cache) * (1000 + ENTRY_OVERHEAD)


def test_the_settings_of_the_store_reach_it(folder: Path) -> None:
    with SessionStore.open(folder, watch=False, cache_bytes=50_000) as store:
        for number in range(100):
            store.save_session(f"s{number}", ["x" * 2000])
        assert 30_000 < store.info().cached_bytes <= 50_000
        assert store.load_session("s0").messages == ["x" * 2000]


def test_callers_cannot_hurt_each_other_through_the_cache(store: SessionStore) -> None:
    mine = [{"role": "user", "content": ["a"]}]
    store.save_session("s1", mine, state={"k": [1]}, metadata={"m": [1]})
    mine[0]["content"].append("changed after the save")  # type: ignore[attr-defined]
    for _ in range(2):
        session = store.load_session("s1")
        assert session.messages == [{"role": "user", "content": ["a"]}]
        assert session.state == {"k": [1]}
        assert session.metadata == {"m": [1]}
        session.messages[0]["content"].append("x")
        session.messages.clear()
        session.state["k"].append(2)
        session.metadata["m"].append(2)
    assert store.list_sessions()[0].metadata == {"m": [1]}
