"""Callbacks, turns, timers and handles of a server."""

from __future__ import annotations

import gc
import threading
import weakref
from typing import TYPE_CHECKING, Any

import pytest
from otp_kit import (
    PATIENCE,
    Bench,
    Boom,
    Gate,
    GroupCommit,
    Lab,
    Recorder,
    Refused,
    boom,
    crash,
    finish,
    outcome,
    refuse,
    wait_dead,
)

from sessionkeeper.otp import (
    NO_REPLY,
    Busy,
    CallTimeout,
    Envelope,
    ExitReason,
    GenServer,
    OtpError,
    OutcomeUnknown,
    Reply,
    SelfCall,
    ServerDown,
    ServerRef,
    StartError,
)
from sessionkeeper.otp.runtime import PROCESS

if TYPE_CHECKING:
    from collections.abc import Sequence


# -- starting


def test_start_returns_after_init_and_before_continue(bench: Bench) -> None:
    gate = Gate()
    ref = bench.lab(go_on=gate)
    assert bench.noted("init") == [("lab", 1)]
    gate.wait_reached()
    assert ref.state == "continuing"
    reply = ref.send_request("first message")
    assert not reply.done()
    gate.open()
    assert reply.result(PATIENCE) == "first message"
    assert ref.state == "ready"


def test_callbacks_run_in_one_thread_that_is_a_daemon(bench: Bench) -> None:
    threads: list[threading.Thread] = []

    def note(_server: object) -> None:
        threads.append(threading.current_thread())

    ref = bench.lab(init=note, terminate=note, go_on=note)
    ref.call(note)
    ref.cast(note)
    ref.send_info(note)
    ref.call("through")
    ref.stop(PATIENCE)
    assert len(threads) == 6
    assert set(threads) == {threads[0]}
    assert threads[0].daemon
    assert threads[0].name == "lab-1"


def test_a_constructor_gets_its_arguments_and_may_use_its_handle(bench: Bench) -> None:
    class Curious(GenServer):
        def __init__(self, first: int, *, second: str) -> None:
            super().__init__()
            self.seen = (first, second, self.ref.name, self.epoch)

        def handle_call(self, _request: object) -> object:
            return self.seen

    ref = bench.ref("curious")
    ref.start(Curious, 1, second="two")
    assert ref.call("seen") == (1, "two", "curious", 1)


def test_start_while_it_lives_and_while_it_starts_is_refused(bench: Bench) -> None:
    gate = Gate()
    ref = bench.ref("a")
    starter = threading.Thread(target=lambda: ref.start(Lab, init=gate))
    starter.start()
    gate.wait_reached()
    assert ref.state == "starting"
    with pytest.raises(StartError, match="incarnation 1 still lives"):
        ref.start(Lab)
    gate.open()
    starter.join(PATIENCE)
    with pytest.raises(StartError, match="incarnation 1 still lives"):
        ref.start(Lab)
    assert ref.call(1) == 1


def test_a_constructor_cannot_start_another_incarnation(bench: Bench) -> None:
    class Twice(Lab):
        def __init__(self) -> None:
            super().__init__()
            self.ref.start(Lab)

    ref = bench.ref("a", start_timeout=PATIENCE)
    with pytest.raises(StartError, match="still lives"):
        ref.start(Twice)
    ref.start(Lab)
    assert ref.call(1) == 1


def test_start_timeout_fences_an_init_that_hangs(bench: Bench) -> None:
    gate = Gate()
    ref = bench.ref("a", start_timeout=0.01)
    with pytest.raises(StartError, match=r"init took over 0\.01 s"):
        ref.start(Lab, init=gate)
    assert ref.state == "fenced"
    with pytest.raises(StartError, match="still lives"):
        ref.start(Lab)
    reply = ref.send_request("kept")
    gate.open()
    assert ref.stop(PATIENCE)
    assert ref.last_exit is None, "it never lived"
    ref.start(Lab)
    assert reply.result(PATIENCE) == "kept"


