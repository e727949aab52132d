"""The cases that Elixir's DynamicSupervisor, ractor, kameo and Pekko test best."""

from __future__ import annotations

import logging
import threading
from typing import Any, ClassVar

import pykka
import pytest
from otp_kit import (
    PATIENCE,
    Bench,
    Boom,
    Gate,
    GroupCommit,
    Lab,
    Panic,
    Recorder,
    boom,
    crash,
    outcome,
    panic,
    raises_once,
)

from sessionkeeper.otp import (
    Backoff,
    CallTimeout,
    ChildSpec,
    ExitReason,
    Fenced,
    GenServer,
    InvalidChildSpec,
    OutcomeUnknown,
    ServerDown,
    ServerRef,
    StartError,
)
from sessionkeeper.otp.child_spec import Intensity
from sessionkeeper.otp.supervisor import Supervisor

SHUTDOWN = ExitReason.SHUTDOWN


def fails_when(flag: threading.Event) -> Any:
    def init(_server: Lab) -> None:
        if flag.is_set():
            boom()

    return init


# -- Elixir


def test_restarted_when_trying_again(bench: Bench) -> None:
    doomed = threading.Event()
    sup = bench.supervise(
        bench.child("a", init=fails_when(doomed)),
        max_restarts=10,
        backoff=Backoff(1.0, 1.0, 0.0),
        timers=bench.clock,
    )
    doomed.set()
    crash(bench["a"])
    bench.events.wait("restart_failed", "a")
    info = sup.which_children()[0]
    assert info.state == "restarting"
    assert info.last_exit is not None
    assert isinstance(info.last_exit.exception, StartError)
    doomed.clear()
    bench.clock.advance(1.0)
    bench.events.wait("child_restarted", "a")
    assert bench["a"].call("back") == "back"
    assert bench["a"].epoch == 3, "a failed start uses up an epoch"


def test_maximum_intensity_when_trying_again(bench: Bench) -> None:
    """Attempts that fail count as restarts, so trying again ends some time."""
    doomed = threading.Event()
    ended: list[ExitReason] = []
    sup = bench.supervise(
        bench.child("a", init=fails_when(doomed)), max_restarts=4, on_terminal=ended.append
    )
    over = threading.Event()
    sup.monitor(lambda _reason: over.set())
    doomed.set()
    crash(bench["a"])
    assert over.wait(PATIENCE)
    assert bench.events.count("restart_failed", "a") == 4
    assert "more than 4 restarts" in ended[0].detail


def test_terminates_children_with_expired_shutdown(bench: Bench) -> None:
    """A sibling that oversleeps its stop is fenced, and the group waits for its thread."""
    gate = Gate()
    sup = bench.supervise(
        bench.child("a"), bench.child("stuck", shutdown=0.01), strategy="one_for_all"
    )
    bench["stuck"].cast(gate)
    gate.wait_reached()
    crash(bench["a"])
    bench.events.wait("child_fenced", "stuck")
    assert {info.id: info.state for info in sup.which_children()} == {
        "a": "restarting",
        "stuck": "fenced",
    }
    assert bench["stuck"].state == "fenced"
    assert bench["a"].epoch == 1, "no second one beside a living first"
    gate.open()
    bench.events.wait("child_restarted", "stuck")
    assert bench["stuck"].last_exit is not None
    assert bench["stuck"].last_exit.kind == "fenced"
    assert [bench["a"].call(1), bench["stuck"].call(2)] == [1, 2]


def test_a_fenced_child_is_still_waited_for_when_an_earlier_sibling_crashes_too(
    bench: Bench,
) -> None:
    gate = Gate()
    bench.supervise(
        bench.child("a"),
        bench.child("b"),
        bench.child("stuck", shutdown=0.01),
        strategy="rest_for_one",
        timers=bench.clock,
    )
    bench["stuck"].cast(gate)
    gate.wait_reached()
    crash(bench["b"])
    fenced = bench.events.wait("child_fenced", "stuck").reason
    assert fenced is not None
    assert "did not stop within 0.01 s" in fenced.detail
    crash(bench["a"])
    bench.events.wait("child_restarting", "a")
    assert bench.clock.pending == 1, "the end of the grace"
    gate.open()
    bench.events.wait("child_restarted", "stuck")
    assert [bench[name].epoch for name in ("a", "b", "stuck")] == [2, 2, 2]
    assert bench.clock.pending == 0


def test_a_child_that_does_not_drain_in_time_is_fenced(bench: Bench) -> None:
    gate = Gate()
    sup = bench.supervise(bench.child("a"), bench.child("stuck", shutdown=0.01))
    bench["stuck"].cast(gate)
    gate.wait_reached()
    sup.drain(PATIENCE)
    bench.events.wait("child_fenced", "stuck")
    assert bench["a"].state == sup.state == "closed"
    gate.open()


