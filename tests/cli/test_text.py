"""What others wrote cannot reach the terminal as anything but text."""

from __future__ import annotations

import json
import unicodedata
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessionkeeper.cli.text import as_json, count_of, escaped, iso, speaker_and_text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, é, 日本, 🙂", "plain, é, 日本, 🙂"),
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("a\tb\nc\rd\0", r"a\tb\nc\rd\x00"),
        ("\x9b31m", r"\x9b31m"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("a\u200bb\u2066c\ufeff", r"a\u200bb\u2066c\ufeff"),
        ("a\u2028b", r"a\u2028b"),
        ("\udc80", r"\udc80"),
        ("👨\u200d👩\u200d👧", "👨\u200d👩\u200d👧"),
        ("no\u00a0break", "no\u00a0break"),
    ],
)
def test_escapes_are_written_out_and_text_is_left_alone(text: str, shown: str) -> None:
    assert escaped(text) == shown


def test_line_breaks_stay_where_lines_are_shown() -> None:
    assert escaped("a\nb\r\n\x1b", lines=True) == "a\nb\\r\n\\x1b"


@given(st.text(st.characters()))
def test_nothing_that_a_terminal_obeys_is_left(text: str) -> None:
    shown = escaped(text)

    assert not any(unicodedata.category(c) in {"Cc", "Cs", "Zl", "Zp"} for c in shown)
    assert not {"\u202a", "\u202e", "\u2066", "\u200f"} & set(shown)


def test_json_is_ascii_and_gives_everything_back() -> None:
    value = {"title": "\x1b[31m\x9b é \u202e 🙂", "n": [1, None]}

    encoded = as_json(value)

    assert encoded.isascii()
    assert encoded.isprintable()
    assert json.loads(encoded) == value


def test_instants_are_utc_with_microseconds_and_z() -> None:
    assert iso(datetime(2025, 1, 31, 12, tzinfo=UTC)) == "2025-01-31T12:00:00.000000Z"
    # The library gives UTC only; any other zone would show.
    elsewhere = datetime(2025, 1, 31, 12, tzinfo=timezone(timedelta(hours=2)))
    assert iso(elsewhere) == "2025-01-31T12:00:00.000000+02:00"


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"role": "user", "content": "Hi"}, ("user", "Hi")),
        ({"type": "result", "cost": 1}, ("result", '{"cost": 1}')),
        ({"role": "user", "type": "text", "content": "Hi"}, ("user", 'Hi\n{"type": "text"}')),
        (
            {"role": "assistant", "content": None, "tool_calls": [{"id": "ü"}]},
            ("assistant", '{"tool_calls": [{"id": "ü"}]}'),
        ),
        ({"role": "user", "content": [{"text": "a"}]}, ("user", '{"content": [{"text": "a"}]}')),
        ({"role": 1, "content": None}, ("", '{"role": 1}')),
        ({}, ("", "")),
        ("plain", ("", "plain")),
        ([1, None], ("", "[1, null]")),
    ],
)
def test_a_message_of_any_shape_is_shown_whole(
    message: object,
    expected: tuple[str, str],
) -> None:
    assert speaker_and_text(message) == expected


def test_numbers_of_things() -> None:
    assert [count_of(n, "message") for n in (0, 1, 5308)] == [
        "0 messages",
        "1 message",
        "5,308 messages",
    ]
