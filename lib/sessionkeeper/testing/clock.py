"""Time that stands still until a test moves it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from sessionkeeper.otp import ManualTimerService

if TYPE_CHECKING:
    from collections.abc import Callable

    from sessionkeeper.otp import Timer

START = datetime(2025, 1, 1, 12, tzinfo=UTC)


class FakeClock:
    """Wall clock, monotonic clock and timers in one, all moved by `advance`.

    Open a store with `inject=Injected(clock=clock)`; then retention, cache and cleanup go by it.
    Only waits of callers stay real: nobody waits longer because time stands still.

    Args:
        now: Where the wall clock begins (aware).
    """

    def __init__(self, now: datetime = START) -> None:
        self._timers = ManualTimerService()
        # Both clocks go by the same time, so that no thread sees one of them ahead of the other.
        self._zero = now

    def now(self) -> datetime:
        """The wall clock."""
        return self._zero + timedelta(seconds=self._timers.monotonic())

    def monotonic(self) -> float:
        """Seconds since the clock was made."""
        return self._timers.monotonic()

    def after(self, seconds: float, callback: Callable[[], object]) -> Timer:
        """Call `callback` once time has been advanced by `seconds`."""
        return self._timers.after(seconds, callback)

    def every(self, seconds: float, callback: Callable[[], object]) -> Timer:
        """Call `callback` each time that another `seconds` have passed."""
        return self._timers.every(seconds, callback)

    def advance(self, seconds: float = 0.0, *, days: float = 0.0) -> None:
        """Move both clocks forward and let the timers that become due call, in this thread."""
        self._timers.advance(timedelta(days=days, seconds=seconds).total_seconds())

    def set_wall_clock(self, now: datetime) -> None:
        """Set the wall clock alone, also backwards, as an operator or NTP does."""
        self._zero = now - timedelta(seconds=self._timers.monotonic())
