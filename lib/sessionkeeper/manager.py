"""The life of one session after the other: started, paused, stopped, and saved in between."""

from __future__ import annotations

import math
import threading
from copy import deepcopy
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from sessionkeeper.clock import SystemClock
from sessionkeeper.engine.commands import AdvanceSession
from sessionkeeper.engine.commands.checks import list_messages
from sessionkeeper.errors import (
    InvalidConfig,
    InvalidValue,
    NoCurrentSession,
    OutcomeUnknown,
    SessionNotFound,
    SessionRunning,
)
from sessionkeeper.session import ACTIVE, COMPLETED, KEEP, PAUSED, UNFINISHED, Keep, check_tags

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sessionkeeper.aiosessions import AsyncSessions
    from sessionkeeper.answers import Saved
    from sessionkeeper.changing import Changing
    from sessionkeeper.clock import Clock
    from sessionkeeper.session import Annotation, Session, SessionEvent


class SessionManager:
    """The session that an application is at work on, saved as it goes.

    Starting, annotating, pausing and stopping are saved at once. What `append` and `change` are
    given is collected and saved together: by the next of those, by `force_save`, or by
    `check_auto_save` when it is due. Closing the manager is stopping the session, or leaving it
    to be recovered; the store is closed by whoever opened it.

    All methods may be called from any thread.

    Args:
        store: Where sessions are kept; a scope of a store, too.
        auto_save_interval: Seconds between two saves that `check_auto_save` makes.
        clock: Measures them.
    """

    def __init__(
        self,
        store: Changing,
        *,
        auto_save_interval: float = 30.0,
        clock: Clock | None = None,
    ) -> None:
        if (
            type(auto_save_interval) not in (int, float)
            or not math.isfinite(auto_save_interval)
            or auto_save_interval <= 0
        ):
            raise InvalidConfig(
                f"auto_save_interval must be a finite number above 0, not {auto_save_interval!r}",
            )
        self._store = store
        self._interval = auto_save_interval
        self._clock: Clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._current: str | None = None
        # What is not saved yet; of the first it is not known whether it was.
        self._unsettled: AdvanceSession | None = None
        self._changes: AdvanceSession | None = None
        self._saved_at = 0.0

    @property
    def session_id(self) -> str | None:
        """The session at work on, or None."""
        return self._current

    @property
    def dirty(self) -> bool:
        """Whether something is not saved yet."""
        return self._unsettled is not None or self._changes is not None

    # --- the life of a session --------------------------------------------------------------

    def start_session(
        self,
        description: str,
        *,
        session_id: str | None = None,
        state: Any = None,
        metadata: Mapping[str, Any] | Keep = KEEP,
        tags: Iterable[str] = (),
    ) -> str:
        """Begin a session and save it, with the status `active`.

        Args:
            description: What it is about; its title.
            session_id: Its id; one that nobody has unless given.
            state: The application's own value.
            metadata: A small mapping that lists show.
            tags: Its tags.

        Returns:
            Its id.

        Raises:
            SessionRunning: There is one already.
            SessionExists: There is a session of that id in the store.
            InvalidValue: An empty description.
            SessionKeeperError: See `SessionStore.create_session`.
        """
        if not isinstance(description, str):
            raise TypeError(f"description must be a str, not {type(description).__name__}")
        if not description.strip():
            raise InvalidValue("a session has a description", hint="Say what it is about.")
        with self._lock:
            self._require_none()
            created = self._store.create_session(
                str(uuid4()) if session_id is None else session_id,
                title=description,
                status=ACTIVE,
                state=state,
                metadata=metadata,
                tags=tags,
            )
            self._take(created.session_id)
            return created.session_id

    def recover_session(self) -> str | None:
        """Go on with the session that was changed last of those a crash left unfinished.

        Returns:
            Its id; None if there is none.

        Raises:
            SessionRunning: There is a session already.
            SessionKeeperError: See `SessionStore.resume`.
        """
        with self._lock:
            self._require_none()
            for info in self._store.interrupted_sessions():
                self._store.resume(info.session_id)
                self._take(info.session_id)
                return info.session_id
            return None

    def pause(self) -> Saved:
        """Save the session with the status `paused`.

        Raises:
            NoCurrentSession: There is none.
            SessionKeeperError: See `SessionStore.save_session`.
        """
        return self._enter(status=PAUSED)

    def resume(self) -> Saved:
        """Save the session with the status `active`.

        Raises:
            NoCurrentSession: There is none.
            SessionKeeperError: See `SessionStore.save_session`.
        """
        return self._enter(status=ACTIVE)

    def stop_session(self) -> Session:
        """Save the session with the status `completed`; there is none afterwards.

        Returns:
            The session as it was saved.

        Raises:
            NoCurrentSession: There is none.
            SessionKeeperError: See `SessionStore.save_session`; it is still there then.
        """
        with self._lock:
            session_id = self._require()
            self._save(status=COMPLETED)
            self._current = None
            return self._store.load_session(session_id)

    # --- its contents -----------------------------------------------------------------------

    def append(self, messages: Sequence[Any]) -> None:
        """Collect messages, to be saved behind those there are.

        Args:
            messages: Oldest first; they are copied.

        Raises:
            NoCurrentSession: There is no session.
        """
        copies = deepcopy(list_messages(messages))
        with self._lock:
            before = self._collected()
            self._changes = replace(before, messages=[*before.messages, *copies])

    def change(
        self,
        *,
        state: Any = KEEP,
        metadata: Mapping[str, Any] | Keep = KEEP,
        tags: Iterable[str] | Keep = KEEP,
        title: str | Keep | None = KEEP,
        summary: str | Keep | None = KEEP,
    ) -> None:
        """Collect changes of its fields; what is left out is kept.

        Raises:
            NoCurrentSession: There is no session.
        """
        given: dict[str, Any] = {
            name: text
            for name, text in (("title", title), ("summary", summary))
            if text is not KEEP
        }
        if state is not KEEP:
            given["state"] = deepcopy(state)
        if metadata is not KEEP:
            given["metadata"] = deepcopy(metadata)
        if not isinstance(tags, Keep):
            given["tags"] = check_tags(tags)
        with self._lock:
            self._changes = replace(self._collected(), **given)

    def annotate(self, text: str, kind: str = "note") -> Annotation:
        """Save what was collected, and note something; see `SessionStore.annotate`.

        Raises:
            NoCurrentSession: There is none.
        """
        with self._lock:
            session_id = self._require()
            self._save_collected()
            noted = self._store.annotate(session_id, text, kind)
            self._saved_at = self._clock.monotonic()
            return noted

    def add_event(self, kind: str, data: Any = None) -> SessionEvent:
        """Save what was collected, and enter an event; see `SessionStore.add_event`.

        Raises:
            NoCurrentSession: There is none.
        """
        with self._lock:
            session_id = self._require()
            self._save_collected()
            noted = self._store.add_event(session_id, kind, data)
            self._saved_at = self._clock.monotonic()
            return noted

    # --- saving -----------------------------------------------------------------------------

    def force_save(self) -> bool:
        """Save what was collected, now and whatever the status of the session.

        Returns:
            Whether there was something.

        Raises:
            NoCurrentSession: There is no session.
            SessionKeeperError: See `SessionStore.save_session`; what was collected is kept.
        """
        with self._lock:
            self._require()
            return self._save_collected()

    def check_auto_save(self) -> bool:
        """Save what was collected if that is due; to be called every now and then.

        It is due when the interval has passed since the last save of any kind, and the session
        is still `active` or `paused` in the store.

        Returns:
            Whether it was saved.

        Raises:
            SessionKeeperError: See `SessionStore.save_session`; what was collected is kept, and
                still due.
        """
        with self._lock:
            if self._current is None or not self.dirty:
                return False
            if self._clock.monotonic() - self._saved_at < self._interval:
                return False
            if self._store.load_session(self._current, last=0).status not in UNFINISHED:
                return False
            return self._save_collected()

    def discard_changes(self) -> None:
        """Forget what was collected and not saved."""
        with self._lock:
            self._unsettled = self._changes = None

    # --- its parts --------------------------------------------------------------------------

    def _require(self) -> str:
        if self._current is None:
            raise NoCurrentSession("there is no session at work on")
        return self._current

    def _require_none(self) -> None:
        if self._current is not None:
            raise SessionRunning(
                f"session {self._current!r} is at work on",
                session_id=self._current,
            )

    def _take(self, session_id: str) -> None:
        self._current = session_id
        self._unsettled = self._changes = None
        self._saved_at = self._clock.monotonic()

    def _collected(self) -> AdvanceSession:
        return self._changes or AdvanceSession(self._require())

    def _enter(self, status: str) -> Saved:
        with self._lock:
            return self._save(status)

    def _save_collected(self) -> bool:
        if not self.dirty:
            return False
        if self._changes is None:
            self._settle()
        else:
            self._save(KEEP)
        return True

    def _save(self, status: str | Keep) -> Saved:
        """Save what was collected, and the status, as one change."""
        before = self._collected()
        self._settle()
        # The key makes it happen once, should it have to be repeated.
        self._unsettled = replace(before, status=status, key=uuid4().hex)
        self._changes = None
        try:
            return self._ask(self._unsettled)
        except OutcomeUnknown:
            raise
        except BaseException:
            self._unsettled = None
            self._changes = before if before != AdvanceSession(before.session_id) else None
            raise

    def _settle(self) -> None:
        """Repeat a save of which it is not known whether it happened."""
        if self._unsettled is not None:
            self._ask(self._unsettled)

    def _ask(self, command: AdvanceSession) -> Saved:
        if command.session_id not in self._store:
            raise SessionNotFound(
                f"session {command.session_id!r} is gone",
                session_id=command.session_id,
                hint="undelete_session() brings a deleted one back.",
            )
        saved = self._store.ask(command)
        self._unsettled = None
        self._saved_at = self._clock.monotonic()
        return saved


