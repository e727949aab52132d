"""Timers that post to mailboxes: one thread for all of them, or none, in tests."""

from __future__ import annotations

import heapq
import time
from itertools import count
from threading import TIMEOUT_MAX, Condition, Lock, Thread, current_thread
from typing import TYPE_CHECKING, Protocol

from sessionkeeper.otp.errors import ForkedError
from sessionkeeper.otp.runtime import PROCESS, call_hook

if TYPE_CHECKING:
    from collections.abc import Callable


class Clock(Protocol):
    """A source of monotonic time."""

    def monotonic(self) -> float:
        """Return seconds since some fixed point; never goes back."""


class TimerService(Clock, Protocol):
    """A clock that also calls back.

    Callbacks run in the service's own thread, must be quick and may come late, never early.
    """

    def after(self, seconds: float, callback: Callable[[], object]) -> Timer:
        """Call `callback` once, `seconds` from now."""

    def every(self, seconds: float, callback: Callable[[], object]) -> Timer:
        """Call `callback` each `seconds`, first `seconds` from now; missed rounds are left out."""


class Timer:
    """A pending callback."""

    __slots__ = ("_agenda", "callback", "due", "period")

    def __init__(
        self, agenda: _Agenda, due: float, period: float | None, callback: Callable[[], object]
    ) -> None:
        self._agenda: _Agenda | None = agenda
        self.due = due
        self.period = period
        self.callback = callback

    @property
    def active(self) -> bool:
        """Whether it will call back (again)."""
        return self._agenda is not None

    def cancel(self) -> bool:
        """Prevent further callbacks; False if there would have been none."""
        agenda = self._agenda
        return agenda is not None and agenda.forget(self)

    def retire(self) -> None:
        """Mark it as over (for its service)."""
        self._agenda = None


class _Agenda:
    """Pending timers in the order in which they are due: what both services have in common."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._live = 0
        self._heap: list[tuple[float, int, Timer]] = []
        self._order = count()

    def monotonic(self) -> float:
        """Return seconds since some fixed point; never goes back."""
        raise NotImplementedError

    def after(self, seconds: float, callback: Callable[[], object]) -> Timer:
        """Call `callback` once, `seconds` from now.

        Raises:
            ForkedError: the service belongs to the parent of this process.
        """
        return self._add(seconds, None, callback)

    def every(self, seconds: float, callback: Callable[[], object]) -> Timer:
        """Call `callback` each `seconds`, first `seconds` from now; missed rounds are left out.

        Raises:
            ForkedError: the service belongs to the parent of this process.
            ValueError: `seconds` is not positive.
        """
        if seconds <= 0:
            raise ValueError(f"a period must be positive, not {seconds}")
        return self._add(seconds, seconds, callback)

    def forget(self, timer: Timer) -> bool:
        """Cancel `timer`; False if it is over."""
        with self._lock:
            if not timer.active:
                return False
            timer.retire()
            self._live -= 1
            # Cancelled entries leave the heap when their time comes; do not hoard them.
            if len(self._heap) > 2 * self._live + 64 or not self._live:
                self._heap = [entry for entry in self._heap if entry[2].active]
                heapq.heapify(self._heap)
            self._changed()
            return True

    def _add(self, seconds: float, period: float | None, callback: Callable[[], object]) -> Timer:
        with self._lock:
            timer = Timer(self, self.monotonic() + seconds, period, callback)
            heapq.heappush(self._heap, (timer.due, next(self._order), timer))
            self._live += 1
            self._changed()
            return timer

    def _changed(self) -> None:
        """Look at the heap again: it was changed, with the lock held."""

    def _next_due(self) -> float | None:
        while self._heap and not self._heap[0][2].active:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def _pop(self, now: float) -> Timer:
        """Take the next timer, and put it in again if it is periodic."""
        due, _, timer = heapq.heappop(self._heap)
        if timer.period is None:
            timer.retire()
            self._live -= 1
        else:
            following = due + timer.period
            timer.due = following if following > now else now + timer.period
            heapq.heappush(self._heap, (timer.due, next(self._order), timer))
        return timer


class ThreadTimerService(_Agenda):
    """The real thing: one daemon thread, there only while a timer is pending."""

    def __init__(self) -> None:
        super().__init__()
        self._wake = Condition(self._lock)
        self._thread: Thread | None = None
        self._waits_until = 0.0
        self._generation = PROCESS.generation

    def monotonic(self) -> float:
        """Return `time.monotonic`."""
        return time.monotonic()

    def _add(self, seconds: float, period: float | None, callback: Callable[[], object]) -> Timer:
        if self._generation != PROCESS.generation:
            raise ForkedError("this timer service belongs to the parent process")
        return super()._add(seconds, period, callback)

    def _changed(self) -> None:
        if self._thread is None and self._live:
            thread = Thread(target=self._run, name="otp-timers", daemon=True)
            thread.start()
            self._thread = thread
        due = self._next_due()
        if due is None or due < self._waits_until:
            self._wake.notify()

    def _run(self) -> None:
        while True:
            with self._wake:
                due = self._next_due()
                if due is None:
                    self._thread = None
                    return
                now = time.monotonic()
                if due > now:
                    self._waits_until = due
                    self._wake.wait(min(due - now, TIMEOUT_MAX))
                    continue
                timer = self._pop(now)
            call_hook(timer.callback)

    def join(self, timeout: float | None = None) -> bool:
        """Wait until no timer is pending and the thread has ended; tell whether it has.

        Args:
            timeout: seconds; None waits for ever.
        """
        thread = self._thread
        if thread is None:
            return True
        if thread is current_thread():
            return False
        thread.join(timeout)
        return not thread.is_alive()


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

    @property
    def pending(self) -> int:
        """How many timers wait."""
        return self._live

    def advance(self, seconds: float) -> None:
        """Move time forward, calling back in this thread, in order, as timers become due.

        What a callback posts to a server is handled in the thread of that server; call the
        server afterwards to be sure that it has been.

        Args:
            seconds: how far.
        """
        target = self._now + seconds
        while True:
            with self._lock:
                due = self._next_due()
                if due is None or due > target:
                    self._now = target
                    return
                self._now = max(self._now, due)
                timer = self._pop(self._now)
            call_hook(timer.callback)


_default: dict[int, ThreadTimerService] = {}


def default_timers() -> ThreadTimerService:
    """Return the timer service that this process shares; a forked child gets its own."""
    service = _default.get(PROCESS.generation)
    if service is None:
        # Atomic, without a lock that a fork could leave locked for ever.
        service = _default.setdefault(PROCESS.generation, ThreadTimerService())
    return service
