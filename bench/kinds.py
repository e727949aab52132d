"""What a kind of work is: who does it, and what should come out."""

from __future__ import annotations

from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Literal, Protocol, TypeVar

from bench.measure import Sampler, Trial

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from bench.peers import PeerSpec, SessionPeer
    from bench.results import Limit


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
        name: `p50`, `p99` and `longest` are of delays, `rate` and `memory` are their median.
        limit: What it should be; None for no target.
        of: The entrant that the limit is for; None for the subject.
        unit: Of the samples.
    """

    name: str
    limit: Limit | None = None
    of: str | None = None
    unit: Literal["s", "MB/s", "MB"] = "s"


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


def entrant_of(
    name: str,
    opened: Callable[[Path], P],
    trial: Callable[[P], W],
    *,
    durable: bool | None = None,
    missing: str | None = None,
) -> Entrant[W]:
    """A peer at a trial, or at a sampler.

    Args:
        name: Of the peer.
        opened: Opens it in an empty folder.
        trial: What it does.
        durable: See `Entrant`.
        missing: See `Entrant`.
    """

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
        entrant_of(
            spec.name,
            spec.open,
            trial,
            durable=spec.durable if writes else None,
            missing=spec.missing,
        )
        for spec in specs
    )


def as_is(peer: W) -> W:
    """What is a trial already."""
    return peer
