"""Supervisors: start, watch, restart and stop children, in the manner of OTP's supervisor."""

from __future__ import annotations

import logging
from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

from sessionkeeper.otp.child_spec import Backoff, ChildSpec, ChildType, Intensity, Restart
from sessionkeeper.otp.errors import ExitReason, InvalidChildSpec, OtpError, StartError
from sessionkeeper.otp.gen_server import GenServer
from sessionkeeper.otp.runtime import call_hook
from sessionkeeper.otp.server_ref import Monitor, ServerRef

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sessionkeeper.otp.timer import Timer

log = logging.getLogger("sessionkeeper.otp")

Strategy = Literal["one_for_one", "one_for_all", "rest_for_one"]
ChildState = Literal["running", "restarting", "fenced", "stopped", "ignored"]
EventKind = Literal[
    "child_started",
    "child_exited",
    "child_restarting",
    "child_restarted",
    "restart_failed",
    "child_stopped",
    "child_fenced",
    "gave_up",
    "terminal",
]


@dataclass(frozen=True, slots=True)
class SupervisorEvent:
    """Something that happened in a supervision tree.

    Attributes:
        kind: what.
        supervisor: its name.
        child: id of the child concerned, or None.
        reason: why the child or the supervisor ended, or the restart failed.
        delay: seconds until the restart, for ``child_restarting``.
        epoch: of the child's incarnation.
    """

    kind: EventKind
    supervisor: str
    child: str | None = None
    reason: ExitReason | None = None
    delay: float = 0.0
    epoch: int = 0


@dataclass(frozen=True, slots=True)
class ChildInfo:
    """One line of `SupervisorRef.which_children`."""

    id: str
    ref: ServerRef | None
    state: ChildState
    type: ChildType
    restarts: int
    last_exit: ExitReason | None


@dataclass(frozen=True, slots=True)
class ChildCounts:
    """What `SupervisorRef.count_children` counts: all, those running, and by type."""

    specs: int
    active: int
    supervisors: int
    workers: int


