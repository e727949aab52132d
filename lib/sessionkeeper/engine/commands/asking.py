"""Commands that change no session and wait for those before them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sessionkeeper.engine.commands.base import Command, Prepared

if TYPE_CHECKING:
    from sessionkeeper.engine.apply import Transaction


@dataclass(frozen=True)
class CheckpointFiles(Command[None], Prepared[None]):
    """Bring every session file up to date; answered when all of them are durable."""

    def prepare(self) -> CheckpointFiles:
        """See `Command.prepare`."""
        return self

    def apply(self, transaction: Transaction, request_id: str) -> None:
        """See `Prepared.apply`; it changes no session."""
        del transaction, request_id


@dataclass(frozen=True)
class CountSessions(Command[int], Prepared[int]):
    """How many sessions there are in a namespace, in the order of the commands sent.

    Attributes:
        namespace: Which; the default one, unless a scope that it is sent through says another.
    """

    namespace: str = ""

    def prepare(self) -> CountSessions:
        """See `Command.prepare`."""
        return self

    def apply(self, transaction: Transaction, request_id: str) -> int:
        """See `Prepared.apply`."""
        del request_id
        return transaction.count(self.namespace)

    def within(self, namespace: str) -> CountSessions:
        """See `Prepared.within`."""
        return CountSessions(namespace)
