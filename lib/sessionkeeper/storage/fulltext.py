"""The text index: SQLite's FTS5 over the text of every message.

A message's row number is made of its session's number and its own, so the messages of a session
lie side by side, whenever they were added: whether a session holds some words is one look into a
range, and what is new is entered behind what is there.

Of each session it is kept which version is in here, how many messages, and a digest of their
lines. So an append enters what is new, and a session that was replaced is told from one that grew.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final
from zlib import crc32

import orjson

from sessionkeeper.storage.database import Database, IndexFailed, fetched, translated
from sessionkeeper.storage.texts import TOKENIZER

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from sessionkeeper.storage.documents import Record
    from sessionkeeper.storage.texts import Words

# A message's row is its session's number, and in so many bits its own.
_BITS: Final = 24
_MASK: Final = (1 << _BITS) - 1

MESSAGES: Final = 1 << _BITS
"""So many messages of one session are in the index at most."""

NO_LINES: Final = bytes(16)
"""The digest of no lines."""

_UNIX_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)

_COLUMNS = "number, key, lsn, changed, count, digest, crc"
_PUT = f"""INSERT INTO sessions ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (number) DO UPDATE SET lsn = excluded.lsn, changed = excluded.changed,
count = excluded.count, digest = excluded.digest, crc = excluded.crc"""
_ROWS = f"SELECT {_COLUMNS} FROM sessions"
# One statement for many: see `index`.
_OF_KEYS = f"{_ROWS} WHERE key IN (SELECT value FROM json_each(?))"
_OF_NUMBERS = f"{_ROWS} WHERE number IN (SELECT value FROM json_each(?))"
_CLEAR = "DELETE FROM texts WHERE rowid BETWEEN ? AND ?"
_HAS = "SELECT EXISTS (SELECT 1 FROM texts WHERE texts MATCH ? AND rowid BETWEEN ? AND ?)"
_LAST = """SELECT rowid, content FROM texts WHERE texts MATCH ? AND rowid BETWEEN ? AND ?
ORDER BY rowid DESC LIMIT ?"""
_ENTERED = f"""SELECT id >> {_BITS}, count(*), max(id & {_MASK}) FROM texts_docsize
GROUP BY id >> {_BITS} ORDER BY id"""

_NOBODY: Final = (None, 0, -1)

Version = tuple[int, int]
"""What tells one version of a session from any other: its log sequence number and its time."""

UNFINISHED: Final[Version] = (0, 0)


def version_of(record: Record) -> Version:
    """Which version of a session that is."""
    return record.lsn, (record.updated_at - _UNIX_EPOCH) // _MICROSECOND


def digest_with(digest: bytes, line: bytes) -> bytes:
    """The digest of some lines and one more."""
    return blake2b(digest + line, digest_size=len(NO_LINES)).digest()


@dataclass(frozen=True, slots=True)
class Row:
    """What is in the index of one session.

    Attributes:
        number: Of the session in here.
        key: The session's key.
        version: Which version; `UNFINISHED` while it is entered, or was when that was cut short.
        count: How many messages.
        digest: Of their lines.
    """

    number: int
    key: str
    version: Version
    count: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class Piece:
    """Messages of one session that are entered, in place of what is there from the first of them.

    Attributes:
        key: The session's key.
        first: The number of the first of them.
        texts: What they hold.
        digest: Of all lines up to the last of them.
        version: Which version is complete with them; `UNFINISHED`: more will follow.
    """

    key: str
    first: int
    texts: Sequence[str]
    digest: bytes
    version: Version


class FullText(Database):
    """The text index's file. One thread at a time writes; any thread reads."""

    VERSION = 1
    SCHEMA = (
        """CREATE TABLE sessions (
    number INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,
    lsn INTEGER NOT NULL,
    changed INTEGER NOT NULL,
    count INTEGER NOT NULL,
    digest BLOB NOT NULL,
    crc INTEGER NOT NULL
)""",
        "CREATE INDEX unfinished ON sessions (lsn) WHERE lsn = 0",
        f"CREATE VIRTUAL TABLE texts USING fts5(content, tokenize = '{TOKENIZER}')",
    )

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        # The writer, while it is at what may take long and can be begun anew.
        self._long: sqlite3.Connection | None = None

    # --- writing ----------------------------------------------------------------------------

    def check(self) -> None:
        """Have SQLite look at every page, and compare every word with the text it is from.

        Raises:
            IndexFailed: Something is not as it was written.
        """
        super().check()
        writer = self._open_writer()
        with translated(), self._taking_long():
            writer.execute("INSERT INTO texts (texts) VALUES ('integrity-check')")

    def rows(self) -> Iterator[Row]:
        """What is in here of each session.

        Raises:
            IndexFailed: It does not go together.
        """
        writer = self._open_writer()
        with translated():
            entered = fetched(writer, _ENTERED)
            owner, *counts = next(entered, _NOBODY)
            for values in fetched(writer, f"{_ROWS} ORDER BY number"):
                row = _row(values)
                count, last = 0, -1
                if owner == row.number:
                    count, last = counts
                    owner, *counts = next(entered, _NOBODY)
                if count != min(row.count, MESSAGES) or last != count - 1:
                    raise IndexFailed("it is damaged: messages are missing, or too many")
                yield row
            if owner is not None:
                raise IndexFailed("it is damaged: messages of no session")

    def row(self, key: str) -> Row | None:
        """What is in here of a session; for whoever writes.

        Raises:
            IndexFailed: It cannot be read.
        """
        with translated():
            found = self._open_writer().execute(f"{_ROWS} WHERE key = ?", (key,)).fetchone()
        return None if found is None else _row(found)

    def write(self, pieces: Sequence[Piece], removed: Iterable[str] = ()) -> None:
        """Apply changes, all or none.

        Args:
            pieces: What is entered.
            removed: Keys of sessions that are gone.

        Raises:
            IndexFailed: The medium refused.
        """
        with self._writing() as writer:
            for gone in _rows_of(writer, _OF_KEYS, list(removed)):
                writer.execute(_CLEAR, _range(gone.number))
                writer.execute("DELETE FROM sessions WHERE number = ?", (gone.number,))
            there = {r.key: r for r in _rows_of(writer, _OF_KEYS, [p.key for p in pieces])}
            (highest,) = writer.execute("SELECT max(number) FROM sessions").fetchone()
            unused = (highest or 0) + 1
            placed: list[tuple[int, Piece]] = []
            for piece in pieces:
                row = there.get(piece.key)
                placed.append((unused if row is None else row.number, piece))
                unused += row is None
            # FTS5 begins a new segment wherever a number is lower than the one before.
            for number, piece in sorted(placed, key=lambda each: each[0]):
                _enter(writer, number, piece, there.get(piece.key))

    def scrub(self) -> None:
        """Leave no byte of what was removed, neither of texts nor of words.

        Raises:
            IndexFailed: A query is under way, or the medium refuses.
        """
        writer = self._open_writer()
        with translated(), self._taking_long():
            # Words stay in older segments until these are merged, and where pages moved about.
            writer.execute("INSERT INTO texts (texts) VALUES ('optimize')")
            writer.execute("VACUUM")
            self._empty_log(writer)

    def interrupt(self) -> None:
        """End a check or a scrubbing, from another thread; it fails in passing."""
        writer = self._long
        if writer is not None:
            with contextlib.suppress(IndexFailed), translated():
                writer.interrupt()

    @contextlib.contextmanager
    def _taking_long(self) -> Iterator[None]:
        self._long = self._writer
        try:
            yield
        finally:
            self._long = None

    # --- queries ----------------------------------------------------------------------------

    def find(self, words: Words, most: int) -> tuple[dict[str, Version], bool]:
        """The sessions with a message that holds the words.

        Those that are entered just now are among them, whatever they hold.

        Returns:
            Their versions, by key, and whether that are all: whether at most `most` messages
            hold the words.

        Raises:
            IndexFailed: It cannot be read.
        """
        query = "SELECT rowid FROM texts WHERE texts MATCH ? LIMIT ?"
        with self._reading() as connection:
            matches = connection.execute(query, (words.expression, most + 1)).fetchall()
            if len(matches) > most:
                return {}, False
            numbers = sorted({rowid >> _BITS for (rowid,) in matches})
            rows = _rows_of(connection, _OF_NUMBERS, numbers)
            rows += [_row(r) for r in connection.execute(f"{_ROWS} WHERE lsn = 0").fetchall()]
        return {row.key: row.version for row in rows}, True

    def among(self, words: Words, keys: Sequence[str]) -> dict[str, tuple[Version, bool]]:
        """Whether these sessions have such a message, and which version of them was looked at.

        Raises:
            IndexFailed: It cannot be read.
        """
        with self._reading() as connection:
            return {
                row.key: (
                    row.version,
                    connection.execute(_HAS, (words.expression, *_range(row.number))).fetchone()
                    == (1,),
                )
                for row in _rows_of(connection, _OF_KEYS, keys)
            }

    def messages(self, words: Words, key: str, most: int) -> tuple[Version, list[tuple[int, str]]]:
        """The last messages of a session that hold the words, the last one first.

        Returns:
            Which version was looked at, and numbers with texts; `UNFINISHED` if it is not in here.

        Raises:
            IndexFailed: It cannot be read.
        """
        with self._reading() as connection:
            rows = _rows_of(connection, _OF_KEYS, [key])
            if not rows:
                return UNFINISHED, []
            values = (words.expression, *_range(rows[0].number), most)
            found = connection.execute(_LAST, values).fetchall()
        return rows[0].version, [(rowid & _MASK, content) for rowid, content in found]

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """One transaction: all that is read is of one moment."""
        with translated(), self.borrowed() as connection:
            connection.execute("BEGIN")
            yield connection  # whatever fails in here closes it
            connection.execute("COMMIT")