@dataclass(eq=False, repr=False)
class SupervisorRef(ServerRef):
    """The handle of a supervisor.

    Nobody restarts a root: when it ends, for whatever reason, its children have been stopped
    in reverse order, their handles are closed, and `on_terminal` is called. A nested
    supervisor leaves the handles open, for its parent may start it again.

    Args:
        name: for people: logs, threads, events.
        children: in the order in which they are started.
        strategy: which siblings are restarted along with a child that ended.
        max_restarts: how many restarts within `max_seconds` are tolerated before the
            supervisor gives up.
        max_seconds: length of that sliding window.
        max_consecutive: how many restarts of one child in a row are tolerated, however slowly
            its backoff makes them come; in a row means without `Backoff.reset_after`
            seconds of running.
        backoff: delays between restarts.
        fence_grace: seconds to wait for the thread of a fenced child, without which its
            group cannot be restarted, before the supervisor gives up.
        on_terminal: called exactly once, when it has ended for good.
        on_event: called with each `SupervisorEvent`, in the thread of the supervisor; more
            can be appended to `hooks`.

    It takes the options of `ServerRef` as well.

    Attributes:
        hooks: what is called with each event.
        hook_failures: how often one of them has raised.

    Raises:
        InvalidChildSpec: a child or an option makes no sense.
    """

    children: Iterable[ChildSpec]
    _: KW_ONLY
    strategy: Strategy = "one_for_one"
    max_restarts: int = 5
    max_seconds: float = 30.0
    max_consecutive: int = 10
    backoff: Backoff = field(default_factory=Backoff)
    fence_grace: float = 30.0
    on_terminal: Callable[[ExitReason], object] | None = None
    on_event: Callable[[SupervisorEvent], object] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.children = tuple(self.children)
        ids = {getattr(spec, "id", None) for spec in self.children} - {None}
        if len(ids) < len(self.children):
            raise InvalidChildSpec(f"{self.name!r} needs ChildSpecs that differ in their ids")
        if self.strategy not in get_args(Strategy):
            raise InvalidChildSpec(f"unknown strategy of {self.name!r}: {self.strategy!r}")
        budgets = (self.max_restarts, self.max_consecutive, self.fence_grace)
        if min(budgets) < 0 or self.max_seconds <= 0:
            raise InvalidChildSpec(f"{self.name!r} cannot have budgets or durations below 0")
        self.hooks = [] if self.on_event is None else [self.on_event]
        self.hook_failures = 0
        self._child_refs: dict[str, ServerRef] = {}
        self._told = False

    # -- for users

    def boot(self) -> Self:
        """Start the supervisor, and with it all children; return its handle.

        Raises:
            StartError: a child did not start (the cause is chained); those before it were
                stopped again, in reverse.
        """
        return self.start(Supervisor)

    def as_child(
        self, name: str = "", *, restart: Restart = "permanent", shutdown: float | None = None
    ) -> ChildSpec:
        """Return the specification with which another supervisor supervises this one.

        Args:
            name: its id there; the name of this supervisor by default.
            restart: see `ChildSpec`.
            shutdown: see `ChildSpec`.
        """
        return ChildSpec(name or self.name, self.boot, restart, shutdown, "supervisor")

    def which_children(self, timeout: float | None = 5.0) -> list[ChildInfo]:
        """Return the children in the order in which they are started.

        Args:
            timeout: seconds; see `call` for what it raises.
        """
        children: list[ChildInfo] = self.call(_WHICH_CHILDREN, timeout)
        return children

    def count_children(self, timeout: float | None = 5.0) -> ChildCounts:
        """Return how many children there are.

        Args:
            timeout: seconds; see `call` for what it raises.
        """
        children = self.which_children(timeout)
        active = sum(child.state == "running" for child in children)
        supervisors = sum(child.type == "supervisor" for child in children)
        return ChildCounts(len(children), active, supervisors, len(children) - supervisors)

    def close(self, reason: ExitReason = ExitReason.SHUTDOWN) -> None:
        """End for good, with all children; see `ServerRef.close`."""
        super().close(reason)
        if self.is_up:
            # The supervisor stops its children in order first, and comes back here.
            return
        for ref in reversed(self._child_refs.values()):
            ref.close(reason)
        with self._lock:
            told, self._told = self._told or not self._arrivals, True
        if not told:
            self.emit(SupervisorEvent("terminal", self.name, reason=reason))
            if self.on_terminal is not None:
                call_hook(self.on_terminal, reason)

    # -- for the supervisor

    def emit(self, event: SupervisorEvent) -> None:
        """Call the hooks."""
        for hook in self.hooks:
            self.hook_failures += not call_hook(hook, event)

    def adopt(
        self, child_id: str, ref: ServerRef | None, reason: ExitReason = ExitReason.SHUTDOWN
    ) -> None:
        """Close the handle of a child when this is closed, and the one it replaces now."""
        replaced = self._child_refs.pop(child_id, None)
        if replaced is not None and replaced is not ref:
            replaced.close(reason)
        if ref is not None:
            self._child_refs[child_id], ref.supervisor = ref, self

    def incarnation_ended(self, reason: ExitReason) -> None:
        """Note the end of the supervisor; that of a root is final."""
        self.mailbox.draining |= self.is_up and self.supervisor is None
        super().incarnation_ended(reason)


def start_supervisor(name: str, children: Iterable[ChildSpec], **options: Any) -> SupervisorRef:
    """Start a root supervisor and all its children.

    Args:
        name: for people: logs, threads, events.
        children: in the order in which they are started.
        options: see `SupervisorRef`.

    Raises:
        InvalidChildSpec: a child or an option makes no sense.
        StartError: a child did not start; those before it were stopped again, in reverse.
    """
    return SupervisorRef(name, children, **options).boot()


_WHICH_CHILDREN = "which_children"


@dataclass(slots=True, eq=False)
class _Child:
    """What a supervisor knows of one child.

    Whatever changes its situation changes the token, so that notices which were on their
    way are recognised as stale.
    """

    spec: ChildSpec
    ref: ServerRef | None = None
    state: ChildState = "stopped"
    token: int = 0
    monitor: Monitor | None = None
    timer: Timer | None = None
    started_at: float = 0.0
    restarts: int = 0
    exits_in_a_row: int = 0
    last_exit: ExitReason | None = None

    def unwatch(self) -> None:
        """Make every notice on its way stale."""
        self.token += 1
        for source in (self.monitor, self.timer):
            if source is not None:
                source.cancel()


