"""The closable, bounded mailbox."""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from math import inf
from typing import TYPE_CHECKING, Any

import pytest
from otp_kit import PATIENCE, Bench, Gate, Lab, Recorder, outcome

from sessionkeeper.otp import (
    Busy,
    CallTimeout,
    Envelope,
    ExitReason,
    ServerDown,
    ServerRef,
    server_ref,
)
from sessionkeeper.otp import mailbox as mailbox_module
from sessionkeeper.otp.future import acquire_within
from sessionkeeper.otp.mailbox import Mailbox

if TYPE_CHECKING:
    from collections.abc import Callable

STOP = ExitReason.shutdown("stop")


def make(max_messages: int = 100, max_bytes: int = 1000) -> Mailbox:
    mailbox = Mailbox(max_messages, max_bytes, time.monotonic)
    mailbox.begin()
    return mailbox


def call(message: object = None, *, size: int = 0, deadline: float = inf) -> Envelope:
    return Envelope(message, "call", deadline, size=size)


def cast(message: object = None, *, size: int = 0) -> Envelope:
    return Envelope(message, "cast", size=size)


def info(message: object = None) -> Envelope:
    return Envelope(message, "info")


class Meddled(deque[Envelope]):
    """A queue in which something happens just before the first append, or after each."""

    def __init__(
        self, meddle: Callable[[], object], after: Callable[[], object] | None = None
    ) -> None:
        super().__init__()
        self.meddle: Callable[[], object] | None = meddle
        self.after = after

    def append(self, envelope: Envelope, /) -> None:
        meddle, self.meddle = self.meddle, None
        if meddle is not None:
            meddle()
        super().append(envelope)
        if self.after is not None:
            self.after()


def messages(turn: object) -> list[object]:
    assert not isinstance(turn, ExitReason), turn
    return [envelope.message for envelope in turn]  # type: ignore[attr-defined]


# -- bounds


@pytest.mark.parametrize(("messages_bound", "bytes_bound"), [(0, 1), (1, 0)])
def test_a_mailbox_without_room_makes_no_sense(messages_bound: int, bytes_bound: int) -> None:
    with pytest.raises(ValueError, match="room"):
        ServerRef("a", max_messages=messages_bound, max_bytes=bytes_bound)


def test_a_mailbox_may_be_tiny(bench: Bench) -> None:
    ref = bench.lab(options={"max_messages": 1, "max_bytes": 1})
    assert ref.call("x", size=1) == "x"


def test_the_time_spent_waiting_for_room_counts(bench: Bench) -> None:
    ref = bench.ref("a", max_messages=1, timers=bench.clock)
    gate = Gate()
    ref.cast(gate)
    errors: Recorder[object] = Recorder()

    def ask() -> None:
        try:
            ref.call("x", timeout=60.0)
        except CallTimeout as error:
            errors(error)

    asking = threading.Thread(target=ask)
    asking.start()
    while not ref.mailbox._line.locked():
        asking.join(0.001)
    bench.clock.advance(60.0)
    # Now there is room, but the time is over: it must not wait for another minute.
    ref.start(Lab)
    error = errors.wait_count(1)[0]
    assert isinstance(error, CallTimeout)
    assert error.executed is False
    gate.open()
    asking.join(PATIENCE)


def test_the_bound_in_messages() -> None:
    mailbox = make(max_messages=2)
    for number in range(2):
        mailbox.put(call(number))
    with pytest.raises(Busy):
        mailbox.put(call(2))
    assert messages(mailbox.take(1)) == [0]
    mailbox.put(call(3))
    assert mailbox.measure()[0] == 2


def test_the_bound_in_bytes() -> None:
    mailbox = make(max_bytes=100)
    mailbox.put(call("a", size=60))
    with pytest.raises(Busy):
        mailbox.put(call("b", size=41))
    mailbox.put(call("c", size=40))
    assert mailbox.measure()[1] == 100
    mailbox.put(call("d"))
    assert messages(mailbox.take(1)) == ["a"]
    assert mailbox.measure()[1] == 40
    mailbox.take(10)
    assert mailbox.measure()[1] == 0


