r"""Journal records: one change of one session each.

The first byte says what it is:

    P  the document, byte for byte as in its file
    R  {"session_id", "lsn", "temporary"}: a document too large for the journal, durable in a
       temporary of that name, or in the session's file once it was renamed
    A  [session_id, base_lsn, lsn, generation, updated_at, persisted_until, message_count,
       total_cost, requests] and a line break, then the message lines that were added
    T  {"session_id", "lsn", "base_lsn", "reason", "at", "request_id"}: moved to the trash
    F  [session_id, lsn]: its file was removed by hand

A session_id is the session's key: outside the default namespace with that and a `/` before the id.
Times are microseconds since 1970 in UTC. A record is applied to a session whose LSN is lower than
its own, so applying it twice changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import orjson

from sessionkeeper.errors import CorruptDocument, NewerVersion
from sessionkeeper.layout import check_key
from sessionkeeper.storage.backend import Append
from sessionkeeper.storage.documents import (
    MAX_REMEMBERED_KEYS,
    Request,
    decode_document,
)
from sessionkeeper.storage.lines import interleaved

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sessionkeeper.session import Chunk
    from sessionkeeper.storage.backend import Trash
    from sessionkeeper.storage.documents import Document, Record

_PUT: Final = b"P"
_REFERENCE: Final = b"R"
_APPEND: Final = b"A"
_TRASH: Final = b"T"
_FORGET: Final = b"F"

_UNIX_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class PutEntry:
    """A whole version."""

    document: Document

    @property
    def session_id(self) -> str:
        """Whose it is."""
        return self.document.record.session_id

    @property
    def lsn(self) -> int:
        """The number of the change."""
        return self.document.record.lsn


@dataclass(frozen=True, slots=True)
class ReferenceEntry:
    """A whole version that lies in a temporary, or was renamed from it."""

    session_id: str
    lsn: int
    temporary: str


@dataclass(frozen=True, slots=True)
class AppendEntry:
    """Messages added to the version `base_lsn`."""

    session_id: str
    base_lsn: int
    lsn: int
    generation: int
    updated_at: datetime
    persisted_until: datetime | None
    message_count: int
    total_cost: float
    requests: tuple[Request, ...]
    lines: bytes

    def upon(self, base: Record) -> Append:
        """The change it is upon that version."""
        kept = tuple([r for r in base.requests if r.keyed][-MAX_REMEMBERED_KEYS:])
        record = replace(
            base,
            generation=max(self.generation, base.generation + 1),
            lsn=self.lsn,
            updated_at=max(self.updated_at, base.updated_at),
            persisted_until=self.persisted_until,
            # What is there counts, should the version before not be the one it was made for.
            message_count=base.message_count + self.added,
            total_cost=self.total_cost,
            requests=(*kept, *self.requests),
        )
        chunks = (self.lines,) if self.lines else ()
        return Append(record, base, chunks)

    @property
    def added(self) -> int:
        """How many messages it adds."""
        return self.lines.count(b"\n") + 1 if self.lines else 0


@dataclass(frozen=True, slots=True)
class TrashEntry:
    """A session moved to the trash.

    Attributes:
        repeated: Whether it was written again because the medium may have refused the move. Then
            a file in the old place is the one that was removed, not one put back by hand.
    """

    session_id: str
    lsn: int
    base_lsn: int
    reason: str
    at: datetime
    request_id: str
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class ForgetEntry:
    """A session whose file was removed by hand."""

    session_id: str
    lsn: int


Entry = PutEntry | ReferenceEntry | AppendEntry | TrashEntry | ForgetEntry


def put_entry(document: Sequence[Chunk]) -> list[Chunk]:
    """The record of a document, given the pieces of its file."""
    return [_PUT, *document]


def reference_entry(session_id: str, lsn: int, temporary: str) -> list[Chunk]:
    """The record of a document that lies in a temporary."""
    fields = {"session_id": session_id, "lsn": lsn, "temporary": temporary}
    return [_REFERENCE, orjson.dumps(fields)]


def append_entry(change: Append) -> list[Chunk]:
    """The record of added messages."""
    record = change.record
    deadline = record.persisted_until
    fields = [
        record.session_id,
        change.base.lsn,
        record.lsn,
        record.generation,
        _microseconds(record.updated_at),
        None if deadline is None else _microseconds(deadline),
        record.message_count,
        record.total_cost,
        [
            [r.request_id, r.generation, r.message_count, r.keyed]
            for r in record.requests
            # The others are in the versions before.
            if r.generation > change.base.generation
        ],
    ]
    return [_APPEND, orjson.dumps(fields), b"\n", *interleaved(change.chunks)]


def trash_entry(change: Trash, *, repeated: bool = False) -> list[Chunk]:
    """The record of a removal; see `TrashEntry`."""
    fields = {
        "session_id": change.record.session_id,
        "lsn": change.lsn,
        "base_lsn": change.record.lsn,
        "reason": change.reason,
        "at": _microseconds(change.at),
        "request_id": change.request_id,
        "repeated": repeated,
    }
    return [_TRASH, orjson.dumps(fields)]


def forget_entry(session_id: str, lsn: int) -> list[Chunk]:
    """The record of a file removed by hand."""
    return [_FORGET, orjson.dumps([session_id, lsn])]


def decode_entry(body: bytes) -> Entry:
    """Read one record.

    Raises:
        CorruptDocument: It is none; the text says why.
        NewerVersion: A newer version of this library wrote it.
    """
    kind, content = body[:1], memoryview(body)[1:]
    try:
        match kind:
            case b"P":
                document = decode_document([bytes(content)])
                if document is None:
                    raise CorruptDocument("a document in the journal has no valid checksum")
                return PutEntry(document)
            case b"R":
                return _reference(orjson.loads(content))
            case b"A":
                return _append(bytes(content))
            case b"T":
                return _trash(orjson.loads(content))
            case b"F":
                session_id, lsn = orjson.loads(content)
                return ForgetEntry(check_key(session_id), _whole(lsn))
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise CorruptDocument(f"a journal record cannot be read: {error}") from error
    raise NewerVersion(f"a journal record of the unknown kind {kind!r}")


def _append(content: bytes) -> AppendEntry:
    head, _, lines = content.partition(b"\n")
    (
        session_id,
        base_lsn,
        lsn,
        generation,
        updated_at,
        persisted_until,
        message_count,
        total_cost,
        requests,
    ) = orjson.loads(head)
    return AppendEntry(
        check_key(session_id),
        _whole(base_lsn),
        _whole(lsn),
        _whole(generation),
        _moment(updated_at),
        None if persisted_until is None else _moment(persisted_until),
        _whole(message_count),
        float(total_cost),
        tuple(Request(_text(r), _whole(g), _whole(c), bool(keyed)) for r, g, c, keyed in requests),
        lines,
    )


def _reference(fields: dict[str, Any]) -> ReferenceEntry:
    temporary = _text(fields["temporary"])
    if not temporary or "/" in temporary or "\0" in temporary or temporary.startswith("."):
        raise ValueError("a temporary outside its folder")
    session_id = check_key(fields["session_id"])
    return ReferenceEntry(session_id, _whole(fields["lsn"]), temporary)


def _trash(fields: dict[str, Any]) -> TrashEntry:
    return TrashEntry(
        check_key(fields["session_id"]),
        _whole(fields["lsn"]),
        _whole(fields["base_lsn"]),
        _text(fields["reason"]),
        _moment(fields["at"]),
        _text(fields["request_id"]),
        fields.get("repeated", False) is True,
    )


def _microseconds(moment: datetime) -> int:
    return (moment - _UNIX_EPOCH) // _MICROSECOND


def _moment(value: object) -> datetime:
    return _UNIX_EPOCH + _whole(value) * _MICROSECOND


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} where a text should be")
    return value


def _whole(value: object) -> int:
    if type(value) is not int:
        raise TypeError(f"{type(value).__name__} where a whole number should be")
    return value
