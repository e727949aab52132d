"""One life of a server: its thread, its epoch and how it ended."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Literal

from sessionkeeper.otp.errors import Fenced
from sessionkeeper.otp.exit_reason import ExitReason
from sessionkeeper.otp.future import Reply
from sessionkeeper.otp.runtime import PROCESS

if TYPE_CHECKING:
    from sessionkeeper.otp.server_ref import ServerRef
    from sessionkeeper.otp.timer import Timer


class _Here(threading.local):
    """Whose thread this is."""

    incarnation: Incarnation | None = None


HERE = _Here()


class Incarnation:
    """What a handle and one running server share.

    Attributes:
        ref: the handle.
        epoch: 1 for the first incarnation of the handle, one more for each further start.
        started: settled when ``init`` has ended.
        phase: how far it has come.
        born_at: monotonic time at which ``init`` was done.
        thread: it runs in, once there is one.
        generation: of forks, in which it lives.
    """

    def __init__(self, ref: ServerRef, epoch: int) -> None:
        self.ref = ref
        self.epoch = epoch
        self.started: Reply[None] = Reply()
        self.phase: Literal["starting", "continuing", "ready", "stopped"] = "starting"
        self.born_at = 0.0
        self.thread: threading.Thread | None = None
        self.generation = PROCESS.generation
        self._fence: ExitReason | None = None
        self._ended = False
        self._timers: set[Timer] = set()
        self._prune_at = 32

    @property
    def state(self) -> Literal["starting", "continuing", "ready", "fenced", "stopped"]:
        """See `ServerInfo`."""
        if self._fence is not None and self.phase != "stopped":
            return "fenced"
        return self.phase

    @property
    def fenced(self) -> bool:
        """Whether it was shut out."""
        return self._fence is not None

    def check_fence(self) -> None:
        """Raise `Fenced` if it was shut out."""
        if self._fence is not None:
            raise Fenced(f"incarnation {self.epoch} of {self.ref.name}: {self._fence.detail}")

    def fence(self, reason: ExitReason) -> None:
        """Shut it out; `reason` becomes that of its end."""
        if self._fence is None and not self._ended:
            self._fence = reason

    def acknowledge(self) -> bool:
        """Tell the starter that ``init`` is done; False if it does not wait any more."""
        if self._fence is not None or not self.started.claim():
            return False
        self.ref.incarnation_started(self)
        return self.started.set_result(None)

    def abandon(self, error: BaseException | None = None) -> None:
        """End without having started."""
        self._ended = True
        self._cancel_timers()
        self.phase = "stopped"
        if error is not None:
            self.started.set_exception(error)

    def finish(self, reason: ExitReason) -> None:
        """End: exactly once, as the last act of the thread."""
        if self.generation != PROCESS.generation:
            return
        self._ended = True
        self._cancel_timers()
        if self._fence is not None:
            reason = ExitReason.fenced(f"{self._fence.detail}; ended by {reason}", reason.exception)
        self.ref.incarnation_ended(self, reason)

    def own(self, timer: Timer) -> None:
        """Cancel `timer` when this ends."""
        if len(self._timers) >= self._prune_at:
            self._timers = {t for t in self._timers if t.active}
            self._prune_at = max(32, 2 * len(self._timers))
        self._timers.add(timer)
        if self._ended:
            timer.cancel()

    def _cancel_timers(self) -> None:
        for timer in tuple(self._timers):
            timer.cancel()
        self._timers.clear()

    def join(self, timeout: float | None) -> bool:
        """Wait for the thread to end; tell whether it has.

        Its own thread, and those of servers below it, which it waits for in turn, get False
        at once.
        """
        thread = self.thread
        if thread is None:
            return True
        above = HERE.incarnation.ref if HERE.incarnation is not None else None
        while above is not None:
            if above is self.ref:
                return False
            above = above.supervisor
        thread.join(None if timeout is None else max(0.0, timeout))
        return not thread.is_alive()

    def gone(self, farewell: float) -> bool:
        """Tell whether its thread has ended, waiting only if it is in its last act."""
        return self.join(farewell if self._ended else 0.0)
