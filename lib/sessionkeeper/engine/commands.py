"""One typed command for each operation on the store.

A `Command` is what applications build and send with `ask` and `tell`. `prepare` checks and
encodes it in the caller's thread; the actor only moves the bytes of what comes out.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from sessionkeeper.errors import InvalidValue
from sessionkeeper.layout import check_session_id
from sessionkeeper.messages import calculate_cost
from sessionkeeper.session import KEEP, Keep, Removal, Saved, check_tags
from sessionkeeper.storage.codec import encode
from sessionkeeper.storage.lines import encode_lines, weight

if TYPE_CHECKING:
    from sessionkeeper.engine.apply import Transaction
    from sessionkeeper.session import Changes, Chunk
    from sessionkeeper.storage.backend import Body

R_co = TypeVar("R_co", covariant=True)

# A prepared command costs the mailbox this much beside its payload.
BASE_SIZE = 256
MAX_TEXT = 64 * 1024
MAX_KEY = 256

# Messages of more bytes are brought to the medium by the thread that saves them.
LARGE = 64 * 1024

ABSENT = 0
"""As `expected_generation`: the session must not exist yet."""


class Command(ABC, Generic[R_co]):
    """Something the store can be asked to do; `R_co` is the type of the answer."""

    @abstractmethod
    def prepare(self) -> Prepared[R_co]:
        """Check and encode, in the caller's thread.

        Raises:
            TypeError: An argument of the wrong type.
            InvalidSessionId: The id cannot name a session.
            InvalidValue: A value that JSON would not give back equal.
        """


class Prepared(ABC, Generic[R_co]):
    """A command with everything encoded, ready for the mailbox."""

    def size(self) -> int:
        """What it weighs in the mailbox, in bytes."""
        return BASE_SIZE

    def concerns(self) -> str | None:
        """The one session it changes, or None."""
        return None

    def idempotency_key(self) -> str | None:
        """The key its caller gave it, or None."""
        return None

    @abstractmethod
    def apply(self, transaction: Transaction, request_id: str) -> R_co:
        """Enter the changes into the transaction and return the answer; nothing is written yet.

        Raises:
            SessionKeeperError: The command is refused; the transaction is as before.
        """


# --- saving -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Fields:
    """The encoded and checked fields of a save; KEEP keeps what is stored."""

    messages: tuple[Chunk, ...] | Keep = KEEP
    message_count: int = 0
    cost: float = 0.0
    state: bytes | Keep = KEEP
    metadata: bytes | Keep = KEEP
    tags: tuple[str, ...] | Keep = KEEP
    title: str | Keep | None = KEEP
    summary: str | Keep | None = KEEP
    status: str | Keep | None = KEEP

    @property
    def size(self) -> int:
        """Bytes of the encoded fields."""
        messages = 0 if isinstance(self.messages, Keep) else weight(self.messages)
        return messages + sum(
            len(part) for part in (self.state, self.metadata) if not isinstance(part, Keep)
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

    def prepare(self) -> PreparedSave:
        """See `Command.prepare`."""
        messages, count, cost = _messages(self.messages)
        if self.total_cost is not None:
            cost = _cost(self.total_cost)
        return PreparedSave(
            check_session_id(self.session_id),
            Fields(
                messages=messages,
                message_count=count,
                cost=cost,
                state=KEEP if self.state is KEEP else encode(self.state, where="state"),
                metadata=_metadata(self.metadata),
                tags=KEEP if isinstance(self.tags, Keep) else check_tags(self.tags),
                title=_text("title", self.title),
                summary=_text("summary", self.summary),
                status=_text("status", self.status),
            ),
            _generation(self.expected_generation),
            self.total_cost is not None,
        )


@dataclass(frozen=True)
class PreparedSave(Prepared[Saved]):
    """See `SaveSession`."""

    session_id: str
    fields: Fields
    expected_generation: int | None
    cost_given: bool
    body: Body | None = None

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

    def prepare(self) -> PreparedAppend:
        """See `Command.prepare`."""
        messages, count, cost = _messages(self.messages)
        if isinstance(messages, Keep):
            raise TypeError("messages must be a sequence of messages")
        if self.total_cost is not None:
            cost = _cost(self.total_cost)
        return PreparedAppend(
            check_session_id(self.session_id),
            messages,
            count,
            cost,
            _key(self.key),
        )


@dataclass(frozen=True)
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


# --- deleting -----------------------------------------------------------------------------


@dataclass(frozen=True)
class DeleteSession(Command[bool], Prepared[bool]):
    """Move a session to the trash; True if there was one."""

    session_id: str

    def prepare(self) -> DeleteSession:
        """See `Command.prepare`."""
        return DeleteSession(check_session_id(self.session_id))

    def concerns(self) -> str:
        """See `Prepared.concerns`."""
        return self.session_id

    def apply(self, transaction: Transaction, request_id: str) -> bool:
        """See `Prepared.apply`."""
        return transaction.trash(self.session_id, "deleted", request_id)


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
    """

    dry_run: bool = False

    def prepare(self) -> Cleanup:
        """See `Command.prepare`."""
        return self

    def apply(self, transaction: Transaction, request_id: str) -> list[Removal]:
        """See `Prepared.apply`."""
        removals = transaction.expired()
        if not self.dry_run:
            for number, removal in enumerate(removals):
                transaction.trash(removal.session_id, removal.detail, f"{request_id}.{number}")
        return removals


