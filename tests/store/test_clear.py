"""Clearing a whole store."""

from __future__ import annotations

import asyncio
import errno
from typing import TYPE_CHECKING, Any

import pytest

from sessionkeeper import (
    AsyncSessionStore,
    DeleteSession,
    InvalidValue,
    SessionStore,
    StorageFailed,
    StoreClosed,
    StoreReadOnly,
)
from sessionkeeper.testing import (
    EventLog,
    Fault,
    FaultyBackend,
    FaultyFileSystem,
    Injected,
    InjectedCrash,
)

if TYPE_CHECKING:
    from pathlib import Path

    from sessionkeeper.storage.backend import Backend


def test_all_sessions_go_to_the_trash(store: SessionStore) -> None:
    store.save_session("s1", [1], status="active")
    store.save_session("s2", [2])
    store.pin("s2")
    with EventLog(store) as log:
        assert store.clear() == 2
        assert [event.detail for event in log.wait_for("trashed", 2)] == ["cleared", "cleared"]
    assert len(store) == 0
    assert list(store.list_sessions()) == []
    assert store.clear() == 0
    store.undelete_session("s1")
    assert store.load_session("s1").messages == [1]


def test_more_sessions_than_are_sent_at_once(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sessionkeeper.changing.CLEARED_AT_ONCE", 3)
    with SessionStore.open(folder, durability="memory") as store:
        for number in range(20):
            store.save_session(f"s{number}", [])
        assert store.clear() == 20
        assert len(store) == 0


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("durability", ["journal", "file", "memory"])
def test_the_number_is_right_over_a_crash(*, after: bool, durability: str, folder: Path) -> None:
    backends: list[FaultyBackend] = []

    def wrap(backend: Backend) -> Backend:
        backends.append(FaultyBackend(backend))
        return backends[-1]

    inject = Injected(wrap_backend=wrap)
    with SessionStore.open(folder, watch=False, durability=durability, inject=inject) as store:
        for number in range(10):
            store.save_session(f"s{number}", [])
        store.flush()
        backends[0].fail(Fault("commit", InjectedCrash("here"), after=after))
        assert store.clear() == 10
        assert store.info().restarts == 1
        assert len(store) == 0


def test_one_that_cannot_be_moved_is_named_when_all_is_over(folder: Path) -> None:
    backends: list[FaultyBackend] = []

    def wrap(backend: Backend) -> Backend:
        backends.append(FaultyBackend(backend))
        return backends[-1]

    with SessionStore.open(folder, watch=False, inject=Injected(wrap_backend=wrap)) as store:
        for number in range(10):
            store.save_session(f"s{number}", [])
        store.flush()
        error = StorageFailed("the medium refused")
        backends[0].fail(Fault("commit", error, times=2))
        with pytest.raises(StorageFailed):
            store.clear()
        assert store.info().pending == 0
        left = len(store)
        assert left >= 1
        assert store.clear() == left


def test_a_full_disk_clears_nothing_and_says_so(folder: Path) -> None:
    fs = FaultyFileSystem()
    with SessionStore.open(folder, watch=False, durability="file", inject=Injected(fs=fs)) as store:
        store.save_session("s1", [1])
        fs.fail(Fault("make_folder", OSError(errno.ENOSPC, "full"), times=100))
        with pytest.raises(StorageFailed):
            store.clear()
        fs.heal()
        assert store.load_session("s1").messages == [1]


def test_a_store_that_cannot_be_changed_is_not_cleared(folder: Path) -> None:
    with SessionStore.open(folder, watch=False) as store:
        store.save_session("s1", [1])
    with pytest.raises(StoreClosed):
        store.clear()
    with SessionStore.open(folder, read_only=True) as store:
        with pytest.raises(StoreReadOnly):
            store.clear()
        assert len(store) == 1


def test_on_an_event_loop(folder: Path) -> None:
    async def scenario() -> list[int]:
        async with await AsyncSessionStore.open(folder, watch=False) as store:
            await store.save_session("s1", [1])
            return [await store.clear(), await store.clear()]

    assert asyncio.run(scenario()) == [1, 0]


@pytest.mark.parametrize("reason", ["", " ", "x" * 1001])
def test_a_reason_is_some_words(reason: str, store: SessionStore) -> None:
    store.save_session("s1")
    with pytest.raises(InvalidValue, match="reason"):
        store.ask(DeleteSession("s1", reason))
    wrong: Any = None
    with pytest.raises(TypeError, match="reason"):
        store.ask(DeleteSession("s1", wrong))
    with EventLog(store) as log:
        store.ask(DeleteSession("s1", "no longer needed"))
        assert log.wait_for("trashed")[0].detail == "no longer needed"
