"""What each kind of work does, and how it is checked that it was done."""

from __future__ import annotations

import itertools
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bench import payloads
from bench.measure import Job, WorkNotDone
from bench.messaging import SESSIONS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.messaging import MessagePeer
    from bench.peers import SessionPeer

# A session gets so many messages before the next one begins: enough to show what a store pays
# for length, few enough that those which rewrite all each time are not measured at that alone.
APPENDS = 25

# How many sessions are loaded in turns; they fit every cache.
LOADED = 16


# So many questions are on their way at once where they are pipelined; 64 threads stay well
# below the bound of a mailbox with that.
PIPELINED = 50


class SaveTrial:
    """Each operation creates a session."""

    def __init__(self, peer: SessionPeer) -> None:
        self._peer = peer
        self._messages = payloads.session()
        self._numbers = itertools.count()

    @contextmanager
    def worker(self, number: int, threads: int) -> Iterator[Job]:
        """See `Trial.worker`."""
        del number, threads
        messages, numbers = self._messages, self._numbers
        with self._peer.client() as client:
            yield Job(lambda: client.save(f"s{next(numbers):08d}", messages))

    def verify(self, operations: int) -> None:
        """See `Trial.verify`."""
        _expect("sessions", self._peer.count_sessions(), operations)
        with self._peer.client() as client:
            last = client.load(f"s{operations - 1:08d}")
        if last != self._messages:
            raise WorkNotDone("the last session is not what was saved")


class SustainTrial(SaveTrial):
    """The same, until the store is closed."""

    def verify(self, operations: int) -> None:
        """See `Trial.verify`; what is closed is not opened again."""
        _expect("sessions", self._peer.count_sessions(), operations)


class AppendTrial:
    """Each thread appends to sessions of its own, one after the other."""

    def __init__(self, peer: SessionPeer) -> None:
        self._peer = peer
        self._message = payloads.message(0)
        self._workers = itertools.count()

    @contextmanager
    def worker(self, number: int, threads: int) -> Iterator[Job]:
        """See `Trial.worker`."""
        del number, threads
        message = self._message
        prefix = f"s{next(self._workers):06d}"
        appended = itertools.count()
        with self._peer.client() as client:
            yield Job(lambda: client.append(f"{prefix}-{next(appended) // APPENDS}", message))

    def verify(self, operations: int) -> None:
        """See `Trial.verify`."""
        _expect("messages", self._peer.count_messages(), operations)


class LoadTrial:
    """Each operation loads one of a few sessions, which stand in every cache there is."""

    def __init__(self, peer: SessionPeer) -> None:
        self._peer = peer
        self._ids = [f"s{number:04d}" for number in range(LOADED)]
        with peer.client() as client:
            for number, session_id in enumerate(self._ids):
                client.save(session_id, payloads.session(number))

    @contextmanager
    def worker(self, number: int, threads: int) -> Iterator[Job]:
        """See `Trial.worker`."""
        del threads
        turns = itertools.cycle(self._ids[number % LOADED :] + self._ids[: number % LOADED])
        with self._peer.client() as client:

            def load() -> None:
                if len(client.load(next(turns))) != payloads.SESSION_MESSAGES:
                    raise WorkNotDone("a session came back with another number of messages")

            yield Job(load)

    def verify(self, operations: int) -> None:
        """See `Trial.verify`."""
        del operations
        _expect("sessions", self._peer.count_sessions(), LOADED)


class AskTrial:
    """Each operation asks and waits for the answer."""

    def __init__(self, peer: MessagePeer) -> None:
        self._peer = peer

    @contextmanager
    def worker(self, number: int, threads: int) -> Iterator[Job]:
        """See `Trial.worker`."""
        del number, threads
        with self._peer.client() as client:

            def ask() -> None:
                if client.ask() != SESSIONS:
                    raise WorkNotDone("a wrong answer")

            yield Job(ask)

    def verify(self, operations: int) -> None:
        """Nothing is left to check: every answer was looked at."""


class PipelineTrial:
    """Each thread asks many times, and then looks at all the answers."""

    def __init__(self, peer: MessagePeer) -> None:
        self._peer = peer

    @contextmanager
    def worker(self, number: int, threads: int) -> Iterator[Job]:
        """See `Trial.worker`."""
        del number, threads
        expected = [SESSIONS] * PIPELINED
        with self._peer.client() as client:

            def ask() -> None:
                if client.ask_many(PIPELINED) != expected:
                    raise WorkNotDone("a wrong answer")

            yield Job(ask, count=PIPELINED)

    def verify(self, operations: int) -> None:
        """Nothing is left to check: every answer was looked at."""


class TellTrial:
    """Each operation sends a message; a round ends when all of them are done."""

    def __init__(self, peer: MessagePeer) -> None:
        self._peer = peer

    @contextmanager
    def worker(self, number: int, threads: int) -> Iterator[Job]:
        """See `Trial.worker`."""
        del number, threads
        with self._peer.client() as client:
            yield Job(client.tell, client.settle)

    def verify(self, operations: int) -> None:
        """See `Trial.verify`."""
        _expect("messages done", self._peer.processed(), operations)


def _expect(what: str, found: int, expected: int) -> None:
    if found != expected:
        raise WorkNotDone(f"{found} {what} are there, not {expected}")
