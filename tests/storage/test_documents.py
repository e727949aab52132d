from __future__ import annotations

import itertools
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessionkeeper import CorruptDocument, NewerVersion
from sessionkeeper.slices import CHUNK, SLICE
from sessionkeeper.storage.documents import (
    Document,
    Record,
    Request,
    decode_document,
    decode_foreign,
    encode_document,
)
from sessionkeeper.storage.lines import Lines, Pieces, encode_lines, weight

NOW = datetime(2025, 3, 4, 5, 6, 7, 891234, tzinfo=UTC)
MESSAGES: list[Any] = [{"role": "user", "content": 'a "line"\nbreak, ],\n"state":1'}, [], 1, "x"]


def make(messages: list[Any], **changes: Any) -> Document:
    record = Record(
        session_id="s1",
        generation=3,
        lsn=9,
        created_at=NOW - timedelta(days=1),
        updated_at=NOW,
        completed_at=NOW,
        persisted_until=datetime(2025, 4, 4, 5, 6, 7, 892000, tzinfo=UTC),
        status="completed",
        title="Ti\ntle",
        summary="text",
        tags=("a", "b"),
        message_count=len(messages),
        total_cost=0.25,
        metadata=b'{"k":[1,2]}',
        requests=(Request("r-1", 3, len(messages), keyed=False),),
        extra=b'{"unknown":{"x":1}}',
    )
    return Document(replace(record, **changes), Lines(encode_lines(messages)), b'{"step":"2\\n"}')


def written(document: Document) -> bytes:
    return b"".join(encode_document(document))


@pytest.mark.parametrize("messages", [[], MESSAGES[:1], MESSAGES])
def test_a_document_comes_back_as_it_was(messages: list[Any]) -> None:
    document = make(messages)
    read = decode_document([written(document)])
    assert read is not None
    assert read == document
    assert read.session().messages == messages


def test_the_file_is_json_with_one_message_a_line() -> None:
    data = written(make(MESSAGES))
    parsed = json.loads(data)
    assert parsed["messages"] == MESSAGES
    assert parsed["state"] == {"step": "2\n"}
    assert parsed["format"] == "sessionkeeper"
    assert parsed["updated_at"] == "2025-03-04T05:06:07.891234Z"
    assert parsed["persistedUntil"] == 1743743167892
    assert parsed["unknown"] == {"x": 1}
    lines = data.decode().splitlines()
    assert [json.loads(line.rstrip(",")) for line in lines[2:6]] == MESSAGES
    assert lines[-1].startswith('"generation":3,')


# As version 1 is written, byte by byte. It may only change together with the version.
VERSION_1 = r"""{"format":"sessionkeeper","version":1,"session_id":"s1","namespace":"",
"messages":[
{"role":"user","content":"a \"line\"\nbreak, ],\n\"state\":1"},
[],
1,
"x"
],
"state":{"step":"2\n"},
"generation":3,"lsn":9,"created_at":"2025-03-03T05:06:07.891234Z","updated_at":\
"2025-03-04T05:06:07.891234Z","completed_at":"2025-03-04T05:06:07.891234Z","persistedUntil":\
1743743167892,"status":"completed","title":"Ti\ntle","summary":"text","tags":["a","b"],\
"pinned":false,"message_count":4,"total_cost":0.25,"metadata":{"k":[1,2]},"requests":\
[["r-1",3,4,false]],"unknown":{"x":1},"checksum":"84a7520d707e083642f7489e2e4b2ea0"}
"""


def test_the_format_is_that_of_version_1() -> None:
    expected = VERSION_1.replace("\\\n", "").encode()
    assert written(make(MESSAGES)) == expected
    assert decode_document([expected]) == make(MESSAGES)


def test_a_flip_at_any_byte_is_noticed() -> None:
    data = written(make(MESSAGES))
    for position in range(len(data)):
        for bit in (1, 0x80):
            flipped = bytearray(data)
            flipped[position] ^= bit
            assert decode_document([bytes(flipped)]) is None, position


