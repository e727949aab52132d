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
from datetime import UTC, datetime, timedelta
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, Any, Final, Protocol
from zlib import crc32

import orjson

from sessionkeeper.errors import CorruptDocument
from sessionkeeper.keys import id_of, namespace_of
from sessionkeeper.storage.database import Database, IndexFailed, fetched, holds, translated
from sessionkeeper.storage.documents import decode_record, encode_record
from sessionkeeper.storage.examine import Known
from sessionkeeper.storage.platform import Signature

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Iterator, Sequence

    from sessionkeeper.storage.documents import Record

VERSION: Final = 2

_SCHEMA: Final = (
    # A session_id is a key, which holds the namespace too: that is there to be looked for.
    """CREATE TABLE sessions (
    namespace TEXT NOT NULL,
    session_id TEXT NOT NULL,
    lsn INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
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
    "CREATE INDEX sessions_newest ON sessions (namespace, lsn, session_id)",
    """CREATE TABLE tags (
    namespace TEXT NOT NULL,
    session_id TEXT NOT NULL,
    tag TEXT NOT NULL,
    lsn INTEGER NOT NULL,
    PRIMARY KEY (namespace, session_id, tag)
) WITHOUT ROWID""",
    "CREATE INDEX tags_newest ON tags (namespace, tag, lsn)",
    "CREATE TABLE reached (one INTEGER PRIMARY KEY, lsn INTEGER NOT NULL, crc INTEGER NOT NULL)",
)
_PUT = """INSERT INTO sessions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (namespace, session_id) DO UPDATE SET
lsn = excluded.lsn, updated_at = excluded.updated_at,
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
_REACH = """INSERT INTO reached (one, lsn, crc) VALUES (1, ?, ?)
ON CONFLICT (one) DO UPDATE SET lsn = excluded.lsn, crc = excluded.crc"""

_IN_ORDER = "ORDER BY namespace, session_id"

# Where in a row of a session these stand, and how many columns it has.
_RECORD: Final = 6
_STEM: Final = 7
_CRC: Final = 11
_COLUMNS: Final = 12

_LARGEST = 2**63 - 1
_UNIX_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


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


class Wanted(Protocol):
    """Which sessions a page shows; see `engine.query.Query`."""

    @property
    def namespace(self) -> str: ...  # noqa: D102
    @property
    def tags(self) -> frozenset[str]: ...  # noqa: D102 - see `Query`
    @property
    def all_tags(self) -> frozenset[str]: ...  # noqa: D102
    @property
    def after(self) -> datetime | None: ...  # noqa: D102
    @property
    def before(self) -> datetime | None: ...  # noqa: D102
    @property
    def min_cost(self) -> float | None: ...  # noqa: D102
    @property
    def max_cost(self) -> float | None: ...  # noqa: D102
    @property
    def status(self) -> str | None: ...  # noqa: D102
    def matches(self, record: Record) -> bool: ...  # noqa: D102


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
                lsn = _reached(connection)
                for row in fetched(connection, "SELECT * FROM sessions"):
                    stem, signature = row[_STEM], _signature(row)
                    if stem is None or signature is None or not _is_intact(row):
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
                intact = _is_intact(row[:_COLUMNS])
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
        lsn: int | None = None,
    ) -> None:
        """Apply changes, all or none.

        Args:
            entries: Sessions to be shown as given.
            filed: Sessions whose file has caught up with the version given.
            removed: Ids of sessions that are gone.
            dropped: Numbers of rows that are wrong.
            lsn: Up to which change all are in the index with these.

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
            if lsn is not None:
                writer.execute(_REACH, (lsn, _lsn_crc(lsn)))

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
        below: tuple[int, str] | None,
        limit: int | None,
    ) -> list[Record]:
        """The newest of the sessions wanted, the one changed last first; in one transaction.

        Args:
            wanted: Which.
            below: Only those before this log sequence number and id.
            limit: How many at most; None for all.

        Raises:
            IndexFailed: It cannot be read, or what it holds is not as it was written.
        """
        source, conditions, values = _select(wanted, below)
        query = f"SELECT s.* FROM {source} WHERE {conditions}"
        if limit is not None:
            query += " LIMIT ?"
            values.append(min(limit, _LARGEST))
        records = self._read(query, values)
        keys = [(record.lsn, record.session_id) for record in records]
        in_order = all(before > after for before, after in pairwise(keys))
        if not in_order or not all(wanted.matches(record) for record in records):
            raise IndexFailed("it is damaged: a query found what it should not")
        return records

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
        with translated(), self._borrowed() as connection:
            rows = connection.execute(query, values).fetchall()
        if not all(map(_is_intact, rows)):
            raise IndexFailed("it is damaged: a row is not as it was written")
        try:
            return [decode_record(row[_RECORD]) for row in rows]
        except CorruptDocument as error:
            raise IndexFailed(f"it is damaged: {error.args[0]}") from error


def _reached(connection: sqlite3.Connection) -> int:
    row = connection.execute("SELECT lsn, crc FROM reached").fetchone()
    if row is None or row[1] != _lsn_crc(row[0]):
        return 0
    return int(row[0])


def _lsn_crc(lsn: int) -> int:
    return crc32(b"%d" % lsn)


def _row(entry: Entry) -> tuple[Any, ...]:
    record, signature = entry.record, entry.signature
    filed: tuple[Any, ...] = (None, None, None, None)
    if entry.stem is not None and signature is not None:
        filed = (entry.stem, _signed(signature.inode), signature.size, signature.mtime_ns)
    row = (
        namespace_of(record.session_id),
        record.session_id,
        record.lsn,
        _microseconds(record.updated_at),
        float(record.total_cost) + 0.0,  # SQLite knows no -0.0
        record.status,
        encode_record(record),
        *filed,
    )
    return (*row, _crc(row))


def _crc(row: Sequence[Any]) -> int:
    # `repr` tells a number from its digits, as the columns do.
    rest = repr((row[:_RECORD], row[_STEM:_CRC])).encode("utf-8", "surrogatepass")
    return crc32(row[_RECORD], crc32(rest))


def _is_intact(row: Sequence[Any]) -> bool:
    return type(row[_RECORD]) is bytes and row[_CRC] == _crc(row)


def _signature(row: Sequence[Any]) -> Signature | None:
    inode, size, mtime_ns = row[_STEM + 1 : _CRC]
    if type(inode) is not int or type(size) is not int or type(mtime_ns) is not int:
        return None
    return Signature(inode % 2**64, size, mtime_ns)


def _signed(inode: int) -> int:
    """Some file systems number their files up to 2**64, SQLite counts to half of it."""
    return inode - 2**64 if inode > _LARGEST else inode


def _microseconds(moment: datetime) -> int:
    return (moment - _UNIX_EPOCH) // _MICROSECOND


def _select(wanted: Wanted, below: tuple[int, str] | None) -> tuple[str, str, list[Any]]:
    """Source, conditions with their order, and values of the query for a page."""
    any_of, all_of = sorted(wanted.tags), sorted(wanted.all_tags)
    values: list[Any] = []
    if len(any_of) == 1 or (all_of and not any_of):
        # By one tag, newest first: the order of the index is that of the page.
        driving = any_of.pop() if any_of else all_of.pop()
        source = (
            "tags AS k CROSS JOIN sessions AS s"
            " ON s.namespace = k.namespace AND s.session_id = k.session_id"
        )
        key, conditions = "k", ["k.namespace = ?", "k.tag = ?"]
        values += [wanted.namespace, driving]
    else:
        source, key, conditions = "sessions AS s", "s", ["s.namespace = ?"]
        values.append(wanted.namespace)
    if below is not None:
        conditions.append(f"({key}.lsn, {key}.session_id) < (?, ?)")
        values += [min(below[0], _LARGEST), below[1]]
    for tags, least in ((any_of, 1), (all_of, len(all_of))):
        if tags:
            marks = ", ".join("?" * len(tags))
            conditions.append(
                "(SELECT count(*) FROM tags AS t"
                " WHERE t.namespace = s.namespace AND t.session_id = s.session_id"
                f" AND t.tag IN ({marks})) >= ?",
            )
            values += [*tags, least]
    for condition, value in (
        ("s.updated_at >= ?", wanted.after and _microseconds(wanted.after)),
        ("s.updated_at < ?", wanted.before and _microseconds(wanted.before)),
        ("s.total_cost >= ?", wanted.min_cost),
        ("s.total_cost <= ?", wanted.max_cost),
        ("s.status = ?", wanted.status),
    ):
        if value is not None:
            conditions.append(condition)
            values.append(value)
    order = f" ORDER BY {key}.lsn DESC, {key}.session_id DESC"
    return source, " AND ".join(conditions) + order, values
