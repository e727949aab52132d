"""A closable, bounded mailbox with one consumer, which outlives that consumer."""

from __future__ import annotations

import logging
import time
from collections import deque
from dataclasses import dataclass, field
from threading import Condition, Lock
from typing import TYPE_CHECKING, Any, Final

from sessionkeeper.otp.errors import Busy, CallTimeout, ForkedError, OutcomeUnknown, ServerDown
from sessionkeeper.otp.exit_reason import ExitReason
from sessionkeeper.otp.runtime import PROCESS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sessionkeeper.otp.future import Reply
    from sessionkeeper.otp.timer import Timer

log = logging.getLogger("sessionkeeper.otp")

_QUEUED: Final = 0
_TAKEN: Final = 1
_SETTLED: Final = 2


@dataclass(slots=True, eq=False, repr=False)
class Envelope:
    """A message on its way: a call if it has `reply_to`, else a cast.

    Attributes:
        message: what was sent.
        reply_to: where the reply goes, or None for a cast.
        deadline: monotonic time after which it is not executed any more, or None.
        enqueued_at: monotonic time at which it was sent.
        size: bytes that it counts for in the bound of the mailbox.
        attempts: how often a turn has taken it.
        is_info: whether it is for ``handle_info``.
    """

    message: Any
    reply_to: Reply[Any] | None = None
    deadline: float | None = None
    enqueued_at: float = 0.0
    size: int = 0
    is_info: bool = field(default=False, kw_only=True)
    attempts: int = field(default=0, init=False)
    _state: int = field(default=_QUEUED, init=False)

    def __repr__(self) -> str:
        kind = "info" if self.is_info else "cast" if self.reply_to is None else "call"
        return f"<Envelope {kind} {type(self.message).__name__}>"

    @property
    def settled(self) -> bool:
        """Whether the server is done with it."""
        return self._state == _SETTLED

    @property
    def in_flight(self) -> bool:
        """Whether a turn took it and has not settled it."""
        return self._state == _TAKEN

    def reply(self, value: Any = None) -> None:
        """Answer a call, or mark a cast as done. Never raises."""
        self._state = _SETTLED
        if self.reply_to is not None:
            self.reply_to.set_result(value)

    def fail(self, error: BaseException) -> None:
        """Answer a call with an error, or mark a cast as done. Never raises.

        What is not an `Exception` (SystemExit, asyncio's CancelledError) would do harm where
        the caller's thread raises it, so it arrives as the cause of an `OutcomeUnknown`.
        """
        self._state = _SETTLED
        if self.reply_to is None:
            return
        if not isinstance(error, Exception):
            wrapped = OutcomeUnknown(f"the server died of {type(error).__name__}")
            wrapped.__cause__ = error
            error = wrapped
        self.reply_to.set_exception(error)

    # -- for the mailbox

    def take(self) -> bool:
        """Begin execution; False if the caller withdrew it."""
        if self.reply_to is not None and not self.reply_to.claim():
            return False
        self._state = _TAKEN
        self.attempts += 1
        return True

    def put_back(self) -> None:
        """Wait in the queue again."""
        self._state = _QUEUED
        if self.reply_to is not None:
            self.reply_to.unclaim()

    @property
    def withdrawn(self) -> bool:
        """Whether its caller does not wait any more, so that nobody needs it in the queue."""
        return self.reply_to is not None and self.reply_to.done()


@dataclass(slots=True)
class Tick:
    """What a timer posts: meant for one incarnation only.

    A periodic timer does not post again while its last tick is `waiting`.
    """

    epoch: int
    message: Any
    timer: Timer | None = None
    waiting: bool = False


Turn = list[Envelope]


