"""What both parts of the drill share: the plan, the result, and reading what is found."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sessionkeeper.cli.drill.count import Count, Mark
from sessionkeeper.cli.drill.writers import MARK
from sessionkeeper.errors import SessionKeeperError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sessionkeeper.cli.drill.ledger import Ledger
    from sessionkeeper.processes.tree import ProcessInfo
    from sessionkeeper.store import SessionStore

    Watch = Callable[[float, int], None]

# The slowest machine must get that far; without an end a demo could hang.
PATIENCE: Final = 30.0

_LOOK_EVERY: Final = 0.1


class DrillError(SessionKeeperError):
    """The drill could not be carried out; this says nothing about what was stored."""

    default_hint = "Run it on an idle local disk; its messages say what stood in the way."


@dataclass(frozen=True, slots=True)
class Plan:
    """How a part is carried out.

    Attributes:
        threads: How many threads write.
        crashes: How often the actor is crashed.
        seconds: How long each part writes.
    """

    threads: int
    crashes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Part:
    """The result of one part.

    Attributes:
        name: What was done.
        count: What was acknowledged and what was found.
        sessions: How many sessions were found.
        restarts: How often the store came back.
        planned: How often it should have.
        ready: Seconds it took, each time.
        processes: The supervision tree of the store at the end.
    """

    name: str
    count: Count
    sessions: int
    restarts: int
    planned: int
    ready: tuple[float, ...]
    processes: tuple[ProcessInfo, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether it went as planned and nothing was lost, doubled or out of order."""
        return self.count.passed and self.restarts == self.planned == len(self.ready)


def marks_found(store: SessionStore) -> dict[str, list[Mark]]:
    """The marks of all messages in a store, by session, in their order."""
    return {session.session_id: _marks(session.messages) for session in store.load_all()}


def _marks(messages: list[dict[str, Any]]) -> list[Mark]:
    return [Mark(*message[MARK]) for message in messages if MARK in message]


def work_on(ledger: Ledger, seconds: float, more: int, watch: Watch) -> None:
    """Let the writers work for some time, and until `more` messages have been acknowledged.

    Raises:
        DrillError: They did not get so far.
    """
    goal = ledger.total + more
    pause = threading.Event()
    steps = max(1, round(seconds / _LOOK_EVERY))
    for step in range(steps):
        watch(step / steps, ledger.total)
        pause.wait(seconds / steps)
    if not ledger.wait_for(goal, PATIENCE):
        raise DrillError(f"only {ledger.total} of {goal} messages were stored")