def test_a_message_larger_than_the_bound_is_accepted_when_no_bytes_wait() -> None:
    mailbox = make(max_bytes=100)
    mailbox.put(call("no bytes"))
    mailbox.put(call("huge", size=5000))
    with pytest.raises(Busy):
        mailbox.put(call("next", size=1))
    mailbox.take(10)
    mailbox.put(call("a single byte", size=1))
    with pytest.raises(Busy):
        mailbox.put(call("huge", size=5000))


def test_a_sender_waits_for_room_and_gets_it(bench: Bench) -> None:
    ref = bench.lab(options={"max_messages": 1})
    gate = Gate()
    ref.cast(gate)
    gate.wait_reached()
    ref.cast("fills it")
    answers: Recorder[int] = Recorder()
    senders = [
        threading.Thread(target=lambda n=n: answers(ref.call(n, timeout=PATIENCE)))
        for n in range(5)
    ]
    for sender in senders:
        sender.start()
    with pytest.raises(Busy):
        ref.send_request("no patience", wait=0)
    gate.open()
    assert sorted(answers.wait_count(5)) == [0, 1, 2, 3, 4]
    for sender in senders:
        sender.join(PATIENCE)


def test_a_call_waits_for_room_no_longer_than_its_timeout(bench: Bench) -> None:
    ref = bench.ref("down", max_messages=1)
    ref.cast("fills it")
    with pytest.raises(Busy):
        ref.call("x", timeout=0.02)
    assert ref.info().queued == 1


def test_requests_whose_callers_left_make_room() -> None:
    mailbox = make(max_messages=3)
    envelopes = [call(number, size=10) for number in range(3)]
    for envelope in envelopes:
        mailbox.put(envelope)
    for envelope in envelopes[:2]:
        assert envelope.withdraw(CallTimeout("left", executed=False))
    mailbox.put(call("new", size=1))
    assert mailbox.measure()[:2] == (2, 11)
    assert messages(mailbox.take(10)) == [2, "new"]


def test_posts_of_the_machinery_heed_no_bound() -> None:
    mailbox = make(max_messages=1)
    mailbox.put(call("full"))
    for number in range(2):
        mailbox.put(info(number), None)
    assert mailbox.measure()[0] == 3
    assert [messages(mailbox.take(10)) for _ in range(3)] == [["full"], [0], [1]]
    mailbox.close(STOP)
    with pytest.raises(ServerDown):
        mailbox.put(info("too late"), None)


def test_what_slips_into_a_full_mailbox_is_taken_back() -> None:
    mailbox = make(max_messages=2)
    mailbox._queue = Meddled(lambda: deque.append(mailbox._queue, call("faster")))
    deque.append(mailbox._queue, call("first"))
    with pytest.raises(Busy):
        mailbox.put(call("too many"))
    assert messages(mailbox.take(10)) == ["first", "faster"]


def test_what_the_consumer_took_before_a_refusal_was_seen_is_not_refused() -> None:
    mailbox = make()
    taken: list[object] = []

    def drain_and_take() -> None:
        mailbox.drain(STOP)
        taken.extend(messages(mailbox.take(1)))

    mailbox._queue = Meddled(lambda: None, drain_and_take)
    mailbox.put(call("just in time"))
    assert taken == ["just in time"]


def waits(mailbox: Mailbox, sender: threading.Thread) -> bool:
    """Whether a sender is at the place where it waits for room or for the line."""
    frame = sys._current_frames().get(sender.ident or 0)
    there = frame is not None and acquire_within.__name__ in frame.f_code.co_name
    return there and mailbox._line.locked()


def line_up(mailbox: Mailbox, envelope: Envelope) -> threading.Thread:
    """Send from another thread, and return it when that waits for room."""
    sender = threading.Thread(target=lambda: mailbox.put(envelope, PATIENCE))
    sender.start()
    while sender.is_alive() and not waits(mailbox, sender):
        sender.join(0.001)
    return sender


