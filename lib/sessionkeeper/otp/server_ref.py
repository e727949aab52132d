"""The stable handle of a server: it stays valid while incarnations come and go."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal

from sessionkeeper.otp.errors import CallTimeout, SelfCall, StartError
from sessionkeeper.otp.exit_reason import ExitReason
from sessionkeeper.otp.future import Reply
from sessionkeeper.otp.incarnation import HERE, Incarnation
from sessionkeeper.otp.mailbox import Envelope, Mailbox
from sessionkeeper.otp.runtime import PROCESS, call_hook
from sessionkeeper.otp.timer import default_timers

if TYPE_CHECKING:
    from collections.abc import Callable

    from sessionkeeper.otp.gen_server import GenServer
    from sessionkeeper.otp.timer import Timer, TimerService

log = logging.getLogger("sessionkeeper.otp")

State = Literal["starting", "continuing", "ready", "fenced", "stopped", "closed"]

# Deadlines of requests nobody waits for may be noticed this much late, in seconds, so
# that a queue full of different deadlines is not searched for each one.
_SWEEP_GRAIN = 0.01

# How long a start waits for a predecessor that has said good-bye already, in seconds.
_FAREWELL = 5.0


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """What a server is up to (OTP's ``sys:get_status``).

    Attributes:
        name: of the handle.
        epoch: number of the current or last incarnation; 0 before the first.
        restarts: how many incarnations came up after the first.
        state: ``continuing`` means that ``handle_continue`` is running, ``stopped`` that
            there is no incarnation now, ``closed`` that there will be none.
        queued: messages in the mailbox.
        queued_bytes: their declared sizes.
        oldest_age: seconds that the first of them has waited, or None.
        last_exit: why the last incarnation to end has ended, or None.
        uptime: seconds since the current incarnation came up, or 0.
    """

    name: str
    epoch: int
    restarts: int
    state: State
    queued: int
    queued_bytes: int
    oldest_age: float | None
    last_exit: ExitReason | None
    uptime: float


class Monitor:
    """A subscription to the ends of a server."""

    __slots__ = ("_ref", "callback")

    def __init__(self, ref: ServerRef, callback: Callable[[ExitReason], object]) -> None:
        self._ref = ref
        self.callback = callback

    def cancel(self) -> bool:
        """End the subscription; False if it had ended."""
        return self._ref.demonitor(self)

    def notify(self, reason: ExitReason) -> None:
        """Call back; what the callback raises is logged."""
        call_hook(self.callback, reason)


class ServerRef:
    """A handle that owns the mailbox of a server and finds its current incarnation.

    While the server is down between two incarnations, what is sent stays queued.

    Args:
        name: for people: logs, threads, `info`.
        max_messages: bound of the mailbox in messages.
        max_bytes: bound of the mailbox in bytes, as declared by senders.
        busy_wait: seconds that `cast`, `send_info` and `send_request` wait for room in a
            full mailbox; `call` waits as long as its own timeout.
        start_timeout: seconds that `start` waits for ``init``; None waits for ever, as OTP
            does by default.
        on_undelivered: called as ``on_undelivered(message, reason)`` with each cast that
            will never be done. Without it they are logged.
        timers: clock and timers; the shared real ones by default.

    Attributes:
        supervisor: the handle of the supervisor that it is a child of, or None.
        mailbox: what it owns; for the server itself.
        epoch: the number of the current or last incarnation; 0 before the first.
        last_exit: why the last incarnation to end has ended, or None.
    """

    def __init__(
        self,
        name: str,
        *,
        max_messages: int = 10_000,
        max_bytes: int = 64 * 1024 * 1024,
        busy_wait: float = 5.0,
        start_timeout: float | None = None,
        on_undelivered: Callable[[Any, ExitReason], object] | None = None,
        timers: TimerService | None = None,
    ) -> None:
        self.name = name
        self.timers: TimerService = default_timers() if timers is None else timers
        self.supervisor: ServerRef | None = None
        self._busy_wait = busy_wait
        self._start_timeout = start_timeout
        self._on_undelivered = on_undelivered
        self._now = self.timers.monotonic
        self.mailbox = Mailbox(max_messages, max_bytes, self._now)
        self._starting = Lock()
        self._lock = Lock()
        self._incarnation: Incarnation | None = None
        self.epoch = 0
        self._arrivals = 0
        self.last_exit: ExitReason | None = None
        self._monitors: list[Monitor] = []
        self._closing = False
        self._left_behind = 0
        self._sweep_at: float | None = None
        self._sweep_timer: Timer | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} {self.state}>"

    # -- sending

    def call(self, request: Any, timeout: float | None = 5.0, *, size: int = 0) -> Any:
        """Send a request and wait for its reply (``gen_server:call``).

        Args:
            request: what ``handle_call`` receives.
            timeout: seconds in all, waiting for room included; None waits for ever.
            size: bytes that the request counts for in the mailbox.

        Raises:
            CallTimeout: no reply in time; `executed` tells whether it may take effect.
            Busy: the mailbox was full all the time; nothing was queued.
            ServerDown: the server has ended for good.
            SelfCall: the server called itself.
            ForkedError: this is a forked child.
            Exception: whatever the server answered with.
        """
        if HERE.incarnation is not None and HERE.incarnation.ref is self:
            raise SelfCall(f"{self.name} called itself and would wait for ever")
        now = self._now()
        reply: Reply[Any] = Reply()
        deadline = None if timeout is None else now + timeout
        waited = self.mailbox.put(Envelope(request, reply, deadline, now, size), timeout)
        if waited and deadline is not None:
            timeout = max(0.0, deadline - self._now())
        try:
            answered = reply.wait(timeout)
        except BaseException as error:
            # A signal handler raised in this wait: nobody will look at the reply any more.
            reply.withdraw(error)
            raise
        if not answered:
            late = CallTimeout(f"{self.name} did not get to it within {timeout} s", executed=False)
            if not reply.withdraw(late) and not reply.done():
                raise CallTimeout(f"{self.name} is at it for over {timeout} s", executed=None)
        return reply.result(0)

    def send_request(
        self,
        request: Any,
        *,
        timeout: float | None = None,
        size: int = 0,
        wait: float | None = None,
    ) -> Reply[Any]:
        """Queue a request and return its reply at once (``gen_server:send_request``).

        Args:
            request: what ``handle_call`` receives.
            timeout: seconds after which the reply is a `CallTimeout`; None: never.
            size: bytes that the request counts for in the mailbox.
            wait: seconds to wait for room, instead of `busy_wait`; 0 never blocks.

        Raises:
            Busy: the mailbox stayed full; nothing was queued.
            ServerDown: the server has ended for good.
            ForkedError: this is a forked child.
        """
        now = self._now()
        reply: Reply[Any] = Reply()
        deadline = None if timeout is None else now + timeout
        self.mailbox.put(Envelope(request, reply, deadline, now, size), self._patience(wait))
        if deadline is not None and (self._sweep_at is None or deadline < self._sweep_at):
            self._sweep_by(deadline)
        return reply

    def cast(self, request: Any, *, size: int = 0, wait: float | None = None) -> None:
        """Send a request without a reply (``gen_server:cast``).

        Args:
            request: what ``handle_cast`` receives.
            size: bytes that the request counts for in the mailbox.
            wait: seconds to wait for room, instead of `busy_wait`; 0 never blocks.

        Raises:
            Busy: the mailbox stayed full; nothing was queued.
            ServerDown: the server has ended for good.
            ForkedError: this is a forked child.
        """
        envelope = Envelope(request, None, None, self._now(), size)
        self.mailbox.put(envelope, self._patience(wait))

    def send_info(self, message: Any, *, size: int = 0, wait: float | None = None) -> None:
        """Send a message to ``handle_info`` (Erlang's ``!``).

        Otherwise like `cast`, but a mere signal: it is not reported when it is never done.
        """
        envelope = Envelope(message, None, None, self._now(), size, is_info=True)
        self.mailbox.put(envelope, self._patience(wait))

    def post(self, message: Any, *, urgent: bool = False) -> bool:
        """Send a message to ``handle_info`` that heeds no bound: for timers and supervisors.

        Args:
            message: what ``handle_info`` receives.
            urgent: ahead of the backlog.

        Returns:
            False, instead of an error, if the server has ended for good.
        """
        envelope = Envelope(message, None, None, self._now(), is_info=True)
        return self.mailbox.post(envelope, urgent=urgent)

    # -- life

    def start(self, server_class: type[GenServer], /, *args: Any, **kwargs: Any) -> None:
        """Start the next incarnation and wait until its ``init`` is done.

        Args:
            server_class: what to run.
            args: for its constructor.
            kwargs: for its constructor.

        Raises:
            StartError: the constructor or ``init`` failed (the cause is chained), or the
                previous incarnation's thread still lives.
            ServerDown: the handle was closed.
            ForkedError: this is a forked child.
        """
        self.mailbox.check_open()
        if not self._starting.acquire(blocking=False):
            raise StartError(f"{self.name} is being started already")
        try:
            previous = self._incarnation
            if previous is not None and not previous.gone(_FAREWELL):
                raise StartError(
                    f"{self.name} was not started: incarnation {previous.epoch} still lives",
                    hint="stop it first; a second writer beside a living first is never started",
                )
            with self._lock:
                self._closing = False
                self.epoch += 1
                incarnation = Incarnation(self, self.epoch)
                self._incarnation = incarnation
            self.mailbox.begin(incarnation.epoch)
            self._spawn(server_class, incarnation, args, kwargs)
        finally:
            self._starting.release()

    def _spawn(
        self,
        server_class: type[GenServer],
        incarnation: Incarnation,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        started = incarnation.started
        try:
            server_class.spawn(incarnation, args, kwargs)
            started.wait(self._start_timeout)
        except BaseException as error:
            if incarnation.thread is None:
                incarnation.abandon()
            else:
                self._fence(incarnation, "its start was interrupted")
            if isinstance(error, Exception):
                raise StartError(f"{self.name} did not start: {error!r}") from error
            raise
        if started.withdraw(TimeoutError(f"init took over {self._start_timeout} s")):
            self._fence(incarnation, "init did not end in time")
        failure = started.exception()
        if failure is not None:
            incarnation.gone(_FAREWELL)
            raise StartError(f"{self.name} did not start: {failure!r}") from failure

    def stop(self, timeout: float | None = 5.0, reason: ExitReason = ExitReason.SHUTDOWN) -> bool:
        """Have the incarnation end after its current turn, and wait for its thread.

        The backlog stays queued for the next incarnation; see `drain` and `close`.

        Args:
            timeout: seconds to wait; None waits for ever.
            reason: what its monitors are told.

        Returns:
            Whether the thread has ended. In the threads of the server itself and of servers
            that it supervises: False, at once, and it ends when it can.
        """
        incarnation = self._incarnation
        if incarnation is None or self.mailbox.foreign:
            return True
        self.mailbox.request_stop(incarnation.epoch, reason)
        return incarnation.join(timeout)

    def drain(self, timeout: float | None = None) -> bool:
        """Refuse new messages, have the backlog done, stop and close.

        Args:
            timeout: seconds to wait; None waits for ever.

        Returns:
            Whether every call and cast that had been accepted was taken up and the thread
            has ended. If not for lack of time, it goes on; `fence` or `close` cut it short.
        """
        incarnation = self._incarnation
        self.request_drain()
        if incarnation is not None and not self.mailbox.foreign and not incarnation.join(timeout):
            return False
        self.close(ExitReason.SHUTDOWN)
        return not self._left_behind

    def request_drain(self) -> None:
        """Begin what `drain` does, without waiting; it ends with the mailbox closed."""
        incarnation = self._incarnation
        if incarnation is None or incarnation.phase == "stopped":
            self.close(ExitReason.SHUTDOWN)
        elif not self.mailbox.foreign:
            self._closing = True
            self.mailbox.request_stop(incarnation.epoch, ExitReason.SHUTDOWN, drain=True)

    def fence(self, detail: str = "it did not stop in time") -> None:
        """Shut the current incarnation out: a thread cannot be killed.

        It gets no further message, its ``check_fence`` raises, and no other incarnation is
        started before its thread has ended.

        Args:
            detail: why; becomes part of its exit reason.
        """
        incarnation = self._incarnation
        if incarnation is not None:
            self._fence(incarnation, detail)

    def _fence(self, incarnation: Incarnation, detail: str) -> None:
        reason = ExitReason.fenced(detail)
        incarnation.fence(reason)
        self.mailbox.request_stop(incarnation.epoch, reason)

    def close(self, reason: ExitReason = ExitReason.SHUTDOWN) -> None:
        """End for good: what is queued or in flight fails with `ServerDown`, later calls too.

        A living incarnation ends after its current turn; this does not wait for it.

        Args:
            reason: what callers and `on_undelivered` are told.
        """
        if self.mailbox.foreign:
            # This forked child has none of it, and its locks may be held for ever.
            return
        undone = [envelope for envelope in self.mailbox.close(reason) if not envelope.is_info]
        self._left_behind += len(undone)
        with self._lock:
            timer, self._sweep_timer = self._sweep_timer, None
            if not self._alive:
                self._monitors.clear()
        if timer is not None:
            timer.cancel()
        for envelope in undone:
            if envelope.reply_to is None:
                self.undelivered(envelope.message, reason)

    def undelivered(self, message: Any, reason: ExitReason) -> None:
        """Report a cast that will never be done."""
        if self._on_undelivered is None:
            # Not the message itself: what it holds may be private, or huge.
            kind = type(message).__name__
            log.error("%s ended (%s) without doing a cast (%s)", self.name, reason, kind)
        else:
            call_hook(self._on_undelivered, message, reason)

    # -- watching

    def monitor(self, callback: Callable[[ExitReason], object]) -> Monitor:
        """Call `callback(reason)` exactly once for each incarnation that ends.

        If there is none alive now, but there was one, it is called at once. It runs in the
        thread of the dying server as its last act: be quick, and do not wait for that server.

        Args:
            callback: what it raises is logged.
        """
        self.mailbox.check_process()
        monitor = Monitor(self, callback)
        with self._lock:
            dead = None if self._alive else self.last_exit
            if self._alive or not self.mailbox.closed:
                self._monitors.append(monitor)
        if dead is not None:
            monitor.notify(dead)
        return monitor

    def demonitor(self, monitor: Monitor) -> bool:
        """End a subscription; False if it had ended."""
        with self._lock:
            if monitor in self._monitors:
                self._monitors.remove(monitor)
                return True
            return False

    @property
    def state(self) -> State:
        """See `ServerInfo`."""
        if self.mailbox.closed:
            return "closed"
        incarnation = self._incarnation
        return "stopped" if incarnation is None else incarnation.state

    @property
    def is_root(self) -> bool:
        """Whether nobody supervises it."""
        return self.supervisor is None

    def info(self) -> ServerInfo:
        """Return what the server is up to."""
        self.mailbox.check_process()
        queued, queued_bytes, oldest = self.mailbox.measure()
        with self._lock:
            incarnation = self._incarnation if self._alive else None
            now = self._now()
            return ServerInfo(
                name=self.name,
                epoch=self.epoch,
                restarts=max(0, self._arrivals - 1),
                state=self.state,
                queued=queued,
                queued_bytes=queued_bytes,
                oldest_age=None if oldest is None else max(0.0, now - oldest),
                last_exit=self.last_exit,
                uptime=0.0 if incarnation is None else now - incarnation.born_at,
            )

    # -- told by the incarnation

    def incarnation_started(self, incarnation: Incarnation) -> None:
        """Note that ``init`` is done."""
        with self._lock:
            self._arrivals += 1
            incarnation.born_at = self._now()
            incarnation.phase = "continuing"
        PROCESS.running[id(incarnation)] = self

    def incarnation_ended(self, incarnation: Incarnation, reason: ExitReason) -> None:
        """Note the end of an incarnation that had started, and tell the monitors."""
        with self._lock:
            incarnation.phase = "stopped"
            self.last_exit = reason
            monitors = self._monitors[:]
        PROCESS.running.pop(id(incarnation), None)
        try:
            if self._closing:
                self.close(reason)
        finally:
            for monitor in monitors:
                monitor.notify(reason)

    # -- inside

    @property
    def _alive(self) -> bool:
        incarnation = self._incarnation
        return incarnation is not None and incarnation.phase in {"continuing", "ready"}

    def _patience(self, wait: float | None) -> float:
        if HERE.incarnation is not None and HERE.incarnation.ref is self:
            # Only this very thread can make room.
            return 0.0
        return self._busy_wait if wait is None else wait

    def _sweep_by(self, deadline: float) -> None:
        with self._lock:
            if self._sweep_at is not None and self._sweep_at <= deadline:
                return
            if self.mailbox.closed:
                return
            timer = self._sweep_timer
            self._sweep_at = deadline
            self._sweep_timer = self.timers.after(deadline - self._now(), self._sweep)
        if timer is not None:
            timer.cancel()

    def _sweep(self) -> None:
        with self._lock:
            self._sweep_at = None
            self._sweep_timer = None
        now = self._now()
        following = self.mailbox.sweep(now)
        if following is not None:
            self._sweep_by(max(following, now + _SWEEP_GRAIN))
