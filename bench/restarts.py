"""From a crash to the first answer of the next incarnation: supervised, and restarted by hand."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

import pykka

from bench.measure import TIMEOUT, WorkNotDone
from bench.steps import told
from sessionkeeper import CountSessions, SessionStore
from sessionkeeper.otp import Backoff, ChildSpec, GenServer, ServerRef, start_supervisor
from sessionkeeper.testing import crash_actor

if TYPE_CHECKING:
    from bench.measure import Plan

# Crashes come by the hundred here; a supervisor with its own settings would give up.
_ENDLESS = 10**9


class OnPurpose(Exception):
    """What the servers die of."""


class RestartPeer(Protocol):
    """A server that can be crashed."""

    def crash(self) -> None:
        """Crash it, and return when its successor has answered."""
        ...

    def close(self) -> None:
        """Stop it for good."""
        ...


class RestartSampler:
    """Each delay is the time from sending what it dies of to the answer of its successor.

    Crashes are logged, as they are in life, but nobody keeps the log.
    """

    def __init__(self, peer: RestartPeer) -> None:
        self._peer = peer

    def sample(self, plan: Plan, seconds: float) -> list[float]:
        """See `Sampler.sample`."""
        delays: list[float] = []
        with _Unread():
            deadline = perf_counter() + seconds
            while len(delays) < plan.max_operations:
                started = perf_counter()
                self._peer.crash()
                ended = perf_counter()
                delays.append(ended - started)
                if ended >= deadline:
                    break
        return delays


class _Unread:
    """Formats what is logged and throws it away, in place of what else would be done with it."""

    def __init__(self) -> None:
        self._loggers = [logging.getLogger(name) for name in ("sessionkeeper", "pykka")]
        self._before = [logger.propagate for logger in self._loggers]

    def __enter__(self) -> None:
        self._nowhere = Path(os.devnull).open("w", encoding="utf-8")
        self._handler = logging.StreamHandler(self._nowhere)
        for logger in self._loggers:
            logger.addHandler(self._handler)
            logger.propagate = False

    def __exit__(self, *_: object) -> None:
        for logger, propagate in zip(self._loggers, self._before, strict=True):
            logger.removeHandler(self._handler)
            logger.propagate = propagate
        self._nowhere.close()


# --- this library -------------------------------------------------------------------------


class _Empty(GenServer):
    """A server without any state to restore."""

    def handle_call(self, request: Any) -> int:
        del request
        return self.epoch

    def handle_cast(self, request: Any) -> NoReturn:
        raise OnPurpose(request)


class SupervisedServer:
    """An empty GenServer under a supervisor that restarts it at once, each time."""

    def __init__(self, folder: Path) -> None:
        del folder
        self._ref = ServerRef("bench-empty")
        self._supervisor = start_supervisor(
            "bench",
            [ChildSpec.server("empty", self._ref, _Empty)],
            max_restarts=_ENDLESS,
            max_consecutive=_ENDLESS,
            # The first restart is immediate with any settings; here all of them are first.
            backoff=Backoff(minimum=0.0, maximum=0.0),
        )

    def crash(self) -> None:
        """See `RestartPeer.crash`; whoever asks meanwhile just waits."""
        before = self._ref.epoch
        self._ref.cast("die")
        if self._ref.call("who is there?") != before + 1:
            raise WorkNotDone("it was not restarted exactly once")

    def close(self) -> None:
        """Stop both."""
        self._supervisor.stop()
        self._supervisor.close()


class StoreRestartSampler:
    """Each delay is that of a store's actor, which looks at every session before it answers.

    The store is opened anew for each crash: after several the supervisor would let it wait.

    Args:
        folder: Of the store; the plan says how many sessions are in it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._filled = False

    def sample(self, plan: Plan, seconds: float) -> list[float]:
        """See `Sampler.sample`."""
        del seconds
        if not self._filled:
            told(self._folder, plan.sessions, "create", "close")
            self._filled = True
        with _Unread(), SessionStore.open(self._folder, call_timeout=TIMEOUT) as store:
            store.list_sessions(limit=1)
            began = perf_counter()
            crash_actor(store)
            found = store.ask(CountSessions())
            taken = perf_counter() - began
        if found != plan.sessions:
            raise WorkNotDone(f"{found} sessions are there, not {plan.sessions}")
        return [taken]

    def close(self) -> None:
        """Nothing is held."""


# --- by hand ------------------------------------------------------------------------------


class _EmptyActor(pykka.ThreadingActor):
    """A stock actor without any state to restore."""

    use_daemon_thread = True

    def on_receive(self, message: Any) -> bool:
        if message == "die":
            raise OnPurpose(message)
        return True


class PykkaByHand:
    """Stock Pykka has no supervisor: whoever finds the actor dead starts another."""

    def __init__(self, folder: Path) -> None:
        del folder
        self._ref = _EmptyActor.start()

    def crash(self) -> None:
        """See `RestartPeer.crash`."""
        self._ref.tell("die")
        try:
            self._ref.ask("who is there?", block=True)
        except pykka.ActorDeadError:
            self._ref = _EmptyActor.start()
            self._ref.ask("who is there?", block=True)
        else:
            raise WorkNotDone("it did not die")

    def close(self) -> None:
        """Stop the last one."""
        self._ref.stop()