def test_what_was_taken_back_for_lack_of_room_waits_for_it() -> None:
    mailbox = make(max_messages=2)
    mailbox._queue = Meddled(lambda: deque.append(mailbox._queue, call("faster")))
    deque.append(mailbox._queue, call("first"))
    sender = line_up(mailbox, call("waits"))
    assert messages(mailbox.take(10)) == ["first", "faster"]
    sender.join(PATIENCE)
    assert mailbox.measure()[0] == 1
    assert messages(mailbox.take(10)) == ["waits"]


@pytest.mark.parametrize("size", [0, 50])
def test_others_pass_the_line_only_while_half_of_the_room_is_free(size: int) -> None:
    mailbox = make(max_messages=4, max_bytes=200)
    mailbox.put(call("fills it", size=150))
    first = line_up(mailbox, call("first", size=100))
    second = line_up(mailbox, call("second", size=size or 1))
    assert messages(mailbox.take(1)) == ["fills it"]
    first.join(PATIENCE)
    second.join(PATIENCE)
    mailbox._line.acquire()
    third = line_up(mailbox, call("third", size=size))
    mailbox.take(10)
    mailbox.put(call("passes", size=size), PATIENCE)
    mailbox._line.release()
    third.join(PATIENCE)
    assert messages(mailbox.take(10)) == ["passes", "third"]


def test_those_in_line_get_in_one_after_the_other() -> None:
    mailbox = make(max_messages=1)
    mailbox.put(cast("fills it"))
    senders = [line_up(mailbox, cast(number)) for number in range(3)]
    taken: list[Any] = []
    for _ in range(4):
        assert mailbox.measure()[0] <= 1
        taken += messages(mailbox.take(1))
    assert taken[0] == "fills it"
    assert sorted(taken[1:]) == [0, 1, 2]
    for sender in senders:
        sender.join(PATIENCE)
    assert not mailbox._line.locked()


def test_who_may_not_pass_leaves_the_wakeup_to_the_first_in_line() -> None:
    mailbox = make(max_messages=1)
    with mailbox._line:
        with pytest.raises(Busy):
            mailbox.put(cast("passes by"))
        assert not mailbox._room.locked()


def test_who_finds_that_others_left_tells_the_first_in_line() -> None:
    mailbox = make(max_messages=1)
    left = call("left")
    mailbox.put(left)
    first = line_up(mailbox, cast("first"))
    left.withdraw(CallTimeout("left", executed=False))
    second = threading.Thread(target=lambda: mailbox.put(cast("second"), PATIENCE))
    second.start()
    first.join(PATIENCE / 2)
    assert not first.is_alive()
    assert messages(mailbox.take(1)) + messages(mailbox.take(1)) == ["first", "second"]
    second.join(PATIENCE)


# -- taking


def test_what_was_withdrawn_or_has_expired_is_skipped() -> None:
    mailbox = make()
    withdrawn, expired, live = call("withdrawn"), call("expired", deadline=0.0), call("live")
    for envelope in (withdrawn, expired, live):
        mailbox.put(envelope)
    assert withdrawn.withdraw(TimeoutError())
    assert messages(mailbox.take(10)) == ["live"]
    error = expired.exception(0)
    assert isinstance(error, CallTimeout)
    assert error.executed is False
    assert live.in_flight
    assert live.attempts == 1


def test_what_is_taken_cannot_be_withdrawn_and_what_is_requeued_can() -> None:
    mailbox = make()
    mailbox.put(call("x", size=7))
    turn = mailbox.take(1)
    assert not isinstance(turn, ExitReason)
    assert not turn[0].withdraw(TimeoutError())
    mailbox.put(call("y", size=2))
    mailbox.requeue(turn)
    assert mailbox.measure()[:2] == (2, 9)
    assert not turn[0].in_flight
    assert turn[0].withdraw(TimeoutError())
    assert mailbox.in_flight() == []