@dataclass(frozen=True, slots=True)
class _Notice:
    """What monitors and timers have the supervisor do, unless it is stale by then."""

    child: _Child
    token: int
    act: Callable[[], None]


class Supervisor(GenServer):
    """The server behind a `SupervisorRef`.

    It never sleeps and never loops over attempts: a restart is a message to itself, at once
    or by timer, so that it answers and can be stopped however badly its children behave. As
    in OTP, it does wait in two places: for a child's ``init``, and for a child to stop.
    """

    domain_errors = (OtpError,)
    ref: SupervisorRef

    # Which child leads the restart that is planned, and after how many seconds: there is at
    # most one that waits for threads to end, since a group is stopped before it is planned.
    _leader: tuple[_Child, float]

    # -- callbacks

    def init(self) -> None:
        """Start the children from left to right, or none at all."""
        self._children = [_Child(spec) for spec in self.ref.children]
        self._intensity = Intensity(self.ref.max_restarts, self.ref.max_seconds)
        for child in self._children[:]:
            try:
                self._start(child, "child_started")
            except BaseException as error:
                self._halt_all()
                raise StartError(f"child {child.spec.id!r} did not start: {error}") from error

    def handle_call(self, request: Any) -> Any:
        """Answer `SupervisorRef.which_children`."""
        if request != _WHICH_CHILDREN:
            raise OtpError(f"a supervisor does not answer {request!r}")
        return [
            ChildInfo(c.spec.id, c.ref, c.state, c.spec.type, c.restarts, c.last_exit)
            for c in self._children
        ]

    def handle_info(self, message: Any) -> None:
        """Take the notices of monitors and timers."""
        if not isinstance(message, _Notice):
            super().handle_info(message)
        elif message.token == message.child.token:
            message.act()

    def terminate(self, reason: ExitReason) -> None:
        """Stop the children from right to left."""
        # A child that asks this supervisor while being stopped by it gets an answer.
        self.ref.mailbox.seal(reason)
        self._halt_all()

    # -- starting

    def _start(self, child: _Child, event: EventKind) -> None:
        """Start a child, and tell of it unless it wants to be left out."""
        ref: object = child.spec.start()
        if ref is None:
            child.ref, child.state = None, "ignored"
            if child.spec.restart == "temporary":
                self._children.remove(child)
            return
        if not isinstance(ref, ServerRef) or ref.epoch == 0:
            raise StartError(f"start of child {child.spec.id!r} returned {ref!r}, not started")
        self.ref.adopt(child.spec.id, ref)
        child.ref, child.state = ref, "running"
        child.started_at = self.ref.timers.monotonic()
        child.restarts += event == "child_restarted"
        self._watch(child, ref)
        self._emit(event, child)

    def _watch(self, child: _Child, ref: ServerRef) -> None:
        token = child.token

        def down(reason: ExitReason) -> None:
            self.ref.post(_Notice(child, token, partial(self._on_down, child, ref, reason)))

        child.monitor = ref.monitor(down)

    def _later(self, delay: float, child: _Child, act: Callable[[], None]) -> None:
        notice = _Notice(child, child.token, act)
        if delay > 0:
            child.timer = self.send_after(delay, notice)
        else:
            self.ref.post(notice)

    # -- ends and restarts

    def _on_down(self, child: _Child, ref: ServerRef, reason: ExitReason) -> None:
        restart = child.spec.restart
        child.unwatch()
        child.last_exit = reason
        self._emit("child_exited", child, reason)
        if child.state == "fenced":
            child.state = "restarting"
            self._resume()
        elif ref.mailbox.closed:
            # Somebody closed its handle, and so took it out of supervision.
            child.state = "stopped"
        elif restart == "permanent" or (restart == "transient" and reason.is_crash):
            log.warning("%s: child %s ended: %s", self.ref.name, child.spec.id, reason)
            self._restart(child, reason)
        elif restart == "temporary":
            self._forget(child, reason)
        else:
            child.state = "stopped"
            if self.ref.strategy == "one_for_one":
                # With the other strategies a sibling may bring it back.
                ref.close(reason)

    def _restart(self, child: _Child, reason: ExitReason) -> None:
        """Plan the restart of a child and its group, if the budgets allow it."""
        ref, now = self.ref, self.ref.timers.monotonic()
        quiet = child.state == "running" and now - child.started_at >= ref.backoff.reset_after
        child.exits_in_a_row = 1 if quiet else child.exits_in_a_row + 1
        child.state = "restarting"
        if not self._intensity.allows(now):
            why = f"more than {ref.max_restarts} restarts within {ref.max_seconds} s"
            self._give_up(child, reason, why)
        elif child.exits_in_a_row > ref.max_consecutive:
            self._give_up(child, reason, f"more than {ref.max_consecutive} ends in a row")
        else:
            delay = ref.backoff.delay(child.exits_in_a_row)
            self._emit("child_restarting", child, reason, delay)
            for member in reversed(self._group(child)):
                if member is not child:
                    self._halt(member)
            self._leader = (child, delay)
            self._resume()

    def _resume(self) -> None:
        """Schedule the planned restart, unless a thread that was fenced still lives."""
        child, delay = self._leader
        group = self._group(child)
        if any(member.state == "fenced" for member in group):
            return
        for member in group:
            if member.spec.restart == "temporary":
                self._forget(member, ExitReason.SHUTDOWN)
        self._later(delay, child, partial(self._attempt, child))

    def _attempt(self, leader: _Child) -> None:
        """Start a group that was stopped; a failure is counted and planned again."""
        for member in self._group(leader):
            if member.ref is not None and member.ref.mailbox.closed:
                member.state = "stopped"
                continue
            try:
                self._start(member, "child_restarted")
            except BaseException as error:  # noqa: BLE001 - whatever it is, it failed to start
                member.last_exit = reason = ExitReason.crash(error)
                name = self.ref.name
                log.warning("%s: child %s did not come back: %s", name, member.spec.id, reason)
                self._emit("restart_failed", member, reason)
                self._restart(member, reason)
                return

    def _group(self, child: _Child) -> list[_Child]:
        at = self._children.index(child)
        first = 0 if self.ref.strategy == "one_for_all" else at
        last = at + 1 if self.ref.strategy == "one_for_one" else None
        return self._children[first:last]

    def _give_up(self, child: _Child, reason: ExitReason, why: str) -> None:
        detail = f"child {child.spec.id!r} of {self.ref.name!r}: {why}; last: {reason}"
        log.error("supervisor gives up: %s", detail)
        self._emit("gave_up", child, reason)
        self.stop(ExitReason.shutdown(detail, reason.exception))

    # -- stopping

    def _halt_all(self) -> None:
        for child in reversed(self._children):
            self._halt(child, final=True)

    def _halt(self, child: _Child, *, final: bool = False) -> None:
        """Stop a child; if it oversleeps, shut it out and wait for its end by message."""
        ref, timeout = child.ref, child.spec.shutdown
        if child.state != "fenced":
            child.unwatch()
        if ref is None or child.state != "running":
            return
        stop = ref.drain if final and self.ref.mailbox.draining else ref.stop
        stop(timeout)
        if ref.join(0.0):
            child.state = "stopped" if final else "restarting"
            child.last_exit = ref.last_exit
            self._emit("child_stopped", child, ref.last_exit)
            return
        fenced = ExitReason("fenced", f"it did not stop within {timeout} s")
        log.error("%s: child %s is fenced: %s", self.ref.name, child.spec.id, fenced.detail)
        ref.fence(fenced.detail)
        child.state = "fenced"
        self._emit("child_fenced", child, fenced)
        if not final:
            why = f"its thread did not end within {self.ref.fence_grace} s of being fenced"
            self._watch(child, ref)
            self._later(self.ref.fence_grace, child, partial(self._give_up, child, fenced, why))

    def _forget(self, child: _Child, reason: ExitReason) -> None:
        self._children.remove(child)
        self.ref.adopt(child.spec.id, None, reason)

    def _emit(
        self, kind: EventKind, child: _Child, reason: ExitReason | None = None, delay: float = 0.0
    ) -> None:
        epoch = 0 if child.ref is None else child.ref.epoch
        self.ref.emit(SupervisorEvent(kind, self.ref.name, child.spec.id, reason, delay, epoch))
