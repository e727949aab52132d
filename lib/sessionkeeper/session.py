"""What callers hold in their hands: sessions, their metadata, and what is noted in them."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypeAlias, TypeVar
from uuid import UUID

import orjson

from sessionkeeper.errors import InvalidValue
from sessionkeeper.keys import key_of
from sessionkeeper.slices import CHUNK, Pace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

T = TypeVar("T")

Chunk: TypeAlias = bytes | memoryview
"""Encoded messages on lines of their own, joined by a comma and a line break."""


class Keep(Enum):
    """The type of `KEEP`."""

    KEEP = "keep"

    def __repr__(self) -> str:
        return "KEEP"


KEEP: Final = Keep.KEEP
"""Stands for an argument that was left out: what is stored stays."""

Status = str
"""Any word of the application's; the store knows the meaning of these four."""

ACTIVE: Final = "active"
"""Somebody is working on it; protected from retention."""

PAUSED: Final = "paused"
"""It will be gone on with; protected from retention."""

Basis = Literal["completed", "updated", "created"]


COMPLETED: Final = "completed"
"""It is done: sets `completed_at`, from when on retention counts."""

INTERRUPTED: Final = "interrupted"
"""It was left unfinished and waits to be resumed."""

UNFINISHED: Final = frozenset({ACTIVE, PAUSED})
"""The statuses that retention protects, and that a crash interrupts."""


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """The metadata of one session: all that a list needs, without its messages.

    Attributes:
        session_id: The id, as the application gave it.
        namespace: The namespace; empty for the default one.
        generation: 1 for a new session, one more for each change.
        lsn: The log sequence number of the last change; orders changes over all sessions.
        created_at: When the session was first saved (aware, UTC).
        updated_at: When it was last changed (aware, UTC); never before `created_at`.
        completed_at: When its status became `completed`, or None.
        persisted_until: Before this instant no retention removes it; None if nothing was promised.
        status: What the application set, or None.
        title: A short name, or None.
        summary: A longer text, or None.
        tags: In the order given, without doubles.
        message_count: How many messages there are.
        total_cost: In the unit the application uses.
        metadata: The application's small indexed mapping; a copy of the caller's own.
        pinned: Whether it is kept whatever the retention settings say.
    """

    session_id: str
    namespace: str
    generation: int
    lsn: int
    created_at: datetime
    updated_at: datetime
    completed_at: datetime | None
    persisted_until: datetime | None
    status: Status | None
    title: str | None
    summary: str | None
    tags: tuple[str, ...]
    message_count: int
    total_cost: float
    metadata: dict[str, Any]
    pinned: bool = False

    @property
    def key(self) -> str:
        """Namespace and id as one text: the id alone in the default namespace."""
        return key_of(self.namespace, self.session_id)


@dataclass(frozen=True, slots=True)
class MessageHit:
    """A message that holds what was looked for.

    Attributes:
        info: The metadata of its session.
        number: Which of the session's messages it is, counted from 0.
        snippet: What stands around the words, each of them between `«` and `»`; `…` stands for
            what was left out, a space for whatever separates words.
    """

    info: SessionInfo
    number: int
    snippet: str


def iso_text(moment: datetime) -> str:
    """An aware instant as ISO 8601 in UTC, with microseconds and `Z`, as files have it."""
    if moment.tzinfo is not UTC:  # asked first, for it nearly always is
        moment = moment.astimezone(UTC)
    return moment.isoformat(timespec="microseconds")[: -len("+00:00")] + "Z"


def parse_moment(value: object, name: str) -> datetime:
    """The instant that an ISO 8601 text names, in UTC.

    Raises:
        TypeError: It is none, or has no time zone; the text of the error begins with the name.
    """
    if type(value) is not str:
        raise TypeError(f"`{name}` is {type(value).__name__}, not str")
    try:
        moment = datetime.fromisoformat(value)
        aware = moment.tzinfo is not None
        moment = moment.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise TypeError(f"`{name}` is no ISO 8601 time") from error
    if not aware:
        raise TypeError(f"`{name}` has no time zone")
    return moment


_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class Annotation:
    """Something noted about a session.

    Attributes:
        id: Its own.
        text: What was noted.
        kind: The application's word for what it is, such as `note` or `warning`.
        at: When (aware, UTC).
    """

    id: UUID
    text: str
    kind: str
    at: datetime

    @classmethod
    def of(cls, fields: object, where: str) -> Annotation:
        """The annotation that a document's fields describe.

        Raises:
            TypeError: They describe none; the text names the culprit.
        """
        known = _noted(fields, where)
        text = known.get("text")
        if type(text) is not str:
            raise TypeError(f"`{where}.text` is {type(text).__name__}, not str")
        return cls(UUID(known["id"]), text, known["kind"], parse_moment(known.get("at"), where))


