"""The text of a message, the words somebody looks for, and whether these are in it.

What is typed is never part of a statement: it is taken apart here, and each piece goes to SQLite
in quotation marks, as a value. SQLite's tokenizer `unicode61` says what a word is: letters and
digits, whatever their case and their accents.
"""

from __future__ import annotations

import re
import sqlite3
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

import orjson

from sessionkeeper.errors import InvalidQuery
from sessionkeeper.storage.lines import JOINT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sessionkeeper.session import Chunk

TOKENIZER: Final = "unicode61 remove_diacritics 2"

# Around each match in a snippet.
MATCH_BEGIN: Final = "«"
MATCH_END: Final = "»"

# Characters of one message that are looked at.
LONGEST: Final = 4 * 1024 * 1024

MAX_QUERY: Final = 4096
MAX_WORDS: Final = 64

# A word of its own between two strings of a message, so that no phrase goes from one to the next.
_BETWEEN: Final = "\ue000"
_JOINED: Final = f"\n{_BETWEEN}\n"
# A NUL would end a statement's text early.
_BLANKED: Final = {0: " ", ord(_BETWEEN): " "}

_TERM: Final = re.compile(r'"([^"]*)"(\*?)|([^\s"]+)')

# Words of a snippet, and texts that are looked through at a time.
_SNIPPET: Final = 16
_AT_ONCE: Final = 1024 * 1024

_MAKE = f"CREATE VIRTUAL TABLE texts USING fts5(content, tokenize = '{TOKENIZER}')"
_FIND = f"""SELECT rowid, bm25(texts), snippet(texts, 0, '{MATCH_BEGIN}', '{MATCH_END}', '…', ?)
FROM texts WHERE texts MATCH ? ORDER BY rowid"""


def text_of(line: bytes) -> str:
    """All strings in a message, in their order, however deep; keys of objects are none of them.

    Args:
        line: The message as it is stored.
    """
    parts: list[str] = []
    try:
        waiting = [orjson.loads(line)]
    except orjson.JSONDecodeError:
        return ""  # whoever loads the session is told
    while waiting:
        value = waiting.pop()
        if type(value) is str:
            parts.append(value.translate(_BLANKED) if _has_odd(value) else value)
        elif type(value) is list:
            waiting.extend(reversed(value))
        elif type(value) is dict:
            waiting.extend(reversed(value.values()))
    return _JOINED.join(parts)[:LONGEST]


def _has_odd(text: str) -> bool:
    return "\0" in text or _BETWEEN in text


def lines_of(chunks: Iterable[Chunk]) -> Iterator[bytes]:
    """The messages of some chunks, one by one, as they are stored."""
    for chunk in chunks:
        yield from bytes(chunk).split(JOINT)


@dataclass(frozen=True, slots=True)
class Words:
    """What a message must hold.

    Attributes:
        expression: As SQLite takes it.
    """

    expression: str

    @classmethod
    def of(cls, text: object) -> Self:
        """Take apart what somebody has typed: words, "quoted phrases", beginnings of words*.

        Raises:
            InvalidQuery: There is no word in it, or too many, or a quotation mark too few.
        """
        if not isinstance(text, str):
            raise InvalidQuery(
                f"text must be a str, not {type(text).__name__}",
                hint=_HINT,
            )
        if len(text) > MAX_QUERY:
            raise InvalidQuery(
                f"the text to look for has {len(text)} characters",
                hint=f"Look for at most {MAX_QUERY} characters.",
            )
        if text.count('"') % 2:
            raise InvalidQuery(
                "a quotation mark is not closed",
                hint="Close it behind the phrase, or leave it out.",
            )
        if any(unicodedata.category(character) == "Cs" for character in text):
            raise InvalidQuery("the text to look for holds a lone surrogate", hint=_HINT)
        terms = list(_terms(text.translate(_BLANKED)))
        if not terms:
            raise InvalidQuery(f"there is no word in {text[:80]!r}", hint=_HINT)
        if len(terms) > MAX_WORDS:
            raise InvalidQuery(
                f"{len(terms)} words are too many to look for",
                hint=f"Look for at most {MAX_WORDS}.",
            )
        return cls(" ".join(terms))


_HINT: Final = 'Type words, "quoted phrases" and beginnings of words with a * behind them.'


def _terms(text: str) -> Iterator[str]:
    for phrase, star, bare in _TERM.findall(text):
        word = phrase or bare.rstrip("*")
        if any(c.isalnum() or unicodedata.category(c) == "Co" for c in word):
            yield f'"{word}"*' if star or bare.endswith("*") else f'"{word}"'


@dataclass(frozen=True, slots=True)
class Match:
    """A text that holds the words.

    Attributes:
        number: Which of those that were given.
        rank: The smaller, the better; comparable among those that were given together.
        snippet: What is around the words.
    """

    number: int
    rank: float
    snippet: str


class Matcher:
    """Looks through texts at hand, as the text index does through its own.

    A context manager; it belongs to one thread.

    Args:
        words: What to look for.
    """

    def __init__(self, words: Words) -> None:
        self._words = words
        self._connection = sqlite3.connect(":memory:", isolation_level=None)
        self._connection.execute(_MAKE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def find(self, texts: Iterable[tuple[int, str]]) -> list[Match]:
        """Those with all the words, in the order of their numbers, ranked among themselves."""
        connection = self._connection
        connection.execute("BEGIN")
        try:
            connection.executemany("INSERT INTO texts(rowid, content) VALUES (?, ?)", texts)
            found = connection.execute(_FIND, (_SNIPPET, self._words.expression)).fetchall()
        finally:
            connection.execute("ROLLBACK")  # nothing is kept, and that is the cheapest way
        return [Match(number, rank, _shown(snippet)) for number, rank, snippet in found]

    def find_in(self, chunks: Iterable[Chunk]) -> Iterator[Match]:
        """The messages of a session with all the words, looked through some at a time."""
        numbered = enumerate(map(text_of, lines_of(chunks)))
        for group in _grouped(numbered):
            yield from self.find(group)


def _grouped(texts: Iterator[tuple[int, str]]) -> Iterator[list[tuple[int, str]]]:
    group: list[tuple[int, str]] = []
    size = 0
    for number, text in texts:
        group.append((number, text))
        size += len(text)
        if size >= _AT_ONCE:
            yield group
            group, size = [], 0
    if group:
        yield group


def _shown(snippet: str) -> str:
    return " ".join(snippet.replace(_BETWEEN, " ").split())
