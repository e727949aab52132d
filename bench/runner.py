"""Runs one workload: opens all who do it, lets them take turns, closes them."""

from __future__ import annotations

import gc
import os
from contextlib import ExitStack
from typing import TYPE_CHECKING

from bench.measure import Outcome, in_turns, measure
from bench.results import delay_rows_of, rows_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from bench.measure import Plan, Round
    from bench.results import DelayRow, Row
    from bench.workloads import DelayWorkload, Entrant, W, Workload


def run(workload: Workload, threads: int, plan: Plan, folder: Path) -> list[Row]:
    """Measure one workload with so many threads.

    Args:
        workload: Which.
        threads: How many work together.
        plan: How many rounds of what length.
        folder: Where the peers work, each in a folder of its own; what they wrote stays there,
            because removing it would slow down what is measured next.

    Returns:
        One row for each entrant.
    """
    outcomes: dict[str, Outcome[Round]] = {}
    with ExitStack() as stack:
        trials, failures = _open(workload.entrants, folder / f"{workload.name}-{threads}", stack)
        outcomes |= {name: Outcome(failure=failure) for name, failure in failures.items()}
        outcomes |= measure(trials, threads, plan, _between(workload))
    return rows_of(workload, threads, outcomes)


def run_delays(workload: DelayWorkload, plan: Plan, folder: Path) -> list[DelayRow]:
    """Measure one workload that is told by its delays.

    Args:
        workload: Which.
        plan: How many rounds of what length.
        folder: See `run`.

    Returns:
        One row for each entrant and figure.
    """
    outcomes: dict[str, Outcome[Sequence[float]]] = {}
    with ExitStack() as stack:
        samplers, failures = _open(workload.entrants, folder / workload.name, stack)
        outcomes |= {name: Outcome(failure=failure) for name, failure in failures.items()}
        outcomes |= in_turns(
            list(samplers),
            plan,
            lambda name, seconds: samplers[name].sample(plan, seconds),
            _between(workload),
        )
    return delay_rows_of(workload, outcomes)


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


def _between(workload: Workload | DelayWorkload) -> Callable[[], object]:
    return _write_back if workload.writes else gc.collect


def _write_back() -> None:
    """Settle debts, so that no round pays for the one before it.

    What peers without fsync left in memory would otherwise reach the disk while others sync.
    """
    gc.collect()
    os.sync()
