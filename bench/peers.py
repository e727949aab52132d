"""Who keeps sessions: this library, and what people use in its place.

Every peer gets its work in the way that suits it best: the durable ones encode with orjson and
hold on to descriptors, and each thread has a connection of its own where that helps. Only the
naive store is as naive as it is found in the wild.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import itertools
import json
import os
import sqlite3
import threading
from collections import defaultdict
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, Self

import orjson

from bench.agents import ADD_ITEMS, PACKAGE, AgentsSqlite
from sessionkeeper import SessionStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence, Sized
    from contextlib import AbstractContextManager
    from pathlib import Path

    from bench.payloads import Message

# Nobody is measured by its patience: waiting longer than this is a failure.
TIMEOUT = 60.0


class SessionClient(Protocol):
    """One thread's way to a peer."""

    def save(self, session_id: str, messages: Sequence[Message]) -> None:
        """Store a whole session, in place of an older version."""
        ...

    def append(self, session_id: str, message: Message) -> None:
        """Add a message at the end of a session; creates it if it is absent."""
        ...

    def load(self, session_id: str) -> Sized:
        """The messages of a session that was saved, or something as long as they are many."""
        ...


class SessionPeer(Protocol):
    """A place where sessions are kept."""

    def client(self) -> AbstractContextManager[SessionClient]:
        """A client for the calling thread."""
        ...

    def count_sessions(self) -> int:
        """How many sessions were saved, as found on the medium; also when it is closed."""
        ...

    def count_messages(self) -> int:
        """How many messages were appended, in all sessions together."""
        ...

    def close(self) -> None:
        """Let go of everything."""
        ...


@dataclass(frozen=True, slots=True)
class PeerSpec:
    """How a peer is called and opened.

    Attributes:
        name: In tables.
        durable: Whether what it has accepted survives a power failure.
        open: Opens it in a folder that exists and is empty.
        package: The distribution that must be installed for it, or None.
    """

    name: str
    durable: bool
    open: Callable[[Path], SessionPeer]
    package: str | None = None

    @property
    def missing(self) -> str | None:
        """The package that is not installed, or None."""
        if self.package is None:
            return None
        try:
            importlib.metadata.version(self.package)
        except importlib.metadata.PackageNotFoundError:
            return self.package
        return None


# --- this library -------------------------------------------------------------------------


class KeeperPeer:
    """This library as an application opens it.

    Args:
        folder: Where.
        settings: What is not as the store comes.
    """

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.store = SessionStore.open(folder, call_timeout=TIMEOUT, **settings)
        self._folder = folder

    @contextmanager
    def client(self) -> Iterator[Self]:
        """Itself: all threads share one store."""
        yield self

    def save(self, session_id: str, messages: Sequence[Message]) -> None:
        """See `SessionClient.save`."""
        self.store.save_session(session_id, messages)

    def append(self, session_id: str, message: Message) -> None:
        """See `SessionClient.append`."""
        self.store.append(session_id, [message])

    def load(self, session_id: str) -> Sized:
        """See `SessionClient.load`."""
        return self.store.load_session(session_id).messages

    def count_sessions(self) -> int:
        """The published files: a save promises one."""
        return _count_files(self._folder)

    def count_messages(self) -> int:
        """What the store says: the file of an append may follow later."""
        return sum(info.message_count for info in self.store.iter_sessions())

    def close(self) -> None:
        """Close the store."""
        self.store.close(TIMEOUT)


class KeeperHandles(KeeperPeer):
    """The same, but loading decodes no messages: it stops at the `Session`."""

    def load(self, session_id: str) -> Sized:
        """The session."""
        return self.store.load_session(session_id)


# --- one file for each session ------------------------------------------------------------


