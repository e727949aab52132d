"""What waits somewhere inside has a bound: the ones that are shown nowhere else.

Mailbox and cache are bounded in tests/store/test_store.py, tests/engine/test_cache.py; the live
journal in tests/storage/test_journaled.py; what waits for the indices in test_indexer.py and
test_texts.py.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
from watchdog.events import FileCreatedEvent

from sessionkeeper import SaveSession, SessionStore, UnreadFailures, receipts
from sessionkeeper.engine.catalog import Catalog
from sessionkeeper.otp.mailbox import Envelope
from sessionkeeper.processes import notices
from sessionkeeper.processes.notices import WatchdogNotices
from sessionkeeper.storage.index import Index

if TYPE_CHECKING:
    from pathlib import Path

    from sessionkeeper.storage.documents import Record


def catalog_in_use(path: Path, limit: int) -> Catalog:
    """One whose index is right, and whose indexer does nothing."""
    catalog = Catalog(Index(path / "index.db"), 5.0, limit=limit, patience=0.01)
    catalog.end_comparison(catalog.begin_comparison())
    return catalog


def test_files_that_caught_up_do_not_pile_up_before_an_indexer_that_stands_still(
    store: SessionStore,
    tmp_path: Path,
) -> None:
    catalog = catalog_in_use(tmp_path, limit=5)
    made: list[Record] = []
    for number in range(6):
        store.save_session(f"s{number}", [])
        record = store._view.record(f"s{number}")
        assert record is not None
        made.append(record)
    for record in made[:5]:
        catalog.file(record)
        catalog.make_room()
    assert catalog.is_behind(), "there is room for five"
    catalog.file(made[5])
    catalog.make_room()
    assert not catalog.is_behind(), "they are found when all is compared"
    assert catalog.look(), "and it will be"


def test_many_waiting_files_make_the_indexer_hurry(store: SessionStore, tmp_path: Path) -> None:
    catalog = catalog_in_use(tmp_path, limit=4)
    woken: list[bool] = []
    for number in range(3):
        store.save_session(f"s{number}", [])
    catalog.attend(woken.append)
    catalog.end_comparison(catalog.begin_comparison())
    woken.clear()
    catalog._woken = None
    for number in range(3):
        record = store._view.record(f"s{number}")
        assert record is not None
        catalog.file(record)
    assert woken == [False, True]


def test_so_many_names_of_changed_files_are_collected(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(notices, "MANY", 3)
    woken: list[int] = []
    collecting = WatchdogNotices(lambda: woken.append(1))
    try:
        collecting.watch(tmp_path, "")
        for number in range(50):
            collecting.on_any_event(FileCreatedEvent(f"{tmp_path}/s{number}.json"))
        assert woken == [1], "once until it is taken"
        collected = collecting.take()
        assert len(collected.names) <= 3
        assert collected.unsure, "all of the folder is compared instead"
        collecting.on_any_event(FileCreatedEvent(f"{tmp_path}/s1.json"))
        assert collecting.take() == notices.Collected(names={"s1.json"})
        assert woken == [1, 1]
    finally:
        collecting.stop()


def test_so_many_failures_of_receipts_are_kept_and_the_others_counted(
    store: SessionStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(receipts, "MAX_KEPT_FAILURES", 3)
    store.save_session("s1")
    for _ in range(10):
        store.tell(SaveSession("s1", expected_generation=9))
    with pytest.raises(UnreadFailures) as caught:
        store.flush()
    assert len(caught.value.failures) == 3
    assert "10 commands" in str(caught.value)
    store.flush()


def test_a_receipt_that_is_kept_does_not_hold_what_was_sent(store: SessionStore) -> None:
    receipt = store.tell(SaveSession("s1", ["x" * 100_000]))
    receipt.result(5)
    store.flush()
    envelope: Any = receipt._reply
    assert isinstance(envelope, Envelope)
    assert envelope.message is None


def test_a_consumer_that_is_slow_costs_one_entry_for_each_session(store: SessionStore) -> None:
    with store.watch() as watch:
        for number in range(60):
            store.append(f"s{number % 3}", [number])
        assert len(watch._pending) == 3


def test_events_are_handed_over_and_not_queued(store: SessionStore) -> None:
    """A subscriber that does not return holds up the store, and with it the writers."""
    begun, go = threading.Event(), threading.Event()
    seen: list[str] = []

    def slow(event: Any) -> None:
        if event.kind == "saved":
            seen.append(event.session_id)
            begun.set()
            assert go.wait(10)

    unsubscribe = store.subscribe(slow)
    store.tell(SaveSession("s0"))
    assert begun.wait(5)
    for number in range(1, 4):
        store.tell(SaveSession(f"s{number}"))
    assert len(seen) == 1
    assert store.info().pending >= 3, "they wait in the mailbox, which is bounded"
    go.set()
    store.flush(10)
    unsubscribe()
    assert seen == [f"s{number}" for number in range(4)]
