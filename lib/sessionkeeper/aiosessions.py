"""Sessions for event loops: every method of `Changing`, awaited and never blocking."""

from __future__ import annotations

import contextlib
from itertools import islice
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar
from uuid import uuid4

from sessionkeeper.bridges import read, settled
from sessionkeeper.changing import DEFAULT, MAX_CONFLICTS, Timeout
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
from sessionkeeper.engine.watching import EARLY
from sessionkeeper.errors import Conflict, NotExecuted, SessionNotFound, StoreClosed
from sessionkeeper.otp import Reply
from sessionkeeper.receipts import translated
from sessionkeeper.session import KEEP, Annotation, Keep, SessionEvent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
    from datetime import date, datetime
    from pathlib import Path
    from types import TracebackType

    from sessionkeeper.answers import BackupInfo, Erased, Saved, Trashed
    from sessionkeeper.changing import Changing
    from sessionkeeper.config import Config
    from sessionkeeper.engine.textsearch import Order
    from sessionkeeper.engine.watching import SessionChange, Watch
    from sessionkeeper.events import Event
    from sessionkeeper.pages import L, Page, SessionOrder
    from sessionkeeper.receipts import Receipt
    from sessionkeeper.session import Changes, MessageHit, Session, SessionInfo
    from sessionkeeper.workers import Workers

T = TypeVar("T")

# iter_sessions and load_all ask for so many at a time.
PAGE = 200


class _Call:
    """A command on its way from an event loop through a worker into the mailbox.

    Attributes:
        reply: What the event loop waits for.
    """

    def __init__(
        self,
        store: Changing,
        workers: Workers,
        command: Command[Any],
        timeout: Timeout,
    ) -> None:
        self.reply: Reply[Any] = Reply()
        self._withdrawn = False
        self._in_mailbox: Reply[Any] | None = None
        self._on_worker = workers.submit(lambda: self._submit(store, command, timeout))
        self._on_worker.add_done_callback(self._submitted)

    def _submit(self, store: Changing, command: Command[Any], timeout: Timeout) -> None:
        reply = store.submit(command, timeout=timeout)
        self._in_mailbox = reply
        if self._withdrawn:  # set before we looked, or withdraw() finds the reply itself
            self.withdraw()
        reply.add_done_callback(self._answered)

    def _submitted(self, reply: Reply[None]) -> None:
        error = reply.exception(0)
        if error is not None:
            self.reply.set_exception(translated(error))

    def _answered(self, reply: Reply[Any]) -> None:
        error = reply.exception(0)
        if error is not None:
            self.reply.set_exception(translated(error))
        else:
            self.reply.set_result(reply.result(0))

    def withdraw(self) -> None:
        """Take it back if the store has not begun with it."""
        self._withdrawn = True
        cancelled = NotExecuted("the call was cancelled before the store began with it")
        self._on_worker.withdraw(cancelled)
        if self._in_mailbox is not None:
            self._in_mailbox.withdraw(cancelled)


class AsyncReceipt(Generic[T]):
    """A `Receipt` for event loops."""

    __slots__ = ("_receipt",)

    def __init__(self, receipt: Receipt[T]) -> None:
        self._receipt = receipt

    async def result(self) -> T:
        """Wait for the answer, or raise what the command failed with."""
        error = await self.exception()
        if error is not None:
            raise error
        return self._receipt.result(0)

    async def exception(self) -> BaseException | None:
        """Wait for the answer and return its error, or None if the command succeeded."""
        done: Reply[None] = Reply()
        self._receipt.add_done_callback(lambda _: done.set_result(None))
        await read(done)
        return self._receipt.exception(0)

    def done(self) -> bool:
        """Whether the answer is there."""
        return self._receipt.done()


