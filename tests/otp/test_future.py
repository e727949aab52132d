"""Replies: set once, by whoever is first; waited for by threads and awaited by loops."""

from __future__ import annotations

import asyncio
import contextlib
import linecache
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
from otp_kit import PATIENCE, Bench, Boom, Gate, Recorder, panic

from sessionkeeper.otp import CallTimeout, Reply, future

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType


def test_the_first_outcome_wins_and_later_ones_are_refused() -> None:
    settlers: list[Callable[[Reply[int]], bool]] = [
        lambda reply: reply.set_result(1),
        lambda reply: reply.set_exception(Boom()),
        lambda reply: reply.withdraw(Boom()),
    ]
    for first in settlers:
        reply: Reply[int] = Reply()
        assert first(reply)
        error = reply.exception(0)
        for later in settlers:
            assert later(reply) is False
        assert reply.exception(0) is error


def test_result_and_exception() -> None:
    reply: Reply[int] = Reply()
    assert not reply.done()
    assert repr(reply) == "<Reply pending>"
    reply.set_result(7)
    assert reply.done()
    assert (reply.result(), reply.exception()) == (7, None)
    assert repr(reply) == "<Reply done>"
    failed: Reply[int] = Reply()
    failed.set_exception(Boom("boom"))
    for _ in range(2):
        with pytest.raises(Boom, match="boom"):
            failed.result()
    assert isinstance(failed.exception(), Boom)


@pytest.mark.parametrize("timeout", [0.01, 0, -1])
def test_waiting_has_an_end(timeout: float) -> None:
    reply: Reply[int] = Reply()
    assert not reply.wait(timeout)
    with pytest.raises(TimeoutError):
        reply.result(timeout)
    with pytest.raises(TimeoutError):
        reply.exception(timeout)
    assert not reply._waiting, "who gave up waiting leaves nothing behind"


def test_a_wait_may_be_longer_than_the_system_can_count() -> None:
    reply: Reply[int] = Reply()
    setter = threading.Timer(0.01, reply.set_result, (1,))
    setter.start()
    assert reply.result(1e300) == 1
    setter.join()


def test_an_outcome_that_comes_just_before_the_wait_is_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reply: Reply[int] = Reply()
    real = threading.Lock

    def settle_meanwhile() -> Any:
        reply.set_result(1)
        return real()

    monkeypatch.setattr(future, "Lock", settle_meanwhile)
    assert reply.result(0.01) == 1


@contextlib.contextmanager
def pause_at(line: str, action: Callable[[], object]) -> Iterator[None]:
    """Run `action` in this thread just before it executes a line of that text."""
    before = sys.gettrace()

    def trace(frame: FrameType, event: str, _arg: object) -> Any:
        if event == "line" and line in linecache.getline(frame.f_code.co_filename, frame.f_lineno):
            sys.settrace(None)
            action()
        return trace

    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


def test_of_two_that_settle_at_the_same_moment_one_wins() -> None:
    reply: Reply[str] = Reply()
    won: Recorder[tuple[str, bool]] = Recorder()
    rival = threading.Thread(target=lambda: won(("rival", reply.set_result("rival"))))

    def let_the_rival_try() -> None:
        rival.start()
        rival.join(0.05)

    with pause_at("self._value = value", let_the_rival_try):
        won(("first", reply.set_result("first")))
    rival.join(PATIENCE)
    assert rival.ident is not None, "the line that was waited for is gone"
    assert sorted(won.items) == [("first", True), ("rival", False)]
    assert reply.result(0) == "first"


def test_a_callback_added_at_the_moment_of_the_outcome_is_called() -> None:
    reply: Reply[int] = Reply()
    called = threading.Event()
    settler = threading.Thread(target=lambda: reply.set_result(1))

    def let_it_settle() -> None:
        settler.start()
        settler.join(0.05)

    with pause_at("self._waiting = [*", let_it_settle):
        reply.add_done_callback(lambda _: called.set())
    settler.join(PATIENCE)
    assert settler.ident is not None, "the line that was waited for is gone"
    assert called.wait(PATIENCE)