def test_who_is_fenced_while_it_starts_does_not_come_up(bench: Bench) -> None:
    ref = bench.ref("a")
    with pytest.raises(StartError, match="did not start"):
        ref.start(Lab, bench.log, init=lambda server: server.ref.fence())
    assert bench.noted("go_on") == []
    assert ref.last_exit is None, "it never lived"


def test_an_interrupted_start_leaves_no_server_behind(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate()

    def interrupt(_self: object, _timeout: object = None) -> bool:
        gate.wait_reached()
        raise KeyboardInterrupt

    ref = bench.ref("a")
    with monkeypatch.context() as patch:
        patch.setattr(Reply, "wait", interrupt)
        with pytest.raises(KeyboardInterrupt):
            ref.start(Lab, init=gate)
    assert ref.state == "fenced"
    gate.open()
    assert ref.stop(PATIENCE)
    assert ref.last_exit is None, "it never lived"
    ref.start(Lab)
    assert ref.call(1) == 1


def test_start_on_a_closed_handle_is_refused(bench: Bench) -> None:
    ref = bench.ref("a")
    ref.close()
    with pytest.raises(ServerDown):
        ref.start(Lab)


# -- calls, casts, infos


def test_order_is_kept_among_calls_casts_and_infos(bench: Bench) -> None:
    order: list[int] = []
    ref = bench.lab()
    gate = Gate()
    ref.cast(gate)
    gate.wait_reached()

    def note(number: int) -> Any:
        return lambda _server: order.append(number)

    ref.cast(note(0))
    ref.send_info(note(1))
    ref.send_request(note(2))
    ref.send_info(note(3))
    ref.cast(note(4))
    gate.open()
    ref.call("through")
    assert order == [0, 1, 2, 3, 4]


def test_what_a_server_does_not_implement(bench: Bench, caplog: Any) -> None:
    ref = bench.ref("bare")
    ref.start(GenServer)
    ref.send_info("unknown")
    assert ref.drain(PATIENCE)
    assert "bare does not know what a str means" in caplog.text
    for send in (ServerRef.send_request, ServerRef.cast):
        bare = bench.ref("bare")
        bare.start(GenServer)
        send(bare, "unknown")
        assert isinstance(wait_dead(bare).exception, NotImplementedError)


def test_domain_errors_of_casts_and_infos_are_logged(bench: Bench, caplog: Any) -> None:
    ref = bench.lab()
    with pytest.raises(Refused):
        ref.call(refuse)
    assert caplog.text == "", "its caller knows"
    ref.cast(refuse)
    ref.send_info(refuse)
    assert ref.call(1) == 1
    assert "lab: call failed" not in caplog.text
    assert "lab: cast failed: no" in caplog.text
    assert "lab: info failed: no" in caplog.text
    assert ref.epoch == 1


def test_no_reply_now_but_later(bench: Bench) -> None:
    """OTP's noreply: a request is answered by a later one."""

    class Barrier(GenServer):
        def init(self) -> None:
            self.waiting: Envelope | None = None

        def handle_call(self, request: Any) -> Any:
            if request == "wait":
                self.waiting = self.envelope
                return NO_REPLY
            assert self.waiting is not None
            self.waiting.reply(request)
            return "released"

    ref = bench.ref("barrier")
    ref.start(Barrier)
    waiting = ref.send_request("wait")
    assert not waiting.done()
    assert ref.call("go") == "released"
    assert waiting.result(PATIENCE) == "go"
    assert ref.mailbox.in_flight() == []


def test_no_reply_yet_when_the_server_crashes(bench: Bench) -> None:
    ref = bench.lab()
    waiting = ref.send_request(lambda _server: NO_REPLY)
    ref.call("through")
    assert ref.mailbox.in_flight() == [waiting]
    crash(ref)
    ref.start(Lab)
    assert isinstance(outcome(waiting), OutcomeUnknown)


def test_a_server_that_calls_itself_is_told_so(bench: Bench) -> None:
    ref = bench.lab()
    with pytest.raises(SelfCall):
        ref.call(lambda server: server.ref.call("myself", timeout=None))


def test_a_server_that_casts_to_itself_never_waits_for_room(bench: Bench) -> None:
    ref = bench.lab(options={"max_messages": 2, "busy_wait": 3600.0})

    def flood(server: Lab) -> int:
        sent = 0
        try:
            while True:
                server.ref.cast("x")
                sent += 1
        except Busy:
            return sent

    assert ref.call(flood, timeout=PATIENCE) == 2


def test_a_server_may_ask_its_supervisor_to_stop_and_gets_no_deadlock(bench: Bench) -> None:
    """The supervisor waits for this very server, so it cannot wait for the supervisor."""
    branch = bench.plan("branch", [bench.child("leaf", shutdown=None)])
    root = bench.supervise(branch.as_child(), name="root")
    assert bench["leaf"].call(lambda _server: root.stop(timeout=None)) is False
    assert root.stop(PATIENCE)
    assert bench.events.count("child_fenced") == 0
    assert bench["leaf"].state == "closed"


# -- turns


def test_turns_take_what_has_arrived_up_to_the_limit_and_infos_alone(bench: Bench) -> None:
    turns: list[list[object]] = []
    infos: list[tuple[int, object]] = []
    gate = Gate()

    class Turns(GroupCommit):
        turn_limit = 4

        def handle_info(self, message: Any) -> None:
            infos.append((len(turns), message))

    def commit(batch: list[object]) -> None:
        if batch == ["wait"]:
            gate()
        else:
            turns.append(batch)

    ref = bench.ref("turns")
    ref.start(Turns, commit)
    ref.cast("wait")
    gate.wait_reached()
    for number in range(6):
        ref.cast(number)
    ref.send_info("tick")
    replies = [ref.send_request(number) for number in (6, 7)]
    gate.open()
    assert [reply.result(PATIENCE) for reply in replies] == [6, 7]
    assert turns == [[0, 1, 2, 3], [4, 5], [6, 7]]
    assert infos == [(2, "tick")]


def test_the_rest_of_a_turn_that_crashed_is_done_by_the_next_incarnation(bench: Bench) -> None:
    class Batch(Lab):
        turn_limit = 8

    ref = bench.ref("batch")
    ref.start(Batch, bench.log)
    gate = Gate()
    ref.cast(gate)
    gate.wait_reached()
    before = ref.send_request("before")
    culprit = ref.send_request(boom)
    ref.cast("after 1")
    after = ref.send_request("after 2")
    gate.open()
    assert before.result(PATIENCE) == "before"
    assert isinstance(outcome(culprit), Boom)
    wait_dead(ref)
    assert not after.done()
    ref.start(Batch, bench.log)
    assert after.result(PATIENCE) == "after 2"
    assert bench.noted("cast") == [("batch", "after 1")]


def test_interrupted_envelopes_count_their_attempts_and_stay_in_flight(bench: Bench) -> None:
    seen: list[list[int]] = []

    class Stubborn(GenServer):
        turn_limit = 8

        def handle_turn(self, turn: Sequence[Envelope]) -> None:
            if self.epoch < 3:
                raise Boom("boom")
            for envelope in turn:
                envelope.reply(envelope.attempts)

        def handle_interrupted(self, envelopes: Sequence[Envelope]) -> None:
            seen.append([envelope.attempts for envelope in envelopes])
            self.requeue(envelopes)

    ref = bench.ref("stubborn")
    ref.start(Stubborn)
    reply = ref.send_request("x")
    for _ in range(2):
        wait_dead(ref)
        ref.start(Stubborn)
    assert reply.result(PATIENCE) == 3
    assert seen == [[1], [2]]


def test_a_message_that_crashed_a_server_is_not_left_to_the_next_one(bench: Bench) -> None:
    left: list[Envelope] = []

    class Watching(Lab):
        def handle_interrupted(self, envelopes: Sequence[Envelope]) -> None:
            left.extend(envelopes)

    ref = bench.ref("a")
    ref.start(Watching)
    ref.send_info(boom)
    wait_dead(ref)
    ref.start(Watching)
    assert ref.call(1) == 1
    assert left == []


def test_a_crash_in_handle_interrupted_leaves_them_to_the_next_one(bench: Bench) -> None:
    answers: list[int] = []

    class Fragile(GenServer):
        def handle_turn(self, _turn: Sequence[Envelope]) -> None:
            raise Boom("boom")

        def handle_interrupted(self, envelopes: Sequence[Envelope]) -> None:
            if self.epoch == 2:
                raise Boom("again")
            answers.append(self.epoch)
            for envelope in envelopes:
                envelope.reply("resolved")

    ref = bench.ref("fragile")
    ref.start(Fragile)
    reply = ref.send_request("x")
    for _ in range(2):
        wait_dead(ref)
        ref.start(Fragile)
    assert reply.result(PATIENCE) == "resolved"
    assert answers == [3]


def test_interrupted_calls_left_alone_stay_in_flight_and_casts_count_as_done(
    bench: Bench,
) -> None:
    class Indifferent(GroupCommit):
        def handle_interrupted(self, envelopes: Sequence[Envelope]) -> None:
            pass

    gate = Gate()

    def commit(batch: list[object]) -> None:
        if batch == ["wait"]:
            gate()
        elif "x" in batch:
            boom()

    ref = bench.ref("a")
    ref.start(Indifferent, commit)
    ref.cast("wait")
    gate.wait_reached()
    call = ref.send_request("x")
    ref.cast("x")
    gate.open()
    wait_dead(ref)
    ref.start(Indifferent, commit)
    assert ref.call("y") == "y"
    assert ref.mailbox.in_flight() == [call]
    # Once more, from the calls that were left for later this time.
    ref.stop(PATIENCE)
    ref.start(Indifferent, commit)
    assert ref.call("z") == "z"
    assert ref.mailbox.in_flight() == [call]
    ref.close()
    error = outcome(call)
    assert isinstance(error, ServerDown)
    assert error.executed is None


def test_a_turn_that_settles_some_and_raises_keeps_only_the_others_in_flight(
    bench: Bench,
) -> None:
    gate = Gate()
    interrupted: list[int] = []

    class Half(GenServer):
        turn_limit = 8

        def handle_turn(self, turn: Sequence[Envelope]) -> None:
            if turn[0].message == "wait":
                gate()
                return
            turn[0].reply("done")
            turn[1].fail(Refused("no"))
            if self.epoch == 1:
                raise Boom("boom")

        def handle_interrupted(self, envelopes: Sequence[Envelope]) -> None:
            for envelope in envelopes:
                interrupted.append(envelope.message)
                envelope.reply("resolved")

    ref = bench.ref("half")
    ref.start(Half)
    ref.cast("wait")
    gate.wait_reached()
    replies = [ref.send_request(number) for number in range(4)]
    gate.open()
    wait_dead(ref)
    ref.start(Half)
    assert isinstance(outcome(replies.pop(1)), Refused)
    assert [reply.result(PATIENCE) for reply in replies] == ["done", "resolved", "resolved"]
    assert interrupted == [2, 3]


# -- ends


def test_a_server_may_end_itself_after_the_turn(bench: Bench) -> None:
    ref = bench.lab()
    downs: Recorder[ExitReason] = Recorder()
    ref.monitor(downs)
    finish(ref, ExitReason.shutdown("all done"))
    assert downs.items == [ExitReason.shutdown("all done")]
    assert bench.noted("terminate") == [("lab", ExitReason.shutdown("all done"))]


def test_a_stop_asked_of_one_incarnation_does_not_end_the_next(bench: Bench) -> None:
    ref = bench.lab()
    gate = Gate()
    ref.cast(lambda _server: gate() and boom())
    gate.wait_reached()
    ref.stop(timeout=0)
    gate.open()
    wait_dead(ref)
    ref.start(Lab)
    assert ref.call(1) == 1


def test_close_ends_a_living_server_after_its_turn(bench: Bench) -> None:
    ref = bench.lab()
    gate = Gate()
    executing = ref.send_request(gate)
    gate.wait_reached()
    queued = ref.send_request("queued")
    downs: Recorder[ExitReason] = Recorder()
    ref.monitor(downs)
    ref.close(ExitReason.shutdown("closing"))
    first, second = outcome(executing), outcome(queued)
    assert isinstance(first, ServerDown)
    assert isinstance(second, ServerDown)
    assert (first.executed, second.executed) == (None, False)
    assert downs.items == []
    gate.open()
    assert ref.stop(PATIENCE)
    assert ref.last_exit == ExitReason.shutdown("closing")
    assert downs.items == [ref.last_exit]


def test_an_orderly_end_logs_nothing_and_leaves_nothing_to_drain(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    ref = bench.lab()
    assert ref in PROCESS.running
    assert ref.stop(PATIENCE)
    assert ref not in PROCESS.running
    assert caplog.text == ""


def test_a_drain_leaves_casts_behind_but_signals_do_not_count(bench: Bench) -> None:
    signalled, told = bench.ref("signalled"), bench.ref("told")
    signalled.send_info("x")
    told.cast("x")
    assert signalled.drain(PATIENCE)
    assert not told.drain(PATIENCE)


def test_the_exit_reason_does_not_keep_the_dead_server_alive(bench: Bench) -> None:
    """A traceback holds frames, and those would hold all that the incarnation held."""
    ref = bench.lab()
    watched: list[weakref.ref[Lab]] = []

    def die(server: Lab) -> None:
        watched.append(weakref.ref(server))
        try:
            boom(server)
        except Boom as error:
            raise OSError("wrapped") from error

    crash_reply = ref.send_request(die)
    assert isinstance(outcome(crash_reply), OSError)
    ref.stop(PATIENCE)
    error = ref.last_exit.exception
    assert error is not None
    assert error.__traceback__ is not None, "where it happened is still known"
    ref.thread = None
    gc.collect()
    assert watched[0]() is None


def test_a_caller_in_a_coroutine_survives_the_clearing_of_frames(bench: Bench) -> None:
    """The same exception object is raised in the caller; its frames must not be touched."""
    gate = Gate()
    ref = bench.lab(terminate=gate)

    def generator() -> Any:
        try:
            ref.call(boom)
        except Boom as error:
            yield error
            yield "still running"

    running = generator()
    assert isinstance(next(running), Boom)
    gate.open()
    ref.stop(PATIENCE)
    assert next(running) == "still running"
    running.close()


# -- info


def test_info(bench: Bench) -> None:
    ref = bench.ref("a", timers=bench.clock)
    assert (ref.info().state, ref.info().epoch, ref.info().uptime) == ("stopped", 0, 0.0)
    gate = Gate()
    bench.clock.advance(7.0)
    ref.start(Lab)
    bench.clock.advance(2.0)
    ref.cast(gate)
    gate.wait_reached()
    ref.cast("x", size=100)
    assert ref.info().oldest_age == 0.0
    bench.clock.advance(3.0)
    ref.send_request("y", size=11)
    info = ref.info()
    assert (info.name, info.epoch, info.restarts, info.state) == ("a", 1, 0, "ready")
    assert (info.queued, info.queued_bytes, info.oldest_age) == (2, 111, 3.0)
    assert (info.uptime, info.last_exit) == (5.0, None)
    gate.open()
    crash(ref)
    ref.stop(PATIENCE)
    info = ref.info()
    assert info.state == "stopped"
    assert info.uptime == 0.0
    assert info.last_exit is not None
    assert info.last_exit.is_crash
    ref.start(Lab)
    assert ref.info().restarts == 1
    ref.drain(PATIENCE)
    assert ref.info().state == "closed"
    assert repr(ref) == "<ServerRef 'a' closed>"


# -- timers


def test_send_after_and_send_interval(bench: Bench) -> None:
    ref = bench.ref("a", timers=bench.clock)
    ref.start(Lab, bench.log)
    once = ref.call(lambda server: server.send_after(5.0, "once"))
    again = ref.call(lambda server: server.send_interval(2.0, "again"))
    for _ in range(6):
        bench.clock.advance(1.0)
        ref.call("through")
    assert [m for _, m in bench.noted("info")] == ["again", "again", "once", "again"]
    assert not once.cancel()
    assert again.cancel()
    bench.clock.advance(60.0)
    ref.call("through")
    assert len(bench.noted("info")) == 4


def test_an_interval_leaves_out_ticks_while_one_waits(bench: Bench) -> None:
    ref = bench.ref("a", timers=bench.clock, max_messages=1)
    ref.start(Lab, bench.log)
    ref.call(lambda server: server.send_interval(1.0, "tick") and None)
    gate = Gate()
    ref.cast(gate)
    gate.wait_reached()
    bench.clock.advance(1000.0)
    assert ref.info().queued == 1
    gate.open()
    ref.call("through", timeout=PATIENCE)
    assert bench.noted("info") == [("a", "tick")]
    bench.clock.advance(1.0)
    ref.call("through")
    assert len(bench.noted("info")) == 2


def test_a_tick_needs_no_room_in_a_full_mailbox(bench: Bench) -> None:
    ref = bench.ref("a", timers=bench.clock, max_messages=1)
    ref.start(Lab, bench.log)
    ref.call(lambda server: server.send_after(1.0, "tick") and None)
    gate = Gate()
    ref.cast(gate)
    gate.wait_reached()
    ref.cast("fills it")
    bench.clock.advance(1.0)
    gate.open()
    assert ref.drain(PATIENCE)
    assert bench.noted("info") == [("a", "tick")]


def test_timers_of_a_server_that_ended_are_cancelled(bench: Bench) -> None:
    ref = bench.ref("a", timers=bench.clock)
    ref.start(Lab)
    servers: list[Lab] = []
    ref.call(servers.append)
    for _ in range(100):
        ref.call(lambda server: server.send_after(3600.0, "x") and None)
    assert bench.clock.pending == 100
    ref.stop(PATIENCE)
    assert bench.clock.pending == 0
    servers[0].send_after(1.0, "from beyond")
    assert bench.clock.pending == 0


def test_many_timers_do_not_pile_up(bench: Bench) -> None:
    ref = bench.ref("a", timers=bench.clock)
    ref.start(Lab)
    for _ in range(500):
        ref.call(lambda server: server.send_after(1.0, "x") and None)
        bench.clock.advance(1.0)
    gc.collect()
    assert len(ref._timers) == 0


# -- deadlines of requests that nobody waits for


def test_send_request_ends_by_its_deadline_even_if_the_server_is_stuck(bench: Bench) -> None:
    ref = bench.ref("a", timers=bench.clock)
    ref.start(Lab)
    gate = Gate()
    executing = ref.send_request(gate, timeout=5.0)
    gate.wait_reached()
    queued = [ref.send_request(n, timeout=5.0 + n) for n in range(3)]
    patient = ref.send_request("patient")
    bench.clock.advance(5.0)
    errors = [outcome(executing), outcome(queued[0])]
    assert [type(error) for error in errors] == [CallTimeout, CallTimeout]
    assert [error.executed for error in errors if isinstance(error, CallTimeout)] == [
        None,
        False,
    ]
    assert not queued[1].done()
    bench.clock.advance(2.0)
    assert isinstance(outcome(queued[1]), CallTimeout)
    assert isinstance(outcome(queued[2]), CallTimeout)
    gate.open()
    assert patient.result(PATIENCE) == "patient"
    assert bench.clock.pending == 0


def test_an_earlier_deadline_is_noticed_earlier(bench: Bench) -> None:
    ref = bench.ref("a", timers=bench.clock)
    late = ref.send_request("late", timeout=100.0)
    early = ref.send_request("early", timeout=1.0)
    bench.clock.advance(1.0)
    assert isinstance(outcome(early), CallTimeout)
    assert not late.done()
    ref.close()
    assert isinstance(outcome(late), ServerDown)
    assert bench.clock.pending == 0


def test_deadlines_on_the_real_clock(bench: Bench) -> None:
    ref = bench.ref("down")
    reply = ref.send_request("x", timeout=0.02)
    error = outcome(reply)
    assert isinstance(error, CallTimeout)
    assert error.executed is False


def test_errors_say_what_to_do() -> None:
    error = OtpError("it broke", hint="mend it")
    assert str(error) == "it broke; mend it"
    assert error.hint == "mend it"
    for kind in (Busy, CallTimeout, ServerDown, OutcomeUnknown, StartError, SelfCall):
        assert kind("what").hint
        assert kind().args == ("",)
    assert isinstance(CallTimeout("x"), TimeoutError)
