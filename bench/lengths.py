"""What an append costs, by how long the session is already."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING

from bench import payloads
from bench.measure import WorkNotDone

if TYPE_CHECKING:
    from bench.measure import Plan
    from bench.payloads import Message
    from bench.peers import SessionClient, SessionPeer

# Small, so that the longest session fits the cache as any other store's would.
MESSAGE_BYTES = 400

# So many messages are made; making all of a long session would take longer than the rounds.
_DIFFERENT = 16

# A session counts as one of its length until it has grown by this part of it.
_GROWTH = 2


class LengthSampler:
    """Each delay is that of one append to a session of about so many messages.

    Args:
        peer: Who keeps it; what was saved or loaded last is in its cache.
        length: How many messages.
    """

    def __init__(self, peer: SessionPeer, *, length: int) -> None:
        self._peer = peer
        self._length = length
        self._room = 0  # how many appends the session at hand can take
        self._sessions = 0
        self._appended = 0

    def sample(self, plan: Plan, seconds: float) -> list[float]:
        """See `Sampler.sample`."""
        message = payloads.message(0, MESSAGE_BYTES)
        delays: list[float] = []
        with self._peer.client() as client:
            deadline = perf_counter() + seconds
            while len(delays) < plan.max_operations:
                if not self._room:
                    self._new_session(client)
                session_id = f"s{self._sessions:06d}"
                started = perf_counter()
                client.append(session_id, message)
                ended = perf_counter()
                delays.append(ended - started)
                self._room -= 1
                self._appended += 1
                if ended >= deadline:
                    break
        found = self._peer.count_messages()
        if found != self._sessions * self._length + self._appended:
            raise WorkNotDone(f"{found} messages are there")
        return delays

    def _new_session(self, client: SessionClient) -> None:
        self._sessions += 1
        client.save(f"s{self._sessions:06d}", session_of(self._length))
        self._room = self._length // _GROWTH


def session_of(length: int) -> list[Message]:
    """So many messages."""
    made = [payloads.message(number, MESSAGE_BYTES) for number in range(_DIFFERENT)]
    return [made[number % _DIFFERENT] for number in range(length)]