@dataclass(frozen=True, slots=True)
class SessionEvent:
    """Something that happened in a session.

    Attributes:
        id: Its own.
        kind: The application's word for what happened.
        at: When (aware, UTC).
        data: Any JSON value.
    """

    id: UUID
    kind: str
    at: datetime
    data: Any = None

    @classmethod
    def of(cls, fields: object, where: str) -> SessionEvent:
        """The event that a document's fields describe.

        Raises:
            TypeError: They describe none; the text names the culprit.
        """
        known = _noted(fields, where)
        at = parse_moment(known.get("at"), where)
        return cls(UUID(known["id"]), known["kind"], at, known.get("data"))


def _noted(fields: object, where: str) -> dict[str, Any]:
    if not isinstance(fields, dict):
        raise TypeError(f"`{where}` is {type(fields).__name__}, not an object")
    for name in ("id", "kind"):
        if type(fields.get(name)) is not str:
            raise TypeError(f"`{where}.{name}` is {type(fields.get(name)).__name__}, not str")
    if not _UUID.fullmatch(fields["id"]):
        raise TypeError(f"`{where}.id` is no UUID")
    return fields


class Session:
    """One loaded session.

    Messages and state are decoded when first asked for, into objects that belong to this
    `Session` alone: what a caller does to them reaches neither the store nor another caller.
    Two loads of one session are equal when all they hold is equal.
    """

    __slots__ = (
        "_annotations",
        "_chunks",
        "_events",
        "_messages",
        "_revive",
        "_state",
        "_state_bytes",
        "info",
    )

    info: SessionInfo

    def __init__(
        self,
        info: SessionInfo,
        chunks: Sequence[Chunk],
        state_bytes: bytes,
        *,
        annotations: bytes = b"[]",
        events: bytes = b"[]",
        revive: Callable[[Any], Any] | None = None,
    ) -> None:
        self.info = info
        self._revive = revive
        self._annotations = annotations
        self._events = events
        self._chunks = chunks
        self._state_bytes = state_bytes
        self._messages: list[Any] | Keep = KEEP
        self._state: Any = KEEP

    @property
    def session_id(self) -> str:
        """The id, as the application gave it."""
        return self.info.session_id

    @property
    def generation(self) -> int:
        """Which version this is; give it as `expected_generation` to save over just this one."""
        return self.info.generation

    @property
    def messages(self) -> list[Any]:
        """The messages, oldest first, as a plain list."""
        if isinstance(self._messages, Keep):
            self._messages = decode_messages(self._chunks)
            if self._revive is not None:
                pace = Pace()
                for index, message in enumerate(self._messages):
                    self._messages[index] = self._revive(message)
                    pace.step()
        return self._messages

    @property
    def state(self) -> Any:
        """The application's own value."""
        if self._state is KEEP:
            self._state = self._revived(orjson.loads(self._state_bytes))
        return self._state

    @property
    def annotations(self) -> list[Annotation]:
        """What was noted about it, oldest first."""
        return [Annotation.of(fields, "annotation") for fields in orjson.loads(self._annotations)]

    @property
    def events(self) -> list[SessionEvent]:
        """What happened in it, oldest first."""
        decoded = [SessionEvent.of(fields, "event") for fields in orjson.loads(self._events)]
        return [replace(event, data=self._revived(event.data)) for event in decoded]

    def _revived(self, value: Any) -> Any:
        return value if self._revive is None else self._revive(value)

    def decoded(self) -> Self:
        """This session, with messages and state decoded now rather than when asked for."""
        _ = self.messages, self.state
        return self

    @property
    def metadata(self) -> dict[str, Any]:
        """The application's small indexed mapping."""
        return self.info.metadata

    @property
    def tags(self) -> tuple[str, ...]:
        """The tags, in the order given."""
        return self.info.tags

    @property
    def title(self) -> str | None:
        """A short name, or None."""
        return self.info.title

    @property
    def summary(self) -> str | None:
        """A longer text, or None."""
        return self.info.summary

    @property
    def status(self) -> Status | None:
        """What the application set, or None."""
        return self.info.status

    @property
    def pinned(self) -> bool:
        """Whether it is kept whatever the retention settings say."""
        return self.info.pinned

    @property
    def created_at(self) -> datetime:
        """When the session was first saved."""
        return self.info.created_at

    @property
    def updated_at(self) -> datetime:
        """When it was last changed."""
        return self.info.updated_at

    @property
    def completed_at(self) -> datetime | None:
        """When its status became `completed`, or None."""
        return self.info.completed_at

    @property
    def total_cost(self) -> float:
        """What it cost so far."""
        return self.info.total_cost

    def __len__(self) -> int:
        return self.info.message_count

    def __bool__(self) -> bool:
        # A session without messages is a session.
        return True

    def replace(
        self,
        *,
        messages: Sequence[Any] | Keep = KEEP,
        state: Any = KEEP,
        metadata: dict[str, Any] | Keep = KEEP,
        tags: Sequence[str] | Keep = KEEP,
        title: str | Keep | None = KEEP,
        summary: str | Keep | None = KEEP,
        status: Status | Keep | None = KEEP,
    ) -> Changes:
        """Say what is to change, for `SessionStore.update`.

        Returns:
            The changes, upon this generation; nothing is written yet.
        """
        return Changes(
            session_id=self.session_id,
            generation=self.generation,
            messages=messages,
            state=state,
            metadata=metadata,
            tags=tags,
            title=title,
            summary=summary,
            status=status,
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Session):
            return NotImplemented
        return (
            self.info == other.info
            and self.messages == other.messages
            and bool(self.state == other.state)
            and self.annotations == other.annotations
            and self.events == other.events
        )

    __hash__ = None  # type: ignore[assignment]  # its messages are a list that may change

    def __repr__(self) -> str:
        return (
            f"Session({self.session_id!r}, generation={self.generation}, "
            f"messages={self.info.message_count})"
        )


