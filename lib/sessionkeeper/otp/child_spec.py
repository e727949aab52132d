"""How a supervisor starts, restarts and stops one child, and when it gives up."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias, get_args

from sessionkeeper.otp.errors import InvalidChildSpec

if TYPE_CHECKING:
    from collections.abc import Callable

    from sessionkeeper.otp.gen_server import GenServer
    from sessionkeeper.otp.server_ref import ServerRef

Restart = Literal["permanent", "transient", "temporary"]
ChildType = Literal["worker", "supervisor"]
# ChildSpec has a field called type, which hides the builtin from its annotations.
ServerClass: TypeAlias = "type[GenServer]"


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """The specification of a child (OTP's ``child_spec``).

    Attributes:
        id: unique within the supervisor.
        start: starts an incarnation and returns its handle once ``init`` is done, or None
            to be left out (OTP's ``ignore``); raises if it could not.
        restart: ``permanent`` is always restarted, ``transient`` only after a crash,
            ``temporary`` never.
        shutdown: seconds that it may take to stop before it is fenced; None waits for ever
            (right for supervisors), 0 does not wait at all.
        type: what `count_children` counts it as.

    Raises:
        InvalidChildSpec: it makes no sense.
    """

    id: str
    start: Callable[[], ServerRef | None]
    restart: Restart = "permanent"
    shutdown: float | None = 5.0
    type: ChildType = "worker"

    def __post_init__(self) -> None:
        given: Any = self
        sound = {
            "id": isinstance(given.id, str) and given.id != "",
            "start": callable(given.start),
            "restart": given.restart in get_args(Restart),
            "shutdown": given.shutdown is None
            or (type(given.shutdown) in {int, float} and given.shutdown >= 0),
            "type": given.type in get_args(ChildType),
        }
        for name, is_sound in sound.items():
            if not is_sound:
                raise InvalidChildSpec(f"{name} of child {self.id!r}: {getattr(self, name)!r}")

    @classmethod
    def server(
        cls,
        id: str,  # noqa: A002 - OTP's name, and that of the field
        ref: ServerRef,
        server_class: ServerClass,
        /,
        *args: Any,
        restart: Restart = "permanent",
        shutdown: float | None = 5.0,
        **kwargs: Any,
    ) -> Self:
        """Return the specification of a server that always has the same handle.

        Args:
            id: unique within the supervisor.
            ref: the handle.
            server_class: what to run.
            args: for its constructor.
            restart: see `ChildSpec`.
            shutdown: see `ChildSpec`.
            kwargs: for its constructor.
        """
        return cls(id, partial(ref.start, server_class, *args, **kwargs), restart, shutdown)


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


@dataclass(slots=True)
class Intensity:
    """A sliding window over restarts (OTP's ``intensity`` and ``period``).

    Args:
        max_restarts: how many are tolerated within the window.
        max_seconds: length of the window.
        restarts: when there was one.
    """

    max_restarts: int
    max_seconds: float
    restarts: list[float] = field(default_factory=list)

    def allows(self, now: float) -> bool:
        """Count a restart at `now` and tell whether it is still tolerated."""
        self.restarts = [at for at in self.restarts if at >= now - self.max_seconds] + [now]
        return len(self.restarts) <= self.max_restarts
