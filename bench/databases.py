"""Databases that people keep sessions in: SQLite as such, LMDB, diskcache, cachelib."""

from __future__ import annotations

import importlib
import itertools
import os
import sqlite3
import threading
from collections import defaultdict
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, Self

import orjson

from bench.measure import TIMEOUT, WorkNotDone

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from bench.payloads import Message

# LMDB maps so much of the address space; its file grows with what is in it.
_MAP_BYTES = 64 * 2**30
_READERS = 512


class RawSqlite:
    """SQLite as its manual recommends for durability: WAL, FULL, one row for each commit.

    Threads have connections of their own and take turns at a lock: without it they sleep in
    SQLite's busy handler, and 64 of them get a half to a quarter of this done.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "sessions.db"
        self._turn = threading.Lock()
        # Open as long as the peer: closing the last connection would fold the WAL back each time.
        self._connection = self._connect()
        self._connection.execute("CREATE TABLE sessions (id TEXT PRIMARY KEY, body BLOB)")
        # No index: the fastest form, and nothing loads by it here.
        self._connection.execute("CREATE TABLE messages (session_id TEXT, body BLOB)")

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path,
            timeout=TIMEOUT,
            isolation_level=None,
            check_same_thread=False,
        )
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        return connection

    @contextmanager
    def client(self) -> Iterator[SqliteClient]:
        """A connection of the thread's own."""
        with closing(self._connect()) as connection:
            connection.execute("SELECT count(*) FROM sessions").fetchone()  # reads the schema
            yield SqliteClient(connection, self._turn)

    def count_sessions(self) -> int:
        """The rows."""
        return self._count("SELECT count(*) FROM sessions")

    def count_messages(self) -> int:
        """The rows."""
        return self._count("SELECT count(*) FROM messages")

    def _count(self, query: str) -> int:
        with closing(sqlite3.connect(self._path)) as connection:
            return int(connection.execute(query).fetchone()[0])

    def close(self) -> None:
        """Close the last connection."""
        self._connection.close()


class SqliteClient:
    """One connection."""

    def __init__(self, connection: sqlite3.Connection, turn: threading.Lock) -> None:
        self._connection = connection
        self._turn = turn

    def save(self, session_id: str, messages: Sequence[Message]) -> None:
        """See `SessionClient.save`."""
        self._write(
            "INSERT INTO sessions VALUES (?, ?) "
            "ON CONFLICT (id) DO UPDATE SET body = excluded.body",
            session_id,
            orjson.dumps(messages),
        )

    def append(self, session_id: str, message: Message) -> None:
        """See `SessionClient.append`."""
        self._write("INSERT INTO messages VALUES (?, ?)", session_id, orjson.dumps(message))

    def _write(self, statement: str, session_id: str, body: bytes) -> None:
        with self._turn:
            self._connection.execute(statement, (session_id, body))

    def load(self, session_id: str) -> list[Message]:
        """See `SessionClient.load`."""
        query = "SELECT body FROM sessions WHERE id = ?"
        messages: list[Message] = orjson.loads(
            self._connection.execute(query, (session_id,)).fetchone()[0],
        )
        return messages