def test_requeue_puts_in_front_in_order_even_if_full() -> None:
    mailbox = make(max_messages=3)
    for number in range(3):
        mailbox.put(call(number))
    turn = mailbox.take(2)
    assert not isinstance(turn, ExitReason)
    mailbox.put(call(3))
    mailbox.put(call(4))
    mailbox.requeue(turn)
    assert messages(mailbox.take(10)) == [0, 1, 2, 3, 4]


def test_requeue_after_close_changes_nothing() -> None:
    mailbox = make()
    mailbox.put(call("x"))
    turn = mailbox.take(1)
    assert not isinstance(turn, ExitReason)
    mailbox.close(STOP)
    mailbox.requeue(turn)
    error = turn[0].exception(0)
    assert isinstance(error, ServerDown)
    assert error.executed is None
    assert mailbox.measure()[0] == 0


def test_in_flight_is_what_the_turn_has_not_settled() -> None:
    mailbox = make()
    for number in range(3):
        mailbox.put(call(number))
    mailbox.put(cast("cast"))
    turn = mailbox.take(10)
    assert not isinstance(turn, ExitReason)
    turn[1].reply("done")
    assert messages(mailbox.in_flight()) == [0, 2, "cast"]
    # The next turn begins: what was not answered was deferred, and casts are done.
    mailbox.put(call("next"))
    mailbox.take(10)
    assert messages(mailbox.in_flight()) == [0, 2, "next"]
    assert turn[3].done()


def test_what_is_queued_while_the_consumer_goes_to_sleep_is_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mailbox = make()
    wakeup = mailbox._wakeup

    class FallingAsleep:
        def acquire(self, *, blocking: bool) -> bool:
            mailbox._queue.append(call("just in time"))
            return wakeup.acquire(blocking=blocking)

    monkeypatch.setattr(mailbox, "_wakeup", FallingAsleep())
    assert messages(mailbox.take(1)) == ["just in time"]


def test_a_consumer_that_sleeps_is_woken_to_leave() -> None:
    mailbox = make()
    ends: Recorder[object] = Recorder()
    consumer = threading.Thread(target=lambda: ends(mailbox.take(1)))
    consumer.start()
    fenced = ExitReason("fenced", "now")
    mailbox.request_stop(fenced)
    assert ends.wait_count(1) == [fenced]
    consumer.join(PATIENCE)
    mailbox.put(call("kept"))
    mailbox.begin()
    assert messages(mailbox.take(1)) == ["kept"]


# -- stopping and closing


def test_stop_goes_ahead_of_the_backlog_and_drain_behind_it() -> None:
    mailbox = make()
    mailbox.put(call("x"))
    mailbox.request_stop(STOP)
    assert mailbox.take(1) == STOP
    mailbox.begin()
    mailbox.drain(STOP)
    with pytest.raises(ServerDown) as caught:
        mailbox.put(call("y"))
    assert caught.value.executed is False
    assert caught.value.reason == STOP
    assert messages(mailbox.take(1)) == ["x"]
    assert mailbox.take(1) == STOP
    mailbox.begin()
    mailbox.put(call("open again"))


def test_stop_overtakes_drain_but_not_the_other_way_round() -> None:
    later = ExitReason.shutdown("later")
    mailbox = make()
    mailbox.put(call("x"))
    mailbox.drain(STOP)
    mailbox.request_stop(later)
    assert mailbox.take(1) == later
    mailbox.drain(STOP)
    assert mailbox.take(1) == later
    mailbox.request_stop(STOP)
    assert mailbox.take(1) == later, "the first counts"
    mailbox.begin()
    assert messages(mailbox.take(1)) == ["x"]


def test_close_fails_calls_and_returns_what_was_not_done() -> None:
    mailbox = make()
    flying, queued, left, told = call("flying"), call("queued"), call("left"), cast("told")
    mailbox.put(flying)
    mailbox.take(1)
    for envelope in (queued, left, told):
        mailbox.put(envelope)
    left.withdraw(TimeoutError())
    assert messages(mailbox.close(STOP)) == ["flying", "queued", "told"]
    assert mailbox.close(STOP) == []
    for envelope, executed in ((flying, None), (queued, False)):
        error = envelope.exception(0)
        assert isinstance(error, ServerDown)
        assert error.executed is executed
        assert error.reason == STOP
    with pytest.raises(ServerDown):
        mailbox.put(call("late"))
    with pytest.raises(ServerDown):
        mailbox.begin()
    assert mailbox.take(1) == STOP