def grouped(chunks: Iterable[Chunk]) -> Iterator[list[Chunk]]:
    """Neighbours that are together about as long as a `CHUNK`, so that few steps take them all."""
    group: list[Chunk] = []
    size = 0
    for chunk in chunks:
        if group and size + len(chunk) > CHUNK:
            yield group
            group, size = [], 0
        group.append(chunk)
        size += len(chunk)
    if group:
        yield group


def decode_messages(chunks: Sequence[Chunk]) -> list[Any]:
    """The messages that some chunks hold, as new objects."""
    if len(chunks) == 1:
        return list(orjson.loads(b"[" + chunks[0] + b"]"))
    messages: list[Any] = []
    for group in decode_in_steps(chunks):
        messages += group
    return messages


def decode_in_steps(chunks: Iterable[Chunk]) -> Iterator[list[Any]]:
    """The same, some at a time, with the interpreter offered to others in between."""
    pace = Pace()
    for group in grouped(chunks):
        yield orjson.loads(b"[" + b",".join(group) + b"]")
        pace.step()


@dataclass(frozen=True, slots=True)
class Changes:
    """What `Session.replace` returns: fields to change upon one generation; KEEP keeps."""

    session_id: str
    generation: int
    messages: Sequence[Any] | Keep = KEEP
    state: Any = KEEP
    metadata: dict[str, Any] | Keep = KEEP
    tags: Sequence[str] | Keep = KEEP
    title: str | Keep | None = KEEP
    summary: str | Keep | None = KEEP
    status: Status | Keep | None = KEEP


MAX_TAGS: Final = 1000
MAX_TAG_LENGTH: Final = 256


def check_tags(tags: object) -> tuple[str, ...]:
    """Return tags as a tuple without doubles, in the order given.

    Raises:
        TypeError: A str, or something that is no iterable of str.
        InvalidValue: A blank tag, too many, or one too long.
    """
    if isinstance(tags, str) or not hasattr(tags, "__iter__"):
        raise TypeError(f"tags must be a sequence of str, not {type(tags).__name__}")
    kept: dict[str, None] = {}
    for tag in tags:
        if not isinstance(tag, str):
            raise TypeError(f"a tag must be a str, not {type(tag).__name__}")
        if not tag.strip() or len(tag) > MAX_TAG_LENGTH:
            raise InvalidValue(
                f"tag {tag[:40]!r} is blank or longer than {MAX_TAG_LENGTH} characters",
            )
        try:
            tag.encode()
        except UnicodeEncodeError as error:
            raise InvalidValue(f"tag {tag!r} holds a lone surrogate") from error
        kept[tag] = None
    if len(kept) > MAX_TAGS:
        raise InvalidValue(f"{len(kept)} tags are more than {MAX_TAGS}")
    return tuple(kept)
