"""Runs one workload: opens all who do it, lets them take turns, closes them."""

from __future__ import annotations

import gc
import os
from contextlib import ExitStack
from typing import TYPE_CHECKING

from bench.measure import Outcome, measure
from bench.results import rows_of

if TYPE_CHECKING:
    from pathlib import Path

    from bench.measure import Plan, Trial
    from bench.results import Row
    from bench.workloads import Workload


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
    outcomes: dict[str, Outcome] = {}
    with ExitStack() as stack:
        trials: dict[str, Trial] = {}
        for number, entrant in enumerate(workload.entrants):
            if entrant.missing is not None:
                continue
            own = folder / f"{workload.name}-{threads}-{number}"
            own.mkdir()
            try:
                trials[entrant.name] = stack.enter_context(entrant.start(own))
            except Exception as error:  # noqa: BLE001 - a peer that fails is a result
                outcomes[entrant.name] = Outcome(failure=f"{type(error).__name__}: {error}")
        outcomes |= measure(trials, threads, plan, _write_back if workload.writes else gc.collect)
    return rows_of(workload, threads, outcomes)


def _write_back() -> None:
    """Settle debts, so that no round pays for the one before it.

    What peers without fsync left in memory would otherwise reach the disk while others sync.
    """
    gc.collect()
    os.sync()
