"""Saving a session whole, as it stands in a document: with its notes, and nothing of another."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

from sessionkeeper.answers import Saved
from sessionkeeper.engine.commands import Command, PreparedSave
from sessionkeeper.engine.commands.notes import MAX_NOTES
from sessionkeeper.engine.commands.saving import Fields
from sessionkeeper.errors import InvalidValue
from sessionkeeper.fixed import fixed
from sessionkeeper.keys import id_of
from sessionkeeper.storage.documents import EMPTY_LIST

if TYPE_CHECKING:
    from sessionkeeper.engine.apply import Transaction
    from sessionkeeper.storage.documents import Document


@fixed
class PreparedWhole(PreparedSave):
    """A save that also replaces the annotations and events.

    Attributes:
        annotations: The list of what was noted about the session, encoded.
        events: The list of what happened in it, encoded.
    """

    annotations: bytes = EMPTY_LIST
    events: bytes = EMPTY_LIST

    @classmethod
    def of(cls, save: PreparedSave, annotations: bytes, events: bytes) -> PreparedWhole:
        """A save of all fields, with these notes.

        Raises:
            InvalidValue: They are more than a session may have.
        """
        for name, notes in (("annotations", annotations), ("events", events)):
            if len(notes) > MAX_NOTES:
                raise InvalidValue(f"{len(notes)} bytes of {name} are more than {MAX_NOTES}")
        given = {f.name: getattr(save, f.name) for f in fields(PreparedSave)}
        return cls(**given, annotations=annotations, events=events)

    @classmethod
    def of_document(cls, document: Document, expected_generation: int) -> PreparedWhole:
        """What makes a session again what it was, without decoding anything of it."""
        record = document.record
        fields = Fields(
            messages=tuple(document.chunks),
            message_count=record.message_count,
            cost=record.total_cost,
            state=document.state,
            metadata=record.metadata,
            tags=record.tags,
            title=record.title,
            summary=record.summary,
            status=record.status,
        )
        # Whoever it is sent through puts the namespace before it.
        save = PreparedSave(id_of(record.session_id), fields, expected_generation, cost_given=True)
        return cls.of(save, document.annotations, document.events)

    def size(self) -> int:
        """See `Prepared.size`."""
        return PreparedSave.size(self) + len(self.annotations) + len(self.events)

    def apply(self, transaction: Transaction, request_id: str) -> Saved:
        """See `Prepared.apply`."""
        PreparedSave.apply(self, transaction, request_id)
        return transaction.amend(self.session_id, f"{request_id}.notes", self._noted)

    def _noted(self, document: Document) -> Document:
        if (document.annotations, document.events) == (self.annotations, self.events):
            return document
        return replace(document, annotations=self.annotations, events=self.events)


@dataclass(frozen=True)
class Ready(Command[Saved]):
    """A save that is encoded already; encoding it again would double the time."""

    prepared: PreparedWhole

    def prepare(self) -> PreparedWhole:
        """See `Command.prepare`."""
        return self.prepared
