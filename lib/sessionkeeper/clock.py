"""The two clocks of the store, as one injectable object."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """Wall time for what is recorded, monotonic time for what is measured."""

    def now(self) -> datetime:
        """The wall clock: an aware datetime in UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back."""
        ...


class SteadyClock:
    """A wall clock that is never further ahead than time has passed since it was first read.

    What is removed because of its age goes by it: a clock that is set forward, by hand or by a
    time server, makes nothing old. One that is set back counts as it is. After a suspension it
    lags behind, which only keeps things longer.

    Args:
        clock: The clocks of the machine.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._began = clock.now()
        self._since = clock.monotonic()

    def now(self) -> datetime:
        """The wall clock: an aware datetime in UTC."""
        passed = timedelta(seconds=self._clock.monotonic() - self._since)
        return min(self._clock.now(), self._began + passed)

    def monotonic(self) -> float:
        """Seconds that never go back."""
        return self._clock.monotonic()

    def ahead(self) -> timedelta:
        """How much further the wall clock went than time has passed."""
        return self._clock.now() - self.now()


class SystemClock:
    """The clocks of this machine."""

    def now(self) -> datetime:
        """The wall clock: an aware datetime in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds that never go back."""
        return time.monotonic()
