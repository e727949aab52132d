"""What Pykka does, measured, and what a server does instead: one pair of tests for each case.

The stock companions state Pykka's behaviour as it is. One that fails says that Pykka has
changed, and that its counterpart here may have become simpler. Those that would wreck the test
process run in an interpreter of their own.
"""

from __future__ import annotations

import asyncio
import queue
import sys
import threading
from typing import TYPE_CHECKING, Any

import pykka
import pytest
from otp_kit import (
    PATIENCE,
    Bench,
    Boom,
    Gate,
    Lab,
    Recorder,
    Refused,
    boom,
    outcome,
    refuse,
    run_python,
)
from pykka._envelope import Envelope as PykkaEnvelope
from pykka.messages import _ActorStop

from sessionkeeper.otp import (
    Busy,
    CallTimeout,
    ExitReason,
    Reply,
    ServerDown,
    ServerRef,
    StartError,
    future,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


class Stock(pykka.ThreadingActor):
    """A plain Pykka actor that runs the functions it is sent."""

    use_daemon_thread = True

    def __init__(self) -> None:
        super().__init__()
        self.state: dict[str, Any] = {}
        self.calls: list[str] = []

    def on_receive(self, message: Any) -> Any:
        return message(self) if callable(message) else message

    def on_stop(self) -> None:
        self.calls.append("on_stop")

    def on_failure(self, *_: object) -> None:
        self.calls.append("on_failure")


@pytest.fixture
def stock() -> Iterator[Any]:
    ref = Stock.start()
    yield ref
    if ref.is_alive():
        ref.stop()


def half_change(server: Any) -> None:
    server.state["half"] = True
    raise Boom("between two changes")


# -- a handler raises under ask


def test_row_ask_raises_stock_pykka_lives_on_half_changed(stock: Any) -> None:
    with pytest.raises(Boom):
        stock.ask(half_change)
    assert stock.ask(lambda actor: actor.state) == {"half": True}


def test_row_ask_raises_is_answered_and_crashes(bench: Bench) -> None:
    bench.supervise(bench.child("a"))
    with pytest.raises(Boom):
        bench["a"].call(half_change)
    assert bench["a"].call(lambda server: server.state) == {}, "a fresh incarnation"


def test_row_ask_raises_a_domain_error_is_only_answered(bench: Bench) -> None:
    ref = bench.lab()
    with pytest.raises(Refused):
        ref.call(refuse)
    assert ref.epoch == 1
    assert ref.state == "ready"


# -- a handler raises under tell


def test_row_tell_raises_stock_pykka_loses_the_tells_behind_it(stock: Any) -> None:
    gate = Gate()
    ran: list[int] = []
    stock.tell(gate)
    gate.wait_reached()
    stock.tell(boom)
    stock.tell(lambda _actor: ran.append(1))
    ask = stock.ask("behind", block=False)
    gate.open()
    with pytest.raises(pykka.ActorDeadError):
        ask.get(timeout=PATIENCE)
    assert ran == [], "gone without a word"


def test_row_tell_raises_every_undelivered_tell_is_done_or_reported(bench: Bench) -> None:
    lost: list[object] = []
    ref = bench.lab(options={"on_undelivered": lambda message, _: lost.append(message)})
    gate = Gate()
    ref.cast(gate)
    gate.wait_reached()
    ref.cast(boom)
    for number in range(5):
        ref.cast(number)
    gate.open()
    downs: Recorder[ExitReason] = Recorder()
    ref.monitor(downs)
    downs.wait_count(1)
    ref.start(Lab, bench.log)
    ref.drain(PATIENCE)
    assert lost == [boom], "what it died of"
    assert [detail for _, detail in bench.noted("cast")] == [0, 1, 2, 3, 4]


# -- a BaseException in a handler


def test_row_base_exception_stock_pykka_stops_the_whole_process() -> None:
    done = run_python(
        """
        import pykka

        class A(pykka.ThreadingActor):
            use_daemon_thread = True
            def on_receive(self, message):
                if message == "exit":
                    raise SystemExit
                return message

        bystander, mine = A.start(), A.start()
        try:
            mine.ask("exit", timeout=2)
        except pykka.Timeout:
            print("hangs", bystander.is_alive())
        """
    )
    assert done.stdout == "hangs False\n"


@pytest.mark.parametrize(
    "error", [SystemExit(1), KeyboardInterrupt(), asyncio.CancelledError(), GeneratorExit()]
)
def test_row_base_exception_in_our_actor_leaves_foreign_actors_alive(
    bench: Bench, stock: Any, error: BaseException
) -> None:
    def leave(_server: object) -> None:
        raise error

    bench.supervise(bench.child("a"))
    reply = bench["a"].send_request(leave)
    assert isinstance(outcome(reply), Exception), "nothing that ends the caller's thread"
    assert stock.ask("alive", timeout=PATIENCE) == "alive"
    bench.events.wait("child_restarted", "a")
    assert bench["a"].call("back") == "back"
    assert bench["a"].last_exit == ExitReason.crash(error)


# -- on_start raises


def test_row_on_start_raises_stock_pykka_has_returned_a_ref() -> None:
    class Failing(Stock):
        def on_start(self) -> None:
            raise Boom("boom")

    ref = Failing.start()
    assert ref.actor_stopped.wait(PATIENCE)
    with pytest.raises(pykka.ActorDeadError):
        ref.ask("anyone there?")


def test_row_on_start_raises_start_raises(bench: Bench) -> None:
    ref = bench.ref("a")
    with pytest.raises(StartError) as caught:
        ref.start(Lab, init=boom)
    assert isinstance(caught.value.__cause__, Boom)


# -- on_start raises SystemExit


def test_row_on_start_system_exit_stock_pykka_leaves_a_zombie() -> None:
    done = run_python(
        """
        import pykka

        class A(pykka.ThreadingActor):
            use_daemon_thread = True
            def on_start(self):
                raise SystemExit

        ref = A.start()
        try:
            ref.ask("anyone there?", timeout=1)
        except pykka.Timeout:
            print("hangs", ref.is_alive())
        """
    )
    assert done.stdout == "hangs True\n"


def test_row_on_start_system_exit_is_a_start_error_and_in_continue_one_notice(
    bench: Bench,
) -> None:
    def leave(_server: Lab) -> None:
        raise SystemExit

    ref = bench.ref("a")
    downs: Recorder[ExitReason] = Recorder()
    ref.monitor(downs)
    with pytest.raises(StartError):
        ref.start(Lab, init=leave)
    ref.start(Lab, go_on=leave)
    assert isinstance(downs.wait_count(1)[0].exception, SystemExit)
    assert ref.stop(PATIENCE)
    assert len(downs.items) == 1


# -- the caller resolves its own future first


def test_row_caller_resolves_its_future_stock_pykka_loop_dies() -> None:
    done = run_python(
        """
        import threading
        import pykka

        class A(pykka.ThreadingActor):
            use_daemon_thread = True
            def on_receive(self, message):
                return message() if callable(message) else message

        died = []
        threading.excepthook = lambda args: died.append(args.exc_type.__name__)
        gate = threading.Event()
        ref = A.start()
        future = ref.ask(gate.wait, block=False)
        future.set("mine")
        gate.set()
        try:
            ref.ask("next", timeout=1)
        except pykka.Timeout:
            print(died, ref.is_alive())
        """
    )
    assert done.stdout == "['Full'] True\n"


def test_row_caller_resolves_its_future_and_the_server_lives(bench: Bench) -> None:
    ref = bench.lab()
    gate = Gate()
    reply = ref.send_request(gate)
    gate.wait_reached()
    assert reply.set_result("mine")
    gate.open()
    assert ref.call("next") == "next"
    assert reply.result(0) == "mine"


def test_row_caller_resolves_a_pykka_future_and_the_server_lives(bench: Bench) -> None:
    ref = bench.lab("a")
    actor = pykka.ActorRegistry.get_by_class(Lab)[-1]
    gate = Gate()
    asked = actor.ask(gate, block=False)
    gate.wait_reached()
    failing = actor.ask(lambda _server: gate() and refuse(), block=False)
    for own in (asked, failing):
        with pytest.raises(queue.Full):
            own.set("mine")
    with pytest.raises(pykka.Timeout):
        asked.get(timeout=0.01)
    gate.open()
    assert ref.call("next") == "next"
    assert asked.get() is True
    with pytest.raises(Refused):
        failing.get()


# -- put races against the final drain


def test_row_is_alive_then_put_stock_pykka_strands_asks() -> None:
    class Leaving(Stock):
        def on_receive(self, message: Any) -> Any:
            return message

    ref = Leaving.start()
    # What a race does by chance: is_alive() was asked before, the put comes after the drain.
    alive = ref.is_alive()
    inbox = ref.actor_inbox
    ref.stop()
    stranded = pykka.ThreadingFuture[Any]()
    assert alive
    inbox.put(PykkaEnvelope("late", reply_to=stranded))
    with pytest.raises(pykka.Timeout):
        stranded.get(timeout=0.05)


def test_row_is_alive_then_put_every_ask_resolves(bench: Bench) -> None:
    """Many callers against a server that is closed at some moment: none waits for ever."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(20):
            ref = ServerRef("a")
            ref.start(Lab)
            outcomes: Recorder[str] = Recorder()
            threads = [
                threading.Thread(target=_ask_until_down, args=(ref, outcomes)) for _ in range(6)
            ]
            for thread in threads:
                thread.start()
            outcomes.wait_count(30)
            ref.close()
            for thread in threads:
                thread.join(PATIENCE)
                assert not thread.is_alive()
            assert ref.stop(PATIENCE)
    finally:
        sys.setswitchinterval(interval)


def _ask_until_down(ref: ServerRef, outcomes: Recorder[str]) -> None:
    while True:
        try:
            ref.call("x", timeout=None)
        except ServerDown:
            outcomes("down")
            return
        outcomes("answered")


# -- actor_stopped


def test_row_actor_stopped_stock_pykka_is_set_before_on_stop_has_run() -> None:
    gate = Gate()

    class Slow(Stock):
        def on_stop(self) -> None:
            gate()

    ref = Slow.start()
    ref.stop(block=False)
    gate.wait_reached()
    assert ref.actor_stopped.is_set()
    assert not ref.is_alive()
    gate.open()


def test_row_actor_stopped_means_that_terminate_has_run(bench: Bench) -> None:
    gate = Gate()
    ref = bench.lab(terminate=gate)
    actor = pykka.ActorRegistry.get_by_class(Lab)[-1]
    assert not ref.stop(timeout=0)
    gate.wait_reached()
    assert not ref.stop(timeout=0)
    assert actor.is_alive()
    gate.open()
    assert ref.stop(PATIENCE)
    assert not actor.is_alive()
    assert not any(thread.name == "lab-1" for thread in threading.enumerate())


# -- ask timeout


def test_row_ask_timeout_stock_pykka_writes_later_all_the_same(stock: Any) -> None:
    gate = Gate()
    stock.tell(gate)
    gate.wait_reached()
    written: list[int] = []
    with pytest.raises(pykka.Timeout):
        stock.ask(lambda _actor: written.append(1), timeout=0.01)
    gate.open()
    stock.ask("the queue is through")
    assert written == [1]


def test_row_ask_timeout_withdraws_what_was_not_executed(bench: Bench) -> None:
    ref = bench.lab()
    gate = Gate()
    ref.cast(gate)
    gate.wait_reached()
    written: list[int] = []
    with pytest.raises(CallTimeout) as caught:
        ref.call(lambda _server: written.append(1), timeout=0.01)
    assert caught.value.executed is False
    gate.open()
    ref.call("the queue is through")
    assert written == []


def test_row_ask_timeout_tells_that_it_was_executing(bench: Bench) -> None:
    ref = bench.lab()
    gate = Gate()
    with pytest.raises(CallTimeout) as caught:
        ref.call(gate, timeout=0.05)
    assert gate.reached.is_set()
    assert caught.value.executed is None
    gate.open()


# -- the mailbox


def test_row_mailbox_stock_pykka_is_unbounded(stock: Any) -> None:
    gate = Gate()
    stock.tell(gate)
    gate.wait_reached()
    for number in range(20_000):
        stock.tell(number)
    gate.open()


def test_row_mailbox_is_bounded(bench: Bench) -> None:
    ref = bench.lab(options={"max_messages": 3})
    gate = Gate()
    ref.cast(gate)
    gate.wait_reached()
    for number in range(3):
        ref.cast(number)
    with pytest.raises(Busy):
        ref.cast(3, wait=0.01)
    gate.open()
    assert ref.call("x") == "x"


# -- await


def test_row_await_stock_pykka_blocks_the_event_loop(stock: Any) -> None:
    gate = Gate()

    async def main() -> bool:
        ticked = False

        def tick() -> None:
            nonlocal ticked
            ticked = True
            gate.open()

        answer = stock.ask(gate, block=False)
        asyncio.get_running_loop().call_later(0.01, tick)
        # The loop is stuck in the await: only the other thread can end it.
        opener = threading.Timer(0.3, gate.open)
        opener.start()
        await answer
        opener.join()
        return ticked

    assert asyncio.run(main()) is False


def test_row_await_leaves_the_event_loop_free(bench: Bench) -> None:
    ref = bench.lab()
    gate = Gate()

    async def main() -> object:
        reply = ref.send_request(lambda _server: gate() and "answer")
        asyncio.get_running_loop().call_later(0.01, gate.open)
        return await reply

    assert asyncio.run(main()) == "answer"


# -- Pykka's own doors


def test_stop_all_by_others_is_an_orderly_end_of_the_whole_tree(bench: Bench) -> None:
    ended: list[ExitReason] = []
    sup = bench.supervise(bench.child("a"), bench.child("b"), on_terminal=ended.append)
    gate = Gate()
    bench["a"].cast(gate)
    gate.wait_reached()
    accepted = [bench["a"].send_request(number) for number in range(5)]
    stopping = threading.Thread(target=pykka.ActorRegistry.stop_all)
    stopping.start()
    bench.events.wait("child_stopped", "b")
    gate.open()
    stopping.join(PATIENCE)
    assert not stopping.is_alive()
    assert [reply.result(0) for reply in accepted] == [0, 1, 2, 3, 4]
    assert sup.stop(PATIENCE)
    assert ended == [ExitReason.SHUTDOWN]
    assert bench.events.count("child_restarting") == 0
    assert bench["a"].state == bench["b"].state == sup.state == "closed"


def test_stop_by_others_of_a_server_without_supervisor(bench: Bench) -> None:
    ref = bench.lab("alone")
    assert pykka.ActorRegistry.get_by_class(Lab)[-1].stop(timeout=PATIENCE) is True
    assert ref.stop(PATIENCE)
    assert ref.state == "closed"
    with pytest.raises(ServerDown):
        ref.call(1)


def test_stop_by_others_while_it_is_stopping_and_afterwards(bench: Bench) -> None:
    gate = Gate()
    ref = bench.lab(terminate=gate)
    actor = pykka.ActorRegistry.get_by_class(Lab)[-1]
    ref.stop(timeout=0)
    gate.wait_reached()
    ref.close()
    stopped = actor.stop(block=False)
    with pytest.raises(pykka.Timeout, match=r"0\.01 seconds"):
        stopped.get(timeout=0.01)
    gate.open()
    assert stopped.get(timeout=PATIENCE) is True
    assert actor.stop(timeout=PATIENCE) is False
    # One that asked whether it was alive just before it was not.
    late = pykka.ThreadingFuture[Any]()
    actor.actor_inbox.put(PykkaEnvelope(_ActorStop(), reply_to=late))
    assert late.get(timeout=PATIENCE) is None
    assert ref.stop(PATIENCE)


def test_ask_tell_and_proxy_by_others(bench: Bench) -> None:
    ref = bench.lab()
    actor = pykka.ActorRegistry.get_by_class(Lab)[-1]
    assert actor.ask("question") == "question"
    with pytest.raises(Refused):
        actor.ask(refuse)
    actor.tell("news")
    ref.call("through")
    assert bench.noted("info") == [("lab", "news")]
    with pytest.raises(Exception, match="has no proxy"):
        actor.proxy().state.get(timeout=PATIENCE)
    ref.close()
    with pytest.raises(pykka.ActorDeadError, match="lab not found"):
        actor.actor_inbox.put(PykkaEnvelope("late"))
    with pytest.raises(pykka.ActorDeadError):
        actor.actor_inbox.put(PykkaEnvelope("late", reply_to=pykka.ThreadingFuture[Any]()))


def test_broadcast_by_others_does_not_crash_a_server(bench: Bench) -> None:
    class Silent(Lab):
        def handle_info(self, message: Any) -> None:
            super(Lab, self).handle_info(message)

    ref = bench.ref("a")
    ref.start(Silent)
    pykka.ActorRegistry.broadcast({"command": "unknown"}, Silent)
    assert ref.call(1) == 1
    assert ref.epoch == 1


def test_pykkas_way_to_start_is_refused_with_a_hint() -> None:
    with pytest.raises(Exception, match=r"use ServerRef\(name\)\.start\(Lab\)"):
        Lab.start()
    with pytest.raises(Exception, match=r"use ServerRef\(name\)\.start\(Lab\)"):
        Lab()


# -- cost


def test_row_cost_a_reply_makes_a_second_lock_only_where_a_thread_waits(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[object] = []
    real = threading.Lock

    def counting() -> Any:
        made.append(None)
        return real()

    monkeypatch.setattr(future, "Lock", counting)
    replies: list[Reply[int]] = [Reply() for _ in range(10)]
    for number, reply in enumerate(replies):
        reply.set_result(number)
    assert sum(reply.result(1) for reply in replies) == 45
    assert len(made) == 10
    ref = bench.lab()
    gate = Gate()
    waiting = threading.Thread(target=lambda: ref.call(gate))
    before = len(made)
    waiting.start()
    gate.wait_reached()
    gate.open()
    waiting.join(PATIENCE)
    assert len(made) - before <= 2