class Mailbox:
    """The queue of one server, kept over its restarts.

    Putting and closing happen under one lock, so nothing can slip in after the last look.
    There is one consumer at a time, known by its epoch; it sleeps on a bare lock that the
    sender releases: one handoff for each message at most.

    Args:
        max_messages: how many may be queued.
        max_bytes: how many bytes of declared sizes may be queued; a single larger one is
            accepted when no other bytes wait.
        monotonic: the clock of the deadlines.

    Attributes:
        closed: whether nothing can be put in any more, ever.
    """

    def __init__(self, max_messages: int, max_bytes: int, monotonic: Callable[[], float]) -> None:
        if max_messages < 1 or max_bytes < 1:
            raise ValueError("a mailbox needs room for at least one message and one byte")
        self.max_messages = max_messages
        self.max_bytes = max_bytes
        self._monotonic = monotonic
        self._generation = PROCESS.generation
        self._lock = Lock()
        self._room = Condition(self._lock)
        self._room_waiters = 0
        self._queue: deque[Envelope] = deque()
        self._urgent: deque[Envelope] = deque()
        self._bytes = 0
        self._refusal: ExitReason | None = None
        self.closed = False
        self._epoch = 0
        self._stop: ExitReason | None = None
        self._drain = False
        self._turn: Sequence[Envelope] = ()
        self._deferred: Turn = []
        self._wakeup = Lock()
        self._wakeup.acquire()
        self._asleep = False

    # -- for senders

    def put(self, envelope: Envelope, wait: float | None = 0.0) -> bool:
        """Queue an envelope; return whether that took waiting for room.

        Args:
            envelope: what to queue.
            wait: seconds to wait for room; None waits for ever.

        Raises:
            Busy: no room in time; nothing was queued.
            ServerDown: the mailbox is closed or closing.
            ForkedError: this is a forked child.
        """
        if self._generation != PROCESS.generation:
            raise ForkedError("this server runs in the parent process")
        with self._lock:
            if self._refusal is not None:
                raise self._down()
            waited = self._is_full(envelope.size)
            if waited:
                self._wait_for_room(envelope.size, wait)
            # Wake first, append last: if a signal handler of the main thread raises in
            # between, the consumer wakes for nothing, instead of sleeping on a message.
            self._wake_if_asleep()
            self._bytes += envelope.size
            self._queue.append(envelope)
        return waited

    def post(self, envelope: Envelope, *, urgent: bool = False) -> bool:
        """Queue a message of the machinery: never waits, heeds no bound; False if closed.

        Args:
            envelope: what to queue; timers and supervisors bound these by themselves.
            urgent: ahead of the backlog.
        """
        if self._generation != PROCESS.generation:
            return False
        with self._lock:
            if self.closed:
                return False
            self._wake_if_asleep()
            (self._urgent if urgent else self._queue).append(envelope)
            return True

    # -- for the consumer

    def take(self, epoch: int, limit: int) -> Sequence[Envelope] | ExitReason:
        """Wait for the next turn: up to `limit` calls and casts, or one info.

        Returns:
            The envelopes, in flight from now on, or the reason why the consumer shall end.

        Raises:
            ForkedError: this thread went through a fork and is in the child.
        """
        if self._generation != PROCESS.generation:
            raise ForkedError("this server was left behind by a fork")
        while True:
            expired: Turn = []
            with self._lock:
                turn = self._next_turn(epoch, limit, expired)
                self._asleep = turn is None and not expired
            for envelope in expired:
                _expire(envelope)
            if turn is not None:
                return turn
            if not expired:
                self._wakeup.acquire()

    def requeue(self, envelopes: Sequence[Envelope]) -> None:
        """Put envelopes back in front, in their order, whatever the bound."""
        with self._lock:
            if not self.closed:
                for envelope in reversed(envelopes):
                    if not envelope.settled:
                        envelope.put_back()
                        self._queue.appendleft(envelope)
                        self._bytes += envelope.size
                return
        for envelope in envelopes:
            envelope.fail(self._down())

    def begin(self, epoch: int) -> None:
        """Let the incarnation `epoch` consume, and nobody else.

        Raises:
            ServerDown: the mailbox is closed.
            ForkedError: this is a forked child.
        """
        self.check_open()
        with self._lock:
            self._epoch = epoch
            self._stop = None
            self._refusal = None

    def interrupted(self) -> Sequence[Envelope]:
        """Return what the previous incarnation left in flight; it stays in flight."""
        with self._lock:
            self._turn = [e for e in (*self._deferred, *self._turn) if e.in_flight]
            self._deferred = []
            return self._turn

    @property
    def in_flight(self) -> Sequence[Envelope]:
        """What turns have taken and not settled yet."""
        with self._lock:
            return [e for e in (*self._deferred, *self._turn) if e.in_flight]

    # -- for whoever controls the server

    def check_open(self) -> None:
        """Raise what `put` would raise on a closed mailbox."""
        self.check_process()
        if self.closed:
            raise self._down()

    def check_process(self) -> None:
        """Raise `ForkedError` in a forked child."""
        if self.foreign:
            raise ForkedError("this server runs in the parent process")

    @property
    def foreign(self) -> bool:
        """Whether it belongs to the parent of this process."""
        return self._generation != PROCESS.generation

    def request_stop(self, epoch: int, reason: ExitReason, *, drain: bool = False) -> None:
        """Have the consumer `epoch` end: ahead of the backlog, or once that is done.

        Args:
            epoch: which consumer; a later one is not concerned.
            reason: the reason that `take` shall return.
            drain: refuse new messages and end after the backlog.
        """
        with self._lock:
            if self._epoch == epoch and not self.closed:
                if drain:
                    self._refusal = reason
                    self._room.notify_all()
                if self._stop is None or not drain:
                    self._stop = reason
                    self._drain = drain
                self._wake_if_asleep()

    def seal(self, reason: ExitReason) -> None:
        """Refuse what comes and fail the calls that wait, until the next `begin`."""
        with self._lock:
            self._refusal = reason
            self._room.notify_all()
            refused = [e for e in self._queue if e.reply_to is not None]
            self._queue = deque(e for e in self._queue if e.reply_to is None)
            self._bytes = sum(e.size for e in self._queue)
        for envelope in refused:
            envelope.fail(self._down())

    def close(self, reason: ExitReason) -> list[Envelope]:
        """Close for good and fail every call with `ServerDown`.

        Returns:
            What was not done; the casts among it are the business of the caller. Empty if
            it was closed before.
        """
        with self._lock:
            if self.closed:
                return []
            self.closed = True
            self._refusal = reason
            queued = [*self._urgent, *self._queue]
            flying = [e for e in (*self._deferred, *self._turn) if e.in_flight]
            self._urgent.clear()
            self._queue.clear()
            self._bytes = 0
            if self._stop is None:
                self._stop = reason
            self._room.notify_all()
            self._wake_if_asleep()
        undone = [*flying, *(e for e in queued if not e.withdrawn)]
        for envelope in undone:
            if envelope.reply_to is not None:
                executed = None if envelope.in_flight else False
                envelope.reply_to.set_exception(self._down(executed=executed))
        return undone

    def sweep(self, now: float) -> float | None:
        """Fail the calls whose deadline has passed; return the next deadline.

        Those that are executing keep executing, but their caller learns that it is late.
        """
        with self._lock:
            everything = [*self._queue, *self._deferred, *self._turn]
        following: float | None = None
        for envelope in everything:
            if envelope.deadline is None or envelope.withdrawn:
                continue
            if envelope.deadline <= now:
                _expire(envelope)
            elif following is None or envelope.deadline < following:
                following = envelope.deadline
        return following

    def measure(self) -> tuple[int, int, float | None]:
        """Return how many messages and bytes are queued, and when the oldest was sent."""
        with self._lock:
            oldest = self._queue[0].enqueued_at if self._queue else None
            return len(self._queue) + len(self._urgent), self._bytes, oldest

    # -- inside, with the lock held

    def _next_turn(
        self, epoch: int, limit: int, expired: Turn
    ) -> Sequence[Envelope] | ExitReason | None:
        self._finish_turn()
        if self._epoch != epoch:
            return self._stop or ExitReason.fenced("another incarnation owns the mailbox")
        if self._stop is not None and not self._drain:
            return self._stop
        turn: Turn = []
        if self._urgent:
            envelope = self._urgent.popleft()
            envelope.take()
            turn.append(envelope)
        elif self._queue:
            self._fill(turn, limit, expired)
            if self._room_waiters:
                self._room.notify_all()
        if turn:
            self._turn = turn
            return turn
        if not self._queue and not expired:
            return self._stop
        return None

    def _fill(self, turn: Turn, limit: int, expired: Turn) -> None:
        queue = self._queue
        while queue:
            envelope = queue[0]
            if envelope.is_info and turn:
                return
            del queue[0]
            self._bytes -= envelope.size
            if envelope.deadline is not None and envelope.deadline <= self._monotonic():
                expired.append(envelope)
            elif envelope.is_info and self._is_stale(envelope.message):
                continue
            elif envelope.take():
                turn.append(envelope)
                if envelope.is_info or len(turn) >= limit:
                    return
        # Should a signal handler ever have raised in the middle of put, count anew.
        self._bytes = 0

    def _is_stale(self, message: object) -> bool:
        if type(message) is not Tick:
            return False
        message.waiting = False
        return message.epoch != self._epoch

    def _finish_turn(self) -> None:
        """Keep the calls of the last turn that will be answered later."""
        if self._deferred:
            self._deferred = [e for e in self._deferred if e.in_flight]
        for envelope in self._turn:
            if envelope.in_flight:
                if envelope.reply_to is None:
                    envelope.reply()
                else:
                    self._deferred.append(envelope)
        self._turn = ()

    def _wake_if_asleep(self) -> None:
        if self._asleep:
            # In this order: if a signal handler raises in between, the consumer, being
            # awake, resets the flag itself; until then a second release is possible.
            try:
                self._wakeup.release()
            except RuntimeError:
                log.debug("the consumer was woken twice")
            self._asleep = False

    def _down(self, *, executed: bool | None = False) -> ServerDown:
        return ServerDown(
            f"the server takes no more: {self._refusal}", executed=executed, reason=self._refusal
        )

    def _is_full(self, size: int) -> bool:
        full_of_bytes = self._bytes > 0 and self._bytes + size > self.max_bytes
        return full_of_bytes or len(self._queue) >= self.max_messages

    def _wait_for_room(self, size: int, wait: float | None) -> None:
        end = None if wait is None else time.monotonic() + wait
        self._forget_withdrawn()
        self._room_waiters += 1
        try:
            while self._is_full(size):
                remaining = None if end is None else end - time.monotonic()
                if remaining is not None and remaining <= 0:
                    raise Busy(
                        f"{len(self._queue)} messages with {self._bytes} bytes are queued already"
                    )
                self._room.wait(remaining)
                if self._refusal is not None:
                    raise self._down()
        finally:
            self._room_waiters -= 1

    def _forget_withdrawn(self) -> None:
        kept = [e for e in self._queue if not e.withdrawn]
        if len(kept) < len(self._queue):
            self._queue = deque(kept)
            self._bytes = sum(e.size for e in kept)


def _expire(envelope: Envelope) -> None:
    """Tell the caller that it is too late, and whether execution had begun."""
    reply = envelope.reply_to
    if reply is None:
        return
    before = CallTimeout("the deadline passed before execution began", executed=False)
    if not reply.withdraw(before):
        reply.set_exception(CallTimeout("no reply by the deadline", executed=None))
