"""Describing: what an open store says about itself; nothing of it waits for the actor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sessionkeeper.answers import StorageStats
from sessionkeeper.layout import Layout
from sessionkeeper.storage.usage import measure

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from pathlib import Path

    from sessionkeeper.clock import Clock
    from sessionkeeper.engine.view import View
    from sessionkeeper.events import Event, EventBus
    from sessionkeeper.processes.tree import ProcessInfo, StoreTree
    from sessionkeeper.storage.backend import RecoveryReport


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
        persistence: Whether changes are stored; see `enable_persistence`.
        unsaved: Sessions that are not stored as they are now, because they are not.
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
    persistence: bool = True
    unsaved: int = 0


class Describing:
    """What there is to say of a store.

    Subclasses set what it looks at; the tree is None in a store that is open for reading only.
    They name this before `Sending`, for what that leaves open is answered in here.
    """

    _path: Path
    _tree: StoreTree | None
    _clock: Clock
    _view: View
    _events: EventBus
    _closed: bool

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
            persistence=self._tree is not None and self._tree.is_persistent,
            unsaved=self._tree.persistence.unsaved if self._tree is not None else 0,
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

    def subscribe(self, callback: Callable[[Event], None]) -> Callable[[], None]:
        """Call `callback` for every event of the store, in the thread where it happens.

        That is of all namespaces; an event says which it concerns. The callback must be quick and
        must not call methods that change the store; what it raises is logged and hurts nobody.

        Returns:
            A function that ends the subscription.
        """
        return self._events.subscribe(callback)

    def __repr__(self) -> str:
        return f"SessionStore({str(self._path)!r}, {self.info().state})"
