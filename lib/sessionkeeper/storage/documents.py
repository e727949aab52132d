r"""The session document: one JSON object, laid out in lines, with a checksum at its end.

    {"format":"sessionkeeper","version":1,"session_id":"s1","namespace":"",
    "messages":[
    {"role":"user","content":"Refund?"},
    {"role":"assistant","content":"Sent."}
    ],
    "state":null,
    "generation":2,"lsn":7, … ,"checksum":"0f…"}

JSON escapes line breaks inside strings, so a line break in the file is always one of ours: the
parts are found without parsing, the caller's bytes are never re-encoded, and `grep`, `diff` and
`tail` work. The checksum (BLAKE2b, 16 bytes, hex) covers every byte before `,"checksum"`.
"""

from __future__ import annotations

from dataclasses import field, replace
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

from sessionkeeper.answers import Saved
from sessionkeeper.errors import (
    CorruptDocument,
    InvalidNamespace,
    InvalidSessionId,
    InvalidValue,
    NewerVersion,
)
from sessionkeeper.fixed import fixed
from sessionkeeper.keys import key_of, split_key
from sessionkeeper.layout import check_namespace, check_session_id
from sessionkeeper.session import (
    Annotation,
    Session,
    SessionEvent,
    SessionInfo,
    check_tags,
    iso_text,
    parse_moment,
)
from sessionkeeper.storage.codec import StrictError, decode, decode_strict, encode, encode_own
from sessionkeeper.storage.lines import (
    Lines,
    Pieces,
    encode_lines,
    interleaved,
    last_lines,
    weight,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from sessionkeeper.session import Chunk

FORMAT: Final = "sessionkeeper"
VERSION: Final = 1

_HEAD = b'{"format":"%b","version":%d,"session_id":%%b,"namespace":%%b' % (FORMAT.encode(), VERSION)
_HEAD_END = b",\n"
_MESSAGES = b'"messages":[\n'
_MESSAGES_END = b"],\n"
_STATE = b'"state":'
_CHECKSUM = b',"checksum":"'
_TAIL_LENGTH = len(_CHECKSUM) + 32 + len(b'"}\n')

# Keys given by callers are remembered for so many changes of their session.
MAX_REMEMBERED_KEYS = 64

_UNIX_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
EMPTY_OBJECT = b"{}"
EMPTY_LIST = b"[]"
NULL = b"null"


@fixed
class Request:
    """A change that this version of the document contains, so that it is never applied twice.

    Attributes:
        request_id: Given by the store for every command, or by the caller as idempotency key.
        generation: The generation it made.
        message_count: The number of messages it left.
        keyed: Whether the caller gave it; such are remembered, others only until the next turn.
    """

    request_id: str
    generation: int
    message_count: int
    keyed: bool

    def answer(self, key: str) -> Saved:
        """The answer its caller was, or should have been, given."""
        return Saved.of(key, self.generation, self.message_count)


@fixed
class Record:
    """All that the actor assigns to one version of a session: the last line of its file.

    Its `session_id` is the session's key, here and wherever records go; see `keys`.
    """

    session_id: str
    generation: int
    lsn: int
    created_at: datetime
    updated_at: datetime
    completed_at: datetime | None
    persisted_until: datetime | None
    status: str | None
    title: str | None
    summary: str | None
    tags: tuple[str, ...]
    message_count: int
    total_cost: float
    metadata: bytes = EMPTY_OBJECT
    requests: tuple[Request, ...] = ()
    extra: bytes = EMPTY_OBJECT
    pinned: bool = False

    def advanced(  # noqa: PLR0917 - given by position, see below
        self,
        lsn: int,
        at: datetime,
        until: datetime | None,
        message_count: int,
        total_cost: float,
        requests: tuple[Request, ...],
    ) -> Record:
        """The next generation, with what every change changes.

        Args:
            lsn: The number of the change.
            at: When.
            until: Before when no retention removes it.
            message_count: How many messages there are.
            total_cost: What they cost.
            requests: The changes it remembers.
        """
        # By position: `dataclasses.replace` takes three times as long, on every append.
        return Record(
            self.session_id,
            self.generation + 1,
            lsn,
            self.created_at,
            at,
            self.completed_at,
            until,
            self.status,
            self.title,
            self.summary,
            self.tags,
            message_count,
            total_cost,
            self.metadata,
            requests,
            self.extra,
            self.pinned,
        )

    @property
    def key(self) -> str:
        """The key of the session."""
        return self.session_id

    def info(self) -> SessionInfo:
        """A copy for callers."""
        namespace, session_id = split_key(self.session_id)
        return SessionInfo(
            session_id=session_id,
            namespace=namespace,
            generation=self.generation,
            lsn=self.lsn,
            created_at=self.created_at,
            updated_at=self.updated_at,
            completed_at=self.completed_at,
            persisted_until=self.persisted_until,
            status=self.status,
            title=self.title,
            summary=self.summary,
            tags=self.tags,
            message_count=self.message_count,
            total_cost=self.total_cost,
            metadata=decode(self.metadata),
            pinned=self.pinned,
        )


@fixed
class Document:
    r"""One version of a session as encoded bytes.

    Attributes:
        record: What the actor assigned.
        chunks: The messages, see `lines`.
        state: The application's value, encoded.
        annotations: The list of what was noted about the session, encoded.
        events: The list of what happened in it, encoded.
    """

    record: Record
    chunks: Lines = field(default_factory=Lines)
    state: bytes = NULL
    annotations: bytes = EMPTY_LIST
    events: bytes = EMPTY_LIST

    @property
    def size(self) -> int:
        """Bytes of all that may be large, for the cache's bound."""
        notes = len(self.annotations) + len(self.events) - 2 * len(EMPTY_LIST)
        return self.chunks.size + len(self.state) + notes + len(self.record.metadata)

    def placed(self, namespace: str) -> Document:
        """The same session as one of that namespace."""
        before, session_id = split_key(self.record.session_id)
        if before == namespace:
            return self
        return replace(self, record=replace(self.record, session_id=key_of(namespace, session_id)))

    def with_appended(self, more: Sequence[Chunk], record: Record) -> Document:
        """The next version, with more message lines at its end."""
        chunks = self.chunks.extended(more)
        return Document(record, chunks, self.state, self.annotations, self.events)

    def session(
        self,
        last: int | None = None,
        revive: Callable[[Any], Any] | None = None,
    ) -> Session:
        """A session object of its own for a caller.

        Args:
            last: Only so many messages, from the end; None for all.
            revive: Makes values what they were before they were encoded.
        """
        chunks: Sequence[Chunk] = self.chunks
        if last is not None and last < self.record.message_count:
            # No message holds a line break, so the lines before need not be decoded.
            chunks = last_lines(self.chunks, last)
        return Session(
            self.record.info(),
            chunks,
            self.state,
            annotations=self.annotations,
            events=self.events,
            revive=revive,
        )


# --- writing ------------------------------------------------------------------------------


def encode_document(document: Document) -> list[Chunk]:
    """The bytes of the file, in chunks for one gathered write."""
    record = document.record
    begun = encode_beginning(record.session_id, document.chunks)
    return [*begun.parts, encode_ending(document, begun.digest)]


@fixed
class Beginning:
    """All of a file that the caller knows: everything down to the last message.

    Attributes:
        parts: Its bytes, for one gathered write.
        digest: The checksum so far.
    """

    parts: list[Chunk] = field(repr=False)
    digest: blake2b

    @property
    def length(self) -> int:
        """Bytes of all parts together."""
        return weight(self.parts)


def encode_beginning(key: str, chunks: Iterable[Chunk]) -> Beginning:
    """The bytes of a file down to its last message."""
    namespace, session_id = split_key(key)
    head = _HEAD % (encode_own(session_id), encode_own(namespace))
    parts = [head + _HEAD_END + _MESSAGES, *interleaved(chunks)]
    digest = blake2b(digest_size=16)
    for part in parts:
        digest.update(part)
    return Beginning(parts, digest)


def encode_ending(document: Document, digest: blake2b) -> bytes:
    """The bytes behind the last message.

    Args:
        document: The version.
        digest: The checksum of what stands before; it stays as it is.
    """
    ending = b"%s%s%s%s,\n%s%s" % (
        b"\n" if document.chunks else b"",
        _MESSAGES_END,
        _STATE,
        document.state,
        _encode_record(document.record),
        _encode_notes(document),
    )
    digest = digest.copy()
    digest.update(ending)
    return ending + _tail(digest.hexdigest())


def _tail(checksum: str) -> bytes:
    return _CHECKSUM + checksum.encode() + b'"}\n'


def encode_record(record: Record) -> bytes:
    """What the actor assigned to one version, as an object of its own."""
    namespace, session_id = split_key(record.session_id)
    head = b'{"session_id":%b,"namespace":%b,' % (encode_own(session_id), encode_own(namespace))
    return head + _encode_record(record) + b"}"


def _encode_record(record: Record) -> bytes:
    created_at = iso_text(record.created_at)
    new = record.updated_at is record.created_at
    fields: dict[str, Any] = {
        "generation": record.generation,
        "lsn": record.lsn,
        "created_at": created_at,
        "updated_at": created_at if new else iso_text(record.updated_at),
        "completed_at": record.completed_at and iso_text(record.completed_at),
        "persistedUntil": record.persisted_until and _unix_ms(record.persisted_until),
        "status": record.status,
        "title": record.title,
        "summary": record.summary,
        "tags": record.tags,
        "pinned": record.pinned,
        "message_count": record.message_count,
        "total_cost": record.total_cost,
    }
    line = encode_own(fields)[1:-1] + b',"metadata":' + record.metadata
    if record.requests:
        requests = [(r.request_id, r.generation, r.message_count, r.keyed) for r in record.requests]
        line += b',"requests":' + encode_own(requests)
    if record.extra != EMPTY_OBJECT:
        line += b"," + record.extra[1:-1]
    return line


def _encode_notes(document: Document) -> bytes:
    line = b""
    if document.annotations != EMPTY_LIST:
        line += b',"annotations":' + document.annotations
    if document.events != EMPTY_LIST:
        line += b',"events":' + document.events
    return line


def _unix_ms(moment: datetime) -> int:
    return (moment - _UNIX_EPOCH) // timedelta(milliseconds=1)


# --- reading ------------------------------------------------------------------------------


def decode_document(pieces: Sequence[bytes]) -> Document | None:
    """Read bytes that this library wrote.

    Args:
        pieces: The file's bytes, cut anywhere. Those of its messages are not copied, so the
            document holds on to them.

    Returns:
        The document, or None if the bytes do not carry a valid checksum of ours.

    Raises:
        NewerVersion: The checksum is right and the version is newer than this library.
        CorruptDocument: The checksum is right and the content is not a session all the same.
    """
    text = Pieces(pieces)
    covered = len(text) - _TAIL_LENGTH
    if covered < 0 or text[covered:] != _tail(_digest(text, covered)):
        return None
    try:
        return _decode_parts(text, covered)
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        # The checksum tells that nothing changed since, not who wrote it.
        raise CorruptDocument(f"its lines are not those of a session document: {error}") from error


def _decode_parts(text: Pieces, covered: int) -> Document:
    head_end = text.find(b"\n") + 1
    state_end = text.rfind(b"\n", covered)
    state_start = text.rfind(b"\n", state_end) + 1
    messages_start = head_end + len(_MESSAGES)
    messages_end = state_start - len(_MESSAGES_END)
    head = decode(text[: head_end - len(_HEAD_END)] + b"}")
    _check_format(head)
    if (
        text[head_end:messages_start] != _MESSAGES
        or text[messages_end:state_start] != _MESSAGES_END
        or text[state_start : state_start + len(_STATE)] != _STATE
    ):
        raise CorruptDocument("its lines are not those of a session document")
    fields = decode(b"{" + text[state_end + 1 : covered] + b"}")
    annotations, events = _notes_of(fields)
    record = _record_of({**head, **fields}, message_count=int(fields["message_count"]))
    state = text[state_start + len(_STATE) : state_end - 1]
    chunks = Lines(text.lines(messages_start, messages_end - 1))
    return Document(record, chunks, state, annotations, events)


def decode_record(data: bytes) -> Record:
    """What `encode_record` wrote.

    Raises:
        CorruptDocument: It is nothing of the kind.
    """
    try:
        fields = decode(data)
        return _record_of(fields, message_count=int(fields["message_count"]))
    except (ValueError, TypeError, KeyError) as error:
        raise CorruptDocument(f"not a record: {error}") from error


def _digest(text: Pieces, covered: int) -> str:
    digest = blake2b(digest_size=16)
    for piece, start, end in text.spans(0, covered):
        digest.update(memoryview(piece)[start:end])
    return digest.hexdigest()


def decode_foreign(data: bytes, now: datetime) -> Document:
    """Read a document that a person, or another program, has written or edited.

    Only `format`, `version`, `session_id` and `messages` must be there; what is absent gets its
    default. Unknown fields are kept.

    Args:
        data: The file's bytes.
        now: What absent times become.

    Raises:
        CorruptDocument: It is no session document; the text says why.
        NewerVersion: It is one of a newer version.
    """
    try:
        fields = decode_strict(data)
    except StrictError as error:
        raise CorruptDocument(str(error), offset=error.offset) from error
    if not isinstance(fields, dict):
        raise CorruptDocument(f"a session document is an object, not {type(fields).__name__}")
    _check_format(fields)
    fields.pop("checksum", None)
    messages = fields.pop("messages", None)
    if not isinstance(messages, list):
        raise CorruptDocument("`messages` is not a list")
    state = encode(fields.pop("state", None))
    annotations, events = _notes_of(fields)
    fields.setdefault("created_at", iso_text(now))
    fields.setdefault("updated_at", fields["created_at"])
    record = _record_of(fields, message_count=len(messages))
    return Document(record, Lines(encode_lines(messages)), state, annotations, events)


def _notes_of(fields: dict[str, Any]) -> tuple[bytes, bytes]:
    """Take annotations and events out of the decoded fields, checking them.

    Raises:
        CorruptDocument: One is not as it should be; the text says which.
    """
    annotations, events = fields.pop("annotations", []), fields.pop("events", [])
    try:
        for number, annotation in enumerate(_typed(annotations, list, "annotations")):
            Annotation.of(annotation, f"annotations[{number}]")
        for number, event in enumerate(_typed(events, list, "events")):
            SessionEvent.of(event, f"events[{number}]")
    except TypeError as error:
        raise CorruptDocument(f"not a session: {error.args[0]}") from error
    return encode(annotations), encode(events)


def _check_format(fields: dict[str, Any]) -> None:
    if fields.get("format") != FORMAT:
        raise CorruptDocument(f"`format` is not {FORMAT!r}")
    version = fields.get("version")
    if type(version) is not int or version < 1:
        raise CorruptDocument("`version` is not a whole number above 0")
    if version > VERSION:
        raise NewerVersion(f"version {version} is newer than {VERSION}")


def _record_of(fields: dict[str, Any], *, message_count: int) -> Record:
    """Build the record from decoded fields, checking every type.

    Raises:
        CorruptDocument: A field has the wrong type; the text names it.
    """
    known = dict(fields)
    for name in ("format", "version", "message_count"):
        known.pop(name, None)
    try:
        created_at = parse_moment(known.pop("created_at"), "created_at")
        return Record(
            session_id=_key(known.pop("session_id", None), known.pop("namespace", "")),
            generation=_whole(known.pop("generation", 1), "generation", least=1),
            lsn=_whole(known.pop("lsn", 0), "lsn", least=0),
            created_at=created_at,
            updated_at=max(parse_moment(known.pop("updated_at"), "updated_at"), created_at),
            completed_at=_optional_moment(known.pop("completed_at", None), "completed_at"),
            persisted_until=_deadline(known.pop("persistedUntil", None)),
            status=_text(known.pop("status", None), "status"),
            title=_text(known.pop("title", None), "title"),
            summary=_text(known.pop("summary", None), "summary"),
            tags=check_tags(_typed(known.pop("tags", []), list, "tags")),
            message_count=message_count,
            total_cost=_number(known.pop("total_cost", 0.0), "total_cost"),
            metadata=encode(_typed(known.pop("metadata", {}), dict, "metadata")),
            requests=_requests(known.pop("requests", [])),
            pinned=_typed(known.pop("pinned", False), bool, "pinned"),
            extra=encode(known),
        )
    except (TypeError, KeyError, InvalidSessionId, InvalidNamespace, InvalidValue) as error:
        detail = error.args[0] if error.args else error
        raise CorruptDocument(f"not a session: {detail}") from error


def _key(session_id: Any, namespace: Any) -> str:
    checked = check_session_id(session_id)
    return checked if namespace == "" else key_of(check_namespace(namespace), checked)


def _typed(value: Any, kind: type, name: str) -> Any:
    if type(value) is not kind:
        raise TypeError(f"`{name}` is {type(value).__name__}, not {kind.__name__}")
    return value


def _text(value: Any, name: str) -> str | None:
    return None if value is None else str(_typed(value, str, name))


def _whole(value: Any, name: str, *, least: int) -> int:
    number = int(_typed(value, int, name))
    if number < least:
        raise TypeError(f"`{name}` is {number}, less than {least}")
    return number


def _number(value: Any, name: str) -> float:
    if type(value) not in (int, float):
        raise TypeError(f"`{name}` is {type(value).__name__}, not a number")
    return float(value)


def _optional_moment(value: Any, name: str) -> datetime | None:
    return None if value is None else parse_moment(value, name)


def _deadline(value: Any) -> datetime | None:
    if value is None:
        return None
    try:
        return _UNIX_EPOCH + timedelta(milliseconds=_whole(value, "persistedUntil", least=0))
    except OverflowError as error:
        raise TypeError("`persistedUntil` is out of range") from error


def _requests(value: Any) -> tuple[Request, ...]:
    found: list[Request] = []
    for entry in _typed(value, list, "requests"):
        match entry:
            case [str() as request_id, int() as generation, int() as count, bool() as keyed]:
                found.append(Request(request_id, generation, count, keyed))
            case _:
                raise TypeError("`requests` holds something else than requests")
    return tuple(found)
