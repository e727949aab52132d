"""What is told by delays, or by other figures: who does it, and what the targets are."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from bench.busy import WRITERS, BusyLoadSampler, BusySearchSampler
from bench.growth import PAGE, KeeperCatalog
from bench.kinds import Figure, Gauge, as_is, entrant_of
from bench.lengths import LengthSampler
from bench.openings import KilledSampler, MemorySampler, OpeningSampler, ReplaySampler
from bench.peers import BUSY, KeeperPeer
from bench.restarts import PykkaByHand, RestartSampler, StoreRestartSampler, SupervisedServer
from bench.results import Limit
from bench.stalls import IdleLoop, KeeperLoop, StallSampler, WholeFile

if TYPE_CHECKING:
    from bench.measure import Sampler
    from bench.stalls import LoopPeer

# Of the sessions whose appends are compared by it.
LENGTHS = (10, 100, 1_000, 10_000, 100_000)


def gauges() -> tuple[Gauge, ...]:
    """All workloads that are told by other figures, in the order in which they run."""
    supervised = entrant_of("GenServer, supervised", SupervisedServer, RestartSampler)
    by_hand = entrant_of("Pykka, by hand", PykkaByHand, RestartSampler)
    replayed = entrant_of("sessionkeeper", ReplaySampler, as_is)
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
        _killed(),
        _store_restart(),
        _memory(),
        _busy_load(),
        _busy_search(),
        _stall("stall-save", "saved", loading=False),
        _stall("stall-load", "loaded", loading=True),
    )


def _lengths() -> Gauge:
    entrants = tuple(
        entrant_of(f"{length:,} messages", KeeperPeer, partial(LengthSampler, length=length))
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
    empty = entrant_of("empty", partial(OpeningSampler, filled=False), as_is)
    return Gauge(
        "open",
        "a store that was closed is opened, until it is ready",
        empty.name,
        (empty, entrant_of("sessions", partial(OpeningSampler, filled=True), as_is)),
        (Figure("p50"),),
        plan="open",
        writes=True,
    )


def _killed() -> Gauge:
    killed = entrant_of("sessions", KilledSampler, as_is)
    return Gauge(
        "open-killed",
        "a store whose process was killed while it wrote is opened, until it is ready",
        killed.name,
        (killed,),
        (Figure("p50"),),
        plan="open",
        writes=True,
    )


def _store_restart() -> Gauge:
    crashed = entrant_of("sessions", StoreRestartSampler, as_is)
    return Gauge(
        "restart-store",
        "from the crash of a store's actor to the next answer",
        crashed.name,
        (crashed,),
        (Figure("p50", Limit("less than", 0.1)),),
        plan="open",
        writes=True,
    )


def _memory() -> Gauge:
    empty = entrant_of("empty", partial(MemorySampler, filled=False), as_is)
    filled = entrant_of("sessions", partial(MemorySampler, filled=True), as_is)
    limit = Limit("less than", 200.0)
    return Gauge(
        "memory",
        "what a process with an open store holds, above a bare interpreter",
        empty.name,
        (empty, filled),
        (Figure("memory", limit, of=filled.name, unit="MB"),),
        plan="open",
        writes=True,
    )


def _busy_load() -> Gauge:
    entrants = tuple(
        entrant_of(spec.name, spec.open, BusyLoadSampler, missing=spec.missing) for spec in BUSY
    )
    return Gauge(
        "busy-load",
        f"a session that was used lately is loaded while {WRITERS} threads append",
        entrants[0].name,
        entrants,
        (Figure("p50"), Figure("p99", Limit("less than", 0.001))),
        plan="busy",
        writes=True,
    )


def _busy_search() -> Gauge:
    busy = entrant_of(f"{WRITERS} writers", KeeperCatalog, BusySearchSampler)
    alone = entrant_of("no writer", KeeperCatalog, partial(BusySearchSampler, writers=0))
    return Gauge(
        "busy-search",
        f"the {PAGE} sessions of a tag changed last are asked for while {WRITERS} threads append",
        alone.name,
        (alone, busy),
        (Figure("p50"), Figure("p99", Limit("less than", 0.05), of=busy.name)),
        plan="busy",
        writes=True,
    )


def _stall(name: str, done: str, *, loading: bool) -> Gauge:
    def sampler(peer: LoopPeer) -> Sampler:
        return StallSampler(peer, loading=loading)

    keeper = entrant_of("sessionkeeper", KeeperLoop, sampler)
    return Gauge(
        name,
        f"of an event loop's ticks while a long session is {done}",
        keeper.name,
        (
            keeper,
            entrant_of("to_thread, orjson", WholeFile, sampler),
            entrant_of("nobody", IdleLoop, sampler),
        ),
        (Figure("longest", Limit("less than", 0.01)),),
        plan="loop",
        writes=True,
    )
