"""The index: SQLite over the records of all sessions, so that nobody need read their files.

It is told what was committed and is never asked whether something exists: whatever it holds can
be made anew from the files, so a doubt about it is answered by dropping it. Every row carries a
checksum. What a row says of a file holds as long as the file's signature is the one in the row,
because no two files that a store publishes are alike in it; so a row that is behind never passes
for current, and no mark of a clean end is needed.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, Any, Final
from zlib import crc32

import orjson

from sessionkeeper.errors import CorruptDocument
from sessionkeeper.keys import id_of, namespace_of
from sessionkeeper.storage.database import Database, IndexFailed, fetched, holds, translated
from sessionkeeper.storage.documents import decode_record, encode_record
from sessionkeeper.storage.examine import Known
from sessionkeeper.storage.orders import cost_key, microseconds, title_key
from sessionkeeper.storage.platform import Signature
from sessionkeeper.storage.selecting import FEW, LARGEST, by_tag, count_few, driving, select

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Iterator, Sequence

    from sessionkeeper.storage.documents import Record
    from sessionkeeper.storage.orders import Position
    from sessionkeeper.storage.selecting import Wanted

VERSION: Final = 4

# Those by which sessions are listed; the ids have theirs, for they are the primary key.
_SORTED: Final = ("lsn", "created_at", "updated_at", "title", "total_cost", "message_count")

_SCHEMA: Final = (
    # A session_id is a key, which holds the namespace too: that is there to be looked for.
    """CREATE TABLE sessions (
    namespace TEXT NOT NULL,
    session_id TEXT NOT NULL,
    lsn INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    title TEXT NOT NULL,
    message_count INTEGER NOT NULL,
    total_cost REAL NOT NULL,
    status TEXT,
    record BLOB NOT NULL,
    stem TEXT,
    inode INTEGER,
    size INTEGER,
    mtime_ns INTEGER,
    crc INTEGER NOT NULL,
    PRIMARY KEY (namespace, session_id)
)""",
    *(
        f"CREATE INDEX sessions_by_{column} ON sessions (namespace, {column}, session_id)"
        for column in _SORTED
    ),
    """CREATE TABLE tags (
    namespace TEXT NOT NULL,
    session_id TEXT NOT NULL,
    tag TEXT NOT NULL,
    lsn INTEGER NOT NULL,
    PRIMARY KEY (namespace, session_id, tag)
) WITHOUT ROWID""",
    "CREATE INDEX tags_newest ON tags (namespace, tag, lsn)",
    # By the name of a file, also one that differs in capitals only.
    "CREATE INDEX sessions_files ON sessions (stem COLLATE NOCASE)",
    """CREATE TABLE reached (
    one INTEGER PRIMARY KEY,
    lsn INTEGER NOT NULL,
    journal BLOB NOT NULL,
    frame INTEGER NOT NULL,
    crc INTEGER NOT NULL
)""",
)
_PUT = """INSERT INTO sessions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (namespace, session_id) DO UPDATE SET
lsn = excluded.lsn, created_at = excluded.created_at, updated_at = excluded.updated_at,
title = excluded.title, message_count = excluded.message_count,
total_cost = excluded.total_cost, status = excluded.status, record = excluded.record,
stem = excluded.stem, inode = excluded.inode, size = excluded.size,
mtime_ns = excluded.mtime_ns, crc = excluded.crc"""
# One statement for all: each execution lets go of the interpreter, and waits to have it back.
_AMONG = """(namespace, session_id) IN
(SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?))"""
_REMOVE = f"DELETE FROM sessions WHERE {_AMONG}"
_UNTAG = f"DELETE FROM tags WHERE {_AMONG}"
# Only upon the version it was filed with: a later one may be in the index already.
_FILE = """UPDATE sessions SET stem = ?, inode = ?, size = ?, mtime_ns = ?, crc = ?
WHERE namespace = ? AND session_id = ? AND lsn = ?"""
_REACH = "INSERT OR REPLACE INTO reached (one, lsn, journal, frame, crc) VALUES (1, ?, ?, ?, ?)"

_IN_ORDER = "ORDER BY namespace, session_id"

# Where in a row of a session these stand, and how many columns it has.
_RECORD: Final = 9
_STEM: Final = 10
_CRC: Final = 14
_COLUMNS: Final = 15


@dataclass(frozen=True, slots=True)
class Entry:
    """One session as the index has it, or is to have it.

    Attributes:
        record: Its newest version.
        stem: The file that holds that very version; None if none does yet.
        signature: That of the file.
    """

    record: Record
    stem: str | None = None
    signature: Signature | None = None


@dataclass(frozen=True, slots=True)
class Reached:
    """How far an index has come: it holds all that was changed up to there, and was whole once.

    Attributes:
        lsn: The highest log sequence number that it was told of.
        journal: The id of the journal that was written then; empty if there was none.
        frame: The last frame of it.
    """

    lsn: int = 0
    journal: bytes = b""
    frame: int = 0


@dataclass(frozen=True, slots=True)
class Row:
    """What tells a row that is as it should be from others.

    Attributes:
        number: By which the row can be dropped.
        session_id: Whose it is; as the row says, which may be wrong.
        lsn: Of the version.
        stem: See `Entry`.
        signature: See `Entry`.
        intact: Whether row and tags are as they were written.
    """

    number: int
    session_id: str
    lsn: int
    stem: str | None
    signature: Signature | None
    intact: bool


@dataclass(frozen=True, slots=True)
class Recalled:
    """What the index knows of the files.

    Attributes:
        lsn: The highest log sequence number that it was told of.
        files: The files as they were published, by stem.
    """

    lsn: int = 0
    files: dict[str, Known] = field(default_factory=dict)


class Index(Database):
    """The index file. One thread at a time writes; any thread reads, on connections of its own."""

    VERSION = VERSION
    SCHEMA = _SCHEMA

    # --- for a store that comes up ----------------------------------------------------------

    def recall(self) -> Recalled:
        """What is known of the files; a row that is not as it was written is left out.

        Whatever goes wrong makes it know less, which costs the reading of files and no more.
        """
        files: dict[str, Known] = {}
        lsn = 0
        if not self.path.is_file():
            return Recalled()
        with contextlib.suppress(IndexFailed), translated():
            connection = self._connect()
            try:
                self._check_schema(connection)
                lsn = reached_in(connection).lsn
                for row in fetched(connection, "SELECT * FROM sessions"):
                    stem, signature = row[_STEM], _signature(row)
                    if stem is None or signature is None or not is_intact(row):
                        continue
                    with contextlib.suppress(CorruptDocument):
                        files[stem] = Known(decode_record(row[_RECORD]), signature)
            finally:
                connection.close()
        return Recalled(max([lsn, *(known.record.lsn for known in files.values())]), files)

    # --- writing ----------------------------------------------------------------------------

    def rows(self) -> Iterator[Row]:
        """Every row, compared with its checksum and its tags.

        Raises:
            IndexFailed: They cannot be read.
        """
        writer = self._open_writer()
        with translated():
            tagged = groupby(
                fetched(writer, f"SELECT session_id, tag, lsn FROM tags {_IN_ORDER}, tag"),
                key=lambda row: row[0],
            )
            owner, tags = next(tagged, (None, ()))
            for row in fetched(writer, f"SELECT *, rowid FROM sessions {_IN_ORDER}"):
                session_id, lsn = row[1], row[2]
                own: list[tuple[str, int]] = []
                if owner == session_id:
                    own = [(tag, at) for _, tag, at in tags]
                    owner, tags = next(tagged, (None, ()))
                intact = is_intact(row[:_COLUMNS])
                if intact:
                    named = sorted(orjson.loads(row[_RECORD])["tags"], key=str.encode)
                    intact = own == [(tag, lsn) for tag in named]
                yield Row(row[_COLUMNS], session_id, lsn, row[_STEM], _signature(row), intact)
            if owner is not None:
                raise IndexFailed("it is damaged: tags of no session")

    def write(
        self,
        entries: Sequence[Entry],
        *,
        filed: Sequence[Entry] = (),
        removed: Iterable[str] = (),
        dropped: Iterable[int] = (),
        reached: Reached | None = None,
    ) -> None:
        """Apply changes, all or none.

        Args:
            entries: Sessions to be shown as given.
            filed: Sessions whose file has caught up with the version given.
            removed: Ids of sessions that are gone.
            dropped: Numbers of rows that are wrong.
            reached: Up to where all is in the index with these.

        Raises:
            IndexFailed: The medium refused.
        """
        gone = [(namespace_of(session_id), session_id) for session_id in removed]
        with self._writing() as writer:
            writer.executemany(
                "DELETE FROM sessions WHERE rowid = ?",
                [(number,) for number in dropped],
            )
            writer.execute(_REMOVE, (orjson.dumps(gone).decode(),))
            rows = [_row(entry) for entry in entries]
            writer.executemany(_PUT, rows)
            gone += [row[:2] for row in rows]
            writer.execute(_UNTAG, (orjson.dumps(gone).decode(),))
            writer.executemany(
                "INSERT INTO tags (namespace, session_id, tag, lsn) VALUES (?, ?, ?, ?)",
                [
                    (*row[:2], tag, entry.record.lsn)
                    for row, entry in zip(rows, entries, strict=True)
                    for tag in entry.record.tags
                ],
            )
            for entry in filed:
                row = _row(entry)
                writer.execute(_FILE, (*row[_STEM:], *row[:3]))
            if reached is not None:
                marks = (reached.lsn, reached.journal, reached.frame)
                writer.execute(_REACH, (*marks, _crc_of(*marks)))

    def scrub(self, session_id: str) -> None:
        """Leave no byte of a session that was removed.

        Raises:
            IndexFailed: A query is under way, or the medium refuses.
        """
        writer = self._open_writer()
        with translated():
            self._empty_log(writer)
            # Also alone: a record has namespace and id apart.
            needle = id_of(session_id).encode()
            if holds(self.path, needle):
                # Its pages moved about while there was something in them. An id that is part of
                # another costs a needless rewrite, and nothing else.
                writer.execute("VACUUM")
                self._empty_log(writer)

    # --- queries ----------------------------------------------------------------------------

    def page(
        self,
        wanted: Wanted,
        behind: Position | None,
        limit: int | None,
    ) -> list[Record]:
        """The first of the sessions wanted, in their order; in one transaction.

        Args:
            wanted: Which, and in what order.
            behind: Only those that come behind this position in it.
            limit: How many at most; None for all.

        Raises:
            IndexFailed: It cannot be read, or what it holds is not as it was written.
        """
        few = bool(driving(wanted)) and not by_tag(wanted) and self._are_few(wanted)
        records = self._read(*select(wanted, behind, limit, few=few))
        order = wanted.order
        places = [order.position(record) for record in records]
        if behind is not None:
            places.insert(0, behind)
        in_order = all(order.in_order(*pair) for pair in pairwise(places))
        if not in_order or not all(wanted.matches(record) for record in records):
            raise IndexFailed("it is damaged: a query found what it should not")
        return records

    def _are_few(self, wanted: Wanted) -> bool:
        with translated(), self.borrowed() as connection:
            (count,) = connection.execute(*count_few(wanted)).fetchone()
        return bool(count <= FEW)

    def after(self, session_id: str, limit: int) -> list[Record]:
        """The sessions of a namespace that follow an id in the order of ids.

        Raises:
            IndexFailed: See `page`.
        """
        query = (
            "SELECT * FROM sessions WHERE namespace = ? AND session_id > ?"
            " ORDER BY session_id LIMIT ?"
        )
        return self._read(query, [namespace_of(session_id), session_id, limit])

    def _read(self, query: str, values: Sequence[Any]) -> list[Record]:
        with translated(), self.borrowed() as connection:
            rows = connection.execute(query, values).fetchall()
        if not all(map(is_intact, rows)):
            raise IndexFailed("it is damaged: a row is not as it was written")
        try:
            return [decode_record(row[_RECORD]) for row in rows]
        except CorruptDocument as error:
            raise IndexFailed(f"it is damaged: {error.args[0]}") from error


def reached_in(connection: sqlite3.Connection) -> Reached:
    """How far an index has come; not at all if what it says is damaged."""
    row = connection.execute("SELECT lsn, journal, frame, crc FROM reached").fetchone()
    if row is None or row[3] != _crc_of(*row[:3]):
        return Reached()
    return Reached(*row[:3])


def _crc_of(*marks: object) -> int:
    return crc32(repr(marks).encode())


def entry_of(row: Sequence[Any]) -> Entry:
    """What a row says.

    Raises:
        IndexFailed: It is not as it was written.
    """
    if not is_intact(row):
        raise IndexFailed("it is damaged: a row is not as it was written")
    try:
        return Entry(decode_record(row[_RECORD]), row[_STEM], _signature(row))
    except CorruptDocument as error:
        raise IndexFailed(f"it is damaged: {error.args[0]}") from error


def _row(entry: Entry) -> tuple[Any, ...]:
    record, signature = entry.record, entry.signature
    filed: tuple[Any, ...] = (None, None, None, None)
    if entry.stem is not None and signature is not None:
        filed = (entry.stem, _signed(signature.inode), signature.size, signature.mtime_ns)
    row = (
        namespace_of(record.session_id),
        record.session_id,
        record.lsn,
        microseconds(record.created_at),
        microseconds(record.updated_at),
        title_key(record.title),
        record.message_count,
        cost_key(record.total_cost),
        record.status,
        encode_record(record),
        *filed,
    )
    return (*row, _crc(row))


def _crc(row: Sequence[Any]) -> int:
    # `repr` tells a number from its digits, as the columns do.
    rest = repr((row[:_RECORD], row[_STEM:_CRC])).encode("utf-8", "surrogatepass")
    return crc32(row[_RECORD], crc32(rest))


def is_intact(row: Sequence[Any]) -> bool:
    """Whether a row of a session is as it was written."""
    return type(row[_RECORD]) is bytes and row[_CRC] == _crc(row)


def _signature(row: Sequence[Any]) -> Signature | None:
    inode, size, mtime_ns = row[_STEM + 1 : _CRC]
    if type(inode) is not int or type(size) is not int or type(mtime_ns) is not int:
        return None
    return Signature(inode % 2**64, size, mtime_ns)


def _signed(inode: int) -> int:
    """Some file systems number their files up to 2**64, SQLite counts to half of it."""
    return inode - 2**64 if inode > LARGEST else inode