def test_what_was_in_flight_at_the_close_can_be_reported_after_the_turn() -> None:
    mailbox = make()
    mailbox.put(cast("told"))
    mailbox.take(1)
    undone = mailbox.close(STOP)
    assert mailbox.take(1) == STOP
    assert messages(undone) == ["told"]


@pytest.mark.parametrize("how", ["close", "seal", "drain"])
def test_what_slips_into_a_mailbox_that_refuses_is_taken_back(how: str) -> None:
    for wait in (0.0, None):
        mailbox = make()
        mailbox._queue = Meddled(lambda mailbox=mailbox: getattr(mailbox, how)(STOP))  # type: ignore[misc]
        with pytest.raises(ServerDown):
            mailbox.put(call("late"), wait)
        with pytest.raises(ServerDown):
            mailbox.put(call("large", size=7))
        assert mailbox.measure()[:2] == (0, 0)


@pytest.mark.parametrize("how", ["close", "seal", "drain"])
def test_senders_that_wait_for_room_are_told_when_there_will_be_none(how: str) -> None:
    mailbox = make(max_messages=1)
    mailbox.put(cast("fills it"))
    errors: Recorder[object] = Recorder()

    def send() -> None:
        try:
            mailbox.put(call("x"), inf)
        except ServerDown as error:
            errors(error)

    sender = threading.Thread(target=send)
    sender.start()
    while not mailbox._line.locked():
        sender.join(0.001)
    if how == "close":
        mailbox.close(STOP)
        assert mailbox.measure() == (0, 0, None)
    elif how == "seal":
        mailbox.seal(STOP)
    else:
        mailbox.drain(STOP)
    errors.wait_count(1)
    sender.join(PATIENCE)
    assert not mailbox._line.locked()


def test_sweep_returns_the_next_deadline_of_those_that_still_wait() -> None:
    mailbox = make()
    envelopes = [call(deadline=deadline) for deadline in (5.0, 3.0, 9.0, 1.0, 2.0)]
    for envelope in (*envelopes, call()):
        mailbox.put(envelope)
    envelopes[4].set_result("answered")
    assert mailbox.sweep(1.5) == 3.0
    assert [e.done() for e in envelopes] == [False] * 3 + [True] * 2
    assert mailbox.sweep(100.0) == inf


def test_sweep_of_an_empty_mailbox_finds_no_deadline() -> None:
    assert make().sweep(1.0) == inf


def test_wait_overrides_busy_wait(bench: Bench) -> None:
    ref = bench.ref("a", max_messages=1, busy_wait=3600.0)
    ref.cast("fills it")
    for send in (ref.cast, ref.send_info, ref.send_request):
        with pytest.raises(Busy):
            send("x", wait=0)


def test_without_a_wait_a_sender_waits_for_room_as_long_as_busy_wait(bench: Bench) -> None:
    ref = bench.ref("a", max_messages=1, busy_wait=PATIENCE)
    ref.cast("fills it")
    sender = threading.Thread(target=lambda: ref.cast("waits"))
    sender.start()
    while sender.is_alive() and not ref.mailbox._line.locked():
        sender.join(0.001)
    ref.start(Lab, bench.log)
    sender.join(PATIENCE)
    assert ref.call("behind both") == "behind both"
    assert [message for _, message in bench.noted("cast")] == ["fills it", "waits"]


def test_sizes_are_those_declared_and_nothing_by_default(bench: Bench) -> None:
    ref = bench.ref("a")
    for send in (ref.cast, ref.send_info, ref.send_request):
        send("free of charge")
    assert ref.info().queued_bytes == 0
    for send in (ref.cast, ref.send_info, ref.send_request):
        send("x", size=3)
    assert ref.info().queued_bytes == 9