def _enter(writer: sqlite3.Connection, number: int, piece: Piece, row: Row | None) -> None:
    start = (number << _BITS) + piece.first
    if row is not None and row.count > piece.first:
        writer.execute(_CLEAR, (start, (number << _BITS) + _MASK))
    writer.executemany(
        "INSERT INTO texts (rowid, content) VALUES (?, ?)",
        enumerate(piece.texts[: max(0, MESSAGES - piece.first)], start),
    )
    count = piece.first + len(piece.texts)
    values = (number, piece.key, *piece.version, count, piece.digest)
    writer.execute(_PUT, (*values, _crc(values)))


def _range(number: int) -> tuple[int, int]:
    """The first and the last number that a message of a session can have."""
    return number << _BITS, (number << _BITS) + _MASK


def _rows_of(connection: sqlite3.Connection, query: str, values: Sequence[Any]) -> list[Row]:
    if not values:
        return []
    return [_row(row) for row in connection.execute(query, (orjson.dumps(values).decode(),))]


def _row(values: tuple[Any, ...]) -> Row:
    number, key, lsn, changed, count, digest, crc = values
    if crc != _crc(values[:-1]):
        raise IndexFailed("it is damaged: a row is not as it was written")
    return Row(number, key, (lsn, changed), count, digest)


def _crc(values: tuple[Any, ...]) -> int:
    return crc32(repr(values).encode("utf-8", "surrogatepass"))
