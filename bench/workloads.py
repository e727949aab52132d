"""What is measured: each kind of work, who does it, and how it is checked that it was done."""

from __future__ import annotations

import itertools
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Generic, Literal, Protocol, TypeVar

from bench import payloads
from bench.agents import ADD_ITEMS
from bench.floor import FloorTrial
from bench.lengths import LengthSampler
from bench.measure import Job, Sampler, Trial, WorkNotDone
from bench.messaging import MESSAGE_PEERS, PYKKA, SERVER, SESSIONS, KeeperMessages
from bench.openings import OpeningSampler, ReplaySampler
from bench.peers import (
    APPENDING,
    DISKCACHE,
    KEEPER,
    LOADING,
    PER_FILE,
    SAVING,
    SQLITE,
    SUSTAINING,
    BytesInMemory,
    KeeperHandles,
    KeeperPeer,
)
from bench.restarts import PykkaByHand, RestartSampler, SupervisedServer
from bench.results import Limit
from bench.stalls import IdleLoop, KeeperLoop, StallSampler, WholeFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from bench.messaging import MessagePeer
    from bench.peers import PeerSpec, SessionPeer
    from bench.stalls import LoopPeer

# A session gets so many messages before the next one begins: enough to show what a store pays
# for length, few enough that those which rewrite all each time are not measured at that alone.
APPENDS = 25

# Of the sessions whose appends are compared by it.
LENGTHS = (10, 100, 1_000, 10_000, 100_000)

# With so many threads stores are measured at what they can take at most.
MANY = 64

# How many sessions are loaded in turns; they fit every cache.
LOADED = 16


# So many questions are on their way at once where they are pipelined; 64 threads stay well
# below the bound of a mailbox with that.
PIPELINED = 50


class _Closable(Protocol):
    def close(self) -> None: ...


P = TypeVar("P", bound=_Closable)
W = TypeVar("W", Trial, Sampler)


@dataclass(frozen=True, slots=True)
class Entrant(Generic[W]):
    """One peer at one workload.

    Attributes:
        name: Of the peer.
        start: Opens it in an empty folder, ready for the work; leaving closes it.
        durable: Whether its work survives a power failure; None where nothing is written.
        missing: The package that is not installed, or None.
    """

    name: str
    start: Callable[[Path], AbstractContextManager[W]]
    durable: bool | None = None
    missing: str | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """What a ratio should be at least.

    Attributes:
        peer: The entrant that the subject is compared with.
        ratio: How many times faster the subject should be.
        threads: With how many threads; None for any number.
    """

    peer: str
    ratio: float
    threads: int | None = None


@dataclass(frozen=True, slots=True)
class Workload:
    """One kind of work.

    Attributes:
        name: On the command line.
        operation: What one operation is.
        subject: The entrant that the others are compared with.
        entrants: Who does it; the subject among them.
        plan: Which plan it goes by.
        writes: Whether it leaves something on the disk.
        threads: With how many threads it is done, if not with any number.
        whole: Whether each round is the whole life of a store: it begins in an empty folder, and
            the clock stops when the store is closed.
        targets: What the ratios should be.
    """

    name: str
    operation: str
    subject: str
    entrants: tuple[Entrant[Trial], ...]
    plan: str = "memory"
    writes: bool = False
    threads: int | None = None
    whole: bool = False
    targets: tuple[Target, ...] = ()


@dataclass(frozen=True, slots=True)
class Figure:
    """What is told of the samples of a round.

    Attributes:
        name: `p50`, `p99` and `longest` are of delays, `rate` is their median.
        limit: What it should be; None for no target.
        of: The entrant that the limit is for; None for the subject.
        unit: Of the samples.
    """

    name: str
    limit: Limit | None = None
    of: str | None = None
    unit: Literal["s", "MB/s"] = "s"


@dataclass(frozen=True, slots=True)
class Gauge:
    """One kind of work that is not told by how often it is done, but mostly by its delays.

    Attributes:
        name: On the command line.
        operation: What is delayed.
        subject: The entrant that the others are compared with.
        entrants: Who does it; the subject among them.
        figures: What is told.
        plan: Which plan it goes by.
        writes: Whether it leaves something on the disk.
    """

    name: str
    operation: str
    subject: str
    entrants: tuple[Entrant[Sampler], ...]
    figures: tuple[Figure, ...]
    plan: str
    writes: bool = False


# --- trials -------------------------------------------------------------------------------


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


# --- who does what ------------------------------------------------------------------------


def _entrant(
    name: str,
    opened: Callable[[Path], P],
    trial: Callable[[P], W],
    *,
    durable: bool | None = None,
    missing: str | None = None,
) -> Entrant[W]:
    @contextmanager
    def start(folder: Path) -> Iterator[W]:
        with closing(opened(folder)) as peer:
            yield trial(peer)

    return Entrant(name, start, durable, missing)


def stores(
    specs: Sequence[PeerSpec],
    trial: Callable[[SessionPeer], Trial],
    *,
    writes: bool = True,
) -> tuple[Entrant[Trial], ...]:
    """These peers at a trial.

    Args:
        specs: Who.
        trial: What each does.
        writes: Whether it leaves something on the disk.
    """
    return tuple(
        _entrant(
            spec.name,
            spec.open,
            trial,
            durable=spec.durable if writes else None,
            missing=spec.missing,
        )
        for spec in specs
    )


