"""Crashing the actor of an open store on purpose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sessionkeeper.engine.commands import Command, Prepared
from sessionkeeper.errors import OutcomeUnknown, SessionKeeperError

if TYPE_CHECKING:
    from typing import NoReturn

    from sessionkeeper.engine.apply import Transaction
    from sessionkeeper.store import SessionStore


class InjectedCrash(Exception):
    """The error that `crash_actor` raises unless it is given another."""


@dataclass(frozen=True)
class CrashCommand(Command[None], Prepared[None]):
    """A command that raises inside the actor's turn.

    Attributes:
        exception: What it raises.
    """

    exception: BaseException

    def prepare(self) -> CrashCommand:
        """Nothing to encode."""
        return self

    def apply(self, transaction: Transaction, request_id: str) -> NoReturn:
        """Raise."""
        del transaction, request_id
        raise self.exception


def crash_actor(store: SessionStore, exception: BaseException | None = None) -> None:
    """Crash the store's actor and return when its caller has been told.

    The exception is raised inside the actor's turn, between other callers' commands; the
    supervisor then restarts the actor. What was sent before is committed and answered.

    Args:
        store: An open store.
        exception: What to raise; an `InjectedCrash` unless given. An error of the store itself
            would be answered without a crash, so it is refused.

    Raises:
        AssertionError: The store took it without crashing.
    """
    raised = exception if exception is not None else InjectedCrash("injected")
    if isinstance(raised, SessionKeeperError):
        raise TypeError("errors of the store are answered, they do not crash it")
    try:
        store.ask(CrashCommand(raised), timeout=None)
    except OutcomeUnknown:
        return  # what is no Exception does not travel to callers
    except Exception as error:
        if error is raised:
            return
        raise
    raise AssertionError("the actor survived its crash")
