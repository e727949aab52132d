"""Runs one workload: opens all who do it, lets them take turns, closes them."""

from __future__ import annotations

import gc
from contextlib import ExitStack, contextmanager
from time import perf_counter
from typing import TYPE_CHECKING

from bench.disk import settle
from bench.measure import Outcome, Round, in_turns, measure, run_round
from bench.results import gauge_rows_of, rows_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from bench.disk import Disk
    from bench.kinds import Entrant, Gauge, W, Workload
    from bench.measure import Plan, Trial
    from bench.results import GaugeRow, Row


def run(workload: Workload, threads: int, plan: Plan, disk: Disk) -> list[Row]:
    """Measure one workload with so many threads.

    Args:
        workload: Which.
        threads: How many work together.
        plan: How many rounds of what length.
        disk: Where the peers work, each in a folder of its own.

    Returns:
        One row for each entrant.
    """
    if workload.whole:
        return rows_of(workload, threads, _run_whole(workload, threads, plan, disk))
    outcomes: dict[str, Outcome[Round]] = {}
    with disk.fresh() as folder, ExitStack() as stack:
        trials, failures = _open(workload.entrants, folder, stack)
        stack.enter_context(_frozen())
        outcomes |= {name: Outcome(failure=failure) for name, failure in failures.items()}
        outcomes |= measure(trials, threads, plan, _between(workload, folder))
    return rows_of(workload, threads, outcomes)


def _run_whole(
    workload: Workload,
    threads: int,
    plan: Plan,
    disk: Disk,
) -> dict[str, Outcome[Round]]:
    """Open and close a store in each round."""
    entrants = {each.name: each for each in workload.entrants if each.missing is None}

    def one_round(name: str, seconds: float) -> Round:
        gc.collect()
        with disk.fresh(large=True) as folder:
            return whole_round(entrants[name], folder, threads, seconds, plan.max_operations)

    return in_turns(list(entrants), plan, one_round)


def whole_round(
    entrant: Entrant[Trial],
    folder: Path,
    threads: int,
    seconds: float,
    max_operations: int,
) -> Round:
    """Open a store, let so many threads work at it together, and close it.

    Returns:
        The round, with the time that closing took.
    """
    with ExitStack() as stack:
        trial = stack.enter_context(entrant.start(folder))
        done = run_round(trial, threads, seconds, max_operations)
        ended = perf_counter()
        stack.close()
        closing = perf_counter() - ended
    trial.verify(done.operations)
    return Round(done.operations, done.seconds + closing)


def run_gauge(gauge: Gauge, plan: Plan, disk: Disk) -> list[GaugeRow]:
    """Measure one gauge.

    Args:
        gauge: Which.
        plan: How many rounds of what length.
        disk: See `run`.

    Returns:
        One row for each entrant and figure.
    """
    outcomes: dict[str, Outcome[Sequence[float]]] = {}
    with disk.fresh() as folder, ExitStack() as stack:
        samplers, failures = _open(gauge.entrants, folder, stack)
        stack.enter_context(_frozen())
        outcomes |= {name: Outcome(failure=failure) for name, failure in failures.items()}
        outcomes |= in_turns(
            list(samplers),
            plan,
            lambda name, seconds: samplers[name].sample(plan, seconds),
            _between(gauge, folder),
        )
    return gauge_rows_of(gauge, outcomes)


def _open(
    entrants: Sequence[Entrant[W]],
    folder: Path,
    stack: ExitStack,
) -> tuple[dict[str, W], dict[str, str]]:
    """Open all that are installed; returns those that work, and why others do not."""
    opened: dict[str, W] = {}
    failures: dict[str, str] = {}
    for number, entrant in enumerate(entrants):
        if entrant.missing is not None:
            continue
        own = folder / str(number)
        own.mkdir(parents=True)
        try:
            opened[entrant.name] = stack.enter_context(entrant.start(own))
        except Exception as error:  # noqa: BLE001 - a peer that fails is a result
            failures[entrant.name] = f"{type(error).__name__}: {error}"
    return opened, failures


@contextmanager
def _frozen() -> Iterator[None]:
    """Spare the collector what is there already.

    Frameworks bring objects by the hundred thousand; whoever is measured would have them looked
    through again and again.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _between(workload: Workload | Gauge, folder: Path) -> Callable[[], object]:
    def collect_and_settle() -> None:
        gc.collect()
        settle(folder)

    return collect_and_settle if workload.writes else gc.collect
