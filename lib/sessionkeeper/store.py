"""The façade: one method for each command, stable over restarts of what is behind it."""

from __future__ import annotations

import atexit
import contextlib
import os
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypeVar
from uuid import uuid4

from sessionkeeper.engine.cache import SessionCache
from sessionkeeper.engine.commands import (
    ABSENT,
    AddAnnotation,
    AddEvent,
    AddTags,
    AppendMessages,
    CheckpointFiles,
    Cleanup,
    Command,
    Configure,
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
from sessionkeeper.engine.query import Query, position
from sessionkeeper.engine.validation import INTEGRITY, check_validators, issues_of, require_valid
from sessionkeeper.engine.values import Values
from sessionkeeper.engine.view import View
from sessionkeeper.engine.watching import Watch
from sessionkeeper.errors import (
    Conflict,
    InvalidConfig,
    OutcomeUnknown,
    SessionKeeperError,
    SessionNotFound,
    StoreClosed,
    StoreNotFound,
    StoreReadOnly,
    ValidationFailed,
)
from sessionkeeper.events import EventBus, logger
from sessionkeeper.layout import Layout, check_session_id
from sessionkeeper.otp import OtpError
from sessionkeeper.processes.tree import Injected, StoreTree, SystemTime
from sessionkeeper.receipts import Receipt, Unread, translated
from sessionkeeper.session import (
    INTERRUPTED,
    KEEP,
    UNFINISHED,
    Annotation,
    Erased,
    Keep,
    Removal,
    Saved,
    SessionEvent,
    StorageStats,
    merge_newest,
)
from sessionkeeper.settings import PATH_VARIABLE, Layers, from_environment, known
from sessionkeeper.storage.configfile import ConfigFile
from sessionkeeper.storage.platform import FileSystem
from sessionkeeper.storage.reader import FolderReader
from sessionkeeper.storage.single import SingleFileReader
from sessionkeeper.storage.usage import measure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from datetime import date, datetime
    from os import PathLike
    from types import TracebackType

    from sessionkeeper.clock import Clock
    from sessionkeeper.config import Config
    from sessionkeeper.engine.commands import Prepared
    from sessionkeeper.engine.validation import Validator
    from sessionkeeper.engine.values import CodecName
    from sessionkeeper.events import Event
    from sessionkeeper.otp import Reply
    from sessionkeeper.processes.tree import ProcessInfo
    from sessionkeeper.session import BackupInfo, Changes, L, Page, Session, SessionInfo
    from sessionkeeper.storage.backend import RecoveryReport

T = TypeVar("T")

# Values are taken as they are.
PLAIN: Final = Values()

# update() gives up after so many other writers came first.
MAX_CONFLICTS = 100

# clear() sends so many before it waits for the first.
CLEARED_AT_ONCE = 1000

# How long an interpreter that exits waits for stores that were left open, in seconds.
EXIT_TIMEOUT = 10.0


class _Default:
    """Stands for the store's own call_timeout."""


DEFAULT: Final = _Default()
"""Stands for the store's own `call_timeout`."""

Timeout = float | None | _Default


@dataclass(frozen=True, slots=True)
class StoreInfo:
    """What a store is up to.

    Attributes:
        path: Its folder.
        state: `ready`, `recovering`, `restarting`, `closed` or `read-only`.
        sessions: How many sessions there are.
        epoch: The number of the actor's incarnation; 1 for the first.
        restarts: How often the actor was restarted.
        pending: Commands waiting in the mailbox.
        pending_bytes: Their encoded size.
        oldest_pending: Seconds the first of them has waited, or None.
        last_exit: Why the last incarnation ended, or None.
        uptime: Seconds since the current incarnation came up.
        cached_sessions: Sessions in the cache.
        cached_bytes: Their size.
        cache_hits: Reads that the cache answered.
        cache_misses: Reads that went to the backend.
    """

    path: Path
    state: str
    sessions: int
    epoch: int
    restarts: int
    pending: int
    pending_bytes: int
    oldest_pending: float | None
    last_exit: str | None
    uptime: float
    cached_sessions: int
    cached_bytes: int
    cache_hits: int
    cache_misses: int


class SessionStore:
    """A durable store of sessions in one folder.

    Open it with `SessionStore.open`, best as a context manager. All methods may be called from
    any thread. A method that changes something returns when the change is as durable as the
    store promises (`durability="file"`: on the disk, name and all), or raises.
    """

    def __init__(
        self,
        path: Path,
        clock: Clock,
        events: EventBus,
        view: View,
        tree: StoreTree | None,
        *,
        validators: tuple[Validator, ...] = (),
        values: Values = PLAIN,
    ) -> None:
        self._path = path
        self._clock = clock
        # The last change that a process made which did not close the store; None: it did.
        self._left_open_at: int | None = None
        self._validators = validators
        self._values = values
        self._converts = values != PLAIN
        self._events = events
        self._view = view
        self._tree = tree
        self._unread = Unread()
        self._closed = False
        _open_stores.add(self)

    # --- opening and closing ----------------------------------------------------------------

    @classmethod
    def open(
        cls,
        path: str | PathLike[str] | None = None,
        *,
        read_only: bool = False,
        inject: Injected | None = None,
        validators: Iterable[Validator | str] = (),
        on_write: Iterable[Callable[[Any], Any]] = (),
        to_json: Callable[[Any], Any] | Literal["auto"] | None = None,
        codec: CodecName = "json",
        **settings: Any,
    ) -> Self:
        """Open the store in a folder; creates it unless it is there.

        Args:
            path: The folder. `~` is expanded; a relative path is resolved now, once. None takes
                what the environment variable SESSIONKEEPER_PATH says.
            read_only: Take no lock and change nothing: works beside a live owner, and shows
                what the folder held when it was opened, each session as it is when loaded.
            inject: Replacements of clock and file system, for tests.
            validators: What every change is checked with before it is sent: functions that get
                the session as it would be and return a list of issues, or raise; or the names
                of built-in checks: `description`, `times`, `counts`, `ids`.
            on_write: Functions that each message goes through before it is encoded, in the
                caller's thread, for redaction say. They get a copy and return what is stored.
            to_json: Makes messages, states and data of events JSON that are not; `auto` knows
                dataclasses and pydantic models.
            codec: `tagged` also takes datetimes, UUIDs, Decimals and bytes, and gives them back
                as what they were.
            settings: See `Config`; an unknown one is a TypeError. What is not given here is
                taken from variables like SESSIONKEEPER_RETENTION_DAYS, else from the config.json
                of the store, else it is the default.

        Raises:
            StoreLocked: Another owner is alive; the error names it.
            StoreDamaged: `recovery="strict"`, and part of it is damaged.
            StoreNotFound: `read_only`, and there is no store.
            InvalidConfig: A setting outside its range.
            StoreClosed: The recovery failed again and again.
            OSError: The folder cannot be created.
        """
        injected = inject or Injected()
        layers = _layers(path, settings, injected.fs or FileSystem())
        config = layers.config()
        checks, values = check_validators(validators), Values.of(on_write, to_json, codec)
        _check_layout(config)
        if read_only:
            return cls._open_read_only(config, injected, checks, values)
        left_open = _is_left_open(config)
        tree = StoreTree(layers, injected)
        store = cls(
            config.path,
            tree.clock,
            tree.events,
            tree.view,
            tree,
            validators=checks,
            values=values,
        )
        try:
            tree.wait_ready()
        except BaseException:
            tree.close(EXIT_TIMEOUT)
            _open_stores.discard(store)
            raise
        if left_open:
            store._left_open_at = store.last_recovery.lsn
        return store

    @classmethod
    def _open_read_only(
        cls,
        config: Config,
        injected: Injected,
        validators: tuple[Validator, ...],
        values: Values,
    ) -> Self:
        layout = Layout.of(config.path, config.layout)
        if config.in_memory or not layout.private.is_dir():
            raise StoreNotFound(f"there is no store at {config.path}", path=config.path)
        clock = injected.clock or SystemTime()
        kind = FolderReader if layout.file is None else SingleFileReader
        reader = kind(layout, injected.fs or FileSystem(), clock)
        # The owner replaces files without telling us: nothing may be served from a cache.
        cache = SessionCache(1, config.cache_ttl, clock)

        def look_again(session_id: str) -> None:
            view.reconciled(reader.reconcile([reader.file_name(session_id)], view.lsn))

        view = View(reader, cache, config.call_timeout, look_again)
        report = reader.recover()
        for problem in report.problems:
            logger.warning("%s: %s: %s", problem.kind, problem.path, problem.detail)
        view.recovered(report)
        return cls(
            config.path,
            clock,
            EventBus(),
            view,
            None,
            validators=validators,
            values=values,
        )

    def flush(self, timeout: Timeout = DEFAULT) -> None:
        """Wait until all that was sent before is done.

        Args:
            timeout: Seconds; the store's `call_timeout` if left out, None for as long as it takes.

        Raises:
            UnreadFailures: A command sent with `tell` failed and nobody looked at its receipt.
            NotExecuted: It was not done within the timeout; it goes on.
        """
        if self._tree is not None:
            self.ask(CountSessions(), timeout=timeout)
        self._unread.raise_if_any()

    def checkpoint(self, timeout: float | None = 30.0) -> None:
        """Wait until every session file is current and durable.

        Changes are durable before; this is for whoever reads the files beside the store.

        Args:
            timeout: Seconds; None for as long as it takes.

        Raises:
            StoreReadOnly: The store is open for reading only.
            StorageFailed: The medium refused; nothing is lost, the journal holds everything.
            NotExecuted: It was not done within the timeout; it goes on.
            OutcomeUnknown: It was under way when the timeout came.
        """
        self.ask(CheckpointFiles(), timeout=timeout)

    def close(self, timeout: float | None = 30.0) -> None:
        """Have everything done that was sent, stop, and give the folder up.

        A second call does nothing.

        Args:
            timeout: Seconds to wait for what was sent; None for as long as it takes.

        Raises:
            UnreadFailures: A command sent with `tell` failed and nobody looked at its receipt.
            NotExecuted: Something was not done within the timeout.
        """
        if self._closed:
            return
        self._closed = True
        _open_stores.discard(self)
        if self._tree is None:
            self._view.close()
            return
        try:
            with contextlib.suppress(StoreClosed):  # it gave up before: said so already
                self.ask(CountSessions(), timeout=timeout)
        finally:
            self._tree.close(timeout)
        self._unread.raise_if_any()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.close()
        except Exception as close_error:
            if error is None:
                raise
            error.add_note(f"closing the store failed too: {close_error!r}")

    # --- commands ---------------------------------------------------------------------------

    def ask(self, command: Command[T], *, timeout: Timeout = DEFAULT) -> T:
        """Send a command and wait for its answer.

        Args:
            command: What to do; checked and encoded in this thread before it is sent.
            timeout: Seconds; the store's `call_timeout` if left out, None for as long as it takes.

        Raises:
            NotExecuted: The store did not get to it in time; it has not happened and will not.
            OutcomeUnknown: The store was at it when the time was over.
            StoreBusy: The mailbox stayed full.
            StoreClosed: The store is closed.
            SessionKeeperError: The command was refused; nothing has changed.
        """
        tree = self._writer()
        prepared = self._prepared(command)
        seconds = tree.config.call_timeout if isinstance(timeout, _Default) else timeout
        submission = tree.submission(prepared)
        try:
            answer: T = tree.actor.call(submission, seconds, size=prepared.size())
        except OtpError as error:
            told = translated(error)
            if not isinstance(told, OutcomeUnknown):
                tree.discard(submission)
            raise told from error
        return answer

    def submit(self, command: Command[T], *, timeout: Timeout = DEFAULT) -> Reply[T]:
        """Queue a command and return its reply at once: what `tell` and event loops build on.

        Args:
            command: What to do; checked and encoded in this thread before it is queued.
            timeout: Seconds after which it is not begun any more; the store's `call_timeout` if
                left out, None for as long as it takes.

        Raises:
            OtpError: It was not queued; `receipts.translated` has the store's word for it.
        """
        tree = self._writer()
        prepared = self._prepared(command)
        seconds = tree.config.call_timeout if isinstance(timeout, _Default) else timeout
        submission = tree.submission(prepared)
        try:
            return tree.actor.send_request(submission, timeout=seconds, size=prepared.size())
        except OtpError:
            tree.discard(submission)
            raise

    def tell(self, command: Command[T]) -> Receipt[T]:
        """Send a command without waiting for its answer.

        Args:
            command: What to do; checked and encoded in this thread before it is sent.

        Returns:
            The receipt. If nobody looks at a failure, `flush` or `close` raises it.

        Raises:
            StoreBusy: The mailbox stayed full for `call_timeout` seconds.
            StoreClosed: The store is closed.
        """
        try:
            reply = self.submit(command, timeout=None)
        except OtpError as error:
            raise translated(error) from error
        receipt: Receipt[T] = Receipt(reply)
        self._unread.watch(receipt)
        return receipt

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
        self._writer()
        self._view.wait_readable()
        waiting: deque[Reply[bool]] = deque()
        cleared = 0
        try:
            for record in self._view.newest_first():
                command = DeleteSession(record.session_id, reason="cleared")
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
        return self._view.backups(check_session_id(session_id))

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

    def cleanup(self, *, dry_run: bool = False) -> list[Removal]:
        """Apply the retention settings now, instead of when the timer does.

        Args:
            dry_run: Only say what would be removed.

        Returns:
            What was removed and why.
        """
        return self.ask(Cleanup(dry_run))

    # --- reading ----------------------------------------------------------------------------

    def load_session(self, session_id: str, *, last: int | None = None) -> Session:
        """Load one session; it never waits behind writers.

        Args:
            session_id: The session.
            last: Only so many messages, from the end; None for all.

        Returns:
            A session of the caller's own.

        Raises:
            SessionNotFound: There is no such session.
            CorruptDocument: Its file is damaged; it was moved to the quarantine.
            NewerVersion: Its file was written by a newer version.
            PathBlocked: Its file cannot be read.
            StoreClosed: The store is closed.
        """
        if last is not None and (type(last) is not int or last < 0):
            raise ValueError(f"last must be None or 0 or more, not {last!r}")
        checked = check_session_id(session_id)
        document = self._view.load(checked)
        if document is None:
            raise SessionNotFound(f"there is no session {checked!r}", session_id=checked)
        return document.session(last, self._values.revive)

    def validate_session(self, session_id: str) -> list[str]:
        """Say what is wrong with a session as it is stored.

        Looked at are times, counts and ids, and whatever the validators of this store look at.

        Returns:
            The issues, in words; none if all is well.

        Raises:
            SessionNotFound: There is no such session.
            SessionKeeperError: See `load_session`.
        """
        return issues_of(self.load_session(session_id), (*INTEGRITY, *self._validators))

    def __contains__(self, session_id: object) -> bool:
        checked = check_session_id(session_id)
        self._view.wait_readable()
        return self._view.record(checked) is not None

    def __len__(self) -> int:
        self._view.wait_readable()
        return self._view.count()

    def list_sessions(
        self,
        *,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> Page[SessionInfo]:
        """The metadata of all sessions, the one changed last first.

        Args:
            limit: The size of a page; None for all.
            cursor: The `cursor` of the page before.

        Raises:
            InvalidQuery: A negative limit, or a cursor that is not ours.
            IndexBehind: What was saved before is not in the index in time.
        """
        return self.search(limit=limit, cursor=cursor)

    def search(
        self,
        *,
        tags: Iterable[str] = (),
        all_tags: Iterable[str] = (),
        after: date | datetime | None = None,
        before: date | datetime | None = None,
        min_cost: float | None = None,
        max_cost: float | None = None,
        status: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> Page[SessionInfo]:
        """The metadata of the sessions that meet every condition, the one changed last first.

        Args:
            tags: With any of these.
            all_tags: With all of these.
            after: Changed at or after; a date is midnight UTC.
            before: Changed before; a date is midnight UTC.
            min_cost: Costing at least this.
            max_cost: Costing at most this.
            status: With this status.
            limit: The size of a page; None for all.
            cursor: The `cursor` of the page before.

        Raises:
            InvalidQuery: A naive datetime, a negative limit, a cursor that is not ours.
            IndexBehind: What was saved before is not in the index in time.
            TypeError: An unknown condition.
        """
        query = Query.of(
            tags=tags,
            all_tags=all_tags,
            after=after,
            before=before,
            min_cost=min_cost,
            max_cost=max_cost,
            status=status,
        )
        return self._view.search(query, limit, cursor)

    def get_recent(self, limit: int = 5) -> Page[SessionInfo]:
        """The sessions changed last, whatever their status."""
        return self.list_sessions(limit=limit)

    def merge_recent(
        self,
        live: Iterable[L],
        *,
        limit: int | None = 5,
    ) -> list[L | SessionInfo]:
        """The sessions changed last: those the application is at work on and those stored.

        Args:
            live: Any objects with `session_id` and `updated_at`. One that is stored too is
                listed as the live object only.
            limit: How many; None for all.

        Returns:
            The live objects themselves, and `SessionInfo` for the others, the one changed last
            first.

        Raises:
            InvalidQuery: A negative limit, or an `updated_at` without a time zone.
            IndexBehind: What was saved before is not in the index in time.
        """
        working = list(live)
        position(limit, None)  # refuses a wrong limit
        # Each of the live ones hides at most one of the stored.
        stored = self.list_sessions(limit=None if limit is None else limit + len(working))
        return merge_newest(working, stored)[:limit]

    def iter_sessions(self) -> Iterator[SessionInfo]:
        """The metadata of all sessions, one at a time, in the order of their ids.

        Sessions may change meanwhile: each is given as it is when its turn comes, and one that
        is there all the time is given once.
        """
        for record in self._view.iterate():
            yield record.info()

    def load_all(self) -> Iterator[Session]:
        """All sessions, loaded one at a time; one deleted meanwhile is left out."""
        for info in self.iter_sessions():
            with contextlib.suppress(SessionNotFound):
                yield self.load_session(info.session_id)

    # --- about the store --------------------------------------------------------------------

    @property
    def path(self) -> Path:
        """The store's folder, absolute."""
        return self._path

    @property
    def last_recovery(self) -> RecoveryReport:
        """What the last recovery scan found; `str()` makes it readable."""
        return self._view.last_recovery

    def now(self) -> datetime:
        """What the store's wall clock says (aware, UTC)."""
        return self._clock.now()

    def info(self) -> StoreInfo:
        """What the store is up to; asks nobody and never waits."""
        view, cache = self._view, self._view.cache
        server = self._tree.actor.info() if self._tree is not None else None
        state = "read-only"
        if self._closed or (self._tree is not None and self._tree.exit_reason is not None):
            state = "closed"
        elif server is not None:
            state = {"ready": "ready", "continuing": "recovering"}.get(server.state, "restarting")
        last_exit = server.last_exit if server is not None else None
        return StoreInfo(
            path=self._path,
            state=state,
            sessions=view.count(),
            epoch=server.epoch if server is not None else 0,
            restarts=server.restarts if server is not None else 0,
            pending=server.queued if server is not None else 0,
            pending_bytes=server.queued_bytes if server is not None else 0,
            oldest_pending=server.oldest_age if server is not None else None,
            last_exit=None if last_exit is None else str(last_exit),
            uptime=server.uptime if server is not None else 0.0,
            cached_sessions=len(cache),
            cached_bytes=cache.stored_bytes(),
            cache_hits=cache.hits,
            cache_misses=cache.misses,
        )

    def processes(self) -> list[ProcessInfo]:
        """The supervision tree: the supervisor first, then its children as they are started.

        Empty for a store that was opened for reading only, or is closed.
        """
        if self._tree is None or self._tree.exit_reason is not None:
            return []
        return self._tree.processes()

    def stats(self) -> StorageStats:
        """Count the files of the store and their bytes; takes as long as listing them does.

        Nothing of it waits for the store, and a store in memory takes nothing.
        """
        if self._tree is not None and self._tree.config.in_memory:
            return StorageStats(0, 0, 0, 0, 0, 0, 0, 0)
        return measure(Layout.of(self._path, Layout.found_in(self._path) or "flat"))

    @property
    def config(self) -> Config:
        """The settings in force."""
        if self._tree is None:
            raise StoreReadOnly("a store opened read-only goes by its owner's settings")
        return self._tree.config

    def configure(self, **settings: Any) -> None:
        """Change settings of the open store, and in its config.json, at once for everybody.

        They hold for the next opening too, unless that is given others. The owner of a store
        takes changes that others make in the file within `reconcile_interval` seconds.

        Args:
            settings: Retention, cache, timeouts, backups and checkpoints can be changed; what
                decides how the store is put together cannot.

        Raises:
            TypeError: An unknown setting.
            InvalidConfig: A value outside its range, or a setting that counts at the opening.
            StorageFailed: They could not be stored; nothing is changed.
        """
        self.ask(Configure(settings))

    def subscribe(self, callback: Callable[[Event], None]) -> Callable[[], None]:
        """Call `callback` for every event of the store, in the thread where it happens.

        It must be quick and must not call methods that change the store; what it raises is
        logged and hurts nobody.

        Returns:
            A function that ends the subscription.
        """
        return self._events.subscribe(callback)

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
        tree = self._writer()
        watch = Watch(self._events.subscribe, self._view.record, self._settle, checked)
        if self._closed or tree.exit_reason is not None:
            watch.close()
            raise StoreClosed("the store is closed")
        return watch

    def _settle(self) -> None:
        """Wait until the actor is done with what it is at; not if it has ended."""
        with contextlib.suppress(StoreClosed):
            self.ask(CountSessions())

    def __repr__(self) -> str:
        return f"SessionStore({str(self._path)!r}, {self.info().state})"

    def _prepared(self, command: Command[T]) -> Prepared[T]:
        if self._converts:
            command = command.converted(self._values)
        prepared = command.prepare()
        if self._validators:
            self._validate(prepared)
        return prepared

    def _validate(self, prepared: Prepared[Any]) -> None:
        rest = self._view, self._clock, self._validators, self._values.revive
        try:
            require_valid(prepared, *rest)
        except ValidationFailed:
            raise
        except SessionKeeperError:
            # It may build upon what was told before and is still waiting in the mailbox.
            tree = self._writer()
            try:
                tree.actor.call(tree.submission(CountSessions()), tree.config.call_timeout)
            except OtpError as error:
                raise translated(error) from error
            require_valid(prepared, *rest)

    def _writer(self) -> StoreTree:
        if self._tree is None:
            raise StoreReadOnly("the store was opened for reading only", path=self._path)
        return self._tree


def _layers(
    path: str | PathLike[str] | None,
    settings: dict[str, Any],
    fs: FileSystem,
) -> Layers:
    """The settings of a store, from everywhere."""
    given = path if path is not None else os.environ.get(PATH_VARIABLE)
    if not given:
        raise InvalidConfig(
            "no folder was given",
            hint=f"Name it as the first argument, or set {PATH_VARIABLE}.",
        )
    unknown = sorted(settings.keys() - set(known()))
    if unknown:
        raise TypeError(f"unknown setting {unknown[0]!r}; known are {', '.join(known())}")
    root = _resolved(given)
    # Where it lies depends on no setting, only on what the path names.
    stored = ConfigFile(fs, Layout.of(root, Layout.found_in(root) or "flat")).read()
    return Layers(root, stored, {**from_environment(os.environ), **settings})


def _check_layout(config: Config) -> None:
    if config.in_memory:
        return
    layout = Layout.of(config.path, config.layout)
    # The path of a single file may be that of a store, or be inside one.
    found = Layout.found_in(config.path) or (layout.file and Layout.found_in(layout.root))
    there = Layout.single_file_of(layout.root)
    if found == config.layout == "single" and layout.file != there:
        raise InvalidConfig(
            f"the store in {layout.root} keeps its sessions in another file",
            path=layout.file,
            hint=f"Open it as {there}.",
        )
    if found not in (None, config.layout):
        raise InvalidConfig(
            f"the store at {config.path} is laid out {found!r}, not {config.layout!r}",
            path=config.path,
            hint=f"Open it with layout={found!r}.",
        )


def _is_left_open(config: Config) -> bool:
    """Whether whoever had the store last did not come to give it up."""
    return not config.in_memory and Layout.of(config.path, config.layout).holder.exists()


def _resolved(path: str | PathLike[str]) -> Path:
    text = Path(path)
    if "\0" in str(text):
        raise InvalidConfig("the path holds a NUL character")
    try:
        return text.expanduser().resolve()
    except RuntimeError as error:
        raise InvalidConfig(f"the home folder in {str(text)!r} is unknown") from error


# Strong references: a store that was dropped without being closed still has work to finish.
_open_stores: set[SessionStore] = set()


def _close_at_exit() -> None:
    for store in list(_open_stores):
        try:
            store.close(EXIT_TIMEOUT)
        except Exception:  # noqa: BLE001 - the other stores must be closed all the same
            logger.exception("the store at %s was not closed in order", store.path)


atexit.register(_close_at_exit)