def _servers(trial: Callable[[MessagePeer], Trial]) -> tuple[Entrant[Trial], ...]:
    return tuple(_entrant(spec.name, spec.open, trial) for spec in MESSAGE_PEERS)


def workloads() -> tuple[Workload, ...]:
    """All workloads that are told by their rate, in the order in which they run."""
    messages, size = payloads.SESSION_MESSAGES, payloads.SESSION_BYTES // 1000
    floor = _entrant("floor", FloorTrial, _as_is, durable=True)
    gathered = _entrant(
        "floor, one write", partial(FloorTrial, gathered=True), _as_is, durable=True
    )
    in_memory = _entrant("orjson.loads", BytesInMemory, LoadTrial)
    handles = _entrant("sessionkeeper, handle", KeeperHandles, LoadTrial)
    asks = _entrant("sessionkeeper, ask", KeeperMessages, AskTrial)
    return (
        Workload(
            "ask",
            "a question without I/O, with a timeout, and its answer",
            SERVER,
            _servers(AskTrial),
            targets=(Target(PYKKA, 1.2, threads=64),),
        ),
        Workload(
            "pipeline",
            f"the same, {PIPELINED} questions before the first answer is looked at",
            SERVER,
            _servers(PipelineTrial),
            targets=(Target(PYKKA, 1.5),),
        ),
        Workload(
            "tell",
            "a message without I/O, until it is done",
            SERVER,
            _servers(TellTrial),
        ),
        Workload(
            "save",
            f"a new session of {size} KB in {messages} messages",
            KEEPER,
            stores(SAVING, SaveTrial),
            plan="save",
            writes=True,
            targets=(Target(PER_FILE, 1.5, threads=MANY), Target(DISKCACHE, 1.0, threads=MANY)),
        ),
        Workload(
            "save-sustained",
            "the same for long, until the store is closed and all files are durable",
            KEEPER,
            stores(SUSTAINING, SustainTrial),
            plan="sustained",
            writes=True,
            threads=MANY,
            whole=True,
            targets=(Target(PER_FILE, 1.2), Target(DISKCACHE, 1.0)),
        ),
        Workload(
            "append",
            f"a message of 4 KiB to a session of 0 to {APPENDS - 1}",
            KEEPER,
            (*stores(APPENDING, AppendTrial), floor, gathered),
            plan="append",
            writes=True,
            targets=(
                Target(ADD_ITEMS, 15.0, threads=MANY),
                Target(SQLITE, 4.0, threads=MANY),
                Target(DISKCACHE, 3.0, threads=MANY),
                Target(floor.name, 0.3, threads=MANY),
                Target(SQLITE, 0.8, threads=1),
            ),
        ),
        Workload(
            "load",
            f"all messages of a session of {size} KB that was used lately",
            KEEPER,
            (*stores(LOADING, LoadTrial, writes=False), in_memory),
        ),
        Workload(
            "handle",
            f"a session of {size} KB that was used lately, its messages not looked at",
            handles.name,
            (handles, asks, in_memory),
        ),
    )


def _as_is(peer: W) -> W:
    return peer


def gauges() -> tuple[Gauge, ...]:
    """All workloads that are told by other figures, in the order in which they run."""
    supervised = _entrant("GenServer, supervised", SupervisedServer, RestartSampler)
    by_hand = _entrant("Pykka, by hand", PykkaByHand, RestartSampler)
    replayed = _entrant("sessionkeeper", ReplaySampler, _as_is)
    return (
        Gauge(
            "restart",
            "from the crash of an empty server to the answer of its successor",
            supervised.name,
            (supervised, by_hand),
            (Figure("p50", Limit("less than", 0.005)), Figure("p99")),
            plan="memory",
        ),
        _lengths(),
        _openings(),
        Gauge(
            "recovery",
            "what a crash has left in the journal is read back",
            replayed.name,
            (replayed,),
            (Figure("rate", Limit("at least", 100.0), unit="MB/s"),),
            plan="open",
            writes=True,
        ),
        _stall("stall-save", "saved", loading=False),
        _stall("stall-load", "loaded", loading=True),
    )


def _lengths() -> Gauge:
    entrants = tuple(
        _entrant(f"{length:,} messages", KeeperPeer, partial(LengthSampler, length=length))
        for length in LENGTHS
    )
    limit = Limit("at most times", 1.5)
    return Gauge(
        "append-length",
        "a message is appended to a session in the cache, one thread",
        entrants[0].name,
        entrants,
        (Figure("p50", limit, of=entrants[-1].name), Figure("p99")),
        plan="length",
        writes=True,
    )


def _openings() -> Gauge:
    empty = _entrant("empty", partial(OpeningSampler, filled=False), _as_is)
    return Gauge(
        "open",
        "a store that was closed is opened, until it is ready",
        empty.name,
        (empty, _entrant("sessions", partial(OpeningSampler, filled=True), _as_is)),
        (Figure("p50"),),
        plan="open",
        writes=True,
    )


def _stall(name: str, done: str, *, loading: bool) -> Gauge:
    def sampler(peer: LoopPeer) -> Sampler:
        return StallSampler(peer, loading=loading)

    keeper = _entrant("sessionkeeper", KeeperLoop, sampler)
    return Gauge(
        name,
        f"of an event loop's ticks while a long session is {done}",
        keeper.name,
        (
            keeper,
            _entrant("to_thread, orjson", WholeFile, sampler),
            _entrant("nobody", IdleLoop, sampler),
        ),
        (Figure("longest", Limit("less than", 0.01)),),
        plan="loop",
        writes=True,
    )
