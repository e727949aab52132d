"""Figures: from the rounds of each peer to medians, spreads and ratios."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bench.measure import Outcome
    from bench.workloads import Workload


@dataclass(frozen=True, slots=True)
class Row:
    """One peer at one workload with one number of threads.

    Attributes:
        workload: Its name.
        threads: How many worked together.
        peer: Who.
        durable: Whether its work survives a power failure; None where nothing is written.
        rate: Operations each second, the median of the rounds; None without any.
        slowest: The rate of the slowest round.
        fastest: The rate of the fastest round.
        micros: What one operation takes as its thread sees it, in microseconds.
        ratio: How many times faster the subject of the workload is.
        versus: The subject.
        operations: In all rounds that count.
        rounds: The rate of each round, in order.
        failure: Why it was given up, or None.
        missing: The package that is not installed, or None.
    """

    workload: str
    threads: int
    peer: str
    durable: bool | None
    rate: float | None
    slowest: float | None
    fastest: float | None
    micros: float | None
    ratio: float | None
    versus: str
    operations: int
    rounds: tuple[float, ...]
    failure: str | None
    missing: str | None


def rows_of(workload: Workload, threads: int, outcomes: Mapping[str, Outcome]) -> list[Row]:
    """The figures of one workload, in the order of its entrants.

    Args:
        workload: Which.
        threads: How many worked together.
        outcomes: By the name of the entrant; an absent one has none.
    """
    rates = {
        name: tuple(done.rate for done in outcome.rounds)
        for name, outcome in outcomes.items()
        if outcome.rounds and outcome.failure is None
    }
    medians = {name: median(each) for name, each in rates.items()}
    subject = medians.get(workload.subject)
    rows: list[Row] = []
    for entrant in workload.entrants:
        outcome = outcomes.get(entrant.name)
        rate = medians.get(entrant.name)
        each = rates.get(entrant.name, ())
        compared = subject is not None and rate is not None and entrant.name != workload.subject
        rows.append(
            Row(
                workload=workload.name,
                threads=threads,
                peer=entrant.name,
                durable=entrant.durable,
                rate=rate,
                slowest=min(each, default=None),
                fastest=max(each, default=None),
                micros=threads * 1e6 / rate if rate else None,
                ratio=subject / rate if compared and subject and rate else None,
                versus=workload.subject,
                operations=sum(done.operations for done in outcome.rounds) if outcome else 0,
                rounds=each,
                failure=outcome.failure if outcome else None,
                missing=entrant.missing,
            ),
        )
    return rows
