"""When to restart, and when to give up."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sessionkeeper.otp.errors import InvalidChildSpec

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class Backoff:
    """Delays between the restarts of one child (Pekko's ``BackoffSupervisor``).

    The first restart is immediate; crash ``n`` after that waits
    ``min(maximum, minimum * 2**(n - 2)) * (1 + random * factor)``.

    Attributes:
        minimum: seconds before the second restart.
        maximum: seconds that it grows to.
        factor: how much chance adds, to keep many children from coming back in step.
        reset_after: seconds a child must have run for its crashes to be forgotten.
        random: gives a number from 0 to 1.
    """

    minimum: float = 0.05
    maximum: float = 10.0
    factor: float = 0.2
    reset_after: float = 60.0
    random: Callable[[], float] = random.random

    def __post_init__(self) -> None:
        if not 0 <= self.minimum <= self.maximum:
            raise InvalidChildSpec("a backoff needs 0 <= minimum <= maximum")
        if self.factor < 0 or self.reset_after < 0:
            raise InvalidChildSpec("factor and reset_after of a backoff cannot be negative")

    def delay(self, crashes: int) -> float:
        """Return seconds to wait after so many crashes in a row."""
        if crashes <= 1:
            return 0.0
        # Beyond 2**60 the maximum has long been reached, and floats would overflow.
        grown = self.minimum * 2.0 ** min(crashes - 2, 60)
        return min(self.maximum, grown) * (1 + self.random() * self.factor)


class Intensity:
    """A sliding window over restarts (OTP's ``intensity`` and ``period``).

    Args:
        max_restarts: how many are tolerated within the window.
        max_seconds: length of the window.
    """

    def __init__(self, max_restarts: int, max_seconds: float) -> None:
        self._max_restarts = max_restarts
        self._max_seconds = max_seconds
        self._restarts: deque[float] = deque()

    def allows(self, now: float) -> bool:
        """Count a restart at `now` and tell whether it is still tolerated."""
        self._restarts.append(now)
        while self._restarts[0] < now - self._max_seconds:
            self._restarts.popleft()
        return len(self._restarts) <= self._max_restarts
