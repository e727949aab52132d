"""A closable, bounded mailbox with one consumer, which outlives that consumer."""

from __future__ import annotations

import time
from collections import deque
from contextlib import suppress
from math import inf
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal

from sessionkeeper.otp.errors import Busy, CallTimeout, ExitReason, OutcomeUnknown, ServerDown
from sessionkeeper.otp.future import CLAIMED, DONE, PENDING, Reply, acquire_within
from sessionkeeper.otp.runtime import HERE, PROCESS, check_process

if TYPE_CHECKING:
    from _thread import LockType
    from collections.abc import Callable, Iterable

Kind = Literal["call", "cast", "info"]


class Envelope(Reply[Any]):
    """A message on its way, and the reply to it; nobody looks at that of a cast or an info.

    A turn that takes it claims it: from then on it is in flight, until somebody settles it.

    Args:
        message: what was sent. The mailbox drops it when a turn has settled it.
        kind: which callback it is for.
        deadline: monotonic time after which it is not executed any more, infinity for none.
        enqueued_at: monotonic time at which it was sent.
        size: bytes that it counts for in the bound of the mailbox.

    Attributes:
        attempts: how often a turn has taken it.
    """

    __slots__ = ("attempts", "deadline", "enqueued_at", "kind", "message", "size")

    def __init__(
        self,
        message: Any,
        kind: Kind = "call",
        deadline: float = inf,
        enqueued_at: float = 0.0,
        size: int = 0,
    ) -> None:
        Reply.__init__(self)  # once for each message: super() would take longer
        self.message = message
        self.kind = kind
        self.deadline = deadline
        self.enqueued_at = enqueued_at
        self.size = size
        self.attempts = 0

    def __repr__(self) -> str:
        return f"<Envelope {self.kind} {type(self.message).__name__}>"

    @property
    def in_flight(self) -> bool:
        """Whether a turn took it and nobody has settled it."""
        return self.state == CLAIMED

    def reply(self, value: Any = None) -> None:
        """Answer a call, or mark a cast as done. Never raises."""
        if self.kind == "call":
            self._settle(value, None)
        else:
            self.state = DONE

    def fail(self, error: BaseException) -> None:
        """Answer a call with an error, or mark a cast as done. Never raises.

        What is not an `Exception` (SystemExit, asyncio's CancelledError) would do harm where
        the caller's thread raises it, so it arrives as the cause of an `OutcomeUnknown`.
        """
        if not isinstance(error, Exception):
            wrapped = OutcomeUnknown(f"the server died of {type(error).__name__}")
            wrapped.__cause__ = error
            error = wrapped
        self.set_exception(error)

    def expire(self) -> None:
        """Tell the caller that it is too late, and whether execution had begun."""
        late = CallTimeout("the deadline passed before execution began", executed=False)
        if not self.withdraw(late):
            self.set_exception(CallTimeout("no reply by the deadline"))


