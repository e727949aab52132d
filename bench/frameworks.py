"""Where frameworks for agents keep sessions, beside the one in `agents`.

Each gets what its own agents would give it: a framework is not measured by how it might be used.
"""

from __future__ import annotations

import asyncio
import importlib
import itertools
import shutil
import sqlite3
import threading
import warnings
from collections import defaultdict
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, Self

import orjson

from bench.measure import TIMEOUT

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator, Sequence
    from pathlib import Path

    from bench.payloads import Message

_AGENT = "agent"
_APP = "bench"


def _import(name: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the packages that they are made of
        return importlib.import_module(name)


# --- LangGraph ----------------------------------------------------------------------------


class LangGraphSaver:
    """LangGraph's `SqliteSaver`: each step of a graph is a checkpoint with the whole state.

    So an append reads the last checkpoint and writes another, as a graph does that is called
    with one more message. One connection, as `from_conn_string` opens it: WAL, and SQLite's own
    FULL.
    """

    def __init__(self, folder: Path) -> None:
        saver = _import("langgraph.checkpoint.sqlite").SqliteSaver
        self._empty: Any = _import("langgraph.checkpoint.base").empty_checkpoint
        self._new_id: Any = _import("langgraph.checkpoint.base.id").uuid6
        self._connection = sqlite3.connect(
            folder / "checkpoints.db",
            timeout=TIMEOUT,
            check_same_thread=False,
        )
        self.saver: Any = saver(self._connection)
        self.saver.setup()
        self._steps = itertools.count()

    @contextmanager
    def client(self) -> Iterator[Self]:
        """Itself: it has a lock, and one connection for all threads."""
        yield self

    def save(self, session_id: str, messages: Sequence[Message]) -> None:
        """See `SessionClient.save`."""
        self.put(session_id, list(messages), None)

    def append(self, session_id: str, message: Message) -> None:
        """See `SessionClient.append`."""
        found = self.saver.get_tuple(_config(session_id))
        if found is None:
            self.put(session_id, [message], None)
        else:
            checkpoint = found.checkpoint
            messages = [*checkpoint["channel_values"]["messages"], message]
            self.put(session_id, messages, checkpoint["id"])

    def put(
        self,
        session_id: str,
        messages: list[Message],
        parent: str | None,
        more: dict[str, Any] | None = None,
    ) -> None:
        """Write a checkpoint.

        Args:
            session_id: The thread of conversation.
            messages: All of them.
            parent: The id of the checkpoint before.
            more: What stands in its metadata too.
        """
        step = next(self._steps)
        checkpoint = self._empty()
        checkpoint["id"] = str(self._new_id(clock_seq=step))
        checkpoint["channel_values"] = {"messages": messages}
        checkpoint["channel_versions"] = {"messages": step}
        config = _config(session_id, parent)
        metadata = {"source": "loop", "step": step, "parents": {}, **(more or {})}
        self.saver.put(config, checkpoint, metadata, checkpoint["channel_versions"])

    def load(self, session_id: str) -> list[Message]:
        """See `SessionClient.load`."""
        found = self.saver.get_tuple(_config(session_id))
        messages: list[Message] = found.checkpoint["channel_values"]["messages"]
        return messages

    def count_sessions(self) -> int:
        """The threads of conversation that have checkpoints."""
        return len(self._sessions())

    def count_messages(self) -> int:
        """What stands in the last checkpoint of each."""
        return sum(len(self.load(session_id)) for session_id in self._sessions())

    def _sessions(self) -> list[str]:
        with self.saver.cursor(transaction=False) as cursor:
            rows = cursor.execute("SELECT DISTINCT thread_id FROM checkpoints").fetchall()
        return [row[0] for row in rows]

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def _config(session_id: str, checkpoint_id: str | None = None) -> dict[str, Any]:
    found = {"thread_id": session_id, "checkpoint_ns": ""}
    if checkpoint_id is not None:
        found["checkpoint_id"] = checkpoint_id
    return {"configurable": found}


# --- Strands ------------------------------------------------------------------------------


class StrandsFiles:
    """Strands' `FileSessionManager`: a folder for each session, and a file for each message.

    It renames each file into its place and syncs nothing.
    """

    # The manager makes a session of its own; it is not one of those that are counted.
    _OWN = "own"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        manager = _import("strands.session.file_session_manager").FileSessionManager
        self._types: Any = _import("strands.types.session")
        self._files: Any = manager(self._OWN, str(folder))
        self._numbers: defaultdict[str, Iterator[int]] = defaultdict(itertools.count)

    @contextmanager
    def client(self) -> Iterator[Self]:
        """Itself: threads work on different sessions."""
        yield self

    def save(self, session_id: str, messages: Sequence[Message]) -> None:
        """See `SessionClient.save`."""
        if session_id in self._numbers:
            del self._numbers[session_id]
            self._files.delete_session(session_id)
        for message in messages:
            self.append(session_id, message)

    def append(self, session_id: str, message: Message) -> None:
        """See `SessionClient.append`."""
        if session_id not in self._numbers:
            types = self._types
            self._files.create_session(types.Session(session_id, types.SessionType.AGENT))
            self._files.create_agent(session_id, types.SessionAgent(_AGENT, {}, {}))
        number = next(self._numbers[session_id])
        made = self._types.SessionMessage.from_message(message, number)
        self._files.create_message(session_id, _AGENT, made)

    def load(self, session_id: str) -> list[Message]:
        """See `SessionClient.load`."""
        found = self._files.list_messages(session_id, _AGENT)
        return [message.to_message() for message in found]

    def count_sessions(self) -> int:
        """The folders."""
        return sum(1 for _ in self._folder.glob("session_*")) - 1

    def count_messages(self) -> int:
        """The files."""
        return sum(1 for _ in self._folder.glob("session_*/agents/*/messages/message_*.json"))

    def close(self) -> None:
        """Its own session is no longer needed."""
        shutil.rmtree(self._folder / f"session_{self._OWN}")


# --- Google ADK ---------------------------------------------------------------------------


class AdkDatabase:
    """Google ADK's `DatabaseSessionService` on SQLite, with its own settings.

    One event loop serves all threads, as in the server that ADK brings. SQLite is as it comes: a
    rollback journal, synced. There is one event for each message.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "sessions.db"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about what is experimental in it
            service = _import("google.adk.sessions.database_session_service")
            self._event: Any = _import("google.adk.events.event").Event
            self._types: Any = _import("google.genai.types")
            self._service: Any = service.DatabaseSessionService(
                f"sqlite+aiosqlite:///{self._path}",
                connect_args={"timeout": TIMEOUT},
                pool_timeout=TIMEOUT,
            )
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="bench-adk")
        self._thread.start()
        self._run(self._service.prepare_tables())

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(TIMEOUT)

    @contextmanager
    def client(self) -> Iterator[AdkClient]:
        """What one thread has at hand."""
        yield AdkClient(self._service, self._run, self._made)

    def _made(self, message: Message) -> Any:
        part = self._types.Part(text=orjson.dumps(message).decode())
        return self._event(author="user", content=self._types.Content(role="user", parts=[part]))

    def count_sessions(self) -> int:
        """The rows."""
        return self._count("SELECT count(*) FROM sessions")

    def count_messages(self) -> int:
        """The rows."""
        return self._count("SELECT count(*) FROM events")

    def _count(self, query: str) -> int:
        with closing(sqlite3.connect(self._path)) as connection:
            return int(connection.execute(query).fetchone()[0])

    def close(self) -> None:
        """Close the service, the loop and its thread."""
        try:
            self._run(self._service.close())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()


class AdkClient:
    """One thread at the service; it holds on to its session, as a runner does to the end."""

    def __init__(self, service: Any, run: Any, made: Any) -> None:
        self._service = service
        self._run = run
        self._made = made
        self._session: Any = None

    def save(self, session_id: str, messages: Sequence[Message]) -> None:
        """See `SessionClient.save`; there is no way to add several events at once."""
        names = {"app_name": _APP, "user_id": _APP, "session_id": session_id}
        self._run(self._service.delete_session(**names))
        self._session = self._run(self._service.create_session(**names))
        for message in messages:
            self.append(session_id, message)

    def append(self, session_id: str, message: Message) -> None:
        """See `SessionClient.append`."""
        if self._session is None or self._session.id != session_id:
            names = {"app_name": _APP, "user_id": _APP, "session_id": session_id}
            self._session = self._run(self._service.get_session(**names))
            if self._session is None:
                self._session = self._run(self._service.create_session(**names))
        self._run(self._service.append_event(self._session, self._made(message)))

    def load(self, session_id: str) -> list[Message]:
        """See `SessionClient.load`."""
        names = {"app_name": _APP, "user_id": _APP, "session_id": session_id}
        found = self._run(self._service.get_session(**names))
        return [orjson.loads(event.content.parts[0].text) for event in found.events]
