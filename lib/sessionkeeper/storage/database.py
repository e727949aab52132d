"""What the databases of a store have in common: connections, and how one is dropped.

Whatever such a database holds can be made anew from the sessions, so a doubt about it is answered
by dropping it. One thread at a time writes; any thread reads, on connections of its own.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Final
from urllib.parse import quote

from sessionkeeper.layout import FILE_MODE
from sessionkeeper.slices import SLICE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Seconds that one connection waits for another, and closing for queries that are under way.
PATIENCE: float = 5.0
# These pass by themselves; the database need not be made anew for them.
_PASSING: Final = frozenset(
    (
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_INTERRUPT,
    ),
)
_PRIMARY_CODE: Final = 0xFF
# So many rows are fetched at a time where all are looked at.
_CHUNK: Final = 500


class IndexFailed(Exception):
    """A database cannot be used as it is; nothing is lost by that.

    Attributes:
        passing: Whether it may be as good as before in a while, as it is.
    """

    def __init__(self, message: str, *, passing: bool = False) -> None:
        super().__init__(message)
        self.passing = passing


class Database:
    """One database file.

    Args:
        path: The file; made by `open`, for the owner only.
    """

    VERSION: ClassVar[int]
    SCHEMA: ClassVar[tuple[str, ...]]

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writer: sqlite3.Connection | None = None
        self._changed = threading.Condition()
        self._idle: list[sqlite3.Connection] = []
        self._lent = 0
        self._shut = True

    def open(self) -> None:
        """Open the file for writing; makes it if there is none.

        Raises:
            IndexFailed: It is not as this version makes it, or the medium refuses.
        """
        with translated():
            self._close_writer()
            with contextlib.suppress(FileExistsError):
                # Before SQLite does, whose files are for everybody; its others follow this one.
                flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
                os.close(os.open(self.path, flags, FILE_MODE))
            writer = self._connect()
            try:
                self._prepare(writer)
            except BaseException:
                writer.close()
                raise
            self._writer = writer
        with self._changed:
            self._shut = False

    def check(self) -> None:
        """Have SQLite look at every page: tables and their indices agree.

        Raises:
            IndexFailed: They do not.
        """
        with translated():
            (found,) = self._open_writer().execute("PRAGMA integrity_check(1)").fetchone()
        if found != "ok":
            raise IndexFailed(f"it is damaged: {found}")

    def discard(self) -> None:
        """Drop the file: it will be made anew. Queries under way are waited for.

        Raises:
            IndexFailed: It cannot be removed, or a query does not end.
        """
        self.close()
        with translated():
            for suffix in ("-wal", "-shm", "-journal", ""):
                self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)

    def close(self) -> None:
        """Close all connections; `open` opens again.

        Raises:
            IndexFailed: A query has not ended in time.
        """
        with self._changed:
            self._shut = True
            idle, self._idle = self._idle, []
            for connection in idle:
                connection.close()
            # The last connection removes SQLite's other files by their names, which may be
            # those of the next index by then: none may be left over.
            done = self._changed.wait_for(lambda: self._lent == 0, PATIENCE)
        self._close_writer()
        if not done:
            raise IndexFailed("a query has not ended", passing=True)

    # --- for those that know what is in it --------------------------------------------------

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction: all in it or nothing."""
        writer = self._open_writer()
        with translated():
            writer.execute("BEGIN IMMEDIATE")
            try:
                yield writer
                writer.execute("COMMIT")
            except BaseException:
                if writer.in_transaction:
                    writer.execute("ROLLBACK")
                raise

    def _empty_log(self, writer: sqlite3.Connection) -> None:
        busy, _, _ = writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise IndexFailed("a query is under way", passing=True)

    @contextlib.contextmanager
    def borrowed(self) -> Iterator[sqlite3.Connection]:
        """A connection for reading, in any thread.

        Raises:
            IndexFailed: The file is not open.
        """
        with self._changed:
            if self._shut:
                raise IndexFailed("it is not open", passing=True)
            idle = self._idle.pop() if self._idle else None
            self._lent += 1
        try:
            connection = idle or self._connect()
            try:
                connection.execute("PRAGMA query_only = ON")
                yield connection
            except BaseException:
                connection.close()
                raise
            self._give_back(connection)
        finally:
            with self._changed:
                self._lent -= 1
                self._changed.notify_all()

    def _give_back(self, connection: sqlite3.Connection) -> None:
        with self._changed:
            if self._shut:
                connection.close()
            else:
                self._idle.append(connection)

    def _connect(self) -> sqlite3.Connection:
        if self.path.is_symlink():
            raise IndexFailed("it is a link")  # to what may be anybody's
        # Never "rwc": what a person has deleted is made by `open` or not at all.
        connection = sqlite3.connect(
            f"file:{quote(str(self.path))}?mode=rw",
            uri=True,
            timeout=PATIENCE,
            isolation_level=None,
            check_same_thread=False,
        )
        connection.execute("PRAGMA trusted_schema = OFF")
        return connection

    def _open_writer(self) -> sqlite3.Connection:
        if self._writer is None:
            raise IndexFailed("it is not open", passing=True)
        return self._writer

    def _close_writer(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()

    def _prepare(self, connection: sqlite3.Connection) -> None:
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise IndexFailed(f"its folder allows no write-ahead log, only {mode}", passing=True)
        # A power loss may cost its last changes, which are made good from the files.
        connection.execute("PRAGMA synchronous = NORMAL")
        # What is removed is written over, so that erasing a session leaves nothing of it here.
        connection.execute("PRAGMA secure_delete = ON")
        if connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,):
            connection.execute("BEGIN IMMEDIATE")
            for statement in self.SCHEMA:
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {self.VERSION}")
            connection.execute("COMMIT")
        self._check_schema(connection)

    def _check_schema(self, connection: sqlite3.Connection) -> None:
        """Refuse a database with anything in it but what is made here."""
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version != self.VERSION:
            raise IndexFailed(f"its version is {version}, not {self.VERSION}")
        if _schema_of(connection) != _made_by(self.SCHEMA):
            raise IndexFailed("it is damaged: its tables are not those of an index")


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Raise what SQLite and the system raise as `IndexFailed`."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
        raise IndexFailed(f"{error}", passing=code & _PRIMARY_CODE in _PASSING) from error
    except OSError as error:
        raise IndexFailed(f"{error}", passing=True) from error
    except (OverflowError, UnicodeEncodeError) as error:
        # A number or a text that JSON can hold and SQLite cannot.
        raise IndexFailed(f"it cannot hold a value: {error}", passing=True) from error
    except UnicodeDecodeError as error:
        raise IndexFailed(f"it is damaged: {error}") from error


def fetched(connection: sqlite3.Connection, query: str) -> Iterator[Any]:
    """All rows of a query, some at a time."""
    cursor = connection.execute(query)
    cursor.arraysize = _CHUNK
    while rows := cursor.fetchmany():
        yield from rows


def holds(path: Path, needle: bytes) -> bool:
    """Whether these bytes stand anywhere in a file."""
    kept = b""
    with path.open("rb") as file:
        while piece := file.read(SLICE):
            if needle in kept + piece:
                return True
            kept = piece[-len(needle) :]
    return False


def _schema_of(connection: sqlite3.Connection) -> tuple[str, ...]:
    found = connection.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")
    return tuple(sorted(text for (text,) in found.fetchall()))


@lru_cache
def _made_by(schema: tuple[str, ...]) -> tuple[str, ...]:
    """What SQLite makes of a schema: a virtual table comes with tables of its own."""
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        for statement in schema:
            connection.execute(statement)
        return _schema_of(connection)