def test_a_cut_at_any_byte_is_noticed() -> None:
    data = written(make(MESSAGES))
    assert decode_document([data[:-1]]) is None
    for length in range(len(data) - 1):  # without its last line break it is whole JSON
        assert decode_document([data[:length]]) is None
        with pytest.raises(CorruptDocument):
            decode_foreign(data[:length], NOW)


def test_appending_keeps_what_was_there_and_costs_what_is_appended() -> None:
    document = first = make([])
    expected: list[Any] = []
    for number in range(300):
        chunks = encode_lines([{"n": number}, {"m": number}])
        expected += [{"n": number}, {"m": number}]
        record = replace(document.record, message_count=len(expected))
        document = document.with_appended(chunks, record)
    assert document.session().messages == expected
    assert first.session().messages == [], "the versions before see no further than they did"
    assert len(encode_document(document)) < 5, "short appends are written in one"
    assert document.session(5).messages == expected[-5:]
    assert document.session(0).messages == []
    assert document.session(10_000).messages == expected


def test_two_versions_made_upon_one_do_not_see_each_other() -> None:
    base = make([1])
    one = base.with_appended(encode_lines([2]), replace(base.record, message_count=2))
    other = base.with_appended(encode_lines([3, 4]), replace(base.record, message_count=3))
    longer = one.with_appended(encode_lines([5]), replace(base.record, message_count=3))
    assert base.session().messages == [1]
    assert one.session().messages == [1, 2]
    assert other.session().messages == [1, 3, 4]
    assert longer.session().messages == [1, 2, 5]
    assert one.chunks != other.chunks
    assert list(reversed(other.chunks)) == list(other.chunks[::-1])
    assert other.chunks.size == sum(len(chunk) for chunk in other.chunks)


def test_a_hand_written_document_needs_little() -> None:
    text = b'{"format": "sessionkeeper", "version": 1, "session_id": "s9", "messages": [{"a": 1}]}'
    document = decode_foreign(text, NOW)
    assert document.record.session_id == "s9"
    assert document.record.generation == 1
    assert document.record.created_at == document.record.updated_at == NOW
    assert document.session().messages == [{"a": 1}]
    assert document.state == b"null"


def test_unknown_fields_of_a_hand_made_document_are_kept() -> None:
    edited = json.loads(written(make(MESSAGES)))
    edited["my_field"] = [1]
    document = decode_foreign(json.dumps(edited).encode(), NOW)
    assert json.loads(written(document))["my_field"] == [1]


@pytest.mark.parametrize("text", [b"null", b"[]", b"3", b'"x"', b"{}"])
def test_json_of_the_wrong_shape_is_no_session(text: bytes) -> None:
    with pytest.raises(CorruptDocument):
        decode_foreign(text, NOW)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("session_id", 3),
        ("session_id", "../x"),
        ("session_id", None),
        ("messages", {}),
        ("messages", None),
        ("generation", 0),
        ("generation", True),
        ("generation", "1"),
        ("lsn", -1),
        ("created_at", "yesterday"),
        ("created_at", "2025-01-01T00:00:00"),
        ("created_at", 3),
        ("updated_at", ""),
        ("completed_at", "x"),
        ("persistedUntil", "x"),
        ("persistedUntil", 10**30),
        ("status", 3),
        ("title", []),
        ("tags", "a"),
        ("tags", [""]),
        ("tags", [1]),
        ("total_cost", "1"),
        ("metadata", []),
        ("requests", [1]),
        ("version", "1"),
        ("version", 0),
        ("version", None),
        ("format", "other"),
    ],
)
def test_a_field_of_the_wrong_type_makes_the_document_corrupt(field: str, value: Any) -> None:
    edited = json.loads(written(make(MESSAGES)))
    edited[field] = value
    with pytest.raises(CorruptDocument):
        decode_foreign(json.dumps(edited).encode(), NOW)


def test_a_newer_version_is_named_as_such() -> None:
    edited = json.loads(written(make(MESSAGES)))
    edited["version"] = 2
    with pytest.raises(NewerVersion):
        decode_foreign(json.dumps(edited).encode(), NOW)


