"""JSON or JSON Lines, told apart by content, and read strictly."""

from __future__ import annotations

from pathlib import Path

import pytest

from sessionkeeper import ImportRefused
from sessionkeeper.transfer.parsing import parse

JSON, LINES = Path("a.json"), Path("a.jsonl")


def values(content: bytes, path: Path = JSON) -> list[object]:
    return [item.value for item in parse(content, path).items]


def places(content: bytes, path: Path = JSON) -> list[str]:
    return [item.place for item in parse(content, path).items]


def test_the_items_of_a_list_are_numbered() -> None:
    parsed = parse(b'[{"a": 1}, 2]', JSON)

    assert parsed.listed
    assert [(item.place, item.value) for item in parsed.items] == [
        ("item 1", {"a": 1}),
        ("item 2", 2),
    ]


def test_one_value_is_the_whole_file() -> None:
    parsed = parse(b'\n {"a":\n 1}\n', JSON)

    assert not parsed.listed
    assert [(item.place, item.value) for item in parsed.items] == [("", {"a": 1})]


def test_lines_are_known_by_their_content() -> None:
    content = b'{"a": 1}\r\n\n{"a": 2}'

    assert values(content) == [{"a": 1}, {"a": 2}]
    assert places(content) == ["line 1", "line 3"]
    assert parse(content, JSON).listed


def test_one_object_on_one_line_is_a_list_only_if_the_name_says_so() -> None:
    assert not parse(b'{"a": 1}\n', JSON).listed
    assert parse(b'{"a": 1}\n', LINES).listed
    assert parse(b'{"a": 1}\n', Path("a.jsonl.gz")).listed


def test_a_list_is_a_list_whatever_the_name_says() -> None:
    assert places(b'[{"a": 1}]\n', LINES) == ["item 1"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"  \n", "holds no data"),
        (b'[{"a": NaN}]', "NaN is not JSON"),
        (b'[{"a": 1, "a": 2}]', "'a' stands twice"),
        (b'[{"a": "\\ud800"}]', "lone surrogate"),
        (b'[{"a": 12345678901234567890123}]', "more than 64 bits"),
        (b"[1e999]", "out of range"),
        (b"[" * 300 + b"]" * 300, "nested deeper"),
        (b"\xef\xbb\xbf[]", "byte order mark"),
        ('["é"]'.encode("latin-1"), "not UTF-8"),
        ('["é"]'.encode("utf-16"), "not UTF-8"),
        (b'[{"a": 1}', "not JSON: Expecting ',' delimiter at byte 9"),
    ],
)
def test_doubtful_content_is_refused_with_the_reason(content: bytes, reason: str) -> None:
    with pytest.raises(ImportRefused) as caught:
        parse(content, JSON)

    assert str(caught.value).startswith(f"{JSON}: ")
    assert reason in str(caught.value)
    assert caught.value.path == JSON


def test_a_bad_line_is_refused_with_its_number() -> None:
    with pytest.raises(ImportRefused, match=r"a\.json: line 3: not JSON: .* at byte 5"):
        parse(b'{"a": 1}\n\n{"a":\n', JSON)


def test_a_bad_first_line_is_refused_with_its_number_if_the_name_says_lines() -> None:
    with pytest.raises(ImportRefused, match=r"a\.jsonl: line 1: not JSON"):
        parse(b'{"a":\n{"a": 1}\n', LINES)
