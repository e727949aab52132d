"""The façade for event loops: on asyncio and on trio, several loops on one store, cancelled."""

from __future__ import annotations

import asyncio
import inspect
import os
import threading
from typing import TYPE_CHECKING, Any

import orjson
import pytest
import trio

from sessionkeeper import (
    AsyncSessionStore,
    Conflict,
    CountSessions,
    InvalidQuery,
    InvalidValue,
    SaveSession,
    SessionExists,
    SessionNotFound,
    SessionStore,
    StoreClosed,
    StoreLocked,
    UnreadFailures,
    cancelled_outcome,
)
from sessionkeeper.slices import SLICE
from sessionkeeper.testing import FaultyBackend, Injected, wait_until

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


def test_texts_are_searched(run: Callable[[Scenario], Any], folder: Path) -> None:
    async def scenario() -> None:
        async with await AsyncSessionStore.open(folder, watch=False, full_text=True) as store:
            await store.save_session("s1", ["Refund my flight"], tags=["a"])
            await store.scope("team").save_session("s2", ["refund"])
            assert [info.session_id for info in await store.search(text="refund fl*")] == ["s1"]
            (hit,) = await store.search_messages("refund", tags=["a"], order="rank")
            assert (hit.info.session_id, hit.number) == ("s1", 0)
            assert hit.snippet == "«Refund» my flight"
            (other,) = await store.scope("team").search_messages("refund")
            assert other.info.session_id == "s2"
            with pytest.raises(InvalidQuery):
                await store.search(text="")

    run(scenario)


def test_every_method_works(run: Callable[[Scenario], Any], folder: Path) -> None:
    async def scenario() -> None:
        async with await AsyncSessionStore.open(folder, watch=False) as store:
            assert (await store.save_session("s1", [1], tags=["a"])).generation == 1
            assert (await store.append("s1", [2, 3], key="k")).message_count == 3
            assert (await store.append("s1", [2, 3], key="k")).message_count == 3
            assert (await store.create_session("s2", state={"n": 0})).generation == 1
            with pytest.raises(SessionExists):
                await store.create_session("s2")
            await store.update("s2", lambda s: s.replace(state={"n": s.state["n"] + 1}))
            assert (await store.load_session("s2")).state == {"n": 1}
            assert (await store.load_session("s1", last=1)).messages == [3]
            assert await store.contains("s1")
            assert not await store.contains("s9")
            assert await store.count() == 2
            assert [info.session_id for info in await store.search(tags=["a"])] == ["s1"]
            assert len(await store.list_sessions(limit=1)) == 1
            assert [info.session_id for info in await store.get_recent()] == ["s2", "s1"]
            assert [info.session_id async for info in store.iter_sessions()] == ["s1", "s2"]
            assert [len(session) async for session in store.load_all()] == [3, 0]
            receipt = await store.tell(SaveSession("s3", []))
            assert (await receipt.result()).generation == 1
            assert receipt.done()
            assert await store.ask(CountSessions(), timeout=5) == 3
            assert await store.cleanup(dry_run=True) == []
            assert await store.delete_session("s3")
            assert (await store.undelete_session("s3")).generation == 2
            await store.flush()
            assert store.info().state == "ready"
            assert store.path == folder
            assert len(store.last_recovery.records) == 0
            with pytest.raises(SessionNotFound):
                await store.load_session("s9")
            with pytest.raises(Conflict):
                await store.save_session("s1", [], expected_generation=9)
            with pytest.raises(InvalidValue):
                await store.append("s1", [float("nan")])
        with pytest.raises(StoreClosed):
            await store.append("s1", [1])

    run(scenario)
    with SessionStore.open(folder, watch=False) as again:
        assert again.load_session("s1").messages == [1, 2, 3]


def test_many_tasks_at_once(run: Callable[[Scenario], Any], folder: Path) -> None:
    async def scenario() -> None:
        async with await AsyncSessionStore.open(folder, watch=False) as store:

            async def write(number: int) -> None:
                for turn in range(5):
                    await store.append("shared", [[number, turn]])

            await _all(write, range(20))
            messages = (await store.load_session("shared")).messages
            assert len(messages) == 100
            for number in range(20):
                assert [m[1] for m in messages if m[0] == number] == list(range(5))

    run(scenario)


