"""Waiting for what other threads do, without sleeping for luck."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from sessionkeeper.events import Event, EventKind
    from sessionkeeper.store import SessionStore

_POLL = 0.001


def wait_until(condition: Callable[[], object], timeout: float = 5.0) -> None:
    """Return as soon as `condition()` is true.

    Args:
        condition: Called again and again; must be cheap.
        timeout: Seconds.

    Raises:
        AssertionError: It was not true in time.
    """
    end = time.monotonic() + timeout
    pause = threading.Event()
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"not true within {timeout} s: {condition}")
        pause.wait(_POLL)


class EventLog:
    """The events of a store, to be looked at or waited for; use it as a context manager."""

    def __init__(self, store: SessionStore) -> None:
        self._changed = threading.Condition()
        self._events: list[Event] = []
        self._unsubscribe = store.subscribe(self._add)

    def _add(self, event: Event) -> None:
        with self._changed:
            self._events.append(event)
            self._changed.notify_all()

    def of_kind(self, kind: EventKind) -> list[Event]:
        """The events of one kind so far."""
        with self._changed:
            return [event for event in self._events if event.kind == kind]

    def wait_for(self, kind: EventKind, count: int = 1, timeout: float = 5.0) -> list[Event]:
        """Wait until there were `count` events of one kind, and return them.

        Raises:
            AssertionError: There were not so many in time.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._count(kind) >= count, timeout):
                raise AssertionError(f"{self._count(kind)} of {count} {kind!r} in {timeout} s")
            return [event for event in self._events if event.kind == kind]

    def _count(self, kind: EventKind) -> int:
        return sum(event.kind == kind for event in self._events)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._unsubscribe()