@dataclass(frozen=True)
class CheckpointFiles(Command[None], Prepared[None]):
    """Bring every session file up to date; answered when all of them are durable."""

    def prepare(self) -> CheckpointFiles:
        """See `Command.prepare`."""
        return self

    def apply(self, transaction: Transaction, request_id: str) -> None:
        """See `Prepared.apply`; it changes no session."""
        del transaction, request_id


# --- asking -------------------------------------------------------------------------------


@dataclass(frozen=True)
class CountSessions(Command[int], Prepared[int]):
    """How many sessions there are, in the order of the commands sent."""

    def prepare(self) -> CountSessions:
        """See `Command.prepare`."""
        return self

    def apply(self, transaction: Transaction, request_id: str) -> int:
        """See `Prepared.apply`."""
        del request_id
        return transaction.count()


# --- checks -------------------------------------------------------------------------------


def _messages(messages: object) -> tuple[tuple[Chunk, ...] | Keep, int, float]:
    if isinstance(messages, Keep):
        return KEEP, 0, 0.0
    if isinstance(messages, str | bytes | Mapping) or not isinstance(messages, Iterable):
        raise TypeError(f"messages must be a sequence of messages, not {type(messages).__name__}")
    listed = list(messages)
    return encode_lines(listed), len(listed), calculate_cost(listed)


def _metadata(metadata: object) -> bytes | Keep:
    if isinstance(metadata, Keep):
        return KEEP
    if not isinstance(metadata, dict):
        raise TypeError(f"metadata must be a dict, not {type(metadata).__name__}")
    encoded = encode(metadata, where="metadata")
    if len(encoded) > MAX_TEXT:
        raise InvalidValue(f"metadata of {len(encoded)} bytes is larger than {MAX_TEXT}")
    return encoded


def _text(name: str, text: object) -> str | Keep | None:
    if text is None or isinstance(text, Keep):
        return text
    if not isinstance(text, str):
        raise TypeError(f"{name} must be a str or None, not {type(text).__name__}")
    if len(text) > MAX_TEXT:
        raise InvalidValue(f"{name} of {len(text)} characters is longer than {MAX_TEXT}")
    encode(text, where=name)
    return str(text)


def _key(key: object) -> str | None:
    checked = _text("key", key)
    if isinstance(checked, str) and not 0 < len(checked) <= MAX_KEY:
        raise InvalidValue(f"an idempotency key has 1 to {MAX_KEY} characters")
    return checked if isinstance(checked, str) else None


def _generation(generation: object) -> int | None:
    if generation is None:
        return None
    if type(generation) is not int or generation < 0:
        raise TypeError(f"expected_generation must be a whole number, not {generation!r}")
    return generation


def _cost(cost: object) -> float:
    if isinstance(cost, bool) or not isinstance(cost, int | float) or not math.isfinite(cost):
        raise InvalidValue(f"total_cost must be a finite number, not {cost!r}")
    return float(cost)
