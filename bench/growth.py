"""Who can list sessions and search them by a tag, and is asked to while they become more."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol

import orjson

from bench import payloads
from bench.frameworks import LangGraphSaver
from bench.measure import TIMEOUT, WorkNotDone
from bench.peers import KEEPER, missing_package
from sessionkeeper import SaveSession, SessionStore
from sessionkeeper.processes.tree import Injected, SystemTime

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

# A page, and the part of the sessions that has the tag that is searched for.
PAGE = 50
PART = 20
_TAG = "t0"

_MESSAGE_BYTES = 400

# A cleanup of a million sessions is one call.
_FOREVER = 3600.0


class Catalog(Protocol):
    """A place where sessions are found again without knowing their ids."""

    def fill(self, numbers: range) -> None:
        """Save small sessions of these numbers; each has the tag `tag_of(number)`."""
        ...

    def ready(self) -> None:
        """Do what is left to do once it is filled."""
        ...

    def page(self) -> Sequence[str]:
        """The ids of the sessions changed last, `PAGE` at most."""
        ...

    def search(self, tag: str) -> Sequence[str]:
        """The same of those that have a tag."""
        ...

    def close(self) -> None:
        """Let go of everything."""
        ...


@dataclass(frozen=True, slots=True)
class Question:
    """What a catalog is asked.

    Attributes:
        name: In tables.
        operation: In words.
        ask: Asks; the sessions there are numbered from 0 to their number.
        limit: Seconds that the subject should stay below with any number of sessions, or None.
    """

    name: str
    operation: str
    ask: Callable[[Catalog, int], object]
    limit: float | None = None


def tag_of(number: int) -> str:
    """The tag of a session."""
    return f"t{number % PART}"


def name_of(number: int) -> str:
    """The id of a session."""
    return f"s{number:08d}"


def title_of(number: int) -> str:
    """The title of a session; they are sorted otherwise than the sessions were made."""
    return f"Talk {number * 2654435761 % 2**32:08x}"


def _list(catalog: Catalog, sessions: int) -> None:
    _expect(catalog.page(), sessions, 1)


def _search(catalog: Catalog, sessions: int) -> None:
    _expect(catalog.search(_TAG), sessions, PART)


def _expect(found: Sequence[str], sessions: int, part: int) -> None:
    """The newest must come first, and nothing else than what is asked for."""
    having = range(0, sessions, part)
    expected = [name_of(number) for number in reversed(having[-PAGE:])]
    if list(found) != expected:
        raise WorkNotDone(f"{len(found)} sessions were found, or others than {len(expected)}")


QUESTIONS = (
    Question("list", f"the {PAGE} sessions changed last", _list, limit=0.01),
    Question("search", f"the {PAGE} changed last that have a tag", _search, limit=0.01),
)


class KeeperCatalog:
    """This library.

    Args:
        folder: Where.
        inject: Another clock, if it is to be another time.
    """

    def __init__(self, folder: Path, inject: Injected | None = None) -> None:
        self.store = SessionStore.open(folder, inject=inject, call_timeout=_FOREVER)
        self._messages = [payloads.message(0, _MESSAGE_BYTES)]

    def fill(self, numbers: range) -> None:
        """See `Catalog.fill`."""
        for number in numbers:
            name, tags = name_of(number), [tag_of(number)]
            self.store.tell(SaveSession(name, self._messages, tags=tags, title=title_of(number)))
        self.store.flush(None)

    def ready(self) -> None:
        """See `Catalog.ready`."""
        self.store.checkpoint(None)

    def page(self) -> list[str]:
        """See `Catalog.page`."""
        return [info.session_id for info in self.store.list_sessions(limit=PAGE)]

    def search(self, tag: str) -> list[str]:
        """See `Catalog.search`."""
        return [info.session_id for info in self.store.search(tags=[tag], limit=PAGE)]

    def close(self) -> None:
        """Close the store."""
        self.store.close(None)


class _AnotherTime(SystemTime):
    """The clocks of this machine, so many days off."""

    def __init__(self, days: float) -> None:
        self._off = timedelta(days=days)

    def now(self) -> datetime:
        """See `Clock.now`."""
        return super().now() + self._off


def at_another_time(days: float) -> Injected:
    """What has a store believe that it is so many days later, or earlier."""
    return Injected(clock=_AnotherTime(days))


class SqliteCatalog:
    """SQLite with the indexes that both questions want."""

    _BATCH = 1_000

    def __init__(self, folder: Path) -> None:
        self._path = folder / "sessions.db"
        self._connection = self._connect()
        self._connection.executescript(
            "PRAGMA journal_mode=WAL;"
            "CREATE TABLE sessions (id TEXT PRIMARY KEY, changed INTEGER, body BLOB);"
            "CREATE INDEX by_change ON sessions (changed);"
            "CREATE TABLE tags (tag TEXT, changed INTEGER, id TEXT,"
            " PRIMARY KEY (tag, changed, id)) WITHOUT ROWID;",
        )
        self._body = orjson.dumps([payloads.message(0, _MESSAGE_BYTES)])

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path, timeout=TIMEOUT, check_same_thread=False)

    def fill(self, numbers: range) -> None:
        """See `Catalog.fill`; many to a transaction, for it is not this that is measured."""
        for some in _batches(numbers, self._BATCH):
            with self._connection as connection:
                connection.executemany(
                    "INSERT INTO sessions VALUES (?, ?, ?)",
                    ((name_of(number), number, self._body) for number in some),
                )
                connection.executemany(
                    "INSERT INTO tags VALUES (?, ?, ?)",
                    ((tag_of(number), number, name_of(number)) for number in some),
                )

    def ready(self) -> None:
        """See `Catalog.ready`."""
        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def page(self) -> list[str]:
        """See `Catalog.page`."""
        return self._ids("SELECT id FROM sessions ORDER BY changed DESC LIMIT ?", PAGE)

    def search(self, tag: str) -> list[str]:
        """See `Catalog.search`."""
        query = "SELECT id FROM tags WHERE tag = ? ORDER BY changed DESC LIMIT ?"
        return self._ids(query, tag, PAGE)

    def _ids(self, query: str, *values: Any) -> list[str]:
        with closing(self._connection.cursor()) as cursor:
            return [row[0] for row in cursor.execute(query, values)]

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


class FilesCatalog:
    """One JSON file for each session and nothing else: it is found by looking at all of them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._messages = [payloads.message(0, _MESSAGE_BYTES)]

    def fill(self, numbers: range) -> None:
        """See `Catalog.fill`."""
        for number in numbers:
            document = {
                "id": name_of(number),
                "changed": number,
                "tags": [tag_of(number)],
                "messages": self._messages,
            }
            path = self._folder / f"{name_of(number)}.json"
            path.write_text(json.dumps(document), encoding="utf-8")
            # Files made within one tick of the kernel's clock have one time.
            os.utime(path, ns=(number, number))

    def ready(self) -> None:
        """Nothing is left."""

    def page(self) -> list[str]:
        """See `Catalog.page`: a look at the time of each file, and the newest are read."""
        with os.scandir(self._folder) as entries:
            newest = sorted(entries, key=lambda entry: entry.stat().st_mtime_ns, reverse=True)
        return [self._read(entry.path)["id"] for entry in newest[:PAGE]]

    def search(self, tag: str) -> list[str]:
        """See `Catalog.search`: all files are read."""
        with os.scandir(self._folder) as entries:
            documents = map(self._read, (entry.path for entry in entries))
            found = [document for document in documents if tag in document["tags"]]
        found.sort(key=lambda document: document["changed"], reverse=True)
        return [document["id"] for document in found[:PAGE]]

    def _read(self, path: str) -> dict[str, Any]:
        with open(path, "rb") as file:  # noqa: PTH123 - a Path for each costs as much again
            document: dict[str, Any] = orjson.loads(file.read())
        return document

    def close(self) -> None:
        """Nothing is held."""


