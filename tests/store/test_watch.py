"""Waiting for sessions to change."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import TYPE_CHECKING, Any

import pytest
import trio

from sessionkeeper import (
    AsyncSessionStore,
    InvalidSessionId,
    SessionChange,
    SessionStore,
    StoreClosed,
    StoreReadOnly,
    Watch,
)
from sessionkeeper.testing import crash_actor, wait_until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path


def shown(change: SessionChange | None) -> tuple[str, str, int | None] | None:
    if change is None:
        return None
    generation = None if change.info is None else change.info.generation
    return change.session_id, change.kind, generation


def has_ended(watch: Watch) -> bool:
    return watch.ended


def test_changes_come_in_order(store: SessionStore) -> None:
    store.save_session("before")
    with store.watch() as watch:
        store.save_session("s1", title="Title")
        store.append("s2", [1])
        first = watch.next(5)
        assert shown(first) == ("s1", "saved", 1)
        assert first is not None
        assert first.info == store.load_session("s1").info
        store.delete_session("s1")
        assert shown(watch.next(5)) == ("s2", "saved", 1)
        assert shown(watch.next(5)) == ("s1", "trashed", None)
        assert watch.next(0) is None
        assert not has_ended(watch)
    assert has_ended(watch)
    store.save_session("s3")
    assert watch.next(0) is None


def test_a_session_is_given_once_as_it_is_by_then(store: SessionStore) -> None:
    with store.watch() as watch:
        for number in range(50):
            store.append("s1", [number])
        store.append("s2", [1])
        store.rename_session("s1", "s3")
        found = [shown(watch.next(5)) for _ in range(3)]
        assert sorted(map(str, found)) == [
            "('s1', 'trashed', None)",
            "('s2', 'saved', 1)",
            "('s3', 'saved', 51)",
        ]
        assert watch.next(0) is None


def test_one_session_alone(store: SessionStore) -> None:
    with store.watch("s1") as watch:
        store.save_session("s2")
        store.save_session("s1")
        assert shown(watch.next(5)) == ("s1", "saved", 1)
        store.delete_session("s2")
        assert watch.next(0) is None
    with pytest.raises(InvalidSessionId):
        store.watch("../s1")
    with pytest.raises(TypeError):
        store.watch(3)  # type: ignore[arg-type]


def test_an_iteration_ends_with_the_store(folder: Path) -> None:
    seen: list[Any] = []
    with SessionStore.open(folder, watch=False) as store:
        watch = store.watch()
        reader = threading.Thread(target=lambda: seen.extend(map(shown, watch)))
        reader.start()
        store.save_session("s1")
        wait_until(lambda: len(seen) == 1)
        crash_actor(store)
        store.append("s1", [1])
        wait_until(lambda: len(seen) == 2)
    reader.join(5)
    assert not reader.is_alive()
    assert seen == [("s1", "saved", 1), ("s1", "saved", 2)]
    assert watch.ended
    with pytest.raises(StoreClosed):
        store.watch()


def test_closing_wakes_whoever_waits(store: SessionStore) -> None:
    watch = store.watch()
    found: list[Any] = []
    readers = [threading.Thread(target=lambda: found.append(watch.next())) for _ in range(3)]
    for reader in readers:
        reader.start()
    wait_until(lambda: len(watch._waiting) == 3)
    watch.close()
    watch.close()
    for reader in readers:
        reader.join(5)
    assert found == [None, None, None]


def test_two_who_wait_share_what_comes(store: SessionStore) -> None:
    watch = store.watch()
    found: list[Any] = []
    readers = [threading.Thread(target=lambda: found.append(watch.next(10))) for _ in range(2)]
    for reader in readers:
        reader.start()
    wait_until(lambda: len(watch._waiting) == 2)
    store.save_session("s1")
    wait_until(lambda: len(found) == 1)
    store.save_session("s2")
    for reader in readers:
        reader.join(5)
    assert sorted(change.session_id for change in found) == ["s1", "s2"]


def test_a_wait_that_is_over_leaves_nothing_behind(store: SessionStore) -> None:
    with store.watch() as watch:
        for _ in range(20):
            assert watch.next(0.001) is None
        assert len(watch._waiting) <= 1


def test_an_edit_by_hand_can_be_seen_when_it_is_told(folder: Path) -> None:
    with SessionStore.open(folder, reconcile_interval=0.05) as store:
        store.save_session("s1", ["first"])
        store.checkpoint()
        with store.watch("s1") as watch:
            for number in range(5):
                fields = json.loads((folder / "s1.json").read_bytes())
                del fields["checksum"]
                fields["messages"] = [number]
                (folder / "edited").write_text(json.dumps(fields))
                (folder / "edited").rename(folder / "s1.json")
                change = watch.next(10)
                assert change is not None
                assert change.kind == "adopted"
                assert store.load_session("s1").messages == [number]
                assert change.info == store.load_session("s1").info
            (folder / "s1.json").unlink()
            assert shown(watch.next(10)) == ("s1", "vanished", None)


def test_a_store_for_reading_only_is_told_nothing(folder: Path) -> None:
    SessionStore.open(folder, watch=False).close()
    with SessionStore.open(folder, read_only=True) as store, pytest.raises(StoreReadOnly):
        store.watch()


@pytest.mark.parametrize("run", [asyncio.run, trio.run])
def test_on_an_event_loop(run: Any, folder: Path) -> None:
    async def scenario() -> list[Any]:
        seen: list[Any] = []
        store = await AsyncSessionStore.open(folder, watch=False)
        async with store.watch() as watch:
            await store.save_session("s1")
            async for change in watch:
                seen.append(shown(change))
                if len(seen) == 1:
                    await store.append("s1", [1])
                elif len(seen) == 2:
                    await store.delete_session("s1")
                else:
                    await store.close()
        return seen

    async def main() -> list[Any]:
        return await scenario()

    found = run(scenario) if run is trio.run else run(main())
    assert found == [("s1", "saved", 1), ("s1", "saved", 2), ("s1", "trashed", None)]


def test_a_wait_that_is_cancelled(folder: Path) -> None:
    async def scenario() -> None:
        async with await AsyncSessionStore.open(folder, watch=False) as store:
            watch = store.watch()
            waiting: Callable[[], Awaitable[Any]] = watch.next
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await waiting()
            await store.save_session("s1")
            assert shown(await watch.next()) == ("s1", "saved", 1)
            watch.close()
            assert await watch.next() is None

    asyncio.run(scenario())
