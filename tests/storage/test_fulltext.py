"""The text index alone: what is typed, what is found, and what is noticed."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import stat
import threading
from contextlib import closing
from typing import TYPE_CHECKING

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessionkeeper import InvalidQuery
from sessionkeeper.storage.database import IndexFailed
from sessionkeeper.storage.fulltext import NO_LINES, UNFINISHED, FullText, Piece, digest_with
from sessionkeeper.storage.texts import LONGEST, Matcher, Words, lines_of, text_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from sessionkeeper.session import Chunk
    from sessionkeeper.storage.fulltext import Row


@pytest.fixture
def index(tmp_path: Path) -> Iterator[FullText]:
    made = FullText(tmp_path / "text.db")
    made.open()
    yield made
    made.close()


def piece(key: str, texts: Sequence[str], first: int = 0, lsn: int = 1) -> Piece:
    return Piece(key, first, texts, NO_LINES, (lsn, lsn))


def found(index: FullText, text: str) -> set[str]:
    return set(index.find(Words.of(text), 1000)[0])


def numbers(index: FullText, text: str, key: str) -> list[int]:
    return [number for number, _ in index.messages(Words.of(text), key, 1000)[1]]


# --- what is typed ------------------------------------------------------------------------


def matches(text: str, message: str) -> bool:
    with Matcher(Words.of(text)) as matcher:
        return bool(matcher.find([(0, message)]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("refund", "Refund?"),
        ("REFUND flight", "a flight, and its refund"),
        ('"delayed flight"', "the Delayed -- flight"),
        ("book*", "bookings"),
        ('"two boo"*', "two books"),
        ("zurich", "Zürich"),
        ("Zürich", "zurich"),
        ("#W123", "order #w123."),
        ("foo-bar", "foo bar"),
        ("-- refund !!", "refund"),
        ("AND", "this and that"),
        ("a NOT b", "a not b"),
        ("content:refund", "content refund"),
        ("NEAR(a b)", "near a b"),
        ("^a", "b a"),
        ("a'b; DROP TABLE texts", "A b drop table texts"),
        ("a\0b", "b a"),
        ("{a} + (b)", "b a"),
        ("中文", "中文"),
        ("١٢٣", "١٢٣"),
    ],
)
def test_what_is_typed_is_looked_for(text: str, message: str) -> None:
    assert matches(text, message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("refund flight", "refund"),
        ('"delayed flight"', "flight delayed"),
        ("book", "books"),
        ("refunds", "refund"),
        ("a OR b", "a"),
        ("a NOT b", "a"),
        ("\ue000a", "b"),
    ],
)
def test_what_is_not_there_is_not_found(text: str, message: str) -> None:
    assert not matches(text, message)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no word"),
        ("  ", "no word"),
        ("!!", "no word"),
        ("*", "no word"),
        ('""', "no word"),
        ("\ue000", "no word"),
        ('"open', "not closed"),
        ('a "b" "', "not closed"),
        ("a" * 5000, "characters"),
        ("a " * 65, "too many"),
        ("\ud800", "surrogate"),
        (7, "must be a str"),
        (b"a", "must be a str"),
    ],
)
def test_what_cannot_be_looked_for_is_refused_with_a_hint(text: object, says: str) -> None:
    with pytest.raises(InvalidQuery, match=says) as caught:
        Words.of(text)
    assert caught.value.hint
    assert "limits" not in caught.value.hint


@given(
    st.text(st.characters() | st.sampled_from('"*\0\ue000\ud800 ab-^:()'), max_size=60),
    st.text(max_size=60),
)
def test_whatever_is_typed_works_or_is_refused(text: str, message: str) -> None:
    try:
        words = Words.of(text)
    except InvalidQuery:
        return
    with Matcher(words) as matcher:
        matcher.find([(0, text_of(orjson.dumps(message)))])


# --- the text of a message ----------------------------------------------------------------


def test_all_strings_of_a_message_are_its_text_and_no_phrase_joins_two() -> None:
    message = {"role": "user", "n": 7, "parts": [{"text": "alpha"}, ["beta", None], "gamma"]}
    text = text_of(orjson.dumps(message))
    assert [word for word in text.split() if word.isascii()] == ["user", "alpha", "beta", "gamma"]
    assert matches("user alpha gamma", text)
    assert not matches('"alpha beta"', text)
    assert not matches("parts", text), "keys are no text"


def test_odd_characters_are_blanks() -> None:
    text = text_of(orjson.dumps(["a\0b", "c\ue000d"]))
    assert matches("a b c d", text)
    assert text_of(b'"\\ud800"') == "", "it is no damage of the text index"


def test_a_long_message_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(text_of(orjson.dumps("x" * (LONGEST + 5)))) == LONGEST


def test_a_deep_message_is_no_trouble() -> None:
    assert text_of(b"[" * 900 + b'"deep"' + b"]" * 900) == "deep"


def test_lines_of_chunks() -> None:
    chunks: list[Chunk] = [b'"a"', memoryview(b'"b",\n"c"'), b'{"d":"\\n"}']
    assert list(lines_of(chunks)) == [b'"a"', b'"b"', b'"c"', b'{"d":"\\n"}']


def test_snippets_mark_what_was_found() -> None:
    message = text_of(orjson.dumps(["before " * 40, "the\ue000Refund", "of it", "after " * 40]))
    with Matcher(Words.of("refund")) as matcher:
        (match,) = matcher.find([(7, message)])
    assert match.number == 7
    assert "«Refund»" in match.snippet
    assert "\ue000" not in match.snippet
    assert match.snippet.startswith("…")
    assert len(match.snippet) < 200


def test_the_better_match_has_the_smaller_rank() -> None:
    texts = enumerate(["refund " + "other " * 50, "refund refund", "nothing"])
    with Matcher(Words.of("refund")) as matcher:
        first, second = matcher.find(texts)
        assert (first.number, second.number) == (0, 1)
        assert second.rank < first.rank
        assert matcher.find([(3, "refund")]), "it can be used again"
        assert matcher.find([]) == []


# --- what is entered ----------------------------------------------------------------------


def test_what_is_entered_is_found_with_its_number(index: FullText) -> None:
    index.write([piece("s1", ["alpha", "beta alpha"]), piece("ns/s1", ["alpha"])])
    assert found(index, "alpha") == {"s1", "ns/s1"}
    assert numbers(index, "alpha", "s1") == [1, 0]
    assert index.messages(Words.of("alpha"), "s1", 1)[1] == [(1, "beta alpha")]
    assert numbers(index, "alpha", "ns/s1") == [0]
    assert index.messages(Words.of("alpha"), "nobody", 1) == (UNFINISHED, [])
    assert index.among(Words.of("beta"), ["s1", "ns/s1", "nobody"]) == {
        "s1": ((1, 1), True),
        "ns/s1": ((1, 1), False),
    }


def test_what_follows_takes_the_place_of_what_is_there(index: FullText) -> None:
    index.write([piece("s1", ["alpha", "beta", "gamma"]), piece("s2", ["beta"])])
    index.write([piece("s1", ["delta"], first=1, lsn=2)])
    assert numbers(index, "alpha", "s1") == [0]
    assert numbers(index, "delta", "s1") == [1]
    assert found(index, "beta") == {"s2"}
    assert found(index, "gamma") == set()
    index.write([piece("s1", [], lsn=3)])
    assert found(index, "alpha") == set()
    assert [(row.key, row.count) for row in index.rows()] == [("s1", 0), ("s2", 1)]


def test_what_is_gone_is_not_found(index: FullText) -> None:
    index.write([piece("s1", ["alpha"]), piece("s2", ["alpha"])])
    index.write([], removed=["s1", "nobody"])
    assert found(index, "alpha") == {"s2"}
    index.write([piece("s3", ["alpha"])], removed=["s2"])
    assert found(index, "alpha") == {"s3"}
    index.check()


def test_too_many_matches_are_not_listed(index: FullText) -> None:
    index.write([piece(f"s{number}", ["alpha"]) for number in range(5)])
    assert index.find(Words.of("alpha"), 4) == ({}, False)
    assert len(index.find(Words.of("alpha"), 5)[0]) == 5


def test_a_session_that_is_entered_just_now_may_hold_anything(index: FullText) -> None:
    index.write([Piece("s1", 0, ["alpha"], NO_LINES, UNFINISHED), piece("s2", ["beta"])])
    assert found(index, "beta") == {"s1", "s2"}
    index.write([piece("s1", ["gamma"], first=1)])
    assert found(index, "beta") == {"s2"}
    assert numbers(index, "gamma", "s1") == [1]


def test_what_the_medium_refuses_is_not_half_there(index: FullText) -> None:
    index.write([piece("s1", ["alpha"])])
    with pytest.raises(IndexFailed):
        index.write([piece("s1", ["beta"], lsn=2), piece("s2", ["beta"], lsn=2**70)])
    assert found(index, "alpha") == {"s1"}
    assert found(index, "beta") == set()


def test_its_files_are_for_the_owner_only(index: FullText) -> None:
    index.write([piece("s1", ["alpha"])])
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in index.path.parent.iterdir()}
    assert modes == dict.fromkeys(["text.db", "text.db-wal", "text.db-shm"], 0o600)


def test_a_page_is_of_one_moment_while_another_thread_writes(index: FullText) -> None:
    done = threading.Event()
    wrong: list[object] = []

    def read() -> None:
        while not done.is_set():
            version, texts = index.messages(Words.of("word"), "s1", 100)
            if version != UNFINISHED and {text for _, text in texts} != {f"word w{version[0]}"}:
                wrong.append((version, texts))

    index.write([piece("s1", ["word w1"])])
    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for lsn in range(2, 60):
        index.write([piece("s1", [f"word w{lsn}"] * (lsn % 5 + 1), lsn=lsn)])
    done.set()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_scrubbing_leaves_no_byte(index: FullText) -> None:
    index.open()
    index._open_writer().execute("PRAGMA secure_delete = OFF")
    keys = [f"zebra-{number}" for number in range(60)]
    index.write([piece(key, [f"quagga{key} " * 30]) for key in keys])
    for key in keys[:40]:
        index.write([], removed=[key])

    def traces(word: bytes) -> bool:
        return any(word in path.read_bytes() for path in index.path.parent.glob("text.db*"))

    assert traces(b"zebra-7 "[:-1])
    assert traces(b"quagga")
    index.write([], removed=keys[40:])
    index.scrub()
    assert not traces(b"zebra-")
    assert not traces(b"quagga")
    index.check()


# --- damage -------------------------------------------------------------------------------


def filled(path: Path) -> FullText:
    made = FullText(path)
    made.open()
    rng = random.Random(1)
    for lsn in range(1, 6):
        made.write(
            [
                Piece(
                    f"s{number}",
                    3 * (lsn - 1),
                    [" ".join(f"w{rng.randrange(300)}" for _ in range(8)) for _ in range(3)],
                    digest_with(NO_LINES, b"%d" % lsn),
                    (lsn, lsn),
                )
                for number in range(20)
            ],
        )
    return made


def state(index: FullText) -> tuple[list[Row], list[set[str]], object]:
    """All that it says."""
    among = index.among(Words.of("w1"), [f"s{number}" for number in range(20)])
    return list(index.rows()), [found(index, f"w{number}") for number in range(0, 300, 9)], among


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pristine") / "text.db"
    filled(path).close()
    return path


def flip(path: Path, offset: int, bit: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        (byte,) = file.read(1)
        file.seek(offset)
        file.write(bytes([byte ^ bit]))


@pytest.mark.parametrize("block", range(4))
def test_a_flipped_bit_is_noticed_or_changes_no_answer(
    block: int,
    pristine: Path,
    tmp_path: Path,
) -> None:
    rng = random.Random(block)
    whole = FullText(pristine)
    whole.open()
    expected = state(whole)
    whole.close()
    path = tmp_path / "text.db"
    size = pristine.stat().st_size
    noticed = 0
    for place in [*range(block, 100, 4), *(rng.randrange(size) for _ in range(60))]:
        shutil.copyfile(pristine, path)
        flip(path, place, 1 << rng.randrange(8))
        damaged = FullText(path)
        failure: IndexFailed | None = None
        try:
            damaged.open()
            damaged.check()
            assert state(damaged) == expected, place
        except IndexFailed as error:
            failure = error
            noticed += 1
        assert failure is None or not failure.passing, place
        damaged.discard()
    assert noticed > 20, "the flips must have hit something"


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM sessions WHERE key = 's7'",
        "UPDATE sessions SET key = 's700' WHERE key = 's7'",
        "UPDATE sessions SET count = 3 WHERE key = 's7'",
        "UPDATE sessions SET lsn = 1000 WHERE key = 's7'",
        "DELETE FROM texts WHERE rowid >> 24 = 3",
        "DELETE FROM texts WHERE rowid = (SELECT max(rowid) FROM texts)",
        "INSERT INTO texts (rowid, content) VALUES (999 << 24, 'of nobody')",
        "UPDATE texts_content SET c0 = 'changed' WHERE id = 3 << 24",
        "DELETE FROM texts_data WHERE id > 10",
    ],
)
def test_rows_that_are_wrong_are_noticed(change: str, pristine: Path, tmp_path: Path) -> None:
    path = tmp_path / "text.db"
    shutil.copyfile(pristine, path)
    with closing(sqlite3.connect(path)) as raw, raw:
        raw.execute(change)
    damaged = FullText(path)
    damaged.open()

    def look() -> None:
        damaged.check()
        list(damaged.rows())

    with pytest.raises(IndexFailed) as caught:
        look()
    assert not caught.value.passing
    damaged.close()


def test_a_key_that_is_not_found_any_more_is_noticed(pristine: Path, tmp_path: Path) -> None:
    path = tmp_path / "text.db"
    shutil.copyfile(pristine, path)
    with closing(sqlite3.connect(path)) as raw:
        (root,) = raw.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'sqlite_autoindex_sessions_1'",
        ).fetchone()
        (size,) = raw.execute("PRAGMA page_size").fetchone()
    flip(path, path.read_bytes().index(b"s7", (root - 1) * size), 0x01)
    damaged = FullText(path)
    damaged.open()
    with pytest.raises(IndexFailed):
        damaged.check()
    damaged.close()


@pytest.mark.parametrize("statement", ["CREATE TABLE more (x)", "PRAGMA user_version = 9"])
def test_a_database_that_is_not_ours_is_not_used(
    statement: str,
    pristine: Path,
    tmp_path: Path,
) -> None:
    path = tmp_path / "text.db"
    shutil.copyfile(pristine, path)
    with closing(sqlite3.connect(path)) as raw, raw:
        raw.execute(statement)
    with pytest.raises(IndexFailed):
        FullText(path).open()


def test_a_check_that_is_interrupted_fails_in_passing(tmp_path: Path) -> None:
    index = filled(tmp_path / "text.db")
    writer = index._open_writer()
    begun = threading.Event()

    def progress() -> int:
        begun.set()
        os.sched_yield()
        index.interrupt()
        return 0

    writer.set_progress_handler(progress, 1)
    with pytest.raises(IndexFailed) as caught:
        index.check()
    assert caught.value.passing
    assert begun.is_set()
    writer.set_progress_handler(None, 1)
    index.check()
    index.interrupt()
    index.check()
    index.close()
