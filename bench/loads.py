"""Loading a session of many messages: from the cache or from its file, all of it or its end."""

from __future__ import annotations

import itertools
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from bench.lengths import session_of
from bench.measure import Job, WorkNotDone
from bench.peers import BytesInMemory, DurableFiles, KeeperHandles, KeeperPeer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sized
    from pathlib import Path

    from bench.peers import SessionPeer

MESSAGES = 1_000
LAST = 50

# How many sessions are loaded in turns; all of them fit the cache.
_SESSIONS = 8

# One such session fits the cache, too.
VERY_LONG = 100_000

# A cache of one byte keeps nothing: each load reads the file, whose pages are in memory.
_COLD = 1


class KeeperEnds(KeeperPeer):
    """This library; only the last messages are looked at."""

    def load(self, session_id: str) -> Sized:
        """The last `LAST` messages."""
        return self.store.load_session(session_id, last=LAST).messages


class KeeperParts(KeeperPeer):
    """This library; only some messages in the middle are looked at."""

    def load(self, session_id: str) -> Sized:
        """`LAST` messages that are furthest from both ends."""
        start = VERY_LONG // 2
        return list(self.store.iter_messages(session_id, start=start, stop=start + LAST))


class LongLoadTrial:
    """Each operation loads one of a few long sessions.

    Args:
        peer: Who keeps them.
        expected: How many messages, or what counts as such, a load comes back with.
        length: How many messages each session has.
        sessions: How many sessions there are.
    """

    def __init__(
        self,
        peer: SessionPeer,
        *,
        expected: int,
        length: int = MESSAGES,
        sessions: int = _SESSIONS,
    ) -> None:
        self._peer = peer
        self._expected = expected
        self._ids = [f"s{number}" for number in range(sessions)]
        messages = session_of(length)
        with peer.client() as client:
            for session_id in self._ids:
                client.save(session_id, messages)

    @contextmanager
    def worker(self, number: int, threads: int) -> Iterator[Job]:
        """See `Trial.worker`."""
        del threads
        first = number % len(self._ids)
        turns = itertools.cycle(self._ids[first:] + self._ids[:first])
        with self._peer.client() as client:

            def load() -> None:
                found = len(client.load(next(turns)))
                if found != self._expected:
                    raise WorkNotDone(f"{found} messages came back, not {self._expected}")

            yield Job(load)

    def verify(self, operations: int) -> None:
        """Nothing is left to check: every session was looked at."""


# By name; the first is the one that the others are compared with.
LONG_LOADS: tuple[tuple[str, Callable[[Path], SessionPeer], int], ...] = (
    ("cached", KeeperPeer, MESSAGES),
    ("cached, handle", KeeperHandles, MESSAGES),
    (f"cached, last {LAST}", KeeperEnds, LAST),
    ("cold", partial(KeeperPeer, cache_bytes=_COLD), MESSAGES),
    ("cold, handle", partial(KeeperHandles, cache_bytes=_COLD), MESSAGES),
    (f"cold, last {LAST}", partial(KeeperEnds, cache_bytes=_COLD), LAST),
    ("per-file, orjson", DurableFiles, MESSAGES),
    ("orjson.loads", BytesInMemory, MESSAGES),
)

# The same for parts of a session that is a hundred times as long.
PARTS: tuple[tuple[str, Callable[[Path], SessionPeer], int], ...] = (
    ("cached", KeeperPeer, VERY_LONG),
    (f"cached, last {LAST}", KeeperEnds, LAST),
    (f"cached, {LAST} in the middle", KeeperParts, LAST),
    ("cold", partial(KeeperPeer, cache_bytes=_COLD), VERY_LONG),
    (f"cold, last {LAST}", partial(KeeperEnds, cache_bytes=_COLD), LAST),
    (f"cold, {LAST} in the middle", partial(KeeperParts, cache_bytes=_COLD), LAST),
    ("per-file, orjson", DurableFiles, VERY_LONG),
)