class Mailbox:
    """The queue of one server, kept over its restarts.

    Senders append without a lock: a thread that is switched off while it holds one makes all
    others queue up behind it. The end of a deque is safe for that, and each looks again
    after it has appended: what slipped into a mailbox that refuses, or is full, is taken
    back, unless somebody has seen to it. Whatever else changes the queue holds the lock.

    Args:
        max_messages: how many may be queued.
        max_bytes: how many bytes of declared sizes may be queued; a single larger one is
            accepted when no other bytes wait.
        monotonic: the clock of the deadlines.

    Attributes:
        generation: of forks, in which it lives.
        closed: whether nothing can be put in any more, ever.
        draining: whether the consumer ends when the backlog is done.
        stop: why the consumer ends now, or None.
    """

    def __init__(self, max_messages: int, max_bytes: int, monotonic: Callable[[], float]) -> None:
        if max_messages < 1 or max_bytes < 1:
            raise ValueError("a mailbox needs room for at least one message and one byte")
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._monotonic = monotonic
        self.generation = PROCESS.generation
        self._lock = Lock()
        self._queue: deque[Envelope] = deque()
        self._bytes = 0
        # What turns have taken; those that were settled are forgotten with the next turn.
        self._taken: list[Envelope] = []
        self._withdrawals = PROCESS.withdrawals
        self._refusal: ExitReason | None = None
        self.closed = False
        self.draining = False
        self.stop: ExitReason | None = None
        # Locked while the consumer sleeps on it, or is about to.
        self._wakeup = Lock()
        # Those who wait for room: one, who holds the line, sleeps on the room; the others on
        # the line. If all were woken at once, they would get in each other's way.
        self._line = Lock()
        self._room = Lock()

    # -- for senders

    def put(self, envelope: Envelope, wait: float | None = 0.0) -> None:
        """Queue an envelope.

        Args:
            envelope: what to queue.
            wait: seconds to wait for room; None heeds no bound, which is for the machinery:
                timers and supervisors bound their messages by themselves.

        Raises:
            Busy: no room in time; nothing was queued.
            ServerDown: the mailbox is closed or closing.
            ForkedError: this is a forked child.
        """
        queue, limit = self._queue, self._max_messages
        if self.generation != PROCESS.generation:
            check_process(self.generation)
        if wait is not None and (envelope.size or len(queue) >= limit or self._line.locked()):
            self._put_in_line(envelope, wait)
        else:
            queue.append(envelope)
            if self._refusal is not None and self._take_back(envelope):
                raise self._down()
            if wait is not None and len(queue) > limit and self._take_back(envelope):
                self._put_in_line(envelope, wait)
        if self._wakeup.locked():
            _wake(self._wakeup)

    # -- for the consumer

    def take(self, limit: int) -> list[Envelope] | ExitReason:
        """Wait for the next turn: up to `limit` calls and casts, or one info.

        Returns:
            The envelopes, in flight from now on, or the reason why the consumer shall end.

        Raises:
            ForkedError: this thread went through a fork and is in the child.
        """
        check_process(self.generation)
        while True:
            self._lock.acquire()  # `with` takes twice as long
            try:
                self._finish_turn()
                if self.stop is not None:
                    return self.stop
                idle = not self._queue
                if idle:
                    if self._refusal is not None:
                        return self._refusal
                    # From here on senders see that it must be woken; only then the last look.
                    self._wakeup.acquire(blocking=False)
                turn, late = self._pop(limit)
            finally:
                self._lock.release()
            # Outside the lock: who is told that it is too late may want to send something.
            for envelope in late:
                envelope.expire()
            if turn:
                return turn
            if idle:
                self._wakeup.acquire()

    def requeue(self, envelopes: Iterable[Envelope]) -> None:
        """Put envelopes back in front, in their order, whatever the bound."""
        with self._lock:
            if not self.closed:
                again = [envelope for envelope in envelopes if envelope.unclaim()]
                self._queue.extendleft(reversed(again))
                self._bytes += sum(envelope.size for envelope in again)

    def begin(self) -> None:
        """Let the next incarnation consume.

        Raises:
            ServerDown: the mailbox is closed.
            ForkedError: this is a forked child.
        """
        check_process(self.generation)
        with self._lock:
            if self.closed:
                raise self._down()
            self.stop, self.draining, self._refusal = None, False, None

    def in_flight(self) -> list[Envelope]:
        """Return what turns have taken and nobody has settled, in the order of taking."""
        return [envelope for envelope in self._taken if envelope.in_flight]

    # -- for whoever controls the server

    @property
    def foreign(self) -> bool:
        """Whether it belongs to the parent of this process."""
        return self.generation != PROCESS.generation

    @property
    def fenced(self) -> bool:
        """Whether the consumer was shut out."""
        return self.stop is not None and self.stop.kind == "fenced"

    def request_stop(self, reason: ExitReason) -> None:
        """Have the consumer end ahead of the backlog; the first reason counts, or a fence."""
        if self.foreign:
            return
        with self._lock:
            if self.stop is None or reason.kind == "fenced":
                self.stop = reason
            _wake(self._wakeup)

    def drain(self, reason: ExitReason) -> None:
        """Refuse what comes, and have the consumer end when the backlog is done."""
        with self._lock:
            self.draining = True
            self._refuse(reason)

    def seal(self, reason: ExitReason) -> None:
        """Refuse what comes and fail the calls that wait, until the next `begin`."""
        with self._lock:
            self._refuse(reason)
            calls = self._remove(lambda envelope: envelope.kind == "call")
        for envelope in calls:
            envelope.fail(self._down())

    def close(self, reason: ExitReason) -> list[Envelope]:
        """Close for good and fail everything with `ServerDown`.

        Returns:
            What was not done; the casts among it are the business of the caller. Empty if
            it was closed before.
        """
        with self._lock:
            if self.closed:
                return []
            self.closed, self.stop = True, self.stop or reason
            self._refuse(reason)
            waiting = self._remove(lambda _: True)
            undone = [*self.in_flight(), *(each for each in waiting if not each.done())]
            self._taken = []  # the end of the turn must not drop what is reported now
        for envelope in undone:
            envelope.set_exception(self._down(executed=None if envelope.in_flight else False))
        return undone

    def sweep(self, now: float) -> float:
        """Fail the calls whose deadline has passed; return the next deadline, or infinity.

        Those that are executing keep executing, but their caller learns that it is late.
        """
        with self._lock:
            everything = (*self._queue, *self._taken)
        for envelope in everything:
            if envelope.deadline <= now:
                envelope.expire()
        return min((e.deadline for e in everything if not e.done()), default=inf)

    def measure(self) -> tuple[int, int, float | None]:
        """Return how many messages and bytes are queued, and when the oldest was sent."""
        with self._lock:
            oldest = self._queue[0].enqueued_at if self._queue else None
            return len(self._queue), self._bytes, oldest

    # -- inside, with the lock held

    def _pop(self, limit: int) -> tuple[list[Envelope], list[Envelope]]:
        """Take a turn; apart from it, return what is too late."""
        queue = self._queue
        turn: list[Envelope] = []
        late: list[Envelope] = []
        while queue and len(turn) < limit:
            if turn and "info" in (turn[0].kind, queue[0].kind):
                break
            envelope = queue.popleft()
            self._bytes -= envelope.size
            if envelope.deadline < inf and envelope.deadline <= self._monotonic():
                late.append(envelope)
            elif envelope.kind != "call" or envelope.claim():
                envelope.state = CLAIMED  # nobody else has a cast or an info
                envelope.attempts += 1
                turn.append(envelope)
        if not queue:
            self._bytes = 0  # should a signal handler ever have raised in the middle of put
        if self._room.locked():
            _wake(self._room)
        self._taken += turn
        return turn, late

    def _finish_turn(self) -> None:
        """Keep the calls of the last turn that will be answered later."""
        taken, self._taken = self._taken, []
        for envelope in taken:
            if envelope.state == CLAIMED and envelope.kind == "call":
                self._taken.append(envelope)
            elif envelope.state != PENDING:
                envelope.state = DONE
                envelope.message = None  # who keeps a reply need not keep the request

    def _remove(self, unwanted: Callable[[Envelope], bool]) -> list[Envelope]:
        # In place, for senders append at the other end.
        everything = [self._queue.popleft() for _ in range(len(self._queue))]
        kept = [envelope for envelope in everything if not unwanted(envelope)]
        self._queue.extendleft(reversed(kept))
        self._bytes = sum(envelope.size for envelope in kept)
        _wake(self._room)
        return [envelope for envelope in everything if unwanted(envelope)]

    def _refuse(self, reason: ExitReason) -> None:
        self._refusal = reason
        _wake(self._room)
        _wake(self._wakeup)

    def _down(self, *, executed: bool | None = False) -> ServerDown:
        text = f"the server takes no more: {self._refusal}"
        return ServerDown(text, executed=executed, reason=self._refusal)

    def _is_full(self, size: int, parts: int) -> bool:
        full_of_bytes = self._bytes > 0 and self._bytes + size > self._max_bytes // parts
        return full_of_bytes or len(self._queue) >= self._max_messages // parts

    # -- inside, without it

    def _put_in_line(self, envelope: Envelope, wait: float) -> None:
        """Queue an envelope when there is room, behind those that wait for it already.

        As long as half of the room is free, others may pass the line, or it would never end
        and each message would wait for threads to be switched.
        """
        if self._put_if_it_fits(envelope, 2 if self._line.locked() else 1):
            return
        if HERE.ref is not None and HERE.ref.mailbox is self:
            wait = 0.0  # only this very thread can make room
        ends_at = time.monotonic() + wait
        fits = False
        if acquire_within(self._line, wait):
            try:
                while not (fits := self._put_if_it_fits(envelope, 1)):
                    if not acquire_within(self._room, ends_at - time.monotonic()):
                        break
            finally:
                self._line.release()
        if not fits:
            queued = f"{len(self._queue)} messages with {self._bytes} bytes"
            raise Busy(f"{queued} are queued already", executed=False)

    def _put_if_it_fits(self, envelope: Envelope, parts: int) -> bool:
        """Queue an envelope if there is room, in one half of it if `parts` is 2."""
        with self._lock:
            if self._refusal is not None:
                raise self._down()
            if self._is_full(envelope.size, parts) and self._withdrawals != PROCESS.withdrawals:
                self._withdrawals = PROCESS.withdrawals
                self._remove(Envelope.done)
            if self._is_full(envelope.size, parts):
                if parts == 1:
                    # Whoever makes room from here on sees that somebody waits for it.
                    self._room.acquire(blocking=False)
                return False
            self._bytes += envelope.size
            self._queue.append(envelope)
            return True

    def _take_back(self, envelope: Envelope) -> bool:
        """Remove an envelope that should not have been queued; False if somebody took it."""
        with self._lock:
            if envelope not in self._queue:
                return False
            self._queue.remove(envelope)
            return True


def _wake(sleeper: LockType) -> None:
    """Wake who sleeps on a lock, if somebody does."""
    if sleeper.locked():
        # Somebody else may have been faster: then it wakes for nothing once, at most.
        with suppress(RuntimeError):
            sleeper.release()