class LangGraphCatalog(LangGraphSaver):
    """LangGraph's `SqliteSaver`, which searches in the metadata of its checkpoints."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        # Each checkpoint is a commit; here it is not the filling that is measured.
        self.saver.conn.execute("PRAGMA synchronous=OFF")

    def fill(self, numbers: range) -> None:
        """See `Catalog.fill`."""
        messages = [payloads.message(0, _MESSAGE_BYTES)]
        for number in numbers:
            self.put(name_of(number), messages, None, {"tag": tag_of(number)})

    def ready(self) -> None:
        """Nothing is left."""

    def page(self) -> list[str]:
        """See `Catalog.page`."""
        return self._found(None)

    def search(self, tag: str) -> list[str]:
        """See `Catalog.search`."""
        return self._found({"tag": tag})

    def _found(self, condition: dict[str, str] | None) -> list[str]:
        found = self.saver.list(None, filter=condition, limit=PAGE)
        return [each.config["configurable"]["thread_id"] for each in found]


def _batches(numbers: range, size: int) -> list[range]:
    return [numbers[start : start + size] for start in range(0, len(numbers), size)]


@dataclass(frozen=True, slots=True)
class CatalogSpec:
    """How a catalog is called and opened.

    Attributes:
        name: In tables.
        open: Opens it in a folder that exists and is empty.
        package: The distribution that must be installed for it, or None.
    """

    name: str
    open: Callable[[Path], Catalog]
    package: str | None = None

    @property
    def missing(self) -> str | None:
        """The package that is not installed, or None."""
        return missing_package(self.package)


# The first is the one that the others are compared with.
CATALOGS = (
    CatalogSpec(KEEPER, KeeperCatalog),
    CatalogSpec("sqlite3, indexed", SqliteCatalog),
    CatalogSpec("per-file, no index", FilesCatalog),
    CatalogSpec("LangGraph SqliteSaver", LangGraphCatalog, package="langgraph-checkpoint-sqlite"),
)
