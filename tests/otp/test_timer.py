"""Timer services: the real one and the one that tests move by hand."""

from __future__ import annotations

import threading
from functools import partial

import pytest
from otp_kit import PATIENCE, Gate, Recorder, boom, panic

from sessionkeeper.otp import ManualTimerService
from sessionkeeper.otp.timer import ThreadTimerService, default_timers


def thread_ended(timers: ThreadTimerService, timeout: float) -> bool:
    thread = timers._thread
    if thread is not None:
        thread.join(timeout)
    return thread is None or not thread.is_alive()


def test_manual_timers_call_back_in_order_at_their_time() -> None:
    clock = ManualTimerService(100.0)
    calls: list[tuple[str, float]] = []

    def note(name: str) -> None:
        calls.append((name, clock.monotonic()))

    clock.after(3.0, lambda: note("c"))
    clock.after(1.0, lambda: note("a"))
    clock.after(1.0, lambda: note("b"))
    periodic = clock.every(2.0, lambda: note("tick"))
    assert clock.pending == 4
    clock.advance(0.5)
    assert calls == []
    clock.advance(4.5)
    assert calls == [("a", 101.0), ("b", 101.0), ("tick", 102.0), ("c", 103.0), ("tick", 104.0)]
    assert clock.monotonic() == 105.0
    assert periodic.cancel()
    assert not periodic.cancel()
    assert clock.pending == 0
    clock.advance(10.0)
    assert len(calls) == 5


def test_manual_timers_set_while_time_advances_are_heard() -> None:
    clock = ManualTimerService()
    calls: list[float] = []

    def again() -> None:
        calls.append(clock.monotonic())
        if len(calls) < 3:
            clock.after(1.0, again)

    clock.after(1.0, again)
    clock.advance(10.0)
    assert calls == [1.0, 2.0, 3.0]


def test_a_late_round_leaves_the_rhythm_alone_and_missed_ones_are_left_out() -> None:
    clock = ManualTimerService()
    calls: list[float] = []
    clock.every(1.0, lambda: calls.append(clock.monotonic()))
    clock._now = 1.5
    clock.advance(0.5)
    assert calls == [1.5, 2.0]
    clock._now = 4.0
    clock.advance(0.75)
    assert calls[2:] == [4.0]


@pytest.mark.parametrize("service", [ManualTimerService(), ThreadTimerService()])
def test_a_period_must_be_positive(service: ManualTimerService | ThreadTimerService) -> None:
    for period in (0, -1.0):
        with pytest.raises(ValueError, match="positive"):
            service.every(period, boom)


def test_many_cancelled_timers_do_not_pile_up() -> None:
    clock = ManualTimerService()
    keep = clock.after(1e6, boom)
    for _ in range(1000):
        clock.after(1e6, boom).cancel()
    assert clock.pending == 1
    assert keep.cancel()
    assert clock.pending == 0


def test_the_order_survives_cancelling() -> None:
    clock = ManualTimerService()
    fired: list[int] = []
    dues = [(number * 7919) % 1000 for number in range(1000)]
    timers = [clock.after(due, partial(fired.append, due)) for due in dues]
    for timer, due in zip(timers, dues, strict=True):
        if due % 10:
            assert timer.cancel()
    clock.advance(1000)
    assert fired == list(range(0, 1000, 10))


def test_real_timers_call_back_and_their_thread_ends_when_nothing_is_pending() -> None:
    timers = ThreadTimerService()
    order: Recorder[str] = Recorder()
    assert thread_ended(timers, PATIENCE), "no thread before the first timer"
    began = timers.monotonic()
    timers.after(0.03, lambda: order("second"))
    timers.after(0.01, lambda: order("first"))
    assert order.wait_count(2) == ["first", "second"]
    assert timers.monotonic() - began >= 0.03, "late perhaps, never early"
    assert thread_ended(timers, PATIENCE)
    timers.after(0.0, lambda: order("third"))
    assert order.wait_count(3)[2] == "third"
    assert thread_ended(timers, PATIENCE)


def test_real_periodic_timers_and_cancelling() -> None:
    timers = ThreadTimerService()
    ticks: Recorder[int] = Recorder()
    periodic = timers.every(0.001, lambda: ticks(1))
    distant = timers.after(3600.0, boom)
    thread = timers._thread
    assert thread is not None
    assert (thread.name, thread.daemon) == ("otp-timers", True)
    ticks.wait_count(5)
    assert periodic.cancel()
    assert not thread_ended(timers, 0), "the distant one is pending"
    assert distant.cancel()
    assert thread_ended(timers, PATIENCE), "cancelling the last one ends the thread"


def test_a_period_that_was_overslept_is_left_out() -> None:
    timers = ThreadTimerService()
    gate = Gate()
    times: Recorder[float] = Recorder()

    def tick() -> None:
        times(timers.monotonic())
        if len(times.items) == 1:
            gate()

    periodic = timers.every(0.02, tick)
    gate.wait_reached()
    began = timers.monotonic()
    while timers.monotonic() < began + 0.1:
        gate.reached.wait(0)
    gate.open()
    second, third = times.wait_count(3)[1:3]
    periodic.cancel()
    assert third - second > 0.01, "it does not catch up in a burst"
    assert thread_ended(timers, PATIENCE)


def test_callbacks_that_fail_hurt_nobody(caplog: pytest.LogCaptureFixture) -> None:
    timers = ThreadTimerService()
    done = threading.Event()
    timers.after(0.0, boom)
    timers.after(0.0, panic)
    timers.after(0.001, done.set)
    assert done.wait(PATIENCE)
    assert thread_ended(timers, PATIENCE)
    assert "Boom: boom" in caplog.text
    assert "Panic: panic" in caplog.text


def test_there_is_one_default_service() -> None:
    assert default_timers() is default_timers()
