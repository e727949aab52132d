"""Figures: from the rounds of each peer to medians, spreads and ratios."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from bench.measure import Outcome, Round
    from bench.workloads import DelayWorkload, Workload


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
        ratio: How many times faster the subject of the workload is: the median over the
            rounds, each compared with the subject's round beside it.
        lowest_ratio: In the round that was worst for the subject.
        highest_ratio: In the round that was best for it.
        versus: The subject.
        target: What the ratio should be at least, or None.
        met: Whether it is; None without a target or a ratio.
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
    lowest_ratio: float | None
    highest_ratio: float | None
    versus: str
    target: float | None
    met: bool | None
    operations: int
    rounds: tuple[float, ...]
    failure: str | None
    missing: str | None


@dataclass(frozen=True, slots=True)
class DelayRow:
    """One figure of one peer at one workload that is told by its delays.

    Attributes:
        workload: Its name.
        peer: Who.
        figure: `p50`, `p99` or `longest` of a round.
        seconds: The median over the rounds; None without any.
        lowest: In the best round.
        highest: In the worst round.
        delays: How many there were in all rounds together.
        limit: What it should be less than, or None.
        met: Whether it is; None without a limit or a figure.
        rounds: The figure of each round, in order.
        failure: Why the peer was given up, or None.
        missing: The package that is not installed, or None.
    """

    workload: str
    peer: str
    figure: str
    seconds: float | None
    lowest: float | None
    highest: float | None
    delays: int
    limit: float | None
    met: bool | None
    rounds: tuple[float, ...]
    failure: str | None
    missing: str | None


def rows_of(
    workload: Workload,
    threads: int,
    outcomes: Mapping[str, Outcome[Round]],
) -> list[Row]:
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
    targets = {
        target.peer: target.ratio
        for target in workload.targets
        if target.threads in (None, threads)
    }
    rows: list[Row] = []
    for entrant in workload.entrants:
        outcome = outcomes.get(entrant.name)
        rate = medians.get(entrant.name)
        each = rates.get(entrant.name, ())
        subject = rates.get(workload.subject, ()) if entrant.name != workload.subject else ()
        ratios = [ours / theirs for ours, theirs in zip(subject, each, strict=False)]
        ratio = median(ratios) if ratios else None
        target = targets.get(entrant.name)
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
                ratio=ratio,
                lowest_ratio=min(ratios, default=None),
                highest_ratio=max(ratios, default=None),
                versus=workload.subject,
                target=target,
                met=None if ratio is None or target is None else ratio >= target,
                operations=sum(done.operations for done in outcome.rounds) if outcome else 0,
                rounds=each,
                failure=outcome.failure if outcome else None,
                missing=entrant.missing,
            ),
        )
    return rows


def delay_rows_of(
    workload: DelayWorkload,
    outcomes: Mapping[str, Outcome[Sequence[float]]],
) -> list[DelayRow]:
    """The figures of one workload that is told by its delays, in the order of its entrants.

    Args:
        workload: Which.
        outcomes: By the name of the entrant; an absent one has none.
    """
    rows: list[DelayRow] = []
    for entrant in workload.entrants:
        outcome = outcomes.get(entrant.name)
        failure = outcome.failure if outcome else None
        rounds = outcome.rounds if outcome and failure is None else []
        for figure in workload.figures:
            each = tuple(_FIGURES[figure.name](delays) for delays in rounds)
            seconds = median(each) if each else None
            limit = figure.limit if entrant.name == workload.subject else None
            rows.append(
                DelayRow(
                    workload=workload.name,
                    peer=entrant.name,
                    figure=figure.name,
                    seconds=seconds,
                    lowest=min(each, default=None),
                    highest=max(each, default=None),
                    delays=sum(map(len, rounds)),
                    limit=limit,
                    met=None if seconds is None or limit is None else seconds < limit,
                    rounds=each,
                    failure=failure,
                    missing=entrant.missing,
                ),
            )
    return rows


def _p99(delays: Sequence[float]) -> float:
    return sorted(delays)[math.ceil(len(delays) * 0.99) - 1]


_FIGURES: Mapping[str, Callable[[Sequence[float]], float]] = {
    "p50": median,
    "p99": _p99,
    "longest": max,
}
