"""What is told by its rate: who does it, and what the targets are."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from bench import payloads
from bench.agents import ADD_ITEMS
from bench.floor import FloorTrial
from bench.kinds import Entrant, Target, Workload, as_is, entrant_of, stores
from bench.loads import LONG_LOADS, MESSAGES, PARTS, VERY_LONG, LongLoadTrial
from bench.messaging import MESSAGE_PEERS, PYKKA, SERVER, KeeperMessages
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
)
from bench.trials import (
    APPENDS,
    PIPELINED,
    AppendTrial,
    AskTrial,
    LoadTrial,
    PipelineTrial,
    SaveTrial,
    SustainTrial,
    TellTrial,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.measure import Trial
    from bench.messaging import MessagePeer

# With so many threads stores are measured at what they can take at most.
MANY = 64


def _servers(trial: Callable[[MessagePeer], Trial]) -> tuple[Entrant[Trial], ...]:
    return tuple(entrant_of(spec.name, spec.open, trial) for spec in MESSAGE_PEERS)


def workloads() -> tuple[Workload, ...]:
    """All workloads that are told by their rate, in the order in which they run."""
    messages, size = payloads.SESSION_MESSAGES, payloads.SESSION_BYTES // 1000
    floor = entrant_of("floor", FloorTrial, as_is, durable=True)
    gathered = entrant_of(
        "floor, one write", partial(FloorTrial, gathered=True), as_is, durable=True
    )
    in_memory = entrant_of("orjson.loads", BytesInMemory, LoadTrial)
    handles = entrant_of("sessionkeeper, handle", KeeperHandles, LoadTrial)
    asks = entrant_of("sessionkeeper, ask", KeeperMessages, AskTrial)
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
        Workload(
            "load-long",
            f"a session of {MESSAGES:,} messages of 400 bytes",
            LONG_LOADS[0][0],
            tuple(
                entrant_of(name, opened, partial(LongLoadTrial, expected=expected))
                for name, opened, expected in LONG_LOADS
            ),
            threads=1,
        ),
        Workload(
            "load-part",
            f"a session of {VERY_LONG:,} messages of 400 bytes, or a part of it",
            PARTS[0][0],
            tuple(
                entrant_of(
                    name,
                    opened,
                    partial(LongLoadTrial, expected=expected, length=VERY_LONG, sessions=1),
                )
                for name, opened, expected in PARTS
            ),
            threads=1,
        ),
    )
