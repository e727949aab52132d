"""The manager on event loops."""

from __future__ import annotations

import asyncio
import inspect
import threading
from typing import TYPE_CHECKING, Any

import pytest
import trio

from sessionkeeper import (
    AsyncSessionManager,
    AsyncSessionStore,
    NoCurrentSession,
    SessionManager,
    SessionStore,
    cancelled_outcome,
)
from sessionkeeper.testing import FakeClock, FaultyBackend, Injected

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    Scenario = Callable[[], Awaitable[Any]]


@pytest.fixture(params=["asyncio", "trio"])
def run(request: pytest.FixtureRequest) -> Callable[[Scenario], Any]:
    if request.param == "trio":
        return trio.run

    def on_asyncio(scenario: Scenario) -> Any:
        async def main() -> Any:
            return await scenario()

        return asyncio.run(main())

    return on_asyncio


def test_a_session_from_beginning_to_end(
    run: Callable[[Scenario], Any],
    folder: Path,
    clock: FakeClock,
) -> None:
    async def scenario() -> None:
        async with await AsyncSessionStore.open(folder, watch=False) as store:
            manager = AsyncSessionManager(store, clock=clock)
            with pytest.raises(NoCurrentSession):
                await manager.append([1])
            assert await manager.recover_session() is None
            session_id = await manager.start_session("Title", tags=["t"])
            assert manager.session_id == session_id
            await manager.append([1])
            await manager.change(state=2, title="Other")
            assert manager.dirty
            assert not await manager.check_auto_save()
            clock.advance(30)
            assert await manager.check_auto_save()
            await manager.append(["unwanted"])
            await manager.discard_changes()
            assert not await manager.force_save()
            note = await manager.annotate("text")
            event = await manager.add_event("kind", 1)
            assert (await manager.pause()).generation == 5
            assert (await manager.resume()).generation == 6
            stopped = await manager.stop_session()
            assert (stopped.messages, stopped.state, stopped.title) == ([1], 2, "Other")
            assert (stopped.annotations, stopped.events) == ([note], [event])
            assert stopped.status == "completed"

    run(scenario)


def test_a_save_cancelled_while_it_was_done_is_done(folder: Path) -> None:
    entered, go = threading.Event(), threading.Event()

    class Slow(FaultyBackend):
        armed = False

        def commit(self, batch: Any) -> None:
            if Slow.armed:
                entered.set()
                assert go.wait(10)
            super().commit(batch)

    async def scenario() -> None:
        inject = Injected(wrap_backend=Slow)
        async with await AsyncSessionStore.open(folder, watch=False, inject=inject) as store:
            manager = AsyncSessionManager(store)
            session_id = await manager.start_session("Title")
            await manager.append([1])
            Slow.armed = True
            saving = asyncio.ensure_future(manager.force_save())
            await asyncio.to_thread(entered.wait, 5)
            saving.cancel()
            go.set()
            with pytest.raises(asyncio.CancelledError) as cancelled:
                await saving
            assert cancelled_outcome(cancelled.value) == "done"
            assert not manager.dirty
            assert (await store.load_session(session_id)).messages == [1]

    asyncio.run(scenario())


def test_both_managers_have_the_same_methods_with_the_same_arguments() -> None:
    def public(cls: type) -> dict[str, Any]:
        members = inspect.getmembers(cls)
        return {name: member for name, member in members if not name.startswith("_")}

    sync, others = public(SessionManager), public(AsyncSessionManager)
    assert sync.keys() == others.keys()
    for name, member in sync.items():
        if inspect.isfunction(member):
            one = inspect.signature(member).parameters
            other = inspect.signature(others[name]).parameters
            assert [(p.name, p.default, p.kind) for p in one.values()] == [
                (p.name, p.default, p.kind) for p in other.values()
            ], name
    built = [inspect.signature(cls).parameters for cls in (SessionManager, AsyncSessionManager)]
    assert list(built[0]) == list(built[1])


def test_the_store_is_open_for_others_afterwards(folder: Path) -> None:
    with SessionStore.open(folder, watch=False) as store:

        async def scenario() -> str:
            shared = AsyncSessionStore(store)
            session_id = await AsyncSessionManager(shared).start_session("Title")
            await shared.close()
            return session_id

        asyncio.run(scenario())
    with SessionStore.open(folder, watch=False) as store:
        assert [info.title for info in store.list_sessions()] == ["Title"]
