"""Saving sessions and adding messages to them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from sessionkeeper.answers import Saved
from sessionkeeper.engine.commands.base import BASE_SIZE, Command, Prepared
from sessionkeeper.engine.commands.checks import (
    check_cost,
    check_generation,
    check_key,
    check_messages,
    check_metadata,
    check_text,
    encode_messages,
    list_messages,
)
from sessionkeeper.fixed import fixed
from sessionkeeper.layout import check_session_id
from sessionkeeper.session import KEEP, Keep, check_tags
from sessionkeeper.storage.codec import encode
from sessionkeeper.storage.lines import weight

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sessionkeeper.engine.apply import Transaction
    from sessionkeeper.engine.values import Values
    from sessionkeeper.session import Changes, Chunk
    from sessionkeeper.storage.backend import Body

# Messages of more bytes are brought to the medium by the thread that saves them.
LARGE: Final = 64 * 1024


@fixed
class Fields:
    """The encoded and checked fields of a save; KEEP keeps what is stored.

    `message_count` and `cost` are of the messages, or of those added.
    """

    messages: tuple[Chunk, ...] | Keep = KEEP
    added: tuple[Chunk, ...] = ()
    message_count: int = 0
    cost: float = 0.0
    state: bytes | Keep = KEEP
    metadata: bytes | Keep = KEEP
    tags: tuple[str, ...] | Keep = KEEP
    title: str | Keep | None = KEEP
    summary: str | Keep | None = KEEP
    status: str | Keep | None = KEEP

    @property
    def describes_nothing(self) -> bool:
        """Whether all that lists show stays as it is."""
        return (
            self.metadata is KEEP
            and self.tags is KEEP
            and self.title is KEEP
            and self.summary is KEEP
            and self.status is KEEP
        )

    @property
    def size(self) -> int:
        """Bytes of the encoded fields."""
        messages = 0 if isinstance(self.messages, Keep) else weight(self.messages)
        return (
            messages
            + weight(self.added)
            + sum(len(part) for part in (self.state, self.metadata) if not isinstance(part, Keep))
        )


@dataclass(frozen=True, slots=True)
class SaveSession(Command[Saved]):
    """Create a session, or replace the fields given; fields left out are kept.

    Attributes:
        session_id: The session.
        messages: All its messages; any JSON values.
        state: The application's own value.
        metadata: A small mapping that lists show.
        tags: All its tags; doubles are dropped.
        title: A short name; None removes it.
        summary: A longer text; None removes it.
        status: The application's word; `active` and `paused` protect it from retention,
            `completed` sets `completed_at`; None removes it.
        expected_generation: Refuse with `Conflict` unless the session has this generation;
            0: refuse with `SessionExists` if it exists.
        total_cost: What it cost so far; None adds up what the result messages say.
    """

    session_id: str
    messages: Sequence[Any] | Keep = KEEP
    state: Any = KEEP
    metadata: Mapping[str, Any] | Keep = KEEP
    tags: Iterable[str] | Keep = KEEP
    title: str | Keep | None = KEEP
    summary: str | Keep | None = KEEP
    status: str | Keep | None = KEEP
    expected_generation: int | None = None
    total_cost: float | None = None

    @classmethod
    def of(cls, changes: Changes) -> SaveSession:
        """The command that makes those changes upon the generation they were made from."""
        return cls(
            changes.session_id,
            changes.messages,
            state=changes.state,
            metadata=changes.metadata,
            tags=changes.tags,
            title=changes.title,
            summary=changes.summary,
            status=changes.status,
            expected_generation=changes.generation,
        )

    def converted(self, values: Values) -> SaveSession:
        """See `Command.converted`."""
        messages = self.messages
        if not isinstance(messages, Keep):
            messages = [values.message(message) for message in list_messages(messages)]
        state = self.state if self.state is KEEP else values.value(self.state)
        return replace(self, messages=messages, state=state)

    def prepare(self) -> PreparedSave:
        """See `Command.prepare`."""
        messages, count, cost = check_messages(self.messages)
        if self.total_cost is not None:
            cost = check_cost(self.total_cost)
        return PreparedSave(
            check_session_id(self.session_id),
            Fields(
                messages=messages,
                message_count=count,
                cost=cost,
                state=KEEP if self.state is KEEP else encode(self.state, where="state"),
                metadata=KEEP if isinstance(self.metadata, Keep) else check_metadata(self.metadata),
                tags=KEEP if isinstance(self.tags, Keep) else check_tags(self.tags),
                title=check_text("title", self.title),
                summary=check_text("summary", self.summary),
                status=check_text("status", self.status),
            ),
            check_generation(self.expected_generation),
            self.total_cost is not None,
        )


@dataclass(frozen=True, slots=True)
class AdvanceSession(Command[Saved]):
    """Add messages at the end of a session and change fields of it, as one change.

    Attributes:
        session_id: The session; created if it is absent.
        messages: The messages to add, oldest first.
        state: The application's own value.
        metadata: A small mapping that lists show.
        tags: All its tags.
        title: A short name; None removes it.
        summary: A longer text; None removes it.
        status: See `SaveSession`.
        key: An idempotency key; see `AppendMessages`.
    """

    session_id: str
    messages: Sequence[Any] = ()
    state: Any = KEEP
    metadata: Mapping[str, Any] | Keep = KEEP
    tags: Iterable[str] | Keep = KEEP
    title: str | Keep | None = KEEP
    summary: str | Keep | None = KEEP
    status: str | Keep | None = KEEP
    key: str | None = None

    def converted(self, values: Values) -> AdvanceSession:
        """See `Command.converted`."""
        messages = [values.message(message) for message in list_messages(self.messages)]
        state = self.state if self.state is KEEP else values.value(self.state)
        return replace(self, messages=messages, state=state)

    def prepare(self) -> PreparedSave:
        """See `Command.prepare`."""
        added, count, cost = encode_messages(self.messages)
        changes = SaveSession(
            self.session_id,
            state=self.state,
            metadata=self.metadata,
            tags=self.tags,
            title=self.title,
            summary=self.summary,
            status=self.status,
        ).prepare()
        return PreparedSave(
            changes.session_id,
            replace(changes.fields, added=added, message_count=count, cost=cost),
            expected_generation=None,
            cost_given=False,
            key=check_key(self.key),
        )


@fixed
class PreparedSave(Prepared[Saved]):
    """See `SaveSession` and `AdvanceSession`."""

    session_id: str
    fields: Fields
    expected_generation: int | None
    cost_given: bool
    body: Body | None = None
    key: str | None = None

    def large_messages(self) -> tuple[Chunk, ...] | None:
        """Its messages if they are too many to be written by the actor."""
        messages = self.fields.messages
        if isinstance(messages, Keep) or weight(messages) <= LARGE:
            return None
        return messages

    def size(self) -> int:
        """See `Prepared.size`."""
        return BASE_SIZE + self.fields.size

    def concerns(self) -> str:
        """See `Prepared.concerns`."""
        return self.session_id

    def idempotency_key(self) -> str | None:
        """See `Prepared.idempotency_key`."""
        return self.key

    def apply(self, transaction: Transaction, request_id: str) -> Saved:
        """See `Prepared.apply`."""
        return transaction.save(self, request_id)


@dataclass(frozen=True, slots=True)
class AppendMessages(Command[Saved]):
    """Add messages at the end of a session; creates it if it is absent.

    Attributes:
        session_id: The session.
        messages: The messages to add, oldest first; a mapping or str is a TypeError.
        key: An idempotency key: a second append with the same key changes nothing and gets the
            answer of the first. Kept for the next 64 keyed changes of the session.
        total_cost: What these messages cost; None adds up what the result messages say.
    """

    session_id: str
    messages: Sequence[Any]
    key: str | None = None
    total_cost: float | None = None

    def converted(self, values: Values) -> AppendMessages:
        """See `Command.converted`."""
        messages = [values.message(message) for message in list_messages(self.messages)]
        return replace(self, messages=messages)

    def prepare(self) -> PreparedAppend:
        """See `Command.prepare`."""
        messages, count, cost = encode_messages(self.messages)
        if self.total_cost is not None:
            cost = check_cost(self.total_cost)
        return PreparedAppend(
            check_session_id(self.session_id),
            messages,
            count,
            cost,
            check_key(self.key),
        )


@fixed
class PreparedAppend(Prepared[Saved]):
    """See `AppendMessages`."""

    session_id: str
    messages: tuple[Chunk, ...]
    message_count: int
    cost: float
    key: str | None

    def size(self) -> int:
        """See `Prepared.size`."""
        return BASE_SIZE + weight(self.messages)

    def concerns(self) -> str:
        """See `Prepared.concerns`."""
        return self.session_id

    def idempotency_key(self) -> str | None:
        """See `Prepared.idempotency_key`."""
        return self.key

    def apply(self, transaction: Transaction, request_id: str) -> Saved:
        """See `Prepared.apply`."""
        return transaction.append(self, request_id)