def test_updated_at_is_never_before_created_at() -> None:
    edited = json.loads(written(make(MESSAGES)))
    edited["updated_at"] = "2020-01-01T00:00:00Z"
    record = decode_foreign(json.dumps(edited).encode(), NOW).record
    assert record.updated_at == record.created_at


@given(st.binary(max_size=300))
def test_no_bytes_raise_anything_but_the_typed_errors(data: bytes) -> None:
    try:
        assert decode_document([data]) is None
        decode_foreign(data, NOW)
    except (CorruptDocument, NewerVersion):
        pass


@given(
    st.lists(
        st.recursive(
            st.text(st.characters(exclude_categories=["Cs"])) | st.integers(-100, 100) | st.none(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text("ab\n],"), inner),
            max_leaves=8,
        ),
        max_size=5,
    ),
)
def test_any_messages_come_back(messages: list[Any]) -> None:
    document = make(messages)
    read = decode_document([written(document)])
    assert read is not None
    assert read.session().messages == messages
    assert read.session(1).messages == messages[-1:]


@pytest.mark.parametrize("size", [10, 50_000, 150_000, 700_000])
def test_long_sessions_are_held_in_bounded_chunks(size: int) -> None:
    messages = [{"n": number, "text": "x" * size} for number in range(12)]
    document = make(messages)
    data = written(document)
    read = decode_document([data])
    assert read is not None
    for chunks in (document.chunks, read.chunks):
        assert max(map(len, chunks)) <= max(2 * CHUNK, size + 100)
    assert b",\n".join(read.chunks) == b",\n".join(document.chunks)
    assert read.session().messages == messages
    for last in (0, 1, 5, 11, 12, 99):
        assert read.session(last).messages == messages[len(messages) - min(last, 12) :]
    appended = read.with_appended(encode_lines(["end"]), replace(read.record, message_count=13))
    assert appended.session().messages == [*messages, "end"]
    assert decode_document([written(appended)]) is not None
    assert appended.size >= weight(appended.chunks)


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 10_000])
@pytest.mark.parametrize("messages", [[], MESSAGES[:1], MESSAGES])
def test_it_does_not_matter_where_the_bytes_are_cut(size: int, messages: list[Any]) -> None:
    document = make(messages)
    data = written(document)
    assert decode_document(cut(data, size)) == document
    assert decode_document(cut(data[:-1], size)) is None
    assert decode_document([*cut(data, size), b"\n"]) is None


@pytest.mark.parametrize("size", [1000, 65_537, SLICE, 10 * SLICE])
def test_a_long_session_is_regrouped_wherever_it_is_cut(size: int) -> None:
    messages = [{"n": number, "text": "x" * (number * 37 % 5000)} for number in range(400)]
    read = decode_document(cut(written(make(messages)), size))
    assert read is not None
    assert read.session().messages == messages
    assert read.session(7).messages == messages[-7:]
    assert max(map(len, read.chunks)) <= CHUNK


@pytest.mark.parametrize("offset", [-2, -1, 0, 1, 2])
def test_a_joint_may_be_cut_in_two(offset: int) -> None:
    messages = ["x" * 70_000 for _ in range(9)]
    data = written(make(messages))
    joints = [index + offset for index in range(len(data)) if data[index : index + 2] == b",\n"]
    pieces = [data[a:b] for a, b in itertools.pairwise([0, *joints, len(data)])]
    read = decode_document(pieces)
    assert read is not None
    assert read.session().messages == messages


def test_a_message_longer_than_a_slice_stays_whole() -> None:
    line = b'"' + b"x" * (3 * SLICE) + b'"'
    data = b",\n".join([b"1", line, b"2", line])
    for pieces in ([data], cut(data, SLICE), cut(data, 1000)):
        chunks = Pieces(pieces).lines(0, len(data))
        assert b",\n".join(chunks) == data
        assert all(chunk in (b"1", line, b"2") for chunk in chunks)
