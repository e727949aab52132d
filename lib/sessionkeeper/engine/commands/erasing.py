"""Taking a session away for good."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sessionkeeper.answers import Erased
from sessionkeeper.engine.commands.base import Command, Prepared
from sessionkeeper.layout import check_session_id

if TYPE_CHECKING:
    from sessionkeeper.engine.apply import Transaction


@dataclass(frozen=True)
class EraseSession(Command[Erased], Prepared[Erased]):
    """Leave no byte of a session: file, backups, trash, quarantine, journal, index.

    Attributes:
        session_id: The session; one that was deleted before leaves its traces too.
    """

    session_id: str

    def prepare(self) -> EraseSession:
        """See `Command.prepare`."""
        return EraseSession(check_session_id(self.session_id))

    def concerns(self) -> str:
        """See `Prepared.concerns`."""
        return self.session_id

    def apply(self, transaction: Transaction, request_id: str) -> Erased:
        """See `Prepared.apply`; the actor erases when nothing else is under way."""
        del transaction, request_id
        return Erased.of(self.session_id, 0, 0)
