"""What the supervision tests share: a server that runs functions, recorders, a bench."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from sessionkeeper.otp import (
    Backoff,
    ChildSpec,
    GenServer,
    ManualTimerService,
    ServerRef,
    SupervisorEvent,
    SupervisorRef,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sessionkeeper.otp import Envelope, ExitReason, Reply
    from sessionkeeper.otp.child_spec import Restart

T = TypeVar("T")

# A test that waits longer than this, in seconds, has failed. Nothing waits for it to pass.
PATIENCE = 10.0


class Refused(Exception):
    """A domain error."""


class Boom(Exception):
    """A bug."""


class Panic(BaseException):
    """Worse than a bug."""


class Recorder(Generic[T]):
    """A list that threads append to and a test waits for."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.items: list[T] = []

    def __call__(self, item: T) -> None:
        with self._changed:
            self.items.append(item)
            self._changed.notify_all()

    def wait_until(self, satisfied: Callable[[list[T]], bool]) -> list[T]:
        with self._changed:
            assert self._changed.wait_for(lambda: satisfied(self.items), PATIENCE), self.items
            return self.items[:]

    def wait_count(self, count: int) -> list[T]:
        return self.wait_until(lambda items: len(items) >= count)


class Events(Recorder[SupervisorEvent]):
    """What supervisors report."""

    def wait(self, kind: str, child: str | None = None, times: int = 1) -> SupervisorEvent:
        """Wait until `kind` was reported so often, and return the last of these."""
        wanted = self.wait_until(lambda items: len(_select(items, kind, child)) >= times)
        return _select(wanted, kind, child)[times - 1]

    def count(self, kind: str, child: str | None = None) -> int:
        return len(_select(self.items[:], kind, child))

    def order(self, kind: str) -> list[str | None]:
        return [event.child for event in self.items[:] if event.kind == kind]


def _select(events: list[SupervisorEvent], kind: str, child: str | None) -> list[SupervisorEvent]:
    return [e for e in events if e.kind == kind and child in {None, e.child}]