class LmdbPeer:
    """LMDB with its own settings: one writer at a time, each commit synced.

    One item for each session that is saved, and one for each message that is appended.
    """

    def __init__(self, folder: Path) -> None:
        self._environment: Any = importlib.import_module("lmdb").open(
            str(folder),
            map_size=_MAP_BYTES,
            max_readers=_READERS,
        )
        self._numbers: defaultdict[str, Iterator[int]] = defaultdict(itertools.count)

    @contextmanager
    def client(self) -> Iterator[Self]:
        """Itself: threads share one environment."""
        yield self

    def save(self, session_id: str, messages: Sequence[Message]) -> None:
        """See `SessionClient.save`."""
        self._put(session_id, orjson.dumps(messages))

    def append(self, session_id: str, message: Message) -> None:
        """See `SessionClient.append`."""
        number = next(self._numbers[session_id])
        self._put(f"{session_id}/{number:08d}", orjson.dumps(message))

    def _put(self, key: str, body: bytes) -> None:
        with self._environment.begin(write=True) as transaction:
            transaction.put(key.encode(), body)

    def load(self, session_id: str) -> list[Message]:
        """See `SessionClient.load`."""
        with self._environment.begin(buffers=True) as transaction:
            messages: list[Message] = orjson.loads(transaction.get(session_id.encode()))
        return messages

    def count_sessions(self) -> int:
        """The items."""
        return int(self._environment.stat()["entries"])

    def count_messages(self) -> int:
        """The items."""
        return self.count_sessions()

    def close(self) -> None:
        """Close the environment."""
        self._environment.close()


class DiskCachePeer:
    """diskcache with its own settings, except that it must not throw sessions away.

    It syncs its WAL at checkpoints only: what it accepted last does not survive a power failure.
    """

    def __init__(self, folder: Path) -> None:
        self._cache: Any = importlib.import_module("diskcache").Cache(
            str(folder),
            timeout=TIMEOUT,
            eviction_policy="none",
            cull_limit=0,
        )
        self._numbers: defaultdict[str, Iterator[int]] = defaultdict(itertools.count)

    @contextmanager
    def client(self) -> Iterator[Self]:
        """Itself; it keeps a connection for each thread, which is closed here."""
        with self._cache:
            yield self

    def save(self, session_id: str, messages: Sequence[Message]) -> None:
        """See `SessionClient.save`."""
        self._cache[session_id] = orjson.dumps(messages)

    def append(self, session_id: str, message: Message) -> None:
        """One item for each message."""
        number = next(self._numbers[session_id])
        self._cache[f"{session_id}/{number:08d}"] = orjson.dumps(message)

    def load(self, session_id: str) -> list[Message]:
        """See `SessionClient.load`."""
        messages: list[Message] = orjson.loads(self._cache[session_id])
        return messages

    def count_sessions(self) -> int:
        """The items."""
        with self._cache as cache:  # closes the connection that this opens
            return len(cache)

    def count_messages(self) -> int:
        """The items."""
        return self.count_sessions()

    def close(self) -> None:
        """Close the connection of the thread that opened it."""
        self._cache.close()


class CachelibPeer:
    """cachelib's `FileSystemCache`, what Flask's sessions lie in, without its bounds.

    It renames each file into its place and syncs nothing: a power failure may leave it empty.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._cache: Any = importlib.import_module("cachelib.file").FileSystemCache(
            str(folder),
            threshold=0,
            default_timeout=0,
        )
        self._numbers: defaultdict[str, Iterator[int]] = defaultdict(itertools.count)

    @contextmanager
    def client(self) -> Iterator[Self]:
        """Itself: it holds nothing open."""
        yield self

    def save(self, session_id: str, messages: Sequence[Message]) -> None:
        """See `SessionClient.save`."""
        self._set(session_id, orjson.dumps(messages))

    def append(self, session_id: str, message: Message) -> None:
        """One item for each message."""
        number = next(self._numbers[session_id])
        self._set(f"{session_id}/{number:08d}", orjson.dumps(message))

    def _set(self, key: str, body: bytes) -> None:
        # It logs what goes wrong, and goes on.
        if not self._cache.set(key, body):
            raise WorkNotDone(f"{key} was not kept")

    def load(self, session_id: str) -> list[Message]:
        """See `SessionClient.load`."""
        messages: list[Message] = orjson.loads(self._cache.get(session_id))
        return messages

    def count_sessions(self) -> int:
        """The files."""
        with os.scandir(self._folder) as entries:
            return sum(1 for _ in entries)

    def count_messages(self) -> int:
        """The files."""
        return self.count_sessions()

    def close(self) -> None:
        """Nothing is held."""