async def _all(work: Callable[[int], Awaitable[None]], numbers: range) -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        async with trio.open_nursery() as nursery:
            for number in numbers:
                nursery.start_soon(work, number)
    else:
        await asyncio.gather(*(work(number) for number in numbers))


def test_several_loops_and_threads_share_one_store(store: SessionStore) -> None:
    shared = AsyncSessionStore(store)

    def loop(number: int) -> None:
        async def write() -> None:
            for turn in range(10):
                await shared.append(f"s{number}", [turn])
                assert len((await shared.load_session(f"s{number}")).messages) == turn + 1

        trio.run(write) if number % 2 else asyncio.run(write())

    threads = [threading.Thread(target=loop, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(store) == 6
    asyncio.run(shared.close())


# --- cancellation -------------------------------------------------------------------------


class Held:
    """Keeps the actor busy, before or in the midst of a save."""

    def __init__(self, store: AsyncSessionStore) -> None:
        self.busy = threading.Event()
        self.go = threading.Event()
        self._end = store.subscribe(self._hold)

    def _hold(self, event: Any) -> None:
        if event.session_id == "held":
            self.busy.set()
            self.go.wait(10)

    def release(self) -> None:
        self._end()
        self.go.set()


async def _until(condition: Callable[[], object]) -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        await trio.to_thread.run_sync(wait_until, condition)
    else:
        await asyncio.to_thread(wait_until, condition)


def test_a_save_cancelled_before_it_began_never_happens(
    run: Callable[[Scenario], Any],
    folder: Path,
) -> None:
    async def scenario() -> None:
        async with await AsyncSessionStore.open(folder, watch=False) as store:
            await store.flush()
            held = Held(store)
            await store.tell(SaveSession("held", []))
            await _until(held.busy.is_set)
            error = await _cancelled(
                lambda: store.save_session("s1", [1]),
                lambda: store.info().pending == 1,
                held.release,
            )
            assert cancelled_outcome(error) == "not executed"
            assert "not executed" in error.__notes__[0]
            await store.flush()
            assert not await store.contains("s1")

    run(scenario)


def test_a_save_cancelled_while_it_was_done_is_done_and_says_so(
    run: Callable[[Scenario], Any],
    folder: Path,
) -> None:
    entered, go = threading.Event(), threading.Event()

    class Slow(Conflict):
        pass

    async def scenario() -> None:
        async with await AsyncSessionStore.open(
            folder, watch=False, inject=_slow(entered, go)
        ) as store:
            error = await _cancelled(
                lambda: store.save_session("s1", [1]),
                entered.is_set,
                go.set,
            )
            assert cancelled_outcome(error) == "done"
            assert "generation=1" in error.__notes__[0]
            assert (await store.load_session("s1")).messages == [1]

    run(scenario)


def _slow(entered: threading.Event, go: threading.Event) -> Any:
    class Slow(FaultyBackend):
        def commit(self, batch: Any) -> None:
            entered.set()
            assert go.wait(10)
            super().commit(batch)

    return Injected(wrap_backend=Slow)


async def _cancelled(
    call: Callable[[], Awaitable[Any]],
    begun: Callable[[], object],
    then: Callable[[], None],
) -> BaseException:
    """Start a call, cancel it once it has `begun`, let things go on, return its cancellation."""
    caught: list[BaseException] = []

    async def guarded() -> None:
        try:
            await call()
        except BaseException as error:
            caught.append(error)
            raise

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(guarded)
            await _until(begun)
            nursery.cancel_scope.cancel()
            then_later = threading.Timer(0.05, then)
            then_later.start()
        then_later.join()
    else:
        task = asyncio.ensure_future(guarded())
        await _until(begun)
        task.cancel()
        then_later = threading.Timer(0.05, then)
        then_later.start()
        with pytest.raises(asyncio.CancelledError):
            await task
        then_later.join()
    return caught[0]


def test_a_timeout_of_asyncio_leaves_no_doubt(folder: Path) -> None:
    async def scenario() -> None:
        async with await AsyncSessionStore.open(folder, watch=False) as store:
            await store.flush()
            held = Held(store)
            await store.tell(SaveSession("held", []))
            await _until(held.busy.is_set)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await store.append("s1", [1])
            held.release()
            await store.flush()
            assert not await store.contains("s1")

    asyncio.run(scenario())


def test_a_loop_that_is_closed_before_the_answer_hurts_nobody(store: SessionStore) -> None:
    shared = AsyncSessionStore(store)
    store.flush()  # past what the recovery posted
    held = Held(shared)
    store.tell(SaveSession("held", []))
    assert held.busy.wait(5)

    async def hasty() -> None:
        task = asyncio.ensure_future(shared.append("s1", [1]))
        await _until(lambda: store.info().pending == 1)
        task.cancel()

    threading.Timer(0.1, held.release).start()
    asyncio.run(hasty())
    store.save_session("s2", [])
    assert "s2" in store
    asyncio.run(shared.close())


# --- the event loop is never held up ------------------------------------------------------


def test_opening_and_closing_do_not_block_the_loop(folder: Path) -> None:
    async def scenario() -> list[str]:
        order: list[str] = []

        async def tick() -> None:
            while True:
                order.append("tick")
                await asyncio.sleep(0)

        ticking = asyncio.ensure_future(tick())
        store = await AsyncSessionStore.open(folder)
        order.append("open")
        await store.append("s1", [1])
        await store.close()
        order.append("closed")
        ticking.cancel()
        return order

    order = asyncio.run(scenario())
    opened, closed = order.index("open"), order.index("closed")
    assert "tick" in order[:opened]
    assert "tick" in order[opened:closed]


def test_nothing_of_the_store_runs_on_the_loops_thread(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Encoding, reading files and waiting for room happen on other threads."""
    from sessionkeeper.engine.view import View
    from sessionkeeper.storage import codec, lines

    threads: dict[str, set[int]] = {"encode": set(), "load": set()}
    plain_encode, plain_load = codec.encode, View.load

    def encode(value: Any, *, where: str = "value") -> bytes:
        threads["encode"].add(threading.get_ident())
        return plain_encode(value, where=where)

    def load(self: View, session_id: str) -> Any:
        threads["load"].add(threading.get_ident())
        return plain_load(self, session_id)

    monkeypatch.setattr(lines, "encode", encode)
    monkeypatch.setattr(View, "load", load)

    async def scenario() -> int:
        async with await AsyncSessionStore.open(folder, watch=False) as store:
            await store.append("s1", ["x" * 1000] * 10)
            await store.load_session("s1")
        return threading.get_ident()

    loops_thread = asyncio.run(scenario())
    assert threads["encode"]
    assert threads["load"]
    assert loops_thread not in threads["encode"] | threads["load"]


def test_no_step_on_the_way_of_a_long_session_is_long(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A call into C keeps the event loop waiting for as long as it takes."""
    steps: list[int] = []
    plain_read, plain_writev, plain_loads = os.read, os.writev, orjson.loads

    def read(descriptor: int, count: int) -> bytes:
        data = plain_read(descriptor, count)
        steps.append(len(data))
        return data

    def writev(descriptor: int, buffers: Any) -> int:
        steps.append(plain_writev(descriptor, buffers))
        return steps[-1]

    def loads(encoded: bytes) -> Any:
        steps.append(len(encoded))
        return plain_loads(encoded)

    monkeypatch.setattr(os, "read", read)
    monkeypatch.setattr(os, "writev", writev)
    monkeypatch.setattr(orjson, "loads", loads)
    messages = [{"n": number, "text": "x" * 60_000} for number in range(60)]

    async def scenario() -> None:
        async with await AsyncSessionStore.open(folder, watch=False, cache_bytes=1) as store:
            await store.save_session("s1", messages)
            await store.append("s1", messages)
            assert (await store.load_session("s1")).messages == messages * 2

    asyncio.run(scenario())
    assert sum(steps) > 4 * 60 * 60_000
    assert max(steps) <= SLICE


# --- the same façade ----------------------------------------------------------------------


RENAMED = {"__contains__": "contains", "__len__": "count"}
SYNC_ONLY = {"submit", "require_open"}


def test_both_facades_have_the_same_methods_with_the_same_arguments() -> None:
    def public(cls: type) -> dict[str, Any]:
        return {
            RENAMED.get(name, name): member
            for name, member in inspect.getmembers(cls)
            if (not name.startswith("_") or name in RENAMED) and name not in SYNC_ONLY
        }

    sync, others = public(SessionStore), public(AsyncSessionStore)
    assert sync.keys() == others.keys()
    for name, member in sync.items():
        if not inspect.isfunction(member) or name == "contains":
            continue
        one = inspect.signature(member).parameters
        other = inspect.signature(others[name]).parameters
        assert list(one) == list(other), name
        assert [p.default for p in one.values()] == [p.default for p in other.values()], name
        assert [p.kind for p in one.values()] == [p.kind for p in other.values()], name


# --- opening and closing that fail ----------------------------------------------------------


def test_an_open_that_is_refused_leaves_nothing_behind(
    run: Callable[[Scenario], Any],
    store: SessionStore,
    folder: Path,
) -> None:
    async def scenario() -> None:
        with pytest.raises(StoreLocked):
            await AsyncSessionStore.open(folder)
        async with await AsyncSessionStore.open(folder, read_only=True) as beside:
            assert await beside.processes() == []

    run(scenario)


def test_an_open_that_is_cancelled_gives_the_folder_up_again(folder: Path) -> None:
    entered, go = threading.Event(), threading.Event()

    class Slow(FaultyBackend):
        def recover(self) -> Any:
            entered.set()
            assert go.wait(10)
            return super().recover()

    async def scenario() -> None:
        inject = Injected(wrap_backend=Slow)
        opening = asyncio.ensure_future(AsyncSessionStore.open(folder, inject=inject))
        await _until(entered.is_set)
        opening.cancel()
        threading.Timer(0.05, go.set).start()
        with pytest.raises(asyncio.CancelledError):
            await opening

    asyncio.run(scenario())

    def opened() -> bool:
        try:
            SessionStore.open(folder, watch=False).close()
        except StoreLocked:
            return False
        return True

    wait_until(opened)


def test_what_nobody_looked_at_is_raised_by_close_or_noted(
    run: Callable[[Scenario], Any],
    folder: Path,
) -> None:
    async def tell_in_vain(store: AsyncSessionStore) -> None:
        await store.tell(SaveSession("s1", [], expected_generation=9))

    async def scenario() -> None:
        store = await AsyncSessionStore.open(folder)
        await tell_in_vain(store)
        with pytest.raises(UnreadFailures):
            await store.close()
        with pytest.raises(KeyError) as raised:  # noqa: PT012 - the block is the point
            async with await AsyncSessionStore.open(folder) as store:
                receipt = await store.tell(SaveSession("s1", [], expected_generation=8))
                assert isinstance(await receipt.exception(), Conflict)
                with pytest.raises(Conflict):
                    await receipt.result()
                await tell_in_vain(store)
                raise KeyError("the body's own")
        assert "UnreadFailures" in raised.value.__notes__[0]

    run(scenario)


def test_a_second_cancellation_leaves_the_outcome_unknown(folder: Path) -> None:
    entered, go = threading.Event(), threading.Event()

    async def scenario() -> BaseException:
        inject = _slow(entered, go)
        async with await AsyncSessionStore.open(folder, watch=False, inject=inject) as store:
            task = asyncio.ensure_future(store.save_session("s1", [1]))
            await _until(entered.is_set)
            task.cancel()
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError) as raised:
                await task
            go.set()
        return raised.value

    assert cancelled_outcome(asyncio.run(scenario())) == "unknown"


def test_an_update_that_loses_the_race_is_repeated(folder: Path) -> None:
    async def scenario() -> None:
        async with await AsyncSessionStore.open(folder, watch=False) as store:
            await store.save_session("s1", state=0)

            async def count(_: int) -> None:
                for _turn in range(5):
                    await store.update("s1", lambda s: s.replace(state=s.state + 1))

            await _all(count, range(4))
            assert (await store.load_session("s1")).state == 20

    asyncio.run(scenario())
