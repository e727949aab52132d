"""Taking sessions away, and bringing them back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sessionkeeper.answers import Decision, Removal, Saved
from sessionkeeper.engine.commands.base import Command, Prepared
from sessionkeeper.engine.commands.checks import check_reason
from sessionkeeper.layout import check_session_id

if TYPE_CHECKING:
    from sessionkeeper.engine.apply import Transaction
    from sessionkeeper.retention import Retention


@dataclass(frozen=True)
class DeleteSession(Command[bool], Prepared[bool]):
    """Move a session to the trash; True if there was one.

    Attributes:
        session_id: The session.
        reason: Why, in words; events and the trash tell it.
    """

    session_id: str
    reason: str = "deleted"

    def prepare(self) -> DeleteSession:
        """See `Command.prepare`."""
        return DeleteSession(check_session_id(self.session_id), check_reason(self.reason))

    def concerns(self) -> str:
        """See `Prepared.concerns`."""
        return self.session_id

    def apply(self, transaction: Transaction, request_id: str) -> bool:
        """See `Prepared.apply`."""
        return transaction.trash(self.session_id, self.reason, request_id)


@dataclass(frozen=True)
class UndeleteSession(Command[Saved], Prepared[Saved]):
    """Bring back the version of a session that was deleted last, as a new generation."""

    session_id: str

    def prepare(self) -> UndeleteSession:
        """See `Command.prepare`."""
        return UndeleteSession(check_session_id(self.session_id))

    def concerns(self) -> str:
        """See `Prepared.concerns`."""
        return self.session_id

    def apply(self, transaction: Transaction, request_id: str) -> Saved:
        """See `Prepared.apply`."""
        return transaction.undelete(self.session_id, request_id)


@dataclass(frozen=True)
class Cleanup(Command[list[Removal]], Prepared[list[Removal]]):
    """Apply the retention settings now; the answer says what was removed and why.

    Attributes:
        dry_run: Only say what would be removed.
        retention: Apply these instead of those in force.
    """

    dry_run: bool = False
    retention: Retention | None = None

    def prepare(self) -> Cleanup:
        """See `Command.prepare`."""
        return self

    def apply(self, transaction: Transaction, request_id: str) -> list[Removal]:
        """See `Prepared.apply`."""
        removals = transaction.expired(self.retention)
        if not self.dry_run:
            for number, removal in enumerate(removals):
                transaction.trash(removal.key, removal.detail, f"{request_id}.{number}")
        return removals


@dataclass(frozen=True)
class ExplainCleanup(Command[list[Decision]], Prepared[list[Decision]]):
    """Say what a cleanup would do with each session now, and why; changes nothing."""

    def prepare(self) -> ExplainCleanup:
        """See `Command.prepare`."""
        return self

    def apply(self, transaction: Transaction, request_id: str) -> list[Decision]:
        """See `Prepared.apply`."""
        del request_id
        return transaction.decisions()
