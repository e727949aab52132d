"""Journal records: read as written, or refused with a typed error, whatever the bytes."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Any

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sessionkeeper import CorruptDocument, NewerVersion
from sessionkeeper.layout import hashed_stem, plain_stem
from sessionkeeper.storage.backend import Append, Trash
from sessionkeeper.storage.documents import (
    Document,
    Request,
    decode_document,
    decode_foreign,
    encode_document,
)
from sessionkeeper.storage.entries import (
    AppendEntry,
    Entry,
    ForgetEntry,
    PutEntry,
    ReferenceEntry,
    TrashEntry,
    append_entry,
    decode_entry,
    forget_entry,
    put_entry,
    reference_entry,
    trash_entry,
)
from sessionkeeper.storage.lines import encode_lines

NOW = datetime(2025, 1, 1, 12, tzinfo=UTC)

# Device names of Windows (LPT0, …) are refused; with a first letter of its own none comes up.
ids = st.text(st.characters(categories=["L", "N"]), max_size=10).map(lambda text: f"s{text}")
positive = st.integers(1, 2**62)
moments = st.datetimes(
    datetime(1970, 1, 2),  # noqa: DTZ001 - hypothesis adds the zone
    datetime(9000, 1, 1),  # noqa: DTZ001 - hypothesis adds the zone
    timezones=st.just(UTC),
)
messages = st.lists(st.text(max_size=20).filter(str.isprintable), min_size=1, max_size=4)
requests = st.builds(Request, ids, st.integers(1, 2**31), st.integers(0, 2**31), st.booleans())


def document(session_id: str = "s1", lsn: int = 3, content: Any = ("hello",)) -> Document:
    fields = {
        "format": "sessionkeeper",
        "version": 1,
        "session_id": session_id,
        "messages": list(content),
        "generation": 2,
        "lsn": lsn,
        "requests": [["request-1", 2, 1, True], ["request-2", 2, 1, False]],
    }
    return decode_foreign(json.dumps(fields).encode(), NOW)


def joined(pieces: list[Any]) -> bytes:
    return b"".join(pieces)


def checksummed(content: bytes) -> bytes:
    """Any content with the checksum that makes it one of ours."""
    return content + b',"checksum":"%s"}\n' % blake2b(content, digest_size=16).hexdigest().encode()


def an_append(base: Document, added: tuple[str, ...] = ("more", "and more")) -> Append:
    record = replace(
        base.record,
        generation=base.record.generation + 1,
        lsn=base.record.lsn + 1,
        updated_at=NOW + timedelta(seconds=5),
        persisted_until=NOW + timedelta(days=5, milliseconds=7),
        message_count=base.record.message_count + len(added),
        total_cost=1.25,
        requests=(base.record.requests[0], Request("request-3", 3, 3, keyed=False)),
    )
    return Append(record, base.record, encode_lines(added))


def valid_records() -> list[bytes]:
    base = document()
    removal = Trash(base.record, 9, "deleted by hand", NOW, "request-9")
    return [
        joined(put_entry(encode_document(base))),
        joined(reference_entry("s1", 4, "123-4.tmp")),
        joined(append_entry(an_append(base))),
        joined(trash_entry(removal)),
        joined(forget_entry("s1", 12)),
    ]


# --- what is written is read --------------------------------------------------------------


@given(ids, positive, messages)
def test_a_document_is_read_as_it_was_written(session_id: str, lsn: int, content: Any) -> None:
    whole = document(session_id, lsn, content)
    entry = decode_entry(joined(put_entry(encode_document(whole))))
    assert isinstance(entry, PutEntry)
    assert entry.document.record == whole.record
    assert joined(encode_document(entry.document)) == joined(encode_document(whole))
    assert (entry.session_id, entry.lsn) == (session_id, lsn)


@given(messages, moments, st.none() | moments, st.floats(0, 1e9), st.lists(requests, max_size=3))
def test_an_append_makes_the_version_that_was_committed(
    added: list[str],
    updated_at: datetime,
    until: datetime | None,
    cost: float,
    made: list[Request],
) -> None:
    whole = document()
    base = whole.record
    kept = tuple(r for r in base.requests if r.keyed)
    new = tuple(replace(r, generation=base.generation + 1) for r in made)
    record = replace(
        base,
        generation=base.generation + 1,
        lsn=base.lsn + 7,
        updated_at=max(updated_at, base.updated_at),
        persisted_until=until,
        message_count=base.message_count + len(added),
        total_cost=cost,
        requests=kept + new,
    )
    change = Append(record, base, encode_lines(added))
    entry = decode_entry(joined(append_entry(change)))
    assert isinstance(entry, AppendEntry)
    assert entry.added == len(added)
    again = entry.upon(base)
    assert again.record == record
    assert again.base == base
    appended = whole.with_appended(again.chunks, again.record)
    assert appended.session().messages == ["hello", *added]


def test_the_other_kinds_are_read_as_they_were_written() -> None:
    _, reference, _, removal, forgotten = map(decode_entry, valid_records())
    assert reference == ReferenceEntry("s1", 4, "123-4.tmp")
    assert removal == TrashEntry("s1", 9, 3, "deleted by hand", NOW, "request-9")
    assert forgotten == ForgetEntry("s1", 12)


def test_an_append_of_nothing_adds_nothing() -> None:
    entry = decode_entry(joined(append_entry(an_append(document(), ()))))
    assert isinstance(entry, AppendEntry)
    assert entry.added == 0
    assert entry.upon(document().record).chunks == ()


def test_an_append_upon_another_version_than_it_was_made_for_counts_what_is_there() -> None:
    entry = decode_entry(joined(append_entry(an_append(document()))))
    assert isinstance(entry, AppendEntry)
    other = replace(
        document().record,
        generation=7,
        message_count=10,
        updated_at=NOW + timedelta(days=1),
    )
    record = entry.upon(other).record
    assert (record.generation, record.message_count) == (8, 12)
    assert record.updated_at == other.updated_at, "time does not go back"
    assert record.lsn == entry.lsn


# --- whatever the bytes -------------------------------------------------------------------


def read(body: bytes) -> Entry | None:
    """A record that can be used, or None; anything but the two typed errors fails the test."""
    try:
        entry = decode_entry(body)
    except (CorruptDocument, NewerVersion):
        return None
    # What recovery does with it must not fail either.
    plain_stem(entry.session_id)
    hashed_stem(entry.session_id)
    if isinstance(entry, ReferenceEntry):
        assert "/" not in entry.temporary
        assert "\0" not in entry.temporary
        assert not entry.temporary.startswith(".")
    if isinstance(entry, AppendEntry):
        change = entry.upon(document().record)
        joined(encode_document(document().with_appended(change.chunks, change.record)))
    return entry


@given(st.binary(max_size=200))
@example(b"")
def test_arbitrary_bytes_are_refused_with_a_typed_error(body: bytes) -> None:
    read(body)


@given(st.sampled_from(b"PRATF"), st.binary(max_size=100))
def test_arbitrary_content_of_every_kind_is_refused_with_a_typed_error(
    kind: int,
    content: bytes,
) -> None:
    assert read(bytes([kind]) + content) is None


scalars = st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=6)
json_values = st.recursive(
    st.none() | scalars,
    lambda inner: st.lists(inner, max_size=10) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=12,
)


@settings(max_examples=200)
@given(st.sampled_from([b"R", b"A", b"T", b"F"]), json_values, st.binary(max_size=10))
def test_json_of_any_shape_is_refused_with_a_typed_error(
    kind: bytes,
    value: Any,
    rest: bytes,
) -> None:
    try:
        content = orjson.dumps(value)
    except TypeError:
        return  # a lone surrogate
    read(kind + content)
    read(kind + content + b"\n" + rest)


@settings(max_examples=200)
@given(st.sampled_from([1, 2, 3, 4]), st.data())
def test_a_valid_record_with_one_value_changed_is_used_or_refused(
    index: int,
    data: st.DataObject,
) -> None:
    body = valid_records()[index]
    head, _, rest = body[1:].partition(b"\n")
    fields = orjson.loads(head)
    keys = list(fields) if isinstance(fields, dict) else range(len(fields))
    fields[data.draw(st.sampled_from(keys))] = data.draw(json_values)
    try:
        changed = orjson.dumps(fields)
    except TypeError:
        return  # a lone surrogate
    read(body[:1] + changed + (b"\n" + rest if rest else b""))


@settings(max_examples=200)
@given(st.sampled_from([0, 1, 2, 3, 4]), st.data())
def test_a_valid_record_with_bytes_changed_cut_or_doubled_is_used_or_refused(
    index: int,
    data: st.DataObject,
) -> None:
    body = bytearray(valid_records()[index])
    at = data.draw(st.integers(0, len(body) - 1))
    match data.draw(st.sampled_from(["flip", "cut", "insert", "double"])):
        case "flip":
            body[at] ^= 1 << data.draw(st.integers(0, 7))
        case "cut":
            del body[at:]
        case "insert":
            body[at:at] = data.draw(st.binary(max_size=8))
        case _:
            body += body[at:]
    entry = read(bytes(body))
    if index == 0 and entry is not None:
        assert bytes(body) == valid_records()[0], "a document carries a checksum"


@settings(max_examples=200)
@given(st.data())
def test_a_document_with_a_valid_checksum_and_any_content_is_used_or_refused(
    data: st.DataObject,
) -> None:
    """The checksum proves that nothing changed, not who wrote it."""
    content = bytearray(joined(encode_document(document())).partition(b',"checksum"')[0])
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(content) - 1))
        match data.draw(st.sampled_from(["flip", "cut", "insert"])):
            case "flip":
                content[at] ^= 1 << data.draw(st.integers(0, 7))
            case "cut":
                del content[at : at + data.draw(st.integers(0, 40))]
            case _:
                content[at:at] = data.draw(st.binary(max_size=8))
        if not content:
            break
    read(b"P" + checksummed(bytes(content)))
    with contextlib.suppress(CorruptDocument, NewerVersion):  # in a session's file
        decode_document([checksummed(bytes(content))])


EMPTY = (
    b'{"format":"sessionkeeper","version":1,"session_id":"s1","namespace":"",\n'
    b'"messages":[\n],\n"state":null,\n"generation":1'
)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"{}\n",
        b"\n\n\n\n",
        EMPTY,
        EMPTY + b',"message_count":1e300',
        EMPTY + b',"message_count":null',
    ],
)
def test_a_checksum_around_nonsense_is_refused(content: bytes) -> None:
    with pytest.raises(CorruptDocument):
        decode_entry(b"P" + checksummed(content))
    with pytest.raises(CorruptDocument):
        decode_document([checksummed(content)])


@pytest.mark.parametrize(
    "session_id",
    ["", "../escape", "a/b/c", "a./b", "nul/b", "a/", "/b", "nul", ".hidden", "x" * 5000],
)
def test_an_id_that_no_session_can_have_is_refused(session_id: str) -> None:
    for index in (1, 3):
        fields = orjson.loads(valid_records()[index][1:])
        fields["session_id"] = session_id
        with pytest.raises(CorruptDocument):
            decode_entry(valid_records()[index][:1] + orjson.dumps(fields))
    with pytest.raises(CorruptDocument):
        decode_entry(b"F" + orjson.dumps([session_id, 1]))
    head, _, lines = valid_records()[2][1:].partition(b"\n")
    values = [session_id, *orjson.loads(head)[1:]]
    with pytest.raises(CorruptDocument):
        decode_entry(b"A" + orjson.dumps(values) + b"\n" + lines)


@pytest.mark.parametrize("name", ["../../s1.json", "/etc/passwd", ".hidden", "..", "a\0b", ""])
def test_a_temporary_outside_its_folder_is_refused(name: str) -> None:
    with pytest.raises(CorruptDocument):
        decode_entry(joined(reference_entry("s1", 1, name)))


def test_what_a_newer_version_wrote_is_told_from_damage() -> None:
    with pytest.raises(NewerVersion):
        decode_entry(b"Z[]")
    newer = joined(encode_document(document())).replace(b'"version":1', b'"version":2')
    with pytest.raises(NewerVersion):
        decode_entry(b"P" + checksummed(newer.partition(b',"checksum"')[0]))


def test_deep_nesting_neither_hangs_nor_overflows() -> None:
    for deep in (b"[" * 10**6, b'{"a":' * 10**5, b"[" * 10**5 + b"]" * 10**5):
        for kind in (b"R", b"A", b"T", b"F"):
            with pytest.raises(CorruptDocument):
                decode_entry(kind + deep)
