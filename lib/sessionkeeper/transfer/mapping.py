"""From an item of a foreign file to the command that stores it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Self

from sessionkeeper.engine.commands import SaveSession
from sessionkeeper.storage.codec import encode
from sessionkeeper.storage.documents import EMPTY_LIST, FORMAT, Document, decode_foreign
from sessionkeeper.transfer.template import FieldError, Template, lookup
from sessionkeeper.transfer.times import times_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ID_FIELDS: Final = ("session_id", "id")
MESSAGES_FIELD: Final = "messages"
NOTES: Final = frozenset({"annotations", "events"})


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldMapping:
    """Where an item keeps what a session consists of; what is None has its default.

    Attributes:
        session_id: Template of the id; by default the field `session_id`, or else `id`.
        messages: Dotted path of the list of messages; by default `messages`.
        cost: Dotted path of the total cost; by default, and where that is null, what the result
            messages say.
        tags: Templates of tags.
        title: Template of the title.
        metadata: Dotted paths of metadata, by key; values stay as they are.
        times: Dotted paths of times that become metadata, by key: milliseconds since 1970 or
            ISO 8601 with a zone, always stored as ISO 8601 in UTC.
        state: Dotted path of the application's own value.
    """

    session_id: Template | None = None
    messages: str | None = None
    cost: str | None = None
    tags: tuple[Template, ...] = ()
    title: Template | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    times: Mapping[str, str] = field(default_factory=dict)
    state: str | None = None

    @classmethod
    def of(
        cls,
        *,
        session_id: str | None = None,
        messages: str | None = None,
        cost: str | None = None,
        tags: Iterable[str] = (),
        title: str | None = None,
        metadata: Mapping[str, str] | None = None,
        times: Mapping[str, str] | None = None,
        state: str | None = None,
    ) -> Self:
        """A mapping from plain text.

        Raises:
            InvalidConfig: A template that cannot be read.
        """
        return cls(
            session_id=None if session_id is None else Template.parse(session_id),
            messages=messages,
            cost=cost,
            tags=tuple(Template.parse(tag) for tag in tags),
            title=None if title is None else Template.parse(title),
            metadata=dict(metadata or {}),
            times=dict(times or {}),
            state=state,
        )

    def command(self, item: Any) -> SaveSession:
        """The command that stores an item as a session; whatever it does not say is empty.

        Raises:
            FieldError: A field is missing or unfit.
            CorruptDocument: It says it is a session document of ours, and is none.
            NewerVersion: It is a session document of a newer version.
            InvalidValue: A value that JSON would not give back equal.
        """
        if not isinstance(item, dict):
            raise FieldError(f"it is {type(item).__name__}, not an object")
        base = _from_document(item) if is_own(item) else None
        return SaveSession(
            self._session_id(item, base),
            self._messages(item),
            state=self._state(item, base),
            metadata=self._metadata(item, base),
            tags=(*_tags(base), *(tag.fill(item) for tag in self.tags)),
            title=self.title.fill(item) if self.title else base.title if base else None,
            summary=base.summary if base else None,
            status=base.status if base else None,
            total_cost=self._cost(item, base),
        )

    def _session_id(self, item: dict[str, Any], base: SaveSession | None) -> str:
        if self.session_id is not None:
            return self.session_id.fill(item)
        if base is not None:
            return base.session_id
        name = next((name for name in ID_FIELDS if name in item), None)
        if name is None:
            raise FieldError("it has neither `session_id` nor `id` (--id names another field)")
        value = item[name]
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise FieldError(f"the field `{name}` is {type(value).__name__}, which is no id")
        return str(value)

    def _messages(self, item: dict[str, Any]) -> list[Any]:
        path = self.messages or MESSAGES_FIELD
        messages = lookup(item, path)
        if not isinstance(messages, list):
            raise FieldError(f"the field `{path}` is {type(messages).__name__}, not a list")
        return messages

    def _state(self, item: dict[str, Any], base: SaveSession | None) -> Any:
        if self.state is not None:
            return lookup(item, self.state)
        return base.state if base else None

    def _metadata(self, item: dict[str, Any], base: SaveSession | None) -> dict[str, Any]:
        kept: Any = base.metadata if base else {}
        mapped = {key: lookup(item, path) for key, path in self.metadata.items()}
        return {**kept, **mapped, **times_of(item, self.times)}

    def _cost(self, item: dict[str, Any], base: SaveSession | None) -> Any:
        if self.cost is not None:
            # Null is how records say that the cost is not known: then it has its default.
            return lookup(item, self.cost)
        return base.total_cost if base else None


def is_own(item: Any) -> bool:
    """Whether an item says that it is a session document of this library."""
    return isinstance(item, dict) and item.get("format") == FORMAT


def notes_of(item: Any) -> tuple[bytes, bytes]:
    """The annotations and events of an item, encoded; only documents of ours have any.

    Raises:
        CorruptDocument: They are none.
    """
    if not is_own(item) or not NOTES.intersection(item):
        return EMPTY_LIST, EMPTY_LIST
    document = _document(item)
    return document.annotations, document.events


def _document(item: dict[str, Any]) -> Document:
    fields = dict(item)
    if isinstance(fields.get(MESSAGES_FIELD), list):
        fields[MESSAGES_FIELD] = []  # they are checked and encoded once, by the command itself
    return decode_foreign(encode(fields), datetime.now(UTC))


def _from_document(item: dict[str, Any]) -> SaveSession:
    session = _document(item).session()
    return SaveSession(
        session.session_id,
        state=session.state,
        metadata=session.metadata,
        tags=session.tags,
        title=session.title,
        summary=session.summary,
        status=session.status,
        total_cost=session.total_cost,
    )


def _tags(base: SaveSession | None) -> tuple[str, ...]:
    return tuple(base.tags) if base is not None and isinstance(base.tags, tuple) else ()