class NaiveFiles:
    """One JSON file for each session, written in place.

    A crash in the middle of a write leaves half a file, and a power failure may leave none.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def client(self) -> Iterator[Self]:
        """Itself: threads work on different sessions, so there is nothing to lock."""
        yield self

    def save(self, session_id: str, messages: Sequence[Message]) -> None:
        """See `SessionClient.save`."""
        self.write(session_id, {"session_id": session_id, "messages": list(messages)})

    def append(self, session_id: str, message: Message) -> None:
        """Read all, add one, write all: a JSON document has no other way."""
        try:
            document = self.read(session_id)
        except FileNotFoundError:
            document = {"session_id": session_id, "messages": []}
        document["messages"].append(message)
        self.write(session_id, document)

    def load(self, session_id: str) -> list[Message]:
        """See `SessionClient.load`."""
        messages: list[Message] = self.read(session_id)["messages"]
        return messages

    def read(self, session_id: str) -> dict[str, Any]:
        """The whole document."""
        with self._path(session_id).open(encoding="utf-8") as file:
            document: dict[str, Any] = json.load(file)
        return document

    def write(self, session_id: str, document: dict[str, Any]) -> None:
        """Replace the whole document."""
        with self._path(session_id).open("w", encoding="utf-8") as file:
            file.write(json.dumps(document))

    def count_sessions(self) -> int:
        """The files."""
        return _count_files(self.folder)

    def count_messages(self) -> int:
        """What stands in the files."""
        files = self.folder.glob("*.json")
        return sum(len(orjson.loads(path.read_bytes())["messages"]) for path in files)

    def close(self) -> None:
        """Nothing is held."""

    def _path(self, session_id: str) -> Path:
        return self.folder / f"{session_id}.json"


class DurableFiles(NaiveFiles):
    """The same, done right: temporary, fsync, rename, fsync of the folder, for every write."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)

    def read(self, session_id: str) -> dict[str, Any]:
        """The whole document."""
        document: dict[str, Any] = orjson.loads(self._path(session_id).read_bytes())
        return document

    def write(self, session_id: str, document: dict[str, Any]) -> None:
        """Replace the whole document; it is durable on return."""
        temporary = self.folder / f".{session_id}.tmp"
        with temporary.open("wb", buffering=0) as file:
            file.write(orjson.dumps(document))
            os.fsync(file.fileno())
        temporary.replace(self._path(session_id))
        os.fsync(self._descriptor)

    def close(self) -> None:
        """Close the folder."""
        os.close(self._descriptor)


# --- SQLite -------------------------------------------------------------------------------


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


# --- diskcache ----------------------------------------------------------------------------


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


# --- the least that can be had ------------------------------------------------------------


class BytesInMemory:
    """Encoded messages in a dict: loading is orjson and nothing else."""

    def __init__(self, folder: Path) -> None:
        del folder
        self._sessions: dict[str, bytes] = {}

    @contextmanager
    def client(self) -> Iterator[Self]:
        """Itself."""
        yield self

    def save(self, session_id: str, messages: Sequence[Message]) -> None:
        """See `SessionClient.save`."""
        self._sessions[session_id] = orjson.dumps(messages)

    def append(self, session_id: str, message: Message) -> None:
        """See `SessionClient.append`."""
        messages = orjson.loads(self._sessions.get(session_id, b"[]"))
        self.save(session_id, [*messages, message])

    def load(self, session_id: str) -> Sized:
        """See `SessionClient.load`."""
        messages: list[Message] = orjson.loads(self._sessions[session_id])
        return messages

    def count_sessions(self) -> int:
        """The entries."""
        return len(self._sessions)

    def count_messages(self) -> int:
        """What stands in the entries."""
        return sum(len(orjson.loads(body)) for body in self._sessions.values())

    def close(self) -> None:
        """Nothing is held."""


def _count_files(folder: Path) -> int:
    with os.scandir(folder) as entries:
        return sum(entry.name.endswith(".json") for entry in entries)


KEEPER = "sessionkeeper"
PER_FILE = "per-file, fsync"
SQLITE = "sqlite3, FULL"
DISKCACHE = "diskcache"

_KEEPER = PeerSpec(KEEPER, durable=True, open=KeeperPeer)
_UNWATCHED = PeerSpec(
    "sessionkeeper, no watcher",
    durable=True,
    open=partial(KeeperPeer, watch=False),
)
_OS = PeerSpec("sessionkeeper, os", durable=False, open=partial(KeeperPeer, durability="os"))
_FILE = PeerSpec("sessionkeeper, file", durable=True, open=partial(KeeperPeer, durability="file"))
_IN_PLACE = PeerSpec("per-file, in place", durable=False, open=NaiveFiles)
_PER_FILE = PeerSpec(PER_FILE, durable=True, open=DurableFiles)
_SQLITE = PeerSpec(SQLITE, durable=True, open=RawSqlite)
_DISKCACHE = PeerSpec(DISKCACHE, durable=False, open=DiskCachePeer, package="diskcache")
_AGENTS = PeerSpec(ADD_ITEMS, durable=True, open=AgentsSqlite, package=PACKAGE)

_PEERS = (_IN_PLACE, _PER_FILE, _SQLITE, _DISKCACHE, _AGENTS)
APPENDING: tuple[PeerSpec, ...] = (_KEEPER, _UNWATCHED, _OS, *_PEERS)
SAVING: tuple[PeerSpec, ...] = (_KEEPER, _UNWATCHED, _FILE, *_PEERS)
SUSTAINING: tuple[PeerSpec, ...] = (_KEEPER, _UNWATCHED, _PER_FILE, _DISKCACHE)
LOADING: tuple[PeerSpec, ...] = (_KEEPER, *_PEERS)
