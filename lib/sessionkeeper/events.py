"""What the store tells about itself: typed events, delivered to isolated subscribers."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Self

from sessionkeeper.keys import key_of, split_key

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

logger = logging.getLogger("sessionkeeper")

EventKind = Literal[
    "saved",  # a session was written
    "trashed",  # a session was moved to the trash; `detail` is the reason
    "erased",  # a session was taken away for good, on demand
    "purged",  # a trash entry has passed its grace and is gone
    "adopted",  # a file added or edited by hand was taken
    "vanished",  # a session's file was removed by hand
    "quarantined",  # a file could not be read and was moved aside
    "damaged",  # part of the journal, or the index, could not be read
    "healed",  # a damaged session was brought back from its backup
    "ignored",  # something stands in the folder that is left alone
    "conflict",  # a hand edit met a write; the edit was kept aside
    "recovered",  # the recovery scan is done
    "crashed",  # the actor died; `detail` is the reason
    "suspended",  # the medium refuses changes; `detail` is why
    "resumed",  # the medium takes changes again
    "volatile",  # persistence was switched off: changes stay in memory
    "persistent",  # it was switched on again, and what was changed meanwhile is stored
    "dropped",  # the store was closed while it was off; `detail` says how much is lost
    "checkpointed",  # the session files are current and durable
    "stopped",  # the store has given up or was closed
]


_LEVELS: dict[EventKind, int] = {
    "saved": logging.DEBUG,
    "recovered": logging.DEBUG,
    "checkpointed": logging.DEBUG,
    "quarantined": logging.WARNING,
    "conflict": logging.WARNING,
    "crashed": logging.WARNING,
    "suspended": logging.WARNING,
    "damaged": logging.WARNING,
    "dropped": logging.WARNING,
}


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened in the store.

    Attributes:
        kind: What happened.
        session_id: The session concerned, or None.
        detail: The reason, in words.
        path: The file concerned, or None.
        namespace: That of the session concerned; empty for the default one.
    """

    kind: EventKind
    session_id: str | None = None
    detail: str = ""
    path: Path | None = None
    namespace: str = ""

    @classmethod
    def of(cls, kind: EventKind, key: str | None, detail: str, path: Path | None = None) -> Self:
        """An event about the session of that key."""
        namespace, session_id = ("", None) if key is None else split_key(key)
        return cls(kind, session_id, detail, path, namespace)

    @property
    def key(self) -> str | None:
        """The key of the session concerned, or None."""
        return None if self.session_id is None else key_of(self.namespace, self.session_id)


@dataclass(slots=True)
class EventBus:
    """Delivers events in order, in the thread that reports them.

    A subscriber that raises is logged and counted and hurts nobody; one that blocks holds the
    store up, so subscribers hand long work on.
    """

    failures: int = 0
    _subscribers: tuple[Callable[[Event], None], ...] = ()
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def subscribe(self, callback: Callable[[Event], None]) -> Callable[[], None]:
        """Call `callback` for every event from now on.

        Returns:
            A function that ends the subscription; calling it twice does no harm.
        """
        with self._lock:
            self._subscribers = (*self._subscribers, callback)

        def unsubscribe() -> None:
            with self._lock:
                self._subscribers = tuple(s for s in self._subscribers if s is not callback)

        return unsubscribe

    def wants(self, kind: EventKind) -> bool:
        """Whether anybody would notice an event of that kind; if not, it need not be made."""
        return bool(self._subscribers) or logger.isEnabledFor(_LEVELS.get(kind, logging.INFO))

    def publish(self, event: Event) -> None:
        """Log the event and hand it to every subscriber."""
        level = _LEVELS.get(event.kind, logging.INFO)
        about = event.key or event.path or ""
        logger.log(level, "%s %s %s", event.kind, about, event.detail)
        for subscriber in self._subscribers:
            try:
                subscriber(event)
            except Exception:
                self.failures += 1
                logger.exception("a subscriber failed on %s", event)
