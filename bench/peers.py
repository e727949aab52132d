"""Who keeps sessions: this library, and what people use in its place.

Every peer gets its work in the way that suits it best: the durable ones encode with orjson and
hold on to descriptors, and each thread has a connection of its own where that helps. Only the
naive store is as naive as it is found in the wild.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, Self

import orjson

from bench.agents import ADD_ITEMS, PACKAGE, AgentsSqlite
from bench.databases import CachelibPeer, DiskCachePeer, LmdbPeer, RawSqlite
from bench.frameworks import AdkDatabase, LangGraphSaver, StrandsFiles
from bench.measure import TIMEOUT
from sessionkeeper import SessionStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence, Sized
    from contextlib import AbstractContextManager
    from pathlib import Path

    from bench.payloads import Message


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
        return missing_package(self.package)


def missing_package(package: str | None) -> str | None:
    """The package itself if it is one that is not installed, else None."""
    if package is None:
        return None
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return package
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
_LMDB = PeerSpec("lmdb", durable=True, open=LmdbPeer, package="lmdb")
_CACHELIB = PeerSpec("cachelib", durable=False, open=CachelibPeer, package="cachelib")
_AGENTS = PeerSpec(ADD_ITEMS, durable=True, open=AgentsSqlite, package=PACKAGE)
_LANGGRAPH = PeerSpec(
    "LangGraph SqliteSaver",
    durable=True,
    open=LangGraphSaver,
    package="langgraph-checkpoint-sqlite",
)
_STRANDS = PeerSpec(
    "Strands FileSession",
    durable=False,
    open=StrandsFiles,
    package="strands-agents",
)
_ADK = PeerSpec("ADK DatabaseSession", durable=True, open=AdkDatabase, package="google-adk")

_PEERS = (
    *(_IN_PLACE, _PER_FILE, _SQLITE, _LMDB, _DISKCACHE, _CACHELIB),
    *(_AGENTS, _LANGGRAPH, _STRANDS),
)
APPENDING: tuple[PeerSpec, ...] = (_KEEPER, _UNWATCHED, _OS, *_PEERS, _ADK)
# ADK cannot save a session: it takes each of its messages for itself, a fifth of a second in all.
SAVING: tuple[PeerSpec, ...] = (_KEEPER, _UNWATCHED, _FILE, *_PEERS)
SUSTAINING: tuple[PeerSpec, ...] = (_KEEPER, _PER_FILE, _DISKCACHE)  # a minute each, and again
LOADING: tuple[PeerSpec, ...] = (_KEEPER, *_PEERS, _ADK)
# While others write.
BUSY: tuple[PeerSpec, ...] = (_KEEPER, _PER_FILE, _SQLITE, _LMDB, _DISKCACHE, _AGENTS)
