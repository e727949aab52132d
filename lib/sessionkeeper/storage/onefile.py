r"""The format of the single-file layout: all sessions in one JSON object that people can read.

    {"format":"sessionkeeper-sessions","version":1,"sessions":[
    {"format":"sessionkeeper", … ,"checksum":"0f…"}
    ,
    {"format":"sessionkeeper", … ,"checksum":"a1…"}
    ]}

Each session is a whole document, byte for byte as in a file of its own. A line of one comma never
occurs inside a document, so the file is cut without being parsed, and what has not changed is
copied and never encoded again.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import orjson

from sessionkeeper.errors import (
    CorruptDocument,
    InvalidNamespace,
    InvalidSessionId,
    InvalidValue,
    NewerVersion,
)
from sessionkeeper.keys import key_of, split_key
from sessionkeeper.layout import check_key, check_session_id
from sessionkeeper.storage.codec import StrictError, decode_strict, encode
from sessionkeeper.storage.documents import FORMAT as DOCUMENT_FORMAT
from sessionkeeper.storage.documents import VERSION as DOCUMENT_VERSION
from sessionkeeper.storage.documents import decode_document, decode_foreign, encode_document
from sessionkeeper.storage.lines import weight

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime

    from sessionkeeper.session import Chunk
    from sessionkeeper.storage.documents import Document, Record

FORMAT: Final = "sessionkeeper-sessions"
VERSION: Final = 1

_HEAD: Final = b'{"format":"%s","version":%d,"sessions":[\n' % (FORMAT.encode(), VERSION)
_SEPARATOR: Final = b",\n"
_END: Final = b"]}\n"

_VERSION_OF_FILE = re.compile(
    rb'\s*\{\s*"format"\s*:\s*"%s"\s*,\s*"version"\s*:\s*(\d+)' % FORMAT.encode()
)
_DOCUMENT_START = re.compile(rb'^\{"format":"sessionkeeper",', re.MULTILINE)
_DOCUMENT_END = re.compile(rb',"checksum":"[0-9a-f]{32}"\}$', re.MULTILINE)
_ID = re.compile(rb'"session_id"\s*:\s*("(?:[^"\\]|\\.)*")')
_NAMESPACE = re.compile(rb'"namespace"\s*:\s*("(?:[^"\\]|\\.)*")')
# Of a damaged part; the id stands at the very beginning of every document.
_HEAD_OF_DOCUMENT: Final = 4096
# A message may look like the beginning of a document: so many are tried for each end.
_ATTEMPTS: Final = 16
_CHECKSUM: Final = slice(-len('0"}\n') - 31, -len('"}\n'))


@dataclass(frozen=True, slots=True)
class Slot:
    """One session in the file.

    Attributes:
        document: The session.
        parts: Its bytes as they are written.
        ours: Whether it carries our checksum; else a person, or another program, wrote it.
        size: How many bytes it is written as.
    """

    document: Document
    parts: tuple[Chunk, ...] = field(repr=False)
    ours: bool = True
    size: int = field(init=False)

    def __post_init__(self) -> None:
        # Counted once: each commit adds up those of all sessions.
        object.__setattr__(self, "size", weight(self.parts))

    @classmethod
    def of(cls, document: Document) -> Slot:
        """A version that is to be written."""
        return cls(document, tuple(encode_document(document)))

    @property
    def record(self) -> Record:
        """What was assigned to the version."""
        return self.document.record

    @property
    def checksum(self) -> str:
        """The checksum at its end."""
        return bytes(memoryview(self.parts[-1])[_CHECKSUM]).decode()


@dataclass(frozen=True, slots=True)
class Damage:
    """A part of the file that is no session, or none that can be read.

    Attributes:
        detail: What is wrong, in words.
        data: Its bytes.
        session_id: Whose it seems to be.
        newer: Whether it is of a newer version; such are left as they are.
    """

    detail: str
    data: bytes = field(repr=False)
    session_id: str | None = None
    newer: bool = False


@dataclass(frozen=True, slots=True)
class Contents:
    """What a file holds.

    Attributes:
        slots: The sessions that can be read, in the order of the file.
        damaged: What stands between them.
        torn: Why the file as a whole cannot be read, with sessions missing perhaps; or None.
    """

    slots: list[Slot]
    damaged: list[Damage] = field(default_factory=list)
    torn: str | None = None

    @property
    def whole(self) -> bool:
        """Whether each byte of it is what a store wrote."""
        return self.torn is None and not self.damaged and all(slot.ours for slot in self.slots)


def encode_file(sessions: Iterable[Sequence[Chunk]]) -> list[Chunk]:
    """The bytes of a file, given those of each session, for one gathered write."""
    parts: list[Chunk] = [_HEAD]
    for number, session in enumerate(sessions):
        if number:
            parts.append(_SEPARATOR)
        parts += session
    parts.append(_END)
    return parts


def decode_file(data: bytes, now: datetime) -> Contents:
    """Read a file, whoever wrote it, and whatever happened to it.

    Args:
        data: Its bytes.
        now: What absent times become.

    Raises:
        NewerVersion: A newer version of this library wrote it.
    """
    head = _VERSION_OF_FILE.match(data)
    if head is not None:
        _check_version(int(head[1]))
    framed = data.startswith(_HEAD) and data.endswith(_END)
    contents = _cut(data, now) if framed else Contents([], torn="it is cut off, or no JSON")
    if framed and all(damage.newer for damage in contents.damaged):
        return contents
    # Somebody laid it out anew, and what was cut are no documents.
    parsed = _parsed(data, now, contents.slots)
    if parsed is not None:
        return parsed
    if not framed:
        return Contents(list(_rescued(data)), torn=contents.torn)
    for damage in contents.damaged:
        contents.slots.extend(_rescued(damage.data))
    return contents


def find_session(data: bytes, session_id: str) -> Slot | None:
    """One session in a file that a store wrote, without reading the others.

    Returns:
        The session; None if it is not in there.

    Raises:
        CorruptDocument: It is damaged, or the file is cut off, or not as a store writes it.
    """
    namespace, bare = split_key(session_id)
    start = b'{"format":"%s","version":%d,"session_id":%s,"namespace":%s,' % (
        DOCUMENT_FORMAT.encode(),
        DOCUMENT_VERSION,
        encode(bare),
        encode(namespace),
    )
    at = data.find(b"\n" + start)
    found = at >= 0
    while at >= 0:
        end = data.find(b"\n" + _SEPARATOR, at)
        segment = data[at + 1 : end + 1 if end >= 0 else -len(_END)]
        document = decode_document([segment])
        if document is not None:
            return Slot(document, (segment,))
        at = data.find(b"\n" + start, at + 1)
    if found:
        raise CorruptDocument("it is not as it was written", session_id=session_id)
    if not (data.startswith(_HEAD) and data.endswith(_END)):
        raise CorruptDocument("the file is cut off, or was laid out anew", session_id=session_id)
    return None


def _check_version(version: object) -> None:
    if type(version) is int and version > VERSION:
        raise NewerVersion(f"version {version} of the file is newer than {VERSION}")


def _cut(data: bytes, now: datetime) -> Contents:
    body = data[len(_HEAD) : -len(_END)]
    contents = Contents([])
    for piece in body.split(b"\n" + _SEPARATOR) if body else ():
        segment = piece if piece.endswith(b"\n") else piece + b"\n"
        found = _read(segment, now)
        if isinstance(found, Slot):
            contents.slots.append(found)
        else:
            contents.damaged.append(found)
    return contents


def _read(segment: bytes, now: datetime) -> Slot | Damage:
    try:
        document = decode_document([segment])
        if document is not None:
            return Slot(document, (segment,))
        document = decode_foreign(segment, now)
    except NewerVersion as error:
        return Damage(str(error.args[0]), segment, _id_in(segment), newer=True)
    except CorruptDocument as error:
        where = "" if error.offset is None else f" at byte {error.offset}"
        return Damage(f"{error.args[0]}{where}", segment, _id_in(segment))
    return Slot(document, tuple(encode_document(document)), ours=False)


def _id_in(segment: bytes) -> str | None:
    head = segment[:_HEAD_OF_DOCUMENT]
    found, placed = _ID.search(head), _NAMESPACE.search(head)
    if found is None:
        return None
    try:
        session_id = check_session_id(orjson.loads(found[1]))
        namespace = "" if placed is None else orjson.loads(placed[1])
        return session_id if namespace == "" else check_key(key_of(namespace, session_id))
    except (orjson.JSONDecodeError, TypeError, InvalidSessionId, InvalidNamespace):
        return None


def _parsed(data: bytes, now: datetime, cut: Sequence[Slot]) -> Contents | None:
    """Read a file as JSON in any layout; None if it is not a JSON object of sessions."""
    try:
        value = decode_strict(data)
    except StrictError:
        return None
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        return None
    _check_version(value.get("version"))
    sessions = value.get("sessions")
    if not isinstance(sessions, list):
        return None
    ours = {slot.record.session_id: slot for slot in cut if slot.ours}
    contents = Contents([])
    for fields in sessions:
        found = _of_fields(fields, now)
        if isinstance(found, Damage):
            contents.damaged.append(found)
            continue
        before = ours.get(found.record.session_id)
        same = before is not None and before.document == found.document
        contents.slots.append(before if same and before is not None else found)
    return contents


def _of_fields(fields: Any, now: datetime) -> Slot | Damage:
    try:
        segment = encode(fields) + b"\n"
    except InvalidValue as error:
        return Damage(str(error.args[0]), repr(fields).encode())
    found = _read(segment, now)
    if isinstance(found, Damage):
        return found
    # Laid out anew, and not one value of it changed.
    ours = isinstance(fields, dict) and fields.get("checksum") == found.checksum
    return Slot(found.document, found.parts, ours)


def _rescued(data: bytes) -> Iterator[Slot]:
    """The documents with a valid checksum, wherever in the bytes they stand."""
    starts = [match.start() for match in _DOCUMENT_START.finditer(data)]
    begin = 0
    for match in _DOCUMENT_END.finditer(data):
        candidates = starts[bisect_left(starts, begin) : bisect_left(starts, match.start())]
        for start in reversed(candidates[-_ATTEMPTS:]):
            segment = data[start : match.end()] + b"\n"
            try:
                document = decode_document([segment])
            except (CorruptDocument, NewerVersion):
                continue
            if document is not None:
                yield Slot(document, (segment,))
                begin = match.end()
                break
