"""OpenAI Agents' SQLiteSession: how agents that use that SDK keep their sessions."""

from __future__ import annotations

import asyncio
import importlib
import sqlite3
import warnings
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator, Sequence
    from pathlib import Path

    from bench.payloads import Message

PACKAGE = "openai-agents"
ADD_ITEMS = "SQLiteSession"


class AgentsSqlite:
    """`SQLiteSession` of the OpenAI Agents SDK, with its own settings, all in one database.

    Each thread has an event loop and a `SQLiteSession` of its own, open before the clock starts:
    opening one for each session would cost several times what `add_items` does.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "sessions.db"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the packages that it is made of
            self._class: Any = importlib.import_module("agents").SQLiteSession
        self._first = self._class("first", self._path)
        self._known: set[str] = set()

    @contextmanager
    def client(self) -> Iterator[AgentsClient]:
        """A loop and a session for the calling thread."""
        client = AgentsClient(self._class("none", self._path), self._known)
        try:
            yield client
        finally:
            client.close()

    def count_sessions(self) -> int:
        """The rows."""
        return self._count("SELECT count(*) FROM agent_sessions")

    def count_messages(self) -> int:
        """The rows."""
        return self._count("SELECT count(*) FROM agent_messages")

    def _count(self, query: str) -> int:
        with closing(sqlite3.connect(self._path)) as connection:
            return int(connection.execute(query).fetchone()[0])

    def close(self) -> None:
        """Close the first session, which held the database open."""
        self._first.close()


class AgentsClient:
    """One thread's loop and session; the session takes the name of each one that is asked for."""

    def __init__(self, session: Any, known: set[str]) -> None:
        self._session = session
        self._known = known
        self._loop = asyncio.new_event_loop()
        self._run(session.get_items(limit=1))  # opens its connection

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self._loop.run_until_complete(work)

    def save(self, session_id: str, messages: Sequence[Message]) -> None:
        """See `SessionClient.save`."""
        self._session.session_id = session_id
        if session_id in self._known:
            self._run(self._session.clear_session())
        self._known.add(session_id)
        self._run(self._session.add_items(messages))

    def append(self, session_id: str, message: Message) -> None:
        """See `SessionClient.append`."""
        self._session.session_id = session_id
        self._run(self._session.add_items([message]))

    def load(self, session_id: str) -> list[Message]:
        """See `SessionClient.load`."""
        self._session.session_id = session_id
        items: list[Message] = self._run(self._session.get_items())
        return items

    def close(self) -> None:
        """Close the connection, and the loop with its threads."""
        try:
            self._session.close()
            self._run(self._loop.shutdown_default_executor())
        finally:
            self._loop.close()