def test_a_child_that_crashes_while_it_drains_has_stopped_and_is_not_fenced(bench: Bench) -> None:
    gate = Gate()
    sup = bench.supervise(bench.child("a"))
    bench["a"].cast(lambda _server: gate() and boom())
    gate.wait_reached()
    bench["a"].cast("never done")
    sup.request_drain()
    gate.open()
    stopped = bench.events.wait("child_stopped", "a").reason
    assert stopped is not None
    assert isinstance(stopped.exception, Boom)
    assert bench.events.count("child_fenced") == 0


def test_a_temporary_child_that_was_fenced_is_forgotten_once_it_ended(bench: Bench) -> None:
    gate = Gate()
    sup = bench.supervise(
        bench.child("a"), bench.child("stuck", "temporary", 0.01), strategy="one_for_all"
    )
    bench["stuck"].cast(gate)
    gate.wait_reached()
    crash(bench["a"])
    bench.events.wait("child_fenced", "stuck")
    gate.open()
    bench.events.wait("child_restarted", "a")
    assert [info.id for info in sup.which_children()] == ["a"]
    assert bench["stuck"].state == "closed"


def test_a_supervisor_gives_up_on_a_fenced_child_that_never_ends(bench: Bench) -> None:
    gate = Gate()
    ended: list[ExitReason] = []
    sup = bench.supervise(
        bench.child("a"),
        bench.child("stuck", shutdown=0.01),
        strategy="rest_for_one",
        fence_grace=30.0,
        timers=bench.clock,
        on_terminal=ended.append,
    )
    over = threading.Event()
    sup.monitor(lambda _reason: over.set())
    bench["stuck"].cast(gate)
    gate.wait_reached()
    crash(bench["a"])
    bench.events.wait("child_fenced", "stuck")
    bench.clock.advance(29.0)
    assert sup.count_children().active == 0
    bench.clock.advance(1.0)
    assert over.wait(PATIENCE)
    assert "did not end within 30.0 s of being fenced" in ended[0].detail
    gate.open()


def test_terminates_restarting_child(bench: Bench) -> None:
    """A supervisor stops at once though a child of it waits for its next attempt."""
    sup = bench.supervise(bench.child("a"), backoff=Backoff(60.0, 60.0, 0.0), timers=bench.clock)
    crash(bench["a"])
    bench.events.wait("child_restarted", "a")
    crash(bench["a"])
    bench.events.wait("child_restarting", "a", times=2)
    assert bench.clock.pending == 1
    assert sup.stop(PATIENCE)
    assert bench.clock.pending == 0, "the attempt is called off"
    bench.clock.advance(120.0)
    assert bench["a"].epoch == 2


# -- ractor


@pytest.mark.parametrize("fail", [boom, panic], ids=["error", "panic"])
def test_error_and_panic_in_pre_start(bench: Bench, fail: Any) -> None:
    ref = bench.ref("a")
    with pytest.raises(StartError) as caught:
        ref.start(Lab, init=fail)
    assert isinstance(caught.value.__cause__, Boom | Panic)
    assert ref.state == "stopped"
    ref.start(Lab)
    assert (ref.call(1), ref.epoch) == (1, 2)


@pytest.mark.parametrize("fail", [boom, panic], ids=["error", "panic"])
@pytest.mark.parametrize(
    "where",
    ["go_on", "handle_call", "cast", "info"],
    ids=["in_post_startup", "in_handle_call", "in_handle_cast", "in_handle_info"],
)
def test_error_and_panic(bench: Bench, fail: Any, where: str) -> None:
    """Wherever it happens: one notice, the right reason, and the next incarnation works."""
    downs: Recorder[ExitReason] = Recorder()
    once = raises_once(Boom("boom") if fail is boom else Panic("panic"))

    def only_first(_server: Lab) -> None:
        once()

    hooks: dict[str, Any] = {"go_on": only_first} if where == "go_on" else {}
    ref = bench.ref("a")
    ref.monitor(downs)
    bench.supervise(ChildSpec.server("a", ref, Lab, bench.log, **hooks))
    if where == "handle_call":
        assert isinstance(outcome(ref.send_request(fail)), Boom | OutcomeUnknown)
    elif where == "cast":
        ref.cast(fail)
    elif where == "info":
        ref.send_info(fail)
    bench.events.wait("child_restarted", "a")
    assert ref.call("back") == "back"
    assert len(downs.items) == 1
    assert isinstance(downs.items[0].exception, Boom if fail is boom else Panic)
    assert [reason.kind for _, reason in bench.noted("terminate")] == ["crash"]


def test_panic_in_handle_reaches_the_caller_wrapped(bench: Bench) -> None:
    """A SystemExit of the server must not end the thread of the caller."""
    ref = bench.lab()

    def leave(_server: Lab) -> None:
        raise SystemExit(3)

    with pytest.raises(OutcomeUnknown) as caught:
        ref.call(leave)
    assert isinstance(caught.value.__cause__, SystemExit)


