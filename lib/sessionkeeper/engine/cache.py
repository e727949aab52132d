"""The cache: whole sessions as encoded bytes, bounded in bytes and in age."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from cachetools import TTLCache

if TYPE_CHECKING:
    from sessionkeeper.clock import Clock
    from sessionkeeper.storage.documents import Document

# Python objects around the bytes of one entry, so that many small sessions count too.
ENTRY_OVERHEAD = 1024


class SessionCache:
    """A thread-safe TTL cache of documents; encoded bytes cannot be hurt by callers.

    Args:
        max_bytes: Its bound; a document larger than that bypasses it.
        ttl: Seconds an entry lives after it was put in.
        clock: Whose monotonic time decides.
    """

    def __init__(self, max_bytes: int, ttl: float, clock: Clock) -> None:
        self._lock = threading.Lock()
        self._timer = clock.monotonic
        self._entries = self._made(max_bytes, ttl)
        self.hits = 0
        self.misses = 0

    def get(self, session_id: str) -> Document | None:
        """The entry, unless its time is over."""
        with self._lock:
            try:
                # Not .get(): that would look the entry up twice.
                document: Document = self._entries[session_id]
            except KeyError:
                self.misses += 1
                return None
            self.hits += 1
            return document

    def put(self, document: Document) -> None:
        """Enter a document in place of an older version."""
        session_id = document.record.session_id
        with self._lock:
            try:
                self._entries[session_id] = document
            except ValueError:  # it does not fit; the older version must not stay
                self._entries.pop(session_id, None)

    def discard(self, session_id: str) -> None:
        """Forget a session."""
        with self._lock:
            self._entries.pop(session_id, None)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._entries.clear()

    def resize(self, max_bytes: int, ttl: float) -> None:
        """Give it other bounds; what it holds is forgotten if they differ."""
        with self._lock:
            if (self._entries.maxsize, self._entries.ttl) != (max_bytes, ttl):
                self._entries = self._made(max_bytes, ttl)

    def _made(self, max_bytes: int, ttl: float) -> TTLCache[str, Document]:
        return TTLCache(maxsize=max_bytes, ttl=ttl, timer=self._timer, getsizeof=_weigh)

    def stored_bytes(self) -> int:
        """What the entries weigh together."""
        with self._lock:
            return int(self._entries.currsize)

    def __len__(self) -> int:
        with self._lock:
            return len(self._entries)


def _weigh(document: Document) -> int:
    return document.size + ENTRY_OVERHEAD
