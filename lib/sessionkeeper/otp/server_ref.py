"""The stable handle of a server: it stays valid while incarnations come and go."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from math import inf
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal, Self
from weakref import WeakValueDictionary

from sessionkeeper.otp.errors import ExitReason, ForkedError, SelfCall, ServerDown, StartError
from sessionkeeper.otp.future import Reply, acquire_within
from sessionkeeper.otp.mailbox import Envelope, Kind, Mailbox
from sessionkeeper.otp.runtime import HERE, PROCESS, call_hook, check_process, log
from sessionkeeper.otp.timer import default_timers

if TYPE_CHECKING:
    from collections.abc import Callable
    from threading import Thread

    from sessionkeeper.otp.gen_server import GenServer
    from sessionkeeper.otp.timer import Timer, TimerService


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


@dataclass(frozen=True, slots=True, eq=False)
class Monitor:
    """A subscription to the ends of a server."""

    ref: ServerRef
    callback: Callable[[ExitReason], object]

    def cancel(self) -> bool:
        """End the subscription; False if it had ended."""
        try:
            self.ref.monitors.remove(self)
        except ValueError:
            return False
        return True


@dataclass(eq=False, repr=False)
class ServerRef:
    """A handle that owns the mailbox of a server and finds its current incarnation.

    While the server is down between two incarnations, what is sent stays queued. There is one
    incarnation at a time: none is started before the thread of the previous one has ended.

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
        phase: how far that has come; for the server itself. See also `state`.
        thread: it runs in, once there is one.
        monitors: the subscriptions to its ends.
        last_exit: why the last incarnation to end has ended, or None.
    """

    name: str
    _: KW_ONLY
    max_messages: int = 10_000
    max_bytes: int = 64 * 1024 * 1024
    busy_wait: float = 5.0
    start_timeout: float | None = None
    on_undelivered: Callable[[Any, ExitReason], object] | None = None
    timers: TimerService = field(default_factory=default_timers)

    def __post_init__(self) -> None:
        self.supervisor: ServerRef | None = None
        self.mailbox = Mailbox(self.max_messages, self.max_bytes, self.timers.monotonic)
        self.epoch = 0
        self.phase: Literal["starting", "continuing", "ready", "stopped"] = "stopped"
        self.thread: Thread | None = None
        self.last_exit: ExitReason | None = None
        self._now = self.timers.monotonic
        self._lock = Lock()
        self._started: Reply[None]
        self._arrivals = 0
        self._born_at = 0.0
        self._left_behind = 0
        self.monitors: list[Monitor] = []
        # Of the server: their service holds those that are pending, so the rest vanishes.
        self._timers: WeakValueDictionary[int, Timer] = WeakValueDictionary()
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
        if HERE.ref is self:
            raise SelfCall(f"{self.name} called itself and would wait for ever")
        now = self._now()
        deadline = inf if timeout is None else now + timeout
        reply = Envelope(request, "call", deadline, now, size)
        answered = reply.latch()
        self.mailbox.put(reply, deadline - now)
        try:
            if not acquire_within(answered, deadline - self._now()):
                reply.expire()
        except BaseException as error:
            # A signal handler raised in this wait: nobody will look at the reply any more.
            reply.withdraw(error)
            raise
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
        reply = self._send(request, "call", timeout, size, wait)
        if timeout is not None:
            self._sweep_by(reply.deadline)
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
        self._send(request, "cast", None, size, wait)

    def send_info(self, message: Any, *, size: int = 0, wait: float | None = None) -> None:
        """Send a message to ``handle_info`` (Erlang's ``!``).

        Otherwise like `cast`, but a mere signal: it is not reported when it is never done.
        """
        self._send(message, "info", None, size, wait)

    def post(self, message: Any) -> bool:
        """Send a message to ``handle_info`` that heeds no bound: for timers and supervisors.

        Args:
            message: what ``handle_info`` receives.

        Returns:
            False, instead of an error, if the server has ended for good or is being drained.
        """
        try:
            self.mailbox.put(Envelope(message, "info", inf, self._now()), None)
        except (ServerDown, ForkedError):
            return False
        return True

    def _send(
        self, message: Any, kind: Kind, timeout: float | None, size: int, wait: float | None
    ) -> Envelope:
        now = self._now()
        envelope = Envelope(message, kind, inf if timeout is None else now + timeout, now, size)
        self.mailbox.put(envelope, self.busy_wait if wait is None else wait)
        return envelope

    # -- life

    def start(self, server_class: type[GenServer], /, *args: Any, **kwargs: Any) -> Self:
        """Start the next incarnation, wait until its ``init`` is done, and return this handle.

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
        check_process(self.mailbox.generation)
        is_gone = self._is_gone()
        with self._lock:
            if not is_gone or self.phase != "stopped":
                raise StartError(
                    f"{self.name} was not started: incarnation {self.epoch} still lives",
                    hint="stop it first; a second writer beside a living first is never started",
                )
            self.mailbox.begin()
            self.epoch += 1
            self.phase, self.thread = "starting", None
            started: Reply[None] = Reply()
            self._started = started
        try:
            server_class.spawn(self, args, kwargs)
            if not started.wait(self.start_timeout):
                raise TimeoutError(f"init took over {self.start_timeout} s")  # noqa: TRY301
        except BaseException as error:
            started.withdraw(error)
            self.fence("its start was given up")
            if self.thread is None:
                self.phase = "stopped"
            if not isinstance(error, Exception):
                raise
        failure = started.exception(0)
        if failure is not None:
            self._is_gone()
            raise StartError(f"{self.name} did not start: {failure!r}") from failure
        return self

    def _is_gone(self) -> bool:
        """Whether its thread has ended; waits only if that is in its last act."""
        return self.join(_FAREWELL if self.phase == "stopped" else 0.0)

    def join(self, timeout: float | None) -> bool:
        """Wait for the thread to end; tell whether it has.

        Its own thread, and those of servers below it, which it waits for in turn, get False
        at once.

        Args:
            timeout: seconds; None waits for ever.
        """
        thread, above = self.thread, HERE.ref
        if thread is None or self.mailbox.foreign:
            return True
        while above is not None:
            if above is self:
                return False
            above = above.supervisor
        thread.join(None if timeout is None else max(0.0, timeout))
        return not thread.is_alive()

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
        self.mailbox.request_stop(reason)
        return self.join(timeout)

    def drain(self, timeout: float | None = None) -> bool:
        """Refuse new messages, have the backlog done, stop and close.

        Args:
            timeout: seconds to wait; None waits for ever.

        Returns:
            Whether every call and cast that had been accepted was taken up and the thread
            has ended. If not for lack of time, it goes on; `fence` or `close` cut it short.
        """
        self.request_drain()
        return self.join(timeout) and not self._left_behind

    def request_drain(self) -> None:
        """Begin what `drain` does, without waiting; it ends with the mailbox closed."""
        if self.mailbox.foreign:
            return
        with self._lock:
            if self.phase != "stopped":
                self.mailbox.drain(ExitReason.SHUTDOWN)
                return
        self.close()

    def fence(self, detail: str = "it did not stop in time") -> None:
        """Shut the current incarnation out: a thread cannot be killed.

        It gets no further message, its ``check_fence`` raises, and no other incarnation is
        started before its thread has ended.

        Args:
            detail: why; becomes part of its exit reason.
        """
        self.mailbox.request_stop(ExitReason("fenced", detail))

    def close(self, reason: ExitReason = ExitReason.SHUTDOWN) -> None:
        """End for good: what is queued or in flight fails with `ServerDown`, later calls too.

        A living incarnation ends after its current turn; this does not wait for it.

        Args:
            reason: what callers and `on_undelivered` are told.
        """
        if self.mailbox.foreign:
            # This forked child has none of it, and its locks may be held for ever.
            return
        undone = [envelope for envelope in self.mailbox.close(reason) if envelope.kind != "info"]
        self._left_behind += len(undone)
        with self._lock:
            timer, self._sweep_timer = self._sweep_timer, None
        if timer is not None:
            timer.cancel()
        for envelope in undone:
            if envelope.kind == "cast":
                self.undelivered(envelope.message, reason)

    def undelivered(self, message: Any, reason: ExitReason) -> None:
        """Report a cast that will never be done."""
        if self.on_undelivered is None:
            # Not the message itself: what it holds may be private, or huge.
            kind = type(message).__name__
            log.error("%s ended (%s) without doing a cast (%s)", self.name, reason, kind)
        else:
            call_hook(self.on_undelivered, message, reason)

    # -- watching

    def monitor(self, callback: Callable[[ExitReason], object]) -> Monitor:
        """Call `callback(reason)` exactly once for each incarnation that ends.

        If there is none alive now, but there was one, it is called at once. It runs in the
        thread of the dying server as its last act: be quick, and do not wait for that server.

        Args:
            callback: what it raises is logged.
        """
        check_process(self.mailbox.generation)
        monitor = Monitor(self, callback)
        with self._lock:
            dead = None if self.is_up else self.last_exit
            self.monitors.append(monitor)
        if dead is not None:
            call_hook(callback, dead)
        return monitor

    @property
    def state(self) -> State:
        """See `ServerInfo`."""
        if self.mailbox.closed:
            return "closed"
        return "fenced" if self.mailbox.fenced and self.phase != "stopped" else self.phase

    @property
    def is_up(self) -> bool:
        """Whether there is an incarnation whose ``init`` is done."""
        return self.phase in {"continuing", "ready"}

    def info(self) -> ServerInfo:
        """Return what the server is up to."""
        check_process(self.mailbox.generation)
        queued, queued_bytes, oldest = self.mailbox.measure()
        now = self._now()
        age = None if oldest is None else max(0.0, now - oldest)
        uptime = now - self._born_at if self.is_up else 0.0
        lives = (self.name, self.epoch, max(0, self._arrivals - 1), self.state)
        return ServerInfo(*lives, queued, queued_bytes, age, self.last_exit, uptime)

    # -- told by the server

    def acknowledge(self) -> bool:
        """Tell the starter that ``init`` is done; False if it does not wait any more."""
        if self.mailbox.fenced or not self._started.claim():
            return False
        with self._lock:
            self._arrivals += 1
            self._born_at = self._now()
            self.phase = "continuing"
        PROCESS.running[self] = None
        return self._started.set_result(None)

    def incarnation_ended(self, reason: ExitReason) -> None:
        """Note the end of the incarnation and, if it had come up, tell the monitors.

        Args:
            reason: why it ended.
        """
        if self.mailbox.foreign:
            return
        with self._lock:
            if self.mailbox.fenced and reason.kind != "fenced":
                detail = f"{self.mailbox.stop}; ended by {reason}"
                reason = ExitReason("fenced", detail, reason.exception)
            monitors: list[Monitor] = []
            if self.is_up:
                monitors, self.last_exit = self.monitors[:], reason
            self.phase = "stopped"
        PROCESS.running.pop(self, None)
        for timer in filter(None, (weak() for weak in self._timers.valuerefs())):
            timer.cancel()
        try:
            if self.mailbox.draining:
                self.close(reason)
        finally:
            self._started.set_exception(reason.exception or StartError(str(reason)))
            for monitor in monitors:
                call_hook(monitor.callback, reason)

    def own(self, epoch: int, timer: Timer) -> Timer:
        """Cancel `timer` when the incarnation `epoch` ends; return it."""
        self._timers[id(timer)] = timer
        if epoch != self.epoch or self.phase == "stopped":
            timer.cancel()
        return timer

    def _sweep_by(self, deadline: float) -> None:
        with self._lock:
            timer = self._sweep_timer
            if self.mailbox.closed or (timer is not None and timer.due <= deadline):
                return
            self._sweep_timer = self.timers.after(deadline - self._now(), self._sweep)
        if timer is not None:
            timer.cancel()

    def _sweep(self) -> None:
        with self._lock:
            self._sweep_timer = None
        now = self._now()
        following = self.mailbox.sweep(now)
        if following < inf:
            self._sweep_by(max(following, now + _SWEEP_GRAIN))