def test_many_threads_wait_for_one_reply() -> None:
    reply: Reply[str] = Reply()
    got: Recorder[str] = Recorder()
    waiting = [threading.Thread(target=lambda: got(reply.result(PATIENCE))) for _ in range(8)]
    for thread in waiting:
        thread.start()
    reply.set_result("x")
    assert got.wait_count(8) == ["x"] * 8
    for thread in waiting:
        thread.join(PATIENCE)


def test_claimed_replies_cannot_be_withdrawn_until_unclaimed() -> None:
    reply: Reply[int] = Reply()
    assert reply.claim()
    assert not reply.claim()
    assert repr(reply) == "<Reply executing>"
    assert not reply.withdraw(Boom())
    reply.unclaim()
    assert reply.withdraw(Boom())
    assert not reply.claim()
    reply.unclaim()
    assert reply.done()


def test_done_callbacks_run_once_and_cannot_hurt(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[int] = []
    reply: Reply[int] = Reply()

    def fail(_reply: object) -> None:
        raise Boom("boom")

    settled = threading.Event()
    reply.add_done_callback(fail)
    reply.add_done_callback(panic)
    reply.add_done_callback(lambda r: seen.append(r.result()))
    reply.add_done_callback(lambda _: settled.set())
    # In a thread of its own, as a server would: there nothing at all may get through.
    setter = threading.Thread(target=lambda: reply.set_result(1))
    setter.start()
    assert settled.wait(PATIENCE)
    setter.join(PATIENCE)
    reply.add_done_callback(fail)
    reply.add_done_callback(lambda r: seen.append(r.result() + 1))
    assert seen == [1, 2]
    assert caplog.text.count("Boom: boom") == 2
    assert "Panic: panic" in caplog.text


def test_in_the_main_thread_ctrl_c_gets_through_a_callback() -> None:
    reply: Reply[int] = Reply()
    reply.set_result(1)

    def interrupt(_reply: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reply.add_done_callback(interrupt)


# -- asyncio


def test_await_before_and_after_and_many_at_once(bench: Bench) -> None:
    ref = bench.lab()

    async def main() -> list[Any]:
        first = ref.send_request("first")
        assert first.wait(PATIENCE)
        many = [ref.send_request(number) for number in range(200)]

        async def one(reply: Reply[Any]) -> Any:
            return await reply

        return [await first, await asyncio.gather(*(one(reply) for reply in many))]

    assert asyncio.run(main()) == ["first", list(range(200))]


def test_await_raises_what_the_server_answered(bench: Bench) -> None:
    ref = bench.lab()

    def late(_server: object) -> None:
        raise CallTimeout("inner")

    async def main() -> None:
        await ref.send_request(late)

    with pytest.raises(CallTimeout, match="inner"):
        asyncio.run(main())


def test_a_cancelled_await_takes_nothing_back_unless_asked_to(bench: Bench) -> None:
    ref = bench.lab()
    gate = Gate()
    ref.cast(gate)
    gate.wait_reached()
    kept, dropped = ref.send_request("kept"), ref.send_request("dropped")

    async def main() -> None:
        for reply in (kept, dropped):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await reply
        assert dropped.withdraw(CallTimeout("cancelled", executed=False))

    asyncio.run(main())
    gate.open()
    assert kept.result(PATIENCE) == "kept"
    with pytest.raises(CallTimeout):
        dropped.result(PATIENCE)


def test_a_reply_that_comes_after_its_loop_has_gone(bench: Bench) -> None:
    ref = bench.lab()
    gate = Gate()
    reply = ref.send_request(gate)
    gate.wait_reached()

    async def main() -> None:
        waiting = asyncio.ensure_future(_await(reply))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(main())
    gate.open()
    assert reply.result(PATIENCE) is True
    assert ref.call("unhurt") == "unhurt"


async def _await(reply: Reply[Any]) -> Any:
    return await reply


def test_await_outside_asyncio_says_so() -> None:
    reply: Reply[int] = Reply()
    with pytest.raises(RuntimeError, match="no running event loop"):
        next(reply.__await__())
