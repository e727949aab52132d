"""Replays conversations: each message is appended when its turn comes, as an agent would do it."""

from __future__ import annotations

import itertools
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from bench.kinds import Workload, stores
from bench.measure import Job, WorkNotDone
from bench.peers import APPENDING, KEEPER

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.payloads import Message
    from bench.peers import SessionPeer

REPLAY = "replay"


class ReplayTrial:
    """Each thread takes one conversation after the other; after the last the first comes again.

    Args:
        peer: Who keeps the sessions; each conversation becomes a new one.
        conversations: Their messages.
    """

    def __init__(self, peer: SessionPeer, *, conversations: Sequence[Sequence[Message]]) -> None:
        self._peer = peer
        self._conversations = conversations
        self._begun = itertools.count()

    @contextmanager
    def worker(self, number: int, threads: int) -> Iterator[Job]:
        """See `Trial.worker`."""
        del number, threads
        messages = self._messages()
        with self._peer.client() as client:
            yield Job(lambda: client.append(*next(messages)))

    def _messages(self) -> Iterator[tuple[str, Message]]:
        while True:
            number = next(self._begun)
            for message in self._conversations[number % len(self._conversations)]:
                yield f"s{number:08d}", message

    def verify(self, operations: int) -> None:
        """See `Trial.verify`."""
        found = self._peer.count_messages()
        if found != operations:
            raise WorkNotDone(f"{found} messages are there, not {operations}")


def replay(conversations: Sequence[Sequence[Message]]) -> Workload:
    """The workload that replays these conversations."""
    messages = sum(map(len, conversations))
    return Workload(
        REPLAY,
        f"the next message of one of {len(conversations):,} conversations ({messages:,} messages)",
        KEEPER,
        stores(APPENDING, partial(ReplayTrial, conversations=conversations)),
        plan="replay",
        writes=True,
    )
