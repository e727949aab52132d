"""Figures: from the rounds of each peer to medians, spreads and ratios."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from bench.kinds import Gauge, Workload
    from bench.measure import Outcome, Round


Sense = Literal["less than", "at least", "at most times"]


@dataclass(frozen=True, slots=True)
class Limit:
    """What a figure should be.

    Attributes:
        sense: `less than` or `at least` the value; or `at most times`: so many times what the
            same figure of the subject is.
        value: The limit.
    """

    sense: Sense
    value: float

    def met(self, value: float | None, ratio: float | None) -> bool | None:
        """Whether it is kept; None if that was not measured.

        Args:
            value: The figure.
            ratio: How many times the subject's it is.
        """
        found = ratio if self.sense == "at most times" else value
        if found is None:
            return None
        if self.sense == "at least":
            return found >= self.value
        return found < self.value if self.sense == "less than" else found <= self.value


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
class GaugeRow:
    """One figure of one peer at one gauge.

    Attributes:
        gauge: Its name.
        peer: Who.
        figure: What is told of the samples of a round: `p50`, `p99`, `longest`, `rate` or `memory`.
        unit: Of the value: `s`, `MB/s` or `MB`.
        value: The median over the rounds; None without any.
        lowest: In the round where it was lowest.
        highest: In the round where it was highest.
        ratio: How many times the subject's it is: the median over the rounds, each compared
            with the subject's round beside it.
        lowest_ratio: In the round where that was lowest.
        highest_ratio: In the round where that was highest.
        versus: The subject.
        samples: How many there were in all rounds together.
        limit: What it should be, or None.
        met: Whether it is; None without a limit or a figure.
        rounds: The figure of each round, in order.
        failure: Why the peer was given up, or None.
        missing: The package that is not installed, or None.
    """

    gauge: str
    peer: str
    figure: str
    unit: str
    value: float | None
    lowest: float | None
    highest: float | None
    ratio: float | None
    lowest_ratio: float | None
    highest_ratio: float | None
    versus: str
    samples: int
    limit: Limit | None
    met: bool | None
    rounds: tuple[float, ...]
    failure: str | None
    missing: str | None


@dataclass(frozen=True, slots=True)
class GrowthRow:
    """One peer's answers to one question while it holds so many sessions.

    Attributes:
        growth: The name of the question.
        operation: The question in words.
        peer: Who.
        sessions: How many there are.
        value: Seconds, the median over the rounds of the median of each; None without any.
        lowest: In the fastest round.
        highest: In the slowest round.
        p99: Of all answers together.
        samples: How many there were in all rounds together.
        ratio: How many times the subject's it is at this number of sessions.
        versus: The subject.
        limit: What it should be, or None.
        met: Whether it is; None without a limit or a figure.
        stopped: Why it does not grow that far, or None.
        failure: Why it was given up, or None.
        missing: The package that is not installed, or None.
    """

    growth: str
    operation: str
    peer: str
    sessions: int
    value: float | None
    lowest: float | None
    highest: float | None
    p99: float | None
    samples: int
    ratio: float | None
    versus: str
    limit: Limit | None
    met: bool | None
    stopped: str | None
    failure: str | None
    missing: str | None


@dataclass(frozen=True, slots=True)
class Findings:
    """All that one run came to.

    Attributes:
        rows: The figures that are rates.
        gauges: The other figures.
        growths: What grows with the number of sessions.
    """

    rows: list[Row] = field(default_factory=list)
    gauges: list[GaugeRow] = field(default_factory=list)
    growths: list[GrowthRow] = field(default_factory=list)

    @property
    def failed(self) -> bool:
        """Whether anybody failed at anything."""
        every = (
            *(row.failure for row in self.rows),
            *(row.failure for row in self.gauges),
            *(row.failure for row in self.growths),
        )
        return any(failure is not None for failure in every)


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


def gauge_rows_of(gauge: Gauge, outcomes: Mapping[str, Outcome[Sequence[float]]]) -> list[GaugeRow]:
    """The figures of one gauge, in the order of its entrants.

    Args:
        gauge: Which.
        outcomes: By the name of the entrant; an absent one has none.
    """
    rounds = {name: outcome.rounds for name, outcome in outcomes.items() if outcome.failure is None}
    rows: list[GaugeRow] = []
    for entrant in gauge.entrants:
        own = rounds.get(entrant.name, [])
        outcome = outcomes.get(entrant.name)
        for figure in gauge.figures:
            tell = _FIGURES[figure.name]
            each = tuple(tell(samples) for samples in own)
            subject = rounds.get(gauge.subject, []) if entrant.name != gauge.subject else []
            ratios = [
                theirs / tell(samples) for samples, theirs in zip(subject, each, strict=False)
            ]
            value = median(each) if each else None
            ratio = median(ratios) if ratios else None
            limit = figure.limit if entrant.name == (figure.of or gauge.subject) else None
            rows.append(
                GaugeRow(
                    gauge=gauge.name,
                    peer=entrant.name,
                    figure=figure.name,
                    unit=figure.unit,
                    value=value,
                    lowest=min(each, default=None),
                    highest=max(each, default=None),
                    ratio=ratio,
                    lowest_ratio=min(ratios, default=None),
                    highest_ratio=max(ratios, default=None),
                    versus=gauge.subject,
                    samples=sum(map(len, own)),
                    limit=limit,
                    met=None if limit is None else limit.met(value, ratio),
                    rounds=each,
                    failure=outcome.failure if outcome else None,
                    missing=entrant.missing,
                ),
            )
    return rows


def p99(delays: Sequence[float]) -> float:
    """What 99 of 100 do not exceed."""
    return sorted(delays)[math.ceil(len(delays) * 0.99) - 1]


_FIGURES: Mapping[str, Callable[[Sequence[float]], float]] = {
    "p50": median,
    "p99": p99,
    "longest": max,
    "rate": median,
    "memory": median,
}