class Gate:
    """A place where one thread waits until another lets it pass."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self._open = threading.Event()

    def __call__(self, *_: object) -> bool:
        self.reached.set()
        assert self._open.wait(PATIENCE)
        return True

    def wait_reached(self) -> None:
        assert self.reached.wait(PATIENCE)

    def open(self) -> None:
        self._open.set()


class Lab(GenServer):
    """A server that runs, in its own thread, the functions that it is sent.

    Args:
        log: receives ``(what, ref name, detail)`` of each callback.
        hooks: functions to run in ``init``, ``go_on`` (handle_continue) or ``terminate``.
    """

    domain_errors: ClassVar[tuple[type[Exception], ...]] = (Refused,)

    def __init__(
        self, log: Callable[[tuple[str, str, Any]], None] | None = None, **hooks: Any
    ) -> None:
        super().__init__()
        self.log = log
        self.hooks = hooks
        self.state: dict[str, Any] = {}

    def _note(self, what: str, detail: Any = None) -> None:
        if self.log is not None:
            self.log((what, self.ref.name, detail))
        if what in self.hooks:
            self.hooks[what](self)

    def init(self) -> None:
        self._note("init", self.epoch)

    def handle_continue(self) -> None:
        self._note("go_on", self.epoch)

    def handle_call(self, request: Any) -> Any:
        return request(self) if callable(request) else request

    def handle_cast(self, request: Any) -> None:
        if callable(request):
            request(self)
        else:
            self._note("cast", request)

    def handle_info(self, message: Any) -> None:
        if callable(message):
            message(self)
        else:
            self._note("info", message)

    def terminate(self, reason: ExitReason) -> None:
        self._note("terminate", reason)


class GroupCommit(GenServer):
    """Settles a whole turn after one commit, which a test can make fail."""

    turn_limit = 16

    def __init__(self, commit: Callable[[list[Any]], None], *, again: bool = True) -> None:
        super().__init__()
        self._commit = commit
        self._again = again

    def handle_turn(self, turn: Sequence[Envelope]) -> None:
        self._commit([envelope.message for envelope in turn])
        for envelope in turn:
            envelope.reply(envelope.message)

    def handle_interrupted(self, envelopes: Sequence[Envelope]) -> None:
        if self._again:
            self.requeue(envelopes)
        else:
            super().handle_interrupted(envelopes)


def boom(_server: object = None) -> Any:
    """Do what no server survives."""
    raise Boom("boom")


def panic(_server: object = None) -> Any:
    """Raise what `except Exception` does not catch."""
    raise Panic("panic")


def refuse(_server: object = None) -> Any:
    """Raise a domain error."""
    raise Refused("no")


def raises_once(*failures: BaseException) -> Callable[..., None]:
    """Return a function that raises these, one in each call, and then does nothing."""
    left = list(failures)

    def fail(*_: object) -> None:
        if left:
            raise left.pop(0)

    return fail


def no_delay() -> Backoff:
    """Restart at once, always."""
    return Backoff(0.0, 0.0, 0.0)


class Bench:
    """Makes servers and supervisors, and clears them away."""

    def __init__(self) -> None:
        self.log: Recorder[tuple[str, str, Any]] = Recorder()
        self.events = Events()
        self.clock = ManualTimerService()
        self._refs: list[ServerRef] = []

    def ref(self, name: str = "lab", **options: Any) -> ServerRef:
        ref = ServerRef(name, **options)
        self._refs.append(ref)
        return ref

    def lab(self, name: str = "lab", *, options: dict[str, Any] | None = None, **hooks: Any) -> Any:
        """Start a `Lab` on a new handle."""
        ref = self.ref(name, **(options or {}))
        ref.start(Lab, self.log, **hooks)
        return ref

    def child(
        self,
        name: str,
        restart: Restart = "permanent",
        shutdown: float | None = PATIENCE,
        **hooks: Any,
    ) -> ChildSpec:
        """Return the specification of a `Lab`; its handle is ``bench[name]``."""
        ref = self.ref(name)
        return ChildSpec.server(
            name, ref, Lab, self.log, restart=restart, shutdown=shutdown, **hooks
        )

    def __getitem__(self, name: str) -> ServerRef:
        return next(ref for ref in reversed(self._refs) if ref.name == name)

    def plan(self, name: str, children: Sequence[ChildSpec], **options: Any) -> SupervisorRef:
        """Return the handle of a supervisor that is not started yet."""
        options.setdefault("on_event", self.events)
        options.setdefault("backoff", no_delay())
        ref = SupervisorRef(name, children, **options)
        self._refs.append(ref)
        return ref

    def supervise(self, *children: ChildSpec, name: str = "sup", **options: Any) -> SupervisorRef:
        """Start a supervisor that reports to `events`."""
        ref = self.plan(name, children, **options)
        ref.boot()
        return ref

    def noted(self, what: str) -> list[tuple[str, Any]]:
        """Return the names and details logged for one callback."""
        return [(name, detail) for kind, name, detail in self.log.items[:] if kind == what]

    def clear(self) -> None:
        for ref in reversed(self._refs):
            assert ref.stop(PATIENCE), f"{ref} did not stop"
            ref.close()


def crash(ref: ServerRef, error: BaseException | None = None) -> None:
    """Have a `Lab` crash, and wait until it has."""
    over = threading.Event()
    monitor = ref.monitor(lambda _reason: over.set())
    assert not over.is_set(), "it was dead already"

    def die(_server: object) -> None:
        raise error or Boom("boom")

    ref.cast(die)
    assert over.wait(PATIENCE)
    monitor.cancel()


def wait_dead(ref: ServerRef) -> ExitReason:
    """Wait until a server has ended by itself, and return why."""
    downs: Recorder[ExitReason] = Recorder()
    monitor = ref.monitor(downs)
    reason = downs.wait_count(1)[0]
    monitor.cancel()
    return reason


def finish(ref: ServerRef, reason: ExitReason) -> None:
    """Have a `Lab` end by itself for `reason`, and wait until it has."""
    over = threading.Event()
    monitor = ref.monitor(lambda _reason: over.set())
    ref.cast(lambda server: server.stop(reason))
    assert over.wait(PATIENCE)
    monitor.cancel()


def outcome(reply: Reply[Any]) -> BaseException | None:
    """Return how a request ended: its error, or None."""
    return reply.exception(PATIENCE)


def run_python(code: str, *, timeout: float = 30.0) -> subprocess.CompletedProcess[str]:
    """Run a program in an interpreter of its own, and return how it ended."""
    library = str(Path(sys.modules["sessionkeeper"].__file__ or "").parents[1])
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, "PYTHONPATH": library},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
