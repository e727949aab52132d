"""Noting something about a session, and what happened in it."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from sessionkeeper.answers import Saved
from sessionkeeper.engine.commands.base import BASE_SIZE, Command, Prepared
from sessionkeeper.engine.commands.checks import MAX_TEXT, check_kind, check_text
from sessionkeeper.errors import InvalidValue
from sessionkeeper.keys import named
from sessionkeeper.layout import check_session_id
from sessionkeeper.session import Annotation, SessionEvent, iso_text
from sessionkeeper.storage.codec import decode, encode
from sessionkeeper.storage.documents import EMPTY_LIST

if TYPE_CHECKING:
    from datetime import datetime

    from sessionkeeper.engine.apply import Transaction
    from sessionkeeper.engine.values import Values
    from sessionkeeper.storage.documents import Document

# So many bytes of annotations, and as many of events, a session may have.
MAX_NOTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class AddAnnotation(Command[Saved]):
    """Note something about a session; adding an annotation that it has already changes nothing."""

    session_id: str
    annotation: Annotation

    def prepare(self) -> PreparedAnnotation:
        """See `Command.prepare`."""
        annotation = self.annotation
        text = check_text("text", annotation.text)
        if not isinstance(text, str) or not text:
            raise InvalidValue("an annotation has a text")
        fields = _fields(annotation.id, annotation.kind, annotation.at) | {"text": text}
        return PreparedAnnotation(
            check_session_id(self.session_id),
            str(annotation.id),
            encode(fields, where="annotation"),
        )


@dataclass(frozen=True, slots=True)
class AddEvent(Command[Saved]):
    """Enter what happened in a session; entering the same event again changes nothing."""

    session_id: str
    event: SessionEvent

    def converted(self, values: Values) -> AddEvent:
        """See `Command.converted`."""
        return replace(self, event=replace(self.event, data=values.value(self.event.data)))

    def prepare(self) -> PreparedEvent:
        """See `Command.prepare`."""
        event = self.event
        fields = _fields(event.id, event.kind, event.at) | {"data": event.data}
        encoded = encode(fields, where="event")
        if len(encoded) > MAX_TEXT:
            raise InvalidValue(f"an event of {len(encoded)} bytes is larger than {MAX_TEXT}")
        return PreparedEvent(check_session_id(self.session_id), str(event.id), encoded)


@dataclass(frozen=True)
class PreparedNote(Prepared[Saved]):
    """What both have in common.

    Attributes:
        session_id: The session.
        note_id: The id of what is added.
        encoded: The whole of it.
    """

    session_id: str
    note_id: str
    encoded: bytes

    def size(self) -> int:
        """See `Prepared.size`."""
        return BASE_SIZE + len(self.encoded)

    def concerns(self) -> str:
        """See `Prepared.concerns`."""
        return self.session_id

    def apply(self, transaction: Transaction, request_id: str) -> Saved:
        """See `Prepared.apply`."""
        return transaction.amend(self.session_id, request_id, self.added_to)

    @abstractmethod
    def added_to(self, document: Document) -> Document:
        """The session with it; the same one if it has it already.

        Raises:
            InvalidValue: That would be more than a session may have.
        """

    def behind(self, noted: bytes) -> bytes | None:
        """A list with this added to it; None if it is in there already.

        Raises:
            InvalidValue: It would be too long.
        """
        if any(note["id"] == self.note_id for note in decode(noted)):
            return None
        joint = b"" if noted == EMPTY_LIST else b","
        longer = b"%s%s%s]" % (noted[:-1], joint, self.encoded)
        if len(longer) > MAX_NOTES:
            raise InvalidValue(
                f"session {named(self.session_id)} would have {len(longer)} bytes of these, "
                f"more than {MAX_NOTES}",
                session_id=self.session_id,
                hint="Long records of what happened belong into messages: append() has no bound.",
            )
        return longer


@dataclass(frozen=True)
class PreparedAnnotation(PreparedNote):
    """See `AddAnnotation`."""

    def added_to(self, document: Document) -> Document:
        """See `PreparedNote.added_to`."""
        longer = self.behind(document.annotations)
        return document if longer is None else replace(document, annotations=longer)


@dataclass(frozen=True)
class PreparedEvent(PreparedNote):
    """See `AddEvent`."""

    def added_to(self, document: Document) -> Document:
        """See `PreparedNote.added_to`."""
        longer = self.behind(document.events)
        return document if longer is None else replace(document, events=longer)


def _fields(note_id: object, kind: object, at: datetime) -> dict[str, Any]:
    if type(note_id) is not UUID:
        raise TypeError(f"an id must be a UUID, not {type(note_id).__name__}")
    if at.tzinfo is None:
        raise InvalidValue("`at` is a datetime without a time zone")
    return {"id": str(note_id), "kind": check_kind(kind), "at": iso_text(at)}
