"""Lets catalogs grow together and asks them at each size."""

from __future__ import annotations

from contextlib import ExitStack, closing
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING

from bench.disk import settle
from bench.growth import CATALOGS, QUESTIONS
from bench.measure import Outcome, in_turns
from bench.results import GrowthRow, Limit, p99

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from bench.disk import Disk
    from bench.growth import Catalog, CatalogSpec, Question
    from bench.measure import Plan

# A peer whose part at one size takes longer grows no further.
PATIENCE = 60.0
_CHUNK = 2_000


class _Grower:
    """One catalog on its way up.

    Attributes:
        sessions: How many are in it.
        spent: How many seconds it took at the size at hand.
        stopped: Why it grows no further, or None.
        failure: Why it was given up, or None.
    """

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.sessions = 0
        self.spent = 0.0
        self.stopped: str | None = None
        self.failure: str | None = None

    @property
    def going(self) -> bool:
        """Whether it takes part."""
        return self.stopped is None and self.failure is None

    def grow(self, size: int, patience: float | None) -> None:
        """Fill it up to a size, unless that takes too long."""
        began = perf_counter()
        try:
            while self.sessions < size:
                end = min(size, self.sessions + _CHUNK)
                self.catalog.fill(range(self.sessions, end))
                self.sessions = end
                self._look(began, patience)
                if not self.going:
                    break
            self.catalog.ready()
        except Exception as error:  # noqa: BLE001 - a peer that fails is a result
            self.failure = f"{type(error).__name__}: {error}"
        self.spent = perf_counter() - began

    def _look(self, began: float, patience: float | None) -> None:
        if patience is not None and perf_counter() - began > patience:
            self.stopped = f"filling it took over {patience:g} s, at {self.sessions:,}"

    def answer(self, question: Question, seconds: float) -> list[float]:
        """Ask again and again; returns how long each answer took."""
        delays: list[float] = []
        deadline = perf_counter() + seconds
        while True:
            began = perf_counter()
            question.ask(self.catalog, self.sessions)
            ended = perf_counter()
            delays.append(ended - began)
            if ended >= deadline:
                self.spent += sum(delays)
                return delays


def run_growth(
    sizes: Sequence[int],
    plan: Plan,
    disk: Disk,
    catalogs: Sequence[CatalogSpec] = CATALOGS,
    patience: float = PATIENCE,
) -> Iterator[list[GrowthRow]]:
    """Measure at one size after the other.

    Args:
        sizes: How many sessions, ascending.
        plan: How many rounds of what length for each question.
        disk: Where the catalogs work, each in a folder of its own.
        catalogs: Who; the first is the one that the others are compared with, and it grows to
            the end however long that takes.
        patience: Seconds after which another grows no further.

    Yields:
        The rows of each size.
    """
    with disk.fresh(large=True) as folder, ExitStack() as stack:
        growers: dict[str, _Grower] = {}
        refused: dict[str, str] = {}
        for number, spec in enumerate(catalogs):
            if spec.missing is None:
                try:
                    growers[spec.name] = _opened(spec, folder / str(number), stack)
                except Exception as error:  # noqa: BLE001 - a peer that fails is a result
                    refused[spec.name] = f"{type(error).__name__}: {error}"
        subject = catalogs[0].name
        for size in sizes:
            for name, grower in growers.items():
                if grower.going:
                    grower.grow(size, None if name == subject else patience)
            settle(folder)
            rows: list[GrowthRow] = []
            for question in QUESTIONS:
                outcomes = _ask(question, growers, plan)
                rows += _rows(
                    question,
                    size,
                    catalogs,
                    growers=growers,
                    refused=refused,
                    outcomes=outcomes,
                )
            yield rows
            for name, grower in growers.items():
                if grower.going and grower.spent > patience and name != subject:
                    grower.stopped = f"{size:,} sessions took it over {patience:g} s"


def _opened(spec: CatalogSpec, folder: Path, stack: ExitStack) -> _Grower:
    folder.mkdir(parents=True)
    return _Grower(stack.enter_context(closing(spec.open(folder))))


def _ask(
    question: Question,
    growers: dict[str, _Grower],
    plan: Plan,
) -> dict[str, Outcome[list[float]]]:
    names = [name for name, grower in growers.items() if grower.going]
    outcomes = in_turns(
        names,
        plan,
        lambda name, seconds: growers[name].answer(question, seconds),
    )
    for name, outcome in outcomes.items():
        growers[name].failure = outcome.failure
    return outcomes


def _rows(
    question: Question,
    size: int,
    catalogs: Sequence[CatalogSpec],
    *,
    growers: dict[str, _Grower],
    refused: dict[str, str],
    outcomes: dict[str, Outcome[list[float]]],
) -> list[GrowthRow]:
    subject = catalogs[0].name
    rounds = {
        name: [median(delays) for delays in outcome.rounds]
        for name, outcome in outcomes.items()
        if outcome.rounds and outcome.failure is None
    }
    rows: list[GrowthRow] = []
    for spec in catalogs:
        each = rounds.get(spec.name, [])
        grower = growers.get(spec.name)
        beside = rounds.get(subject, []) if spec.name != subject else []
        ratios = [theirs / ours for theirs, ours in zip(each, beside, strict=False)]
        value = median(each) if each else None
        limited = spec.name == subject and question.limit is not None
        limit = Limit("less than", question.limit or 0.0) if limited else None
        samples = (
            [delay for delays in outcomes[spec.name].rounds for delay in delays] if each else []
        )
        rows.append(
            GrowthRow(
                growth=question.name,
                operation=question.operation,
                peer=spec.name,
                sessions=size,
                value=value,
                lowest=min(each, default=None),
                highest=max(each, default=None),
                p99=p99(samples) if samples else None,
                samples=len(samples),
                ratio=median(ratios) if ratios else None,
                versus=subject,
                limit=limit,
                met=None if limit is None else limit.met(value, None),
                stopped=grower.stopped if grower else None,
                failure=grower.failure if grower else refused.get(spec.name),
                missing=spec.missing,
            ),
        )
    return rows
