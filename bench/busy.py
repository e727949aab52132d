"""Reading while others write as fast as they can."""

from __future__ import annotations

import itertools
import threading
from contextlib import contextmanager
from time import perf_counter
from typing import TYPE_CHECKING, Protocol, Self

from bench import payloads
from bench.growth import PART, name_of, tag_of
from bench.measure import TIMEOUT, WorkNotDone

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from bench.growth import KeeperCatalog
    from bench.measure import Plan
    from bench.payloads import Message
    from bench.peers import SessionPeer

WRITERS = 8

# Each writer goes on with another session now and then, as in the workload of appends.
_APPENDS = 25
_READ = "read"
_rounds = itertools.count()


class Appender(Protocol):
    """One thread's way to write."""

    def append(self, session_id: str, message: Message) -> None:
        """See `SessionClient.append`."""
        ...


class Written(Protocol):
    """What is written to."""

    def client(self) -> AbstractContextManager[Appender]:
        """For the calling thread."""
        ...


class Writers:
    """Threads that append until they are told to stop.

    Args:
        peer: To whom.
        count: How many.
    """

    def __init__(self, peer: Written, count: int) -> None:
        self._peer = peer
        self._round = next(_rounds)
        self._stop = threading.Event()
        self._going = threading.Barrier(count + 1)
        self._errors: list[BaseException] = []
        self._threads = [
            threading.Thread(target=self._write, args=(number,), name=f"bench-writer-{number}")
            for number in range(count)
        ]

    def _write(self, number: int) -> None:
        message, written = payloads.message(0), 0
        prefix = f"w{number}-{self._round}"
        try:
            with self._peer.client() as client:
                while not self._stop.is_set():
                    client.append(f"{prefix}-{written // _APPENDS}", message)
                    written += 1
                    if written == 1:
                        self._going.wait(TIMEOUT)
        except BaseException as error:  # noqa: BLE001 - whoever reads raises it
            self._errors.append(error)
            self._going.abort()

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """While this lasts they write; it begins when each has written once.

        Raises:
            BaseException: What one of them raised.
        """
        for thread in self._threads:
            thread.start()
        try:
            self._going.wait(TIMEOUT)
            yield
        except threading.BrokenBarrierError:
            pass  # the reason is among the errors
        finally:
            self._stop.set()
            for thread in self._threads:
                thread.join()
        if self._errors:
            raise self._errors[0]


class BusyLoadSampler:
    """Each delay is that of loading a session that was used lately, while others write.

    Args:
        peer: Who keeps it.
        writers: How many write.
    """

    def __init__(self, peer: SessionPeer, *, writers: int = WRITERS) -> None:
        self._peer = peer
        self._writers = writers
        with peer.client() as client:
            client.save(_READ, payloads.session())

    def sample(self, plan: Plan, seconds: float) -> list[float]:
        """See `Sampler.sample`."""
        with self._peer.client() as client:

            def load() -> None:
                if len(client.load(_READ)) != payloads.SESSION_MESSAGES:
                    raise WorkNotDone("a session came back with another number of messages")

            load()
            with Writers(self._peer, self._writers).at_work():
                return delays_of(load, plan, seconds)


class BusySearchSampler:
    """Each delay is that of a page of a search by a tag, while others append to sessions.

    Args:
        catalog: The store; the plan says how many sessions are in it.
        writers: How many write.
    """

    def __init__(self, catalog: KeeperCatalog, *, writers: int = WRITERS) -> None:
        self._catalog = catalog
        self._writers = writers
        self._filled = 0

    def sample(self, plan: Plan, seconds: float) -> list[float]:
        """See `Sampler.sample`."""
        if not self._filled:
            self._filled = plan.sessions
            self._catalog.fill(range(self._filled))
            self._catalog.ready()
        newest = name_of((self._filled - 1) // PART * PART)

        def search() -> None:
            # What is written meanwhile has no tag.
            if self._catalog.search(tag_of(0))[0] != newest:
                raise WorkNotDone("the newest session was not found")

        with Writers(_Appending(self._catalog), self._writers).at_work():
            return delays_of(search, plan, seconds)


class _Appending:
    """The store of a catalog, as writers see it."""

    def __init__(self, catalog: KeeperCatalog) -> None:
        self._store = catalog.store

    @contextmanager
    def client(self) -> Iterator[Self]:
        """Itself."""
        yield self

    def append(self, session_id: str, message: Message) -> None:
        """See `SessionClient.append`."""
        self._store.append(session_id, [message])


def delays_of(work: Callable[[], object], plan: Plan, seconds: float) -> list[float]:
    """How long each of many repetitions takes."""
    delays: list[float] = []
    deadline = perf_counter() + seconds
    while len(delays) < plan.max_operations:
        began = perf_counter()
        work()
        ended = perf_counter()
        delays.append(ended - began)
        if ended >= deadline:
            break
    return delays
