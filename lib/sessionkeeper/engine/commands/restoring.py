"""Bringing back a version that was replaced."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sessionkeeper.answers import Saved
from sessionkeeper.engine.commands.base import Command, Prepared
from sessionkeeper.engine.commands.checks import check_count
from sessionkeeper.layout import check_session_id

if TYPE_CHECKING:
    from sessionkeeper.engine.apply import Transaction


@dataclass(frozen=True)
class RestoreBackup(Command[Saved], Prepared[Saved]):
    """Make a version that was replaced the current one, as a new generation.

    Attributes:
        session_id: The session; also one whose own file is lost.
        generation: Which version; None for the newest that is whole.
    """

    session_id: str
    generation: int | None = None

    def prepare(self) -> RestoreBackup:
        """See `Command.prepare`."""
        wanted = self.generation
        generation = None if wanted is None else check_count("generation", wanted)
        return RestoreBackup(check_session_id(self.session_id), generation)

    def concerns(self) -> str:
        """See `Prepared.concerns`."""
        return self.session_id

    def apply(self, transaction: Transaction, request_id: str) -> Saved:
        """See `Prepared.apply`."""
        document = transaction.backup(self.session_id, self.generation)
        current = transaction.record(self.session_id)
        if current is None:
            return transaction.put(document, request_id)
        record = replace(
            document.record,
            generation=current.generation,
            persisted_until=current.persisted_until,
            # Like the promise above it is about the session, not about one version of it.
            pinned=current.pinned,
            requests=current.requests,
        )
        return transaction.put(replace(document, record=record), request_id)
