"""Watching sessions change: what happened since the last look, each session once."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from sessionkeeper.keys import key_of
from sessionkeeper.otp import Reply

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from sessionkeeper.events import Event, EventKind
    from sessionkeeper.session import SessionInfo
    from sessionkeeper.storage.documents import Record

CHANGES: Final[frozenset[EventKind]] = frozenset(
    ("saved", "trashed", "erased", "adopted", "vanished", "healed"),
)
"""The events that say that a session is not what it was."""

EARLY: Final[frozenset[EventKind]] = frozenset(("adopted", "vanished", "healed"))
"""Those that come a moment before the change can be seen."""


@dataclass(frozen=True, slots=True)
class SessionChange:
    """A session that has changed.

    Attributes:
        session_id: Which.
        kind: What happened to it last; see `Event`.
        info: What it is now; None if it is gone.
        namespace: Its namespace; empty for the default one.
    """

    session_id: str
    kind: EventKind
    info: SessionInfo | None
    namespace: str = ""


class Watch:
    """The changes of sessions from its making on, for one consumer.

    A session that changes again before anybody has looked is listed once, as it is then, so
    a slow consumer misses no last state and costs no more than one entry for each session.

    Args:
        subscribe: Has a function called with every event; returns what ends that.
        record: What a session is now.
        settle: Waits until what was reported can be seen.
        namespace: Of which namespace.
        session_id: Only this one; None for all in there.
    """

    def __init__(
        self,
        subscribe: Callable[[Callable[[Event], None]], Callable[[], None]],
        record: Callable[[str], Record | None],
        settle: Callable[[], object],
        namespace: str,
        session_id: str | None,
    ) -> None:
        self._record = record
        self._settle = settle
        self._namespace = namespace
        self._session_id = session_id
        self._lock = threading.Lock()
        self._pending: dict[str, EventKind] = {}
        self._waiting: list[Reply[None]] = []
        self._ended = False
        self._unsubscribe = subscribe(self._happened)

    def _happened(self, event: Event) -> None:
        if event.kind == "stopped":
            self._end()
        elif event.kind in CHANGES and event.namespace == self._namespace:
            session_id = event.session_id
            if session_id is not None and self._session_id in (None, session_id):
                with self._lock:
                    self._pending.pop(session_id, None)
                    self._pending[session_id] = event.kind
                self._wake()

    def _end(self) -> None:
        with self._lock:
            self._ended = True
        self._wake()

    def _wake(self) -> None:
        with self._lock:
            waiting, self._waiting = self._waiting, []
        for reply in waiting:
            reply.set_result(None)

    def arrival(self) -> Reply[None]:
        """Settled as soon as there is something to take, or never will be."""
        reply: Reply[None] = Reply()
        with self._lock:
            if not self._pending and not self._ended:
                self._waiting = [waiting for waiting in self._waiting if not waiting.done()]
                self._waiting.append(reply)
                return reply
        reply.set_result(None)
        return reply

    def take(self) -> tuple[str, EventKind] | None:
        """The session that changed longest ago, and how; None if there is none."""
        with self._lock:
            for session_id in self._pending:
                return session_id, self._pending.pop(session_id)
            return None

    def describe(self, session_id: str, kind: EventKind) -> SessionChange:
        """What a session is now."""
        record = self._record(key_of(self._namespace, session_id))
        info = None if record is None else record.info()
        return SessionChange(session_id, kind, info, self._namespace)

    @property
    def ended(self) -> bool:
        """Whether nothing follows: it was closed, or the store was."""
        with self._lock:
            return self._ended and not self._pending

    def next(self, timeout: float | None = None) -> SessionChange | None:
        """Wait for a change.

        Args:
            timeout: Seconds; None waits until there is one, or the store is closed.

        Returns:
            The change; None if there was none in time, or none will follow.
        """
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            arrival = self.arrival()
            if not arrival.wait(None if end is None else end - time.monotonic()):
                arrival.set_result(None)  # nobody waits for it any more
            taken = self.take()
            if taken is not None:
                break
            if self.ended or (end is not None and time.monotonic() >= end):
                return None
        if taken[1] in EARLY:
            self._settle()
        return self.describe(*taken)

    def close(self) -> None:
        """End it; whoever waits is woken. A second call does nothing."""
        self._unsubscribe()
        with self._lock:
            self._pending.clear()
        self._end()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> SessionChange:
        while not self.ended:
            change = self.next()
            if change is not None:
                return change
        raise StopIteration

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