class AsyncWatch:
    """A `Watch` for event loops: iterate over it with `async for`."""

    def __init__(self, store: AsyncSessions, watch: Watch) -> None:
        self._store = store
        self._watch = watch

    async def next(self) -> SessionChange | None:
        """Wait for a change; None if none will follow."""
        while not self._watch.ended:
            await read(self._watch.arrival())
            taken = self._watch.take()
            if taken is not None:
                if taken[1] in EARLY:
                    with contextlib.suppress(StoreClosed):
                        await self._store.ask(CountSessions())
                return self._watch.describe(*taken)
        return None

    def close(self) -> None:
        """End it; whoever waits is woken."""
        self._watch.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SessionChange:
        change = await self.next()
        if change is None:
            raise StopAsyncIteration
        return change

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class AsyncSessions:
    """The sessions of one namespace, for event loops.

    Every method does what its namesake does and raises what it raises, but awaits. Sessions are
    encoded, loaded and decoded in slices on threads of the store's own, so a large session does
    not hold the event loop up.

    A call that changes something and is cancelled has either happened or not when the
    cancellation leaves it: see `cancelled_outcome`.

    Args:
        store: The store, or a scope of it.
        workers: The threads that do what would block.
    """

    _store: Changing

    def __init__(self, store: Changing, workers: Workers) -> None:
        self._store = store
        self._workers = workers

    async def flush(self, timeout: Timeout = DEFAULT) -> None:
        """Wait until all that was sent before is done; see `SessionStore.flush`."""
        await self._run(lambda: self._store.flush(timeout))

    # --- commands ---------------------------------------------------------------------------

    async def ask(self, command: Command[T], *, timeout: Timeout = DEFAULT) -> T:
        """Send a command and wait for its answer; see `SessionStore.ask`."""
        call = _Call(self._store, self._workers, command, timeout)
        answer: T = await settled(call.reply, call.withdraw)
        return answer

    async def tell(self, command: Command[T]) -> AsyncReceipt[T]:
        """Send a command without waiting for its answer; see `SessionStore.tell`."""
        return AsyncReceipt(await self._run(lambda: self._store.tell(command)))

    async def save_session(
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
        """Create a session or replace the fields given; see `SessionStore.save_session`."""
        return await self.ask(
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

    async def create_session(
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
        """Create a session that does not exist yet; see `SessionStore.create_session`."""
        return await self.save_session(
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
        )

    async def append(
        self,
        session_id: str,
        messages: Sequence[Any],
        *,
        key: str | None = None,
        total_cost: float | None = None,
    ) -> Saved:
        """Add messages at the end of a session; see `SessionStore.append`."""
        return await self.ask(AppendMessages(session_id, messages, key, total_cost))

    async def update(self, session_id: str, change: Callable[[Session], Changes]) -> Saved:
        """Change a session by a function of what it is now; see `SessionStore.update`.

        `change` runs on the event loop, so it must be quick.
        """
        for _ in range(MAX_CONFLICTS):
            changes = change(await self.load_session(session_id))
            try:
                return await self.ask(SaveSession.of(changes))
            except Conflict as error:
                conflict = error
        raise conflict

    async def add_tags(self, session_id: str, tags: Iterable[str]) -> Saved:
        """Add tags to a session; see `SessionStore.add_tags`."""
        return await self.ask(AddTags(session_id, tags))

    async def remove_tags(self, session_id: str, tags: Iterable[str]) -> Saved:
        """Take tags from a session; see `SessionStore.remove_tags`."""
        return await self.ask(RemoveTags(session_id, tags))

    async def pin(self, session_id: str) -> Saved:
        """Keep a session whatever the retention settings say; see `SessionStore.pin`."""
        return await self.ask(PinSession(session_id))

    async def unpin(self, session_id: str) -> Saved:
        """Let the retention settings decide again; see `SessionStore.unpin`."""
        return await self.ask(UnpinSession(session_id))

    async def annotate(self, session_id: str, text: str, kind: str = "note") -> Annotation:
        """Note something about a session; see `SessionStore.annotate`."""
        annotation = Annotation(uuid4(), text, kind, self._store.now())
        await self.ask(AddAnnotation(session_id, annotation))
        return annotation

    async def add_event(self, session_id: str, kind: str, data: Any = None) -> SessionEvent:
        """Enter something that happened in a session; see `SessionStore.add_event`."""
        event = SessionEvent(uuid4(), kind, self._store.now(), data)
        await self.ask(AddEvent(session_id, event))
        return event

    async def interrupted_sessions(self) -> list[SessionInfo]:
        """The sessions that were left unfinished; see `SessionStore.interrupted_sessions`."""
        return await self._run(self._store.interrupted_sessions)

    async def resume(self, session_id: str) -> Session:
        """Go on with a session that was left unfinished; see `SessionStore.resume`."""
        await self.ask(ResumeSession(session_id))
        return await self.load_session(session_id)

    async def rename_session(self, session_id: str, new_id: str) -> Saved:
        """Give a session another id; see `SessionStore.rename_session`."""
        return await self.ask(RenameSession(session_id, new_id))

    async def fork_session(self, session_id: str, new_id: str, *, at: int | None = None) -> Saved:
        """Make a new session of another one; see `SessionStore.fork_session`."""
        return await self.ask(ForkSession(session_id, new_id, at))

    async def rewind(
        self,
        session_id: str,
        *,
        generation: int | None = None,
        message: int | None = None,
    ) -> Saved:
        """Take a session back to an earlier point; see `SessionStore.rewind`."""
        return await self.ask(rewinding(session_id, generation, message))

    async def delete_session(self, session_id: str) -> bool:
        """Move a session to the trash; see `SessionStore.delete_session`."""
        return await self.ask(DeleteSession(session_id))

    async def undelete_session(self, session_id: str) -> Saved:
        """Bring back what was deleted last; see `SessionStore.undelete_session`."""
        return await self.ask(UndeleteSession(session_id))

    async def clear(self) -> int:
        """Move all sessions to the trash that there are now; see `SessionStore.clear`."""
        return await self._do(self._store.clear)

    async def list_trash(self) -> list[Trashed]:
        """The sessions that can be brought back; see `SessionStore.list_trash`."""
        return await self._run(self._store.list_trash)

    async def backups(self, session_id: str) -> list[BackupInfo]:
        """The versions that were replaced and are kept; see `SessionStore.backups`."""
        return await self._run(lambda: self._store.backups(session_id))

    async def restore(self, session_id: str, generation: int | None = None) -> Saved:
        """Make a version that was replaced the current one; see `SessionStore.restore`."""
        return await self.ask(RestoreBackup(session_id, generation))

    async def erase_session(self, session_id: str, timeout: Timeout = DEFAULT) -> Erased:
        """Leave no byte of a session; see `SessionStore.erase_session`."""
        return await self.ask(EraseSession(session_id), timeout=timeout)

    # --- reading ----------------------------------------------------------------------------

    async def load_session(self, session_id: str, *, last: int | None = None) -> Session:
        """Load one session, decoded; see `SessionStore.load_session`."""
        return await self._run(lambda: self._store.load_session(session_id, last=last).decoded())

    async def iter_messages(
        self,
        session_id: str,
        *,
        start: int = 0,
        stop: int | None = None,
    ) -> AsyncIterator[Any]:
        """Some messages of a session, decoded in steps; see `SessionStore.iter_messages`."""
        steps = await self._run(
            lambda: self._store._messages_in_steps(session_id, start, stop),  # noqa: SLF001 - two sides of one façade
        )
        while messages := await self._run(lambda: next(steps, None)):
            for message in messages:
                yield message

    async def validate_session(self, session_id: str) -> list[str]:
        """Say what is wrong with a session as stored; see `SessionStore.validate_session`."""
        return await self._run(lambda: self._store.validate_session(session_id))

    async def contains(self, session_id: str) -> bool:
        """Whether there is such a session; `in` cannot await."""
        return await self._run(lambda: session_id in self._store)

    async def count(self) -> int:
        """How many sessions there are; `len` cannot await."""
        return await self._run(lambda: len(self._store))

    async def list_sessions(
        self,
        *,
        order: SessionOrder = "-changed",
        limit: int | None = None,
        cursor: str | None = None,
    ) -> Page[SessionInfo]:
        """The metadata of all sessions; see `SessionStore.list_sessions`."""
        return await self._run(
            lambda: self._store.list_sessions(order=order, limit=limit, cursor=cursor),
        )

    async def search(
        self,
        *,
        tags: Iterable[str] = (),
        all_tags: Iterable[str] = (),
        after: date | datetime | None = None,
        before: date | datetime | None = None,
        min_cost: float | None = None,
        max_cost: float | None = None,
        status: str | None = None,
        text: str | None = None,
        order: SessionOrder = "-changed",
        limit: int | None = None,
        cursor: str | None = None,
    ) -> Page[SessionInfo]:
        """The metadata of the sessions that meet every condition; see `SessionStore.search`."""
        return await self._run(
            lambda: self._store.search(
                tags=tags,
                all_tags=all_tags,
                after=after,
                before=before,
                min_cost=min_cost,
                max_cost=max_cost,
                status=status,
                text=text,
                order=order,
                limit=limit,
                cursor=cursor,
            ),
        )

    async def search_messages(
        self,
        text: str,
        *,
        limit: int = 20,
        order: Order = "newest",
        tags: Iterable[str] = (),
        all_tags: Iterable[str] = (),
        after: date | datetime | None = None,
        before: date | datetime | None = None,
        min_cost: float | None = None,
        max_cost: float | None = None,
        status: str | None = None,
    ) -> list[MessageHit]:
        """The messages that hold all words of a text; see `SessionStore.search_messages`."""
        return await self._run(
            lambda: self._store.search_messages(
                text,
                limit=limit,
                order=order,
                tags=tags,
                all_tags=all_tags,
                after=after,
                before=before,
                min_cost=min_cost,
                max_cost=max_cost,
                status=status,
            ),
        )

    async def get_recent(self, limit: int = 5) -> Page[SessionInfo]:
        """The sessions changed last; see `SessionStore.get_recent`."""
        return await self.list_sessions(limit=limit)

    async def merge_recent(
        self,
        live: Iterable[L],
        *,
        limit: int | None = 5,
    ) -> list[L | SessionInfo]:
        """The sessions changed last, live ones and stored ones; see `SessionStore.merge_recent`."""
        working = list(live)
        return await self._run(lambda: self._store.merge_recent(working, limit=limit))

    async def iter_sessions(self) -> AsyncIterator[SessionInfo]:
        """The metadata of all sessions; see `SessionStore.iter_sessions`."""
        infos = self._store.iter_sessions()
        while page := await self._run(lambda: list(islice(infos, PAGE))):
            for info in page:
                yield info

    async def load_all(self) -> AsyncIterator[Session]:
        """All sessions, loaded one at a time; one deleted meanwhile is left out."""
        async for info in self.iter_sessions():
            try:
                session = await self.load_session(info.session_id)
            except SessionNotFound:
                continue
            yield session

    # --- about the store --------------------------------------------------------------------

    @property
    def path(self) -> Path:
        """The store's folder, absolute."""
        return self._store.path

    @property
    def config(self) -> Config:
        """The settings in force; see `SessionStore.config`."""
        return self._store.config

    def now(self) -> datetime:
        """What the store's wall clock says; never waits."""
        return self._store.now()

    def subscribe(self, callback: Callable[[Event], None]) -> Callable[[], None]:
        """Call `callback` for every event, in the store's thread; see `SessionStore.subscribe`."""
        return self._store.subscribe(callback)

    def watch(self, session_id: str | None = None) -> AsyncWatch:
        """Wait for sessions to change; see `SessionStore.watch`."""
        return AsyncWatch(self, self._store.watch(session_id))

    def __repr__(self) -> str:
        return f"Async{self._store!r}"

    async def _do(self, work: Callable[[], T]) -> T:
        """Do something that changes sessions: once begun it is waited for."""
        reply: Reply[T] = self._workers.submit(work)
        return await settled(reply, lambda: withdraw_from(reply))

    async def _run(self, work: Callable[[], T]) -> T:
        reply: Reply[T] = self._workers.submit(work)
        return await read(reply)


class AsyncSessionScope(AsyncSessions):
    """The sessions of one namespace of a store; `AsyncSessionStore.scope` makes it.

    It holds nothing of its own: closing it closes nothing. See `SessionScope`.
    """

    async def close(self) -> None:
        """Nothing: the store is closed by whoever opened it."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()


def withdraw_from(reply: Reply[Any]) -> None:
    """Take a call back that was cancelled, if it has not been begun."""
    reply.withdraw(NotExecuted("the call was cancelled before the store began with it"))
