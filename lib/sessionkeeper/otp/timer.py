"""Timers that post to mailboxes: one thread for all of them, or none, in tests."""

from __future__ import annotations

import time
from bisect import insort
from dataclasses import dataclass
from threading import TIMEOUT_MAX, Condition, Thread
from typing import TYPE_CHECKING, Protocol

from sessionkeeper.otp.runtime import PROCESS, call_hook, check_process

if TYPE_CHECKING:
    from collections.abc import Callable


class TimerService(Protocol):
    """A clock that can also call back.

    Callbacks run in the service's own thread, must be quick and may come late, never early.
    """

    def monotonic(self) -> float:
        """Return seconds since some fixed point; never goes back."""

    def after(self, seconds: float, callback: Callable[[], object]) -> Timer:
        """Call `callback` once, `seconds` from now."""

    def every(self, seconds: float, callback: Callable[[], object]) -> Timer:
        """Call `callback` each `seconds`, first `seconds` from now; missed rounds are left out."""


@dataclass(eq=False)
class Timer:
    """A pending callback."""

    agenda: _Agenda
    due: float
    period: float | None
    callback: Callable[[], object]

    def cancel(self) -> bool:
        """Prevent further callbacks; False if there would have been none."""
        agenda = self.agenda
        with agenda.changed:
            if self not in agenda.timers:
                return False
            agenda.timers.remove(self)
            agenda.changed.notify()
            return True


class _Agenda:
    """Pending timers in the order in which they are due: what both services have in common."""

    def __init__(self) -> None:
        self.changed = Condition()
        self.timers: list[Timer] = []

    monotonic = staticmethod(time.monotonic)  # itself: it is read for each message

    @property
    def pending(self) -> int:
        """How many timers wait."""
        return len(self.timers)

    def after(self, seconds: float, callback: Callable[[], object]) -> Timer:
        """Call `callback` once, `seconds` from now.

        Raises:
            ForkedError: the service belongs to the parent of this process.
        """
        return self._add(Timer(self, self.monotonic() + seconds, None, callback))

    def every(self, seconds: float, callback: Callable[[], object]) -> Timer:
        """Call `callback` each `seconds`, first `seconds` from now; missed rounds are left out.

        Raises:
            ForkedError: the service belongs to the parent of this process.
            ValueError: `seconds` is not positive.
        """
        if seconds <= 0:
            raise ValueError(f"a period must be positive, not {seconds}")
        return self._add(Timer(self, self.monotonic() + seconds, seconds, callback))

    def _add(self, timer: Timer) -> Timer:
        with self.changed:
            insort(self.timers, timer, key=lambda t: t.due)
            self.changed.notify()
        return timer

    def _pop(self) -> Timer:
        """Take the next timer, and put it in again if it is periodic, with the lock held."""
        timer = self.timers.pop(0)
        if timer.period is not None:
            timer.due += timer.period
            if timer.due <= self.monotonic():
                timer.due = self.monotonic() + timer.period
            insort(self.timers, timer, key=lambda t: t.due)
        return timer


class ThreadTimerService(_Agenda):
    """The real thing: one daemon thread, there only while a timer is pending."""

    def __init__(self) -> None:
        super().__init__()
        self._thread: Thread | None = None
        self._generation = PROCESS.generation

    def _add(self, timer: Timer) -> Timer:
        check_process(self._generation)
        with self.changed:
            if self._thread is None:
                thread = Thread(target=self._run, name="otp-timers", daemon=True)
                thread.start()
                self._thread = thread
            return super()._add(timer)

    def _run(self) -> None:
        while True:
            with self.changed:
                if not self.timers:
                    self._thread = None
                    return
                seconds = self.timers[0].due - self.monotonic()
                if seconds > 0:
                    self.changed.wait(min(seconds, TIMEOUT_MAX))
                    continue
                timer = self._pop()
            call_hook(timer.callback)


class ManualTimerService(_Agenda):
    """Time that stands still until a test moves it.

    Args:
        now: where the clock begins, in seconds.
    """

    def __init__(self, now: float = 0.0) -> None:
        super().__init__()
        self._now = now

    def monotonic(self) -> float:
        """Return the time as it was last set."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Move time forward, calling back in this thread, in order, as timers become due.

        What a callback posts to a server is handled in the thread of that server; call the
        server afterwards to be sure that it has been.

        Args:
            seconds: how far.
        """
        target = self._now + seconds
        while True:
            with self.changed:
                if not self.timers or self.timers[0].due > target:
                    self._now = target
                    return
                self._now = max(self._now, self.timers[0].due)
                timer = self._pop()
            call_hook(timer.callback)


_default: dict[int, ThreadTimerService] = {}


def default_timers() -> ThreadTimerService:
    """Return the timer service that this process shares; a forked child gets its own."""
    service = _default.get(PROCESS.generation)
    if service is None:
        # Atomic, without a lock that a fork could leave locked for ever.
        service = _default.setdefault(PROCESS.generation, ThreadTimerService())
    return service