def test_a_call_counts_from_when_it_was_sent_and_with_its_size(bench: Bench) -> None:
    ref = bench.ref("down", timers=bench.clock)
    bench.clock.advance(5.0)
    for size in ({}, {"size": 3}):
        with pytest.raises(CallTimeout):
            ref.call("x", timeout=0, **size)
        assert ref.info().queued_bytes == sum(size.values())
    bench.clock.advance(2.0)
    assert ref.info().oldest_age == 2.0


def test_posts_to_a_handle(bench: Bench) -> None:
    ref = bench.ref("a", timers=bench.clock)
    bench.clock.advance(5.0)
    assert ref.post("first")
    ref.send_info("last")
    bench.clock.advance(2.0)
    assert ref.info().oldest_age == 2.0
    ref.start(Lab, bench.log)
    assert ref.drain(PATIENCE)
    assert [message for _, message in bench.noted("info")] == ["first", "last"]
    assert not ref.post("too late")


def test_infos_heed_the_bound_and_the_wait_of_their_sender(bench: Bench) -> None:
    ref = bench.ref("a", max_bytes=10, busy_wait=3600.0)
    ref.send_info("free of charge")
    ref.send_info("large", size=10)
    assert ref.info().queued_bytes == 10
    with pytest.raises(Busy):
        ref.send_info("x", size=1, wait=0)


def test_seal_fails_calls_and_keeps_casts_until_the_next_begin() -> None:
    mailbox = make()
    asked = call("asked", size=5)
    mailbox.put(asked)
    mailbox.put(cast("told", size=6))
    mailbox.seal(STOP)
    assert isinstance(asked.exception(0), ServerDown)
    with pytest.raises(ServerDown):
        mailbox.put(call("x"))
    assert mailbox.measure()[:2] == (1, 6)
    mailbox.begin()
    mailbox.put(call("y"))
    assert messages(mailbox.take(10)) == ["told", "y"]


# -- signals


def test_a_signal_before_the_consumer_is_woken_strands_nobody(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C may raise in the main thread at any line of put: the server must keep up."""
    ref = bench.lab()
    assert ref.call("up") == "up"
    mailbox = ref.mailbox
    while not mailbox._wakeup.locked():
        ref.call("settle down")

    def interrupt(_sleeper: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(mailbox_module, "_wake", interrupt)
        with pytest.raises(KeyboardInterrupt):
            mailbox.put(cast("interrupted"))
    assert [ref.call(number, timeout=PATIENCE) for number in range(3)] == [0, 1, 2]
    assert bench.noted("cast") == [("lab", "interrupted")]


def test_an_interrupted_call_is_withdrawn(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    ref = bench.lab()
    gate = Gate()
    ref.cast(gate)
    gate.wait_reached()
    ran: list[int] = []

    def interrupt(_lock: object, _timeout: object) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(server_ref, "acquire_within", interrupt)
        with pytest.raises(KeyboardInterrupt):
            ref.call(lambda _server: ran.append(1))
    gate.open()
    ref.call("through")
    assert ran == []


# -- envelopes


def test_an_envelope_is_a_call_that_counts_no_bytes_unless_told() -> None:
    envelope = Envelope("x")
    assert (envelope.kind, envelope.size) == ("call", 0)
    assert (envelope.deadline, envelope.enqueued_at) == (inf, 0.0)


def test_envelope_fail_wraps_what_is_no_exception() -> None:
    for error in (SystemExit(), KeyboardInterrupt(), GeneratorExit()):
        envelope = call("x")
        envelope.fail(error)
        wrapped = outcome(envelope)
        assert isinstance(wrapped, Exception)
        assert wrapped.__cause__ is error


def test_envelope_repr_tells_its_kind_and_not_its_content() -> None:
    secret: Any = {"password": "hunter2"}
    assert repr(call(secret)) == "<Envelope call dict>"
    assert repr(cast(secret)) == "<Envelope cast dict>"
    assert repr(info(secret)) == "<Envelope info dict>"
