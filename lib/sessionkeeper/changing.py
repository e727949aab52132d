"""Changing: one method for each command, sent and waited for."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections import deque
from typing import TYPE_CHECKING, Any, Final, TypeVar
from uuid import uuid4

from sessionkeeper.engine.commands import (
    ABSENT,
    AddAnnotation,
    AddEvent,
    AddTags,
    AppendMessages,
    Command,
    CountSessions,
    DeleteSession,
    EraseSession,
    ForkSession,
    PinSession,
    RemoveTags,
    RenameSession,
    RestoreBackup,
    ResumeSession,
    SaveSession,
    UndeleteSession,
    UnpinSession,
    rewinding,
)
from sessionkeeper.engine.watching import Watch
from sessionkeeper.errors import Conflict, StoreClosed
from sessionkeeper.keys import split_key
from sessionkeeper.layout import check_session_id
from sessionkeeper.otp import OtpError
from sessionkeeper.reading import Reading
from sessionkeeper.receipts import Receipt, translated
from sessionkeeper.session import INTERRUPTED, KEEP, UNFINISHED, Annotation, Keep, SessionEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from sessionkeeper.answers import BackupInfo, Erased, Saved
    from sessionkeeper.config import Config
    from sessionkeeper.events import Event, EventBus
    from sessionkeeper.otp import Reply
    from sessionkeeper.session import Changes, Session, SessionInfo

T = TypeVar("T")

# update() gives up after so many other writers came first.
MAX_CONFLICTS = 100

# clear() sends so many before it waits for the first.
CLEARED_AT_ONCE = 1000


class Default:
    """Stands for the store's own call_timeout."""


DEFAULT: Final = Default()
"""Stands for the store's own `call_timeout`."""

Timeout = float | None | Default