@pytest.mark.parametrize("fail", [boom, panic], ids=["error", "panic"])
def test_error_and_panic_in_post_stop(bench: Bench, fail: Any) -> None:
    downs: list[ExitReason] = []
    ref = bench.lab(terminate=fail)
    ref.monitor(downs.append)
    assert ref.stop(PATIENCE)
    assert [reason.kind for reason in downs] == ["crash"]
    assert isinstance(downs[0].exception, Boom | Panic)


def test_error_in_post_stop_does_not_hide_the_crash_before_it(bench: Bench) -> None:
    ref = bench.lab(terminate=boom)
    crash(ref, OSError("the cause"))
    assert str(ref.last_exit.exception) == "the cause"


def test_panic_in_the_supervisors_own_handler(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A root that crashes itself stops its children, closes their handles and says so."""

    def broken(_self: Supervisor, *_: object) -> None:
        raise Panic("a bug in the supervisor")

    monkeypatch.setattr(Supervisor, "_on_down", broken)
    ended: list[ExitReason] = []
    sup = bench.supervise(bench.child("a"), bench.child("b"), on_terminal=ended.append)
    over = threading.Event()
    sup.monitor(lambda _reason: over.set())
    crash(bench["b"])
    assert over.wait(PATIENCE)
    assert isinstance(ended[0].exception, Panic)
    assert ("a", SHUTDOWN) in bench.noted("terminate")
    for name in "ab":
        with pytest.raises(ServerDown):
            bench[name].call(1)


def test_stop_has_priority_over_messages(bench: Bench) -> None:
    ref = bench.lab()
    gate = Gate()
    ref.cast(gate)
    gate.wait_reached()
    replies = [ref.send_request(number) for number in range(5)]
    assert not ref.stop(timeout=0)
    gate.open()
    assert ref.stop(PATIENCE)
    assert ref.state == "stopped"
    assert not any(reply.done() for reply in replies), "the backlog waits for the next one"
    ref.start(Lab)
    assert [reply.result(PATIENCE) for reply in replies] == [0, 1, 2, 3, 4]


def test_failing_in_spawn_does_not_poison_the_registry(bench: Bench) -> None:
    class Unborn(Lab):
        def __init__(self) -> None:
            super().__init__()
            raise Boom("constructor")

    class Orphan(Lab):
        def __init__(self) -> None:
            """Forget super().__init__()."""

    before = pykka.ActorRegistry.get_all()
    for server_class in (Unborn, Orphan):
        ref = bench.ref(server_class.__name__)
        with pytest.raises(StartError):
            ref.start(server_class)
        assert ref.state == "stopped"
        with pytest.raises(StartError):
            bench.ref("init").start(Lab, init=boom)
        assert pykka.ActorRegistry.get_all() == before
        ref.start(Lab)
        assert ref.call("same handle") == "same handle"
        ref.stop(PATIENCE)


def test_a_thread_that_cannot_be_started_is_a_start_error(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    ref = bench.ref("a")
    before = pykka.ActorRegistry.get_all()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(StartError, match="can't start new thread"):
            ref.start(Lab)
    assert pykka.ActorRegistry.get_all() == before
    ref.start(Lab)
    assert ref.call(1) == 1


def test_drain(bench: Bench) -> None:
    """Draining does the backlog, refuses what comes later, and closes."""
    ref = bench.lab()
    gate = Gate()
    ref.cast(gate)
    gate.wait_reached()
    replies = [ref.send_request(number) for number in range(20)]
    assert not ref.drain(0.01)
    with pytest.raises(ServerDown) as caught:
        ref.call("too late")
    assert caught.value.executed is False
    gate.open()
    assert ref.drain(PATIENCE)
    assert [reply.result(0) for reply in replies] == list(range(20))
    assert ref.state == "closed"


def test_drain_of_a_server_that_posts_to_itself_has_an_end(bench: Bench) -> None:
    refused = threading.Event()

    def again(server: Lab) -> None:
        if not server.ref.post(again):
            refused.set()

    ref = bench.lab()
    ref.post(again)
    assert ref.drain(PATIENCE)
    assert refused.is_set()


def test_drain_of_a_server_that_is_down_closes_it(bench: Bench) -> None:
    lost: list[object] = []
    ref = bench.ref("never started", on_undelivered=lambda message, _: lost.append(message))
    assert ref.drain(PATIENCE), "there is nothing to be done"
    ref = bench.ref("never started", on_undelivered=lambda message, _: lost.append(message))
    ref.cast("lost")
    ref.request_drain()
    assert ref.state == "closed"
    assert lost == ["lost"]
    ref = bench.lab("down")
    crash(ref)
    reply = ref.send_request("lost")
    assert ref.drain(PATIENCE) is False
    assert isinstance(outcome(reply), ServerDown)


def test_drain_does_not_count_signals(bench: Bench) -> None:
    lost: list[object] = []
    ref = bench.lab(
        options={"on_undelivered": lambda message, _: lost.append(message)},
        terminate=lambda server: server.ref.post("a late tick"),
    )
    assert ref.drain(PATIENCE) is True
    assert lost == []


def test_drain_of_a_server_that_crashes_tells_of_the_rest(bench: Bench) -> None:
    lost: list[object] = []
    ref = bench.lab(options={"on_undelivered": lambda message, _: lost.append(message)})
    gate = Gate()
    ref.cast(gate)
    gate.wait_reached()
    ref.cast(boom)
    ref.cast("never done")
    reply = ref.send_request("never answered")
    gate.open()
    assert ref.drain(PATIENCE) is False
    assert isinstance(outcome(reply), ServerDown)
    assert lost == [boom, "never done"]


def test_stop_and_wait(bench: Bench) -> None:
    """When stop has returned, terminate has run and the thread is gone."""
    ref = bench.lab("waited")
    assert any(thread.name == "waited-1" for thread in threading.enumerate())
    assert ref.stop(PATIENCE)
    assert bench.noted("terminate") == [("waited", SHUTDOWN)]
    assert not any(thread.name == "waited-1" for thread in threading.enumerate())
    assert ref.stop(PATIENCE), "stopping what has stopped is fine"


def test_stop_and_wait_from_the_server_itself(bench: Bench) -> None:
    ref = bench.lab()
    assert ref.call(lambda server: server.ref.stop()) is False, "it cannot wait for itself"
    assert ref.stop(PATIENCE)


def test_monitor(bench: Bench) -> None:
    """Exactly one notice for each death; at once if dead already; none after cancel."""
    ref = bench.lab()
    first: Recorder[ExitReason] = Recorder()
    cancelled: list[ExitReason] = []
    ref.monitor(first)
    unwanted = ref.monitor(cancelled.append)
    assert unwanted.cancel()
    assert not unwanted.cancel()
    crash(ref)
    assert [reason.kind for reason in first.items] == ["crash"]
    ref.start(Lab)
    ref.stop(PATIENCE)
    assert [reason.kind for reason in first.items] == ["crash", "shutdown"]
    assert cancelled == []


def test_monitor_of_a_server_that_never_was(bench: Bench) -> None:
    downs: list[ExitReason] = []
    ref = bench.ref("a")
    ref.monitor(downs.append)
    with pytest.raises(StartError):
        ref.start(Lab, init=boom)
    assert downs == [], "who never lived cannot die; start has raised"
    ref.start(Lab)
    ref.stop(PATIENCE)
    assert downs == [SHUTDOWN]


def test_one_terminated_when_the_actor_is_already_dead(bench: Bench) -> None:
    ref = bench.lab()
    crash(ref)
    downs: list[ExitReason] = []
    ref.monitor(downs.append)
    assert [str(reason) for reason in downs] == ["crash (Boom: boom)"]
    ref.close()
    late: list[ExitReason] = []
    ref.monitor(late.append)
    assert len(late) == 1
    assert len(downs) == 1


def test_a_host_whose_logging_fails_gets_its_notice_all_the_same(bench: Bench) -> None:
    """A filter that raises does so in the middle of whoever logs."""
    logger = logging.getLogger("sessionkeeper.otp")

    def broken(_record: logging.LogRecord) -> bool:
        raise Boom("a broken filter")

    died: list[object] = []
    hook = threading.excepthook
    threading.excepthook = lambda args: died.append(args.exc_type)
    logger.addFilter(broken)
    try:
        ref = bench.lab(terminate=boom)
        downs: Recorder[ExitReason] = Recorder()
        ref.monitor(downs)
        ref.cast(panic)
        assert isinstance(downs.wait_count(1)[0].exception, Panic)
        assert ref.stop(PATIENCE)
    finally:
        logger.removeFilter(broken)
        threading.excepthook = hook
    assert len(downs.items) == 1
    ref.start(Lab)
    assert ref.call(1) == 1


def test_monitor_of_a_server_that_lives_though_its_handle_is_closed(bench: Bench) -> None:
    ref = bench.lab()
    gate = Gate()
    ref.cast(gate)
    gate.wait_reached()
    ref.close(SHUTDOWN)
    downs: Recorder[ExitReason] = Recorder()
    ref.monitor(downs)
    assert downs.items == []
    gate.open()
    assert downs.wait_count(1) == [SHUTDOWN]


def test_a_monitor_that_fails_hurts_nobody(bench: Bench) -> None:
    ref = bench.lab()
    downs: Recorder[ExitReason] = Recorder()
    ref.monitor(panic)
    ref.monitor(downs)
    ref.stop(PATIENCE)
    assert downs.wait_count(1) == [SHUTDOWN]


# -- kameo


def test_messages_survive_a_supervised_restart(bench: Bench) -> None:
    bench.supervise(bench.child("a"))
    ref = bench["a"]
    gate = Gate()
    ref.cast(gate)
    gate.wait_reached()
    ref.cast(boom)
    replies = [ref.send_request(number) for number in range(50)]
    ref.cast("a cast")
    ref.send_info("an info")
    gate.open()
    assert [reply.result(PATIENCE) for reply in replies] == list(range(50))
    assert ref.drain(PATIENCE)
    assert bench.noted("cast") == [("a", "a cast")]
    assert bench.noted("info") == [("a", "an info")]
    assert ref.epoch == 2


def test_undelivered_asks_bounce_to_the_caller_not_to_the_hook(bench: Bench) -> None:
    lost: list[tuple[object, str]] = []
    ref = bench.ref("a", on_undelivered=lambda m, reason: lost.append((m, reason.detail)))
    reply = ref.send_request("an ask")
    ref.cast("a cast")
    ref.close(ExitReason.shutdown("no more"))
    error = outcome(reply)
    assert isinstance(error, ServerDown)
    assert error.executed is False
    assert error.reason == ExitReason.shutdown("no more")
    assert lost == [("a cast", "no more")]


def test_undelivered_called_when_the_budget_is_exhausted(bench: Bench) -> None:
    lost: list[object] = []
    doomed = threading.Event()
    ref = bench.ref("a", on_undelivered=lambda message, _: lost.append(message))
    child = ChildSpec.server("a", ref, Lab, init=fails_when(doomed))
    sup = bench.supervise(child, max_restarts=2)
    over = threading.Event()
    sup.monitor(lambda _reason: over.set())
    gate = Gate()
    ref.cast(gate)
    gate.wait_reached()
    ref.cast(boom)
    ref.cast("waiting")
    doomed.set()
    gate.open()
    assert over.wait(PATIENCE)
    assert lost == [boom, "waiting"]


def test_undelivered_is_logged_without_a_hook_and_a_hook_may_fail(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    silent = bench.ref("silent")
    silent.cast("precious")
    silent.close()
    assert "silent ended (shutdown) without doing a cast (str)" in caplog.text
    assert "precious" not in caplog.text, "what it holds may be private"
    broken = bench.ref("broken", on_undelivered=boom)
    broken.cast("one")
    broken.close()
    assert "the hook" in caplog.text


def test_ask_to_a_stopping_supervisor_does_not_deadlock(bench: Bench) -> None:
    """A child that asks its supervisor while being stopped by it gets an error at once."""
    answers: list[BaseException] = []

    def ask(_server: Lab) -> None:
        try:
            sup.which_children(timeout=None)
        except ServerDown as error:
            answers.append(error)

    sup = bench.supervise(bench.child("a", shutdown=None, terminate=ask))
    assert sup.stop(PATIENCE)
    assert len(answers) == 1


def test_ask_that_waits_while_a_supervisor_begins_to_stop_does_not_deadlock(
    bench: Bench,
) -> None:
    gate = Gate()
    sup = bench.supervise(bench.child("a", shutdown=None, terminate=gate))
    stopper = threading.Thread(target=sup.stop, args=(PATIENCE,))
    stopper.start()
    gate.wait_reached()
    with pytest.raises(ServerDown):
        sup.which_children(timeout=None)
    gate.open()
    stopper.join(PATIENCE)


def test_restart_count_resets_after_the_window(bench: Bench) -> None:
    sup = bench.supervise(bench.child("a"), max_restarts=2, max_seconds=10.0, timers=bench.clock)
    for count in range(1, 8):
        crash(bench["a"])
        bench.events.wait("child_restarted", "a", times=count)
        bench.clock.advance(5.1)
    assert sup.state == "ready"
    assert bench["a"].info().restarts == 7


def test_the_window_slides() -> None:
    window = Intensity(2, 10.0)
    assert [window.allows(now) for now in (0.0, 9.0, 10.5, 18.9)] == [True, True, True, False]
    edge = Intensity(1, 10.0)
    assert edge.allows(0.0)
    assert not edge.allows(10.0), "as in OTP, the edge belongs to the window"
    assert edge.allows(20.1)
    assert not Intensity(0, 10.0).allows(0.0)


def test_rapid_successive_restarts(bench: Bench) -> None:
    """Each crash is one restart, however fast they come and whoever asks meanwhile."""
    bench.supervise(bench.child("a"), max_restarts=1000, max_consecutive=1000)
    ref = bench["a"]
    for count in range(1, 101):
        ref.cast(boom)
        assert ref.call(count, timeout=PATIENCE) == count
    info = ref.info()
    assert (info.epoch, info.restarts) == (101, 100)
    bench.events.wait("child_restarted", times=100)
    assert len(ref.monitors) == 1, "those of the past do not pile up"
    assert bench.events.count("child_exited") == bench.events.count("child_restarted") == 100


# -- Pekko


def test_delay_computed_correctly() -> None:
    plain = Backoff(0.5, 10.0, 0.0)
    assert [plain.delay(n) for n in range(1, 9)] == [0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0]
    assert plain.delay(100_000) == 10.0, "no overflow"
    noisy = Backoff(0.5, 10.0, 0.2, random=lambda: 1.0)
    assert [noisy.delay(n) for n in (1, 2, 9)] == [0.0, 0.6, 12.0]
    assert Backoff(0.5, 10.0, 0.2, random=lambda: 0.0).delay(2) == 0.5
    for fault in ((-1.0, 1.0), (2.0, 1.0)):
        with pytest.raises(InvalidChildSpec):
            Backoff(*fault)
    with pytest.raises(InvalidChildSpec):
        Backoff(factor=-0.1)


def test_delay_computed_correctly_between_real_restarts(bench: Bench) -> None:
    bench.supervise(
        bench.child("a"),
        max_restarts=99,
        backoff=Backoff(1.0, 4.0, 0.0),
        timers=bench.clock,
    )
    for count, delay in enumerate([0.0, 1.0, 2.0, 4.0, 4.0], start=1):
        crash(bench["a"])
        assert bench.events.wait("child_restarting", "a", times=count).delay == delay
        if delay:
            bench.clock.advance(delay - 0.001)
            assert bench.events.count("child_restarted") == count - 1
            bench.clock.advance(0.002)
        bench.events.wait("child_restarted", "a", times=count)


def test_backoff_never_escalates_past_the_consecutive_budget(bench: Bench) -> None:
    """Backoff makes crashes leave the window, so they are counted in a row as well."""
    ended: list[ExitReason] = []
    sup = bench.supervise(
        bench.child("a"),
        max_restarts=3,
        max_seconds=1.0,
        max_consecutive=5,
        backoff=Backoff(2.0, 2.0, 0.0, reset_after=60.0),
        timers=bench.clock,
        on_terminal=ended.append,
    )
    over = threading.Event()
    sup.monitor(lambda _reason: over.set())
    for count in range(1, 6):
        crash(bench["a"])
        bench.events.wait("child_restarting", "a", times=count)
        bench.clock.advance(2.0)
        bench.events.wait("child_restarted", "a", times=count)
    crash(bench["a"])
    assert over.wait(PATIENCE)
    assert "more than 5 ends in a row" in ended[0].detail
    assert bench.events.count("child_restarting") == 5


def test_a_backoff_may_forget_at_once() -> None:
    assert Backoff(reset_after=0.0).reset_after == 0.0


def test_backoff_count_reset_after_the_reset_timeout(bench: Bench) -> None:
    bench.supervise(
        bench.child("a"),
        max_restarts=99,
        max_consecutive=2,
        backoff=Backoff(1.0, 8.0, 0.0, reset_after=60.0),
        timers=bench.clock,
    )
    for round_number in range(3):
        base = 2 * round_number
        crash(bench["a"])
        first = bench.events.wait("child_restarting", "a", times=base + 1)
        bench.events.wait("child_restarted", "a", times=base + 1)
        crash(bench["a"])
        second = bench.events.wait("child_restarting", "a", times=base + 2)
        bench.clock.advance(1.0)
        bench.events.wait("child_restarted", "a", times=base + 2)
        assert (first.delay, second.delay) == (0.0, 1.0)
        bench.clock.advance(60.0)


def test_attempts_that_fail_do_not_count_as_quiet_time(bench: Bench) -> None:
    doomed = threading.Event()
    bench.supervise(
        bench.child("a", init=fails_when(doomed)),
        max_restarts=99,
        backoff=Backoff(100.0, 1000.0, 0.0, reset_after=60.0),
        timers=bench.clock,
    )
    doomed.set()
    crash(bench["a"])
    delays = []
    for count in range(2, 5):
        event = bench.events.wait("child_restarting", "a", times=count)
        delays.append(event.delay)
        bench.clock.advance(event.delay)
    assert delays == [100.0, 200.0, 400.0]


def test_commands_accepted_while_a_child_is_terminating(bench: Bench) -> None:
    gate = Gate()
    bench.supervise(bench.child("a", terminate=gate))
    ref = bench["a"]
    ref.cast(boom)
    gate.wait_reached()
    replies = [ref.send_request(number) for number in range(3)]
    ref.cast("a cast")
    gate.open()
    assert [reply.result(PATIENCE) for reply in replies] == [0, 1, 2]
    ref.call("the queue is through")
    assert bench.noted("cast") == [("a", "a cast")]


def test_timer_message_discarded_on_restart(bench: Bench) -> None:
    bench.supervise(ChildSpec.server("a", bench.ref("a", timers=bench.clock), Lab, bench.log))
    ref = bench["a"]
    gate = Gate()
    ref.call(lambda server: server.send_after(10.0, "old") and None)
    ref.call(lambda server: server.send_interval(3.0, "old interval") and None)
    ref.cast(gate)
    gate.wait_reached()
    bench.clock.advance(4.0)
    # One tick waits in the mailbox now, the timers are pending, and the server dies.
    ref.cast(boom)
    gate.open()
    bench.events.wait("child_restarted", "a")
    ref.call(lambda server: server.send_after(1.0, "new") and None)
    bench.clock.advance(20.0)
    ref.call("all ticks are through")
    assert bench.noted("info") == [("a", "old interval"), ("a", "new")]
    assert bench.clock.pending == 0


def test_timer_message_discarded_on_restart_even_if_it_is_queued(bench: Bench) -> None:
    bench.supervise(ChildSpec.server("a", bench.ref("a", timers=bench.clock), Lab, bench.log))
    ref = bench["a"]
    gate = Gate()
    ref.cast(lambda server: (server.send_after(1.0, "old"), gate(), boom()))
    gate.wait_reached()
    bench.clock.advance(1.0)
    assert ref.info().queued == 1
    gate.open()
    bench.events.wait("child_restarted", "a")
    ref.call("the queue is through")
    assert bench.noted("info") == []


def test_restart_retried_when_restart_itself_throws(bench: Bench) -> None:
    failures = raises_once(OSError("once"), SystemExit("twice"), Panic("thrice"))
    ref = bench.ref("a")
    booted = threading.Event()

    def start() -> ServerRef:
        if booted.is_set():
            failures()
        ref.start(Lab)
        booted.set()
        return ref

    bench.supervise(ChildSpec("a", start))
    crash(ref)
    bench.events.wait("child_restarted", "a")
    reasons = [e.reason for e in bench.events.items if e.kind == "restart_failed"]
    assert [type(reason.exception) for reason in reasons if reason] == [
        OSError,
        SystemExit,
        Panic,
    ]
    assert ref.call(1) == 1


# -- ours


def test_a_stalled_zombie_writer_wakes_after_replacement_and_its_write_is_refused(
    bench: Bench,
) -> None:
    written: list[str] = []
    refused: Recorder[BaseException] = Recorder()
    gate = Gate()

    def stalled_write(server: Lab) -> None:
        gate()
        try:
            server.check_fence()
        except Fenced as error:
            refused(error)
            raise
        written.append("zombie")

    old = bench.lab("writer")
    reply = old.send_request(stalled_write)
    gate.wait_reached()
    assert not old.stop(timeout=0.01)
    old.fence("replaced")
    with pytest.raises(StartError, match="still lives"):
        old.start(Lab)
    new = bench.lab("replacement")
    new.call(lambda _server: written.append("replacement"))
    downs: Recorder[ExitReason] = Recorder()
    old.monitor(downs)
    gate.open()
    refused.wait_count(1)
    end = downs.wait_count(1)[0]
    assert end.kind == "fenced"
    assert "replaced" in end.detail
    assert isinstance(end.exception, Fenced)
    assert written == ["replacement"]
    assert isinstance(outcome(reply), Fenced)
    assert old.stop(PATIENCE)
    old.start(Lab)
    assert old.call("again") == "again"


def test_what_a_fenced_server_left_running_stays_shut_out(bench: Bench) -> None:
    """A thread that it made may outlive it, and its successor."""
    ref = bench.lab()
    old: Lab = ref.call(lambda server: server)
    old.check_fence()
    ref.fence()
    assert ref.stop(PATIENCE)
    for _ in range(2):
        with pytest.raises(Fenced):
            old.check_fence()
        ref.start(Lab)
        ref.call(lambda server: server.check_fence())
        old.stop()
        assert ref.call("unhurt by a stop of the old one") is not None
        assert ref.stop(PATIENCE)


def test_fenced_is_not_a_domain_error_even_if_all_errors_are(bench: Bench) -> None:
    class Tolerant(Lab):
        turn_limit = 8
        domain_errors: ClassVar[tuple[type[Exception], ...]] = (Exception,)

    ref = bench.ref("tolerant")
    ref.start(Tolerant)
    first, gate = Gate(), Gate()
    ref.cast(first)
    first.wait_reached()

    def sleep(server: Lab) -> None:
        gate()
        server.check_fence()

    reply, behind = ref.send_request(sleep), ref.send_request("behind")
    first.open()
    gate.wait_reached()
    ref.fence()
    gate.open()
    assert isinstance(outcome(reply), Fenced)
    assert ref.stop(PATIENCE)
    assert ref.last_exit is not None
    assert ref.last_exit.kind == "fenced"
    assert not behind.done(), "what it had taken with it is for the next one"
    ref.start(Lab)
    assert behind.result(PATIENCE) == "behind"


def test_a_sync_that_fails_mid_batch_acks_nothing_of_it_until_it_is_synced(
    bench: Bench,
) -> None:
    fails = raises_once(OSError("sync failed"))
    gate = Gate()
    batches: list[list[int]] = []

    def commit(batch: list[int]) -> None:
        if batch == [-1]:
            gate()
            return
        batches.append(batch)
        fails()

    ref = bench.ref("log")
    bench.supervise(ChildSpec.server("log", ref, GroupCommit, commit))
    ref.cast(-1)
    gate.wait_reached()
    done: Recorder[int] = Recorder()
    replies = [ref.send_request(number) for number in range(10)]
    for reply in replies:
        reply.add_done_callback(lambda r: done(r.result()))
    gate.open()
    assert [reply.result(PATIENCE) for reply in replies] == list(range(10))
    assert batches == [list(range(10)), list(range(10))]
    assert done.items == list(range(10))
    assert ref.epoch == 2


def test_in_flight_calls_of_a_crash_have_an_unknown_outcome_by_default(bench: Bench) -> None:
    lost: list[object] = []
    ref = bench.ref("log", on_undelivered=lambda message, why: lost.append((message, why.kind)))
    gate = Gate()

    def commit(batch: list[object]) -> None:
        if batch == ["wait"]:
            gate()
        elif "ask" in batch:
            raise Boom("boom")

    bench.supervise(ChildSpec.server("log", ref, GroupCommit, commit, again=False))
    ref.cast("wait")
    gate.wait_reached()
    reply = ref.send_request("ask")
    ref.cast("tell")
    gate.open()
    error = outcome(reply)
    assert isinstance(error, OutcomeUnknown)
    assert isinstance(error.__cause__, Boom)
    assert ref.call("later") == "later"
    assert lost == [("tell", "crash")]


def test_a_poison_message_is_never_run_again(bench: Bench) -> None:
    runs: list[str] = []

    def poison(_server: Lab) -> None:
        runs.append("poison")
        raise Boom("boom")

    bench.supervise(bench.child("a"))
    with pytest.raises(Boom):
        bench["a"].call(poison)
    bench["a"].cast(poison)
    bench["a"].send_info(poison)
    bench.events.wait("child_restarted", "a", times=3)
    assert bench["a"].call(1) == 1
    assert runs == ["poison"] * 3


def test_a_call_that_waits_over_a_restart_that_takes_too_long_is_withdrawn(
    bench: Bench,
) -> None:
    ref = bench.lab()
    crash(ref)
    ran: list[int] = []
    with pytest.raises(CallTimeout) as caught:
        ref.call(lambda _server: ran.append(1), timeout=0.01)
    assert caught.value.executed is False
    ref.start(Lab)
    ref.call("through")
    assert ran == []


class Recovering(GenServer):
    """Reads files when it starts, and sets aside what it cannot read.

    Args:
        files: what there is; a function is run when it is read.
        suspects: names whose reading was begun and never ended: it survives a crash.
        aside: receives the names set aside.
    """

    def __init__(self, files: dict[str, Any], suspects: set[str], aside: list[str]) -> None:
        super().__init__()
        self.files, self.suspects, self.aside = files, suspects, aside
        self.loaded: list[str] = []

    def handle_continue(self) -> None:
        for name, read in self.files.items():
            try:
                if name in self.suspects:
                    unreadable()  # the last incarnation died of it
                self.suspects.add(name)
                read()
                self.loaded.append(name)
            except ValueError:
                self.aside.append(name)
            self.suspects.discard(name)

    def handle_call(self, _request: object) -> list[str]:
        return self.loaded


def unreadable() -> None:
    raise ValueError("not JSON")


@pytest.mark.parametrize(("poison", "restarts"), [(unreadable, 0), (boom, 1), (panic, 1)])
def test_a_poison_file_at_recovery_does_not_use_up_the_intensity(
    bench: Bench, poison: Any, restarts: int
) -> None:
    """It is set aside at once, or by the next incarnation if it kills one: never a crash loop."""
    aside: list[str] = []
    files = {"a": list, "poison": poison, "b": list}
    ref = bench.ref("store")
    sup = bench.supervise(
        ChildSpec.server("store", ref, Recovering, files, set(), aside), max_restarts=1
    )
    assert ref.call("what is there", timeout=PATIENCE) == ["a", "b"]
    assert aside == ["poison"]
    assert ref.info().restarts == bench.events.count("child_restarting") == restarts
    assert sup.state == "ready"


def test_a_recovery_that_sets_nothing_aside_uses_the_intensity_up(bench: Bench) -> None:
    """What the test before this one would show of a server that crashes on each bad file."""
    ended: Recorder[ExitReason] = Recorder()
    bench.supervise(bench.child("store", go_on=boom), max_restarts=1, on_terminal=ended)
    assert "more than 1 restarts" in ended.wait_count(1)[0].detail
    with pytest.raises(ServerDown):
        bench["store"].call("what is there")
