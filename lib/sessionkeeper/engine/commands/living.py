"""The life of a session: going on with it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sessionkeeper.answers import Saved
from sessionkeeper.engine.commands.base import Command, Prepared
from sessionkeeper.errors import NotResumable
from sessionkeeper.keys import named
from sessionkeeper.layout import check_session_id
from sessionkeeper.session import ACTIVE, INTERRUPTED, PAUSED

if TYPE_CHECKING:
    from sessionkeeper.engine.apply import Transaction
    from sessionkeeper.storage.documents import Document


@dataclass(frozen=True)
class ResumeSession(Command[Saved], Prepared[Saved]):
    """Make a session `active` that is paused, or was left unfinished."""

    session_id: str

    def prepare(self) -> ResumeSession:
        """See `Command.prepare`."""
        return ResumeSession(check_session_id(self.session_id))

    def concerns(self) -> str:
        """See `Prepared.concerns`."""
        return self.session_id

    def apply(self, transaction: Transaction, request_id: str) -> Saved:
        """See `Prepared.apply`."""
        return transaction.amend(self.session_id, request_id, _resumed)


def _resumed(document: Document) -> Document:
    record = document.record
    if record.status not in (ACTIVE, PAUSED, INTERRUPTED):
        raise NotResumable(
            f"session {named(record.session_id)} has the status {record.status!r}",
            session_id=record.session_id,
        )
    # Also where the status stays the same: the new generation says that somebody is at it again.
    return replace(document, record=replace(record, status=ACTIVE))