class Changing(Reading, ABC):
    """What can be done to the sessions of a store; each method sends one command.

    Subclasses say how a command is sent.
    """

    _events: EventBus
    # The last change that a process made which did not close the store; None: it did.
    _left_open_at: int | None

    @abstractmethod
    def ask(self, command: Command[T], *, timeout: Timeout = DEFAULT) -> T:
        """Send a command and wait for its answer."""

    @abstractmethod
    def submit(self, command: Command[T], *, timeout: Timeout = DEFAULT) -> Reply[T]:
        """Send a command and get the reply to come."""

    @abstractmethod
    def tell(self, command: Command[T]) -> Receipt[T]:
        """Send a command and go on."""

    @abstractmethod
    def require_open(self) -> None:
        """Refuse if no change can be sent, or told of.

        Raises:
            StoreReadOnly: The store was opened for reading only.
            StoreClosed: The store is closed.
        """

    @property
    @abstractmethod
    def path(self) -> Path:
        """The store's folder, absolute."""

    @property
    @abstractmethod
    def config(self) -> Config:
        """The settings in force."""

    @abstractmethod
    def flush(self, timeout: Timeout = DEFAULT) -> None:
        """Wait until all that was sent before is done."""

    @abstractmethod
    def subscribe(self, callback: Callable[[Event], None]) -> Callable[[], None]:
        """Call `callback` for every event."""

    @abstractmethod
    def now(self) -> datetime:
        """The clock of the store: an aware datetime in UTC."""

    def save_session(
        self,
        session_id: str,
        messages: Sequence[Any] | Keep = KEEP,
        *,
        state: Any = KEEP,
        metadata: Mapping[str, Any] | Keep = KEEP,
        tags: Iterable[str] | Keep = KEEP,
        title: str | Keep | None = KEEP,
        summary: str | Keep | None = KEEP,
        status: str | Keep | None = KEEP,
        expected_generation: int | None = None,
        total_cost: float | None = None,
    ) -> Saved:
        """Create a session or replace the fields given; what is left out is kept.

        Args:
            session_id: The session.
            messages: All its messages; any JSON values.
            state: The application's own value.
            metadata: A small mapping that lists show.
            tags: All its tags.
            title: A short name; None removes it.
            summary: A longer text; None removes it.
            status: `active` and `paused` protect it from retention, `completed` sets
                `completed_at`, other words are the application's own; None removes it.
            expected_generation: Save only over this generation.
            total_cost: What it cost so far; None adds up what the result messages say.

        Returns:
            Its new generation. The change is durable.

        Raises:
            Conflict: It has another generation than expected.
            InvalidSessionId: The id cannot name a session.
            InvalidValue: A value that JSON would not give back equal.
            StorageFailed: The medium refused; the old version stands.
            SessionKeeperError: See `ask`.
        """
        return self.ask(
            SaveSession(
                session_id,
                messages,
                state=state,
                metadata=metadata,
                tags=tags,
                title=title,
                summary=summary,
                status=status,
                expected_generation=expected_generation,
                total_cost=total_cost,
            ),
        )

    def create_session(
        self,
        session_id: str,
        messages: Sequence[Any] = (),
        *,
        state: Any = None,
        metadata: Mapping[str, Any] | Keep = KEEP,
        tags: Iterable[str] = (),
        title: str | None = None,
        summary: str | None = None,
        status: str | None = None,
        total_cost: float | None = None,
    ) -> Saved:
        """Create a session that does not exist yet. Arguments as for `save_session`.

        Raises:
            SessionExists: There is a session of that id; nothing was written.
            SessionKeeperError: See `save_session`.
        """
        return self.ask(
            SaveSession(
                session_id,
                messages,
                state=state,
                metadata=metadata,
                tags=tags,
                title=title,
                summary=summary,
                status=status,
                expected_generation=ABSENT,
                total_cost=total_cost,
            ),
        )

    def append(
        self,
        session_id: str,
        messages: Sequence[Any],
        *,
        key: str | None = None,
        total_cost: float | None = None,
    ) -> Saved:
        """Add messages at the end of a session; creates it if it is absent.

        Args:
            session_id: The session.
            messages: What to add, oldest first; a mapping or str is a TypeError.
            key: An idempotency key: repeating the call with it changes nothing and gives the
                first answer again.
            total_cost: What these messages cost; None adds up what the result messages say.

        Returns:
            Its new generation and number of messages. The change is durable.

        Raises:
            SessionKeeperError: See `save_session`.
        """
        return self.ask(AppendMessages(session_id, messages, key, total_cost))

    def update(self, session_id: str, change: Callable[[Session], Changes]) -> Saved:
        """Change a session by a function of what it is now.

        Args:
            session_id: The session.
            change: Gets the session and returns `session.replace(…)`. It runs in this thread,
                and again whenever another writer came first.

        Raises:
            SessionNotFound: There is no such session.
            Conflict: Another writer came first a hundred times in a row.
            SessionKeeperError: See `save_session`.
        """
        for _ in range(MAX_CONFLICTS):
            changes = change(self.load_session(session_id))
            try:
                return self.ask(SaveSession.of(changes))
            except Conflict as error:
                conflict = error
        raise conflict

    def add_tags(self, session_id: str, tags: Iterable[str]) -> Saved:
        """Add tags to a session, behind those it has.

        `save_session(tags=…)` replaces all of them.

        Returns:
            Its generation; the same as before if it has them all.

        Raises:
            SessionNotFound: There is no such session.
            InvalidValue: A blank tag, or too many.
            SessionKeeperError: See `ask`.
        """
        return self.ask(AddTags(session_id, tags))

    def remove_tags(self, session_id: str, tags: Iterable[str]) -> Saved:
        """Take tags from a session; one it does not have is no error.

        Raises:
            SessionNotFound: There is no such session.
            SessionKeeperError: See `ask`.
        """
        return self.ask(RemoveTags(session_id, tags))

    def pin(self, session_id: str) -> Saved:
        """Keep a session whatever the retention settings say; deleting it is still possible.

        Raises:
            SessionNotFound: There is no such session.
            SessionKeeperError: See `ask`.
        """
        return self.ask(PinSession(session_id))

    def unpin(self, session_id: str) -> Saved:
        """Let the retention settings decide about a session again.

        Raises:
            SessionNotFound: There is no such session.
            SessionKeeperError: See `ask`.
        """
        return self.ask(UnpinSession(session_id))

    def annotate(self, session_id: str, text: str, kind: str = "note") -> Annotation:
        """Note something about a session.

        Args:
            session_id: The session.
            text: What to note.
            kind: The application's word for what it is.

        Returns:
            The annotation, with an id of its own; `Session.annotations` has it.

        Raises:
            SessionNotFound: There is no such session.
            InvalidValue: An empty text or kind, or more than a session may have.
            SessionKeeperError: See `ask`.
        """
        annotation = Annotation(uuid4(), text, kind, self.now())
        self.ask(AddAnnotation(session_id, annotation))
        return annotation

    def add_event(self, session_id: str, kind: str, data: Any = None) -> SessionEvent:
        """Enter something that happened in a session.

        Args:
            session_id: The session.
            kind: The application's word for what happened.
            data: Any JSON value.

        Returns:
            The event, with an id of its own; `Session.events` has it.

        Raises:
            SessionNotFound: There is no such session.
            InvalidValue: An empty kind, data that JSON would not give back equal, or more than
                a session may have.
            SessionKeeperError: See `ask`.
        """
        event = SessionEvent(uuid4(), kind, self.now(), data)
        self.ask(AddEvent(session_id, event))
        return event

    def interrupted_sessions(self) -> list[SessionInfo]:
        """The sessions that were left unfinished, the one changed last first.

        That is those with the status `interrupted`; and, if the process that had the store last
        did not close it, those it left `active` or `paused` and that nobody has changed since
        this store was opened. Their files stay as they are: `resume` changes the one it is
        called for.

        Raises:
            IndexBehind: What was saved before is not in the index in time.
        """
        found = [*self.search(status=INTERRUPTED)]
        if self._left_open_at is not None:
            unfinished = (info for word in UNFINISHED for info in self.search(status=word))
            found += [info for info in unfinished if info.lsn <= self._left_open_at]
        return sorted(found, key=lambda info: -info.lsn)

    def resume(self, session_id: str) -> Session:
        """Go on with a session that is paused, interrupted, or was left active by a crash.

        Returns:
            The session, with the status `active`.

        Raises:
            SessionNotFound: There is no such session.
            NotResumable: It has another status.
            SessionKeeperError: See `ask`.
        """
        self.ask(ResumeSession(session_id))
        return self.load_session(session_id)

    def rename_session(self, session_id: str, new_id: str) -> Saved:
        """Give a session another id, with all it holds.

        The old id goes to the trash, together with the backups made under it. It is one
        change: nobody sees both, or neither.

        Returns:
            The generation under the new id, one more than under the old one.

        Raises:
            SessionNotFound: There is no such session.
            SessionExists: There is a session of the new id; nothing has changed.
            SessionKeeperError: See `ask`.
        """
        return self.ask(RenameSession(session_id, new_id))

    def fork_session(self, session_id: str, new_id: str, *, at: int | None = None) -> Saved:
        """Make a new session of what another one holds; that one stays as it is.

        Messages, state, title, summary, tags and metadata are copied; status, pin, annotations
        and events are not. The metadata of the copy says where it is from, in `forked_from`
        and `forked_at`.

        Args:
            session_id: The session to copy.
            new_id: The id of the copy.
            at: How many messages are copied, from the first one; None for all.

        Raises:
            SessionNotFound: There is no such session.
            SessionExists: There is a session of the new id.
            InvalidValue: It has fewer messages.
            SessionKeeperError: See `ask`.
        """
        return self.ask(ForkSession(session_id, new_id, at))

    def rewind(
        self,
        session_id: str,
        *,
        generation: int | None = None,
        message: int | None = None,
    ) -> Saved:
        """Take a session back, to its first messages or to a version that was replaced.

        Args:
            session_id: The session.
            generation: Back to this version, whole; one of those that `backups` lists.
            message: Back to so many messages; all else about it stays.

        Returns:
            Its new generation; the same as before if it has no more messages than that.

        Raises:
            SessionNotFound: There is no such session.
            InvalidValue: It has fewer messages.
            NoBackup: That generation is not kept.
            TypeError: Neither `generation` nor `message` is given, or both are.
            SessionKeeperError: See `ask`.
        """
        return self.ask(rewinding(session_id, generation, message))

    def delete_session(self, session_id: str) -> bool:
        """Move a session to the trash, where it stays for `trash_days`.

        Returns:
            Whether there was one; deleting an absent session is no error.

        Raises:
            SessionKeeperError: See `ask`.
        """
        return self.ask(DeleteSession(session_id))

    def undelete_session(self, session_id: str) -> Saved:
        """Bring back the version of a session that was deleted last.

        Raises:
            SessionExists: There is a session of that id now.
            SessionNotFound: It is not in the trash.
            SessionKeeperError: See `ask`.
        """
        return self.ask(UndeleteSession(session_id))

    def clear(self) -> int:
        """Move all sessions to the trash that there are now; whatever protects them.

        Each goes for itself: others are served in between, and if the store goes down on the
        way, those that were not reached yet stay.

        Returns:
            How many were moved.

        Raises:
            SessionKeeperError: One could not be moved; see `ask`. No more were begun after it.
        """
        self.require_open()
        self._view.wait_readable()
        waiting: deque[Reply[bool]] = deque()
        cleared = 0
        try:
            for record in self._view.newest_first():
                namespace, session_id = split_key(record.session_id)
                if namespace != self._namespace:
                    continue
                command = DeleteSession(session_id, reason="cleared")
                waiting.append(self.submit(command, timeout=None))
                if len(waiting) >= CLEARED_AT_ONCE:
                    cleared += waiting.popleft().result()
            while waiting:
                cleared += waiting.popleft().result()
        except OtpError as error:
            raise translated(error) from error
        finally:
            # Nothing of it happens any more when this call is over.
            for reply in waiting:
                reply.exception()
        return cleared

    def backups(self, session_id: str) -> list[BackupInfo]:
        """The versions of a session that a save replaced and that are kept, the newest first."""
        return self._view.backups(self._key(session_id))

    def restore(self, session_id: str, generation: int | None = None) -> Saved:
        """Make a version that was replaced the current one, as a new generation.

        Args:
            session_id: The session; also one whose own file is lost.
            generation: One of those `backups` shows; None for the newest that is whole.

        Raises:
            NoBackup: Nothing is kept of it, or not that generation.
            BackupsDamaged: What is kept cannot be read; the error says why, for each.
            SessionKeeperError: See `ask`.
        """
        return self.ask(RestoreBackup(session_id, generation))

    def erase_session(self, session_id: str, timeout: Timeout = DEFAULT) -> Erased:
        """Leave no byte of a session in the store's folder, at once and for good.

        File, backups, trash, quarantine, journal and index are cleaned; a session that was
        deleted before, or never was, can be erased too. What a medium keeps of files that are
        removed is beyond it: that takes an encrypted medium.

        Returns:
            How many files there were of it, and their bytes.

        Raises:
            StorageFailed: The medium refused it; nothing was changed.
            SessionKeeperError: See `ask`.
        """
        return self.ask(EraseSession(session_id), timeout=timeout)

    def watch(self, session_id: str | None = None) -> Watch:
        """Wait for sessions to change, by whomever: iterate over it, or call its `next`.

        A session that changes several times before anybody looks is given once, as it is then.
        The iteration ends when the store is closed; `close`, or a `with` block, ends it earlier.

        Args:
            session_id: Only this session, which need not exist yet; None for all.

        Raises:
            StoreReadOnly: A store that was opened for reading only is told of no changes.
            StoreClosed: The store is closed.
        """
        checked = None if session_id is None else check_session_id(session_id)
        self.require_open()
        record, settle = self._view.record, self._settle
        watch = Watch(self._events.subscribe, record, settle, self._namespace, checked)
        try:
            self.require_open()  # else it would never be told of the end
        except StoreClosed:
            watch.close()
            raise
        return watch

    def _settle(self) -> None:
        """Wait until the actor is done with what it is at; not if it has ended."""
        with contextlib.suppress(StoreClosed):
            self.ask(CountSessions())