class AsyncSessionManager:
    """A `SessionManager` for asyncio and trio; every method does what its namesake does.

    Args:
        store: Where sessions are kept; a scope of a store, too.
        auto_save_interval: Seconds between two saves that `check_auto_save` makes.
        clock: Measures them.
    """

    def __init__(
        self,
        store: AsyncSessions,
        *,
        auto_save_interval: float = 30.0,
        clock: Clock | None = None,
    ) -> None:
        self._do = store._do  # noqa: SLF001 - two sides of one façade
        self._manager = SessionManager(
            store._store,  # noqa: SLF001 - two sides of one façade
            auto_save_interval=auto_save_interval,
            clock=clock,
        )

    @property
    def session_id(self) -> str | None:
        """The session at work on, or None."""
        return self._manager.session_id

    @property
    def dirty(self) -> bool:
        """Whether something is not saved yet."""
        return self._manager.dirty

    async def start_session(
        self,
        description: str,
        *,
        session_id: str | None = None,
        state: Any = None,
        metadata: Mapping[str, Any] | Keep = KEEP,
        tags: Iterable[str] = (),
    ) -> str:
        """Begin a session and save it; see `SessionManager.start_session`."""
        return await self._do(
            lambda: self._manager.start_session(
                description,
                session_id=session_id,
                state=state,
                metadata=metadata,
                tags=tags,
            ),
        )

    async def recover_session(self) -> str | None:
        """Go on with what a crash left; see `SessionManager.recover_session`."""
        return await self._do(self._manager.recover_session)

    async def pause(self) -> Saved:
        """Save the session as paused; see `SessionManager.pause`."""
        return await self._do(self._manager.pause)

    async def resume(self) -> Saved:
        """Save the session as active; see `SessionManager.resume`."""
        return await self._do(self._manager.resume)

    async def stop_session(self) -> Session:
        """Save the session as completed; see `SessionManager.stop_session`."""
        return await self._do(lambda: self._manager.stop_session().decoded())

    async def append(self, messages: Sequence[Any]) -> None:
        """Collect messages; see `SessionManager.append`."""
        await self._do(lambda: self._manager.append(messages))

    async def change(
        self,
        *,
        state: Any = KEEP,
        metadata: Mapping[str, Any] | Keep = KEEP,
        tags: Iterable[str] | Keep = KEEP,
        title: str | Keep | None = KEEP,
        summary: str | Keep | None = KEEP,
    ) -> None:
        """Collect changes of its fields; see `SessionManager.change`."""
        await self._do(
            lambda: self._manager.change(
                state=state,
                metadata=metadata,
                tags=tags,
                title=title,
                summary=summary,
            ),
        )

    async def annotate(self, text: str, kind: str = "note") -> Annotation:
        """Save what was collected, and note something; see `SessionManager.annotate`."""
        return await self._do(lambda: self._manager.annotate(text, kind))

    async def add_event(self, kind: str, data: Any = None) -> SessionEvent:
        """Save what was collected, and enter an event; see `SessionManager.add_event`."""
        return await self._do(lambda: self._manager.add_event(kind, data))

    async def force_save(self) -> bool:
        """Save what was collected, now; see `SessionManager.force_save`."""
        return await self._do(self._manager.force_save)

    async def check_auto_save(self) -> bool:
        """Save what was collected if that is due; see `SessionManager.check_auto_save`."""
        return await self._do(self._manager.check_auto_save)

    async def discard_changes(self) -> None:
        """Forget what was not saved; see `SessionManager.discard_changes`."""
        await self._do(self._manager.discard_changes)
