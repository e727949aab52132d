"""What people read, and what programs read."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bench.machine import Machine
    from bench.measure import Plan
    from bench.results import Row
    from bench.workloads import Workload

_HEADERS = ("threads", "peer", "durable", "ops/s", "min - max", "µs each", "ratio")
_RIGHT = frozenset({"threads", "ops/s", "min - max", "µs each", "ratio"})
# From this load for each CPU on, others take part in every figure.
_BUSY = 0.5
_DURABLE = {True: "durable", False: "not durable", None: ""}


def print_machine(machine: Machine, plans: dict[str, Plan]) -> None:
    """Say where the figures come from."""
    packages = ", ".join(f"{name} {version}" for name, version in machine.packages.items())
    print(f"{machine.date}  {machine.command}")
    print(f"{machine.system}, {machine.cpus} CPUs ({machine.cpu})")
    print(f"{machine.python}, SQLite {machine.sqlite}, {packages}")
    print(f"file system: {machine.file_system}")
    if machine.load > machine.cpus * _BUSY:
        print(f"BUSY MACHINE: a load of {machine.load:.1f} before the start; trust the ratios only")
    for name, plan in plans.items():
        print(f"{name}: {plan.rounds} rounds of {plan.seconds:g} s, the peers in turns; medians")


def print_workload(workload: Workload, rows: Sequence[Row]) -> None:
    """Print one table: with rich on a terminal, where it is installed, else plain."""
    title = f"{workload.name}: {workload.operation} (ratio: {workload.subject} to the row)"
    body = [_cells(row) for row in rows]
    if not (sys.stdout.isatty() and _print_rich(title, body)):
        _print_plain(title, body)
    for row in rows:
        if row.missing is not None:
            print(f"{row.peer}, {row.threads} threads: the package {row.missing} is not installed")
        if row.failure is not None:
            print(f"{row.peer}, {row.threads} threads: {row.failure}")
    sys.stdout.flush()


def _print_plain(title: str, body: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(_HEADERS, *body, strict=True)]
    print(f"\n{title}")
    for cells in (_HEADERS, *body):
        print("  ".join(map(_aligned, _HEADERS, cells, widths)).rstrip())


def _print_rich(title: str, body: Sequence[Sequence[str]]) -> bool:
    try:
        from rich.console import Console  # noqa: PLC0415 - it may be absent
        from rich.table import Table  # noqa: PLC0415
    except ImportError:
        return False
    table = Table(title=title, title_justify="left")
    for header in _HEADERS:
        table.add_column(header, justify="right" if header in _RIGHT else "left")
    for cells in body:
        table.add_row(*cells)
    Console(markup=False, highlight=False).print(table)
    return True


def _cells(row: Row) -> tuple[str, ...]:
    durable = _DURABLE[row.durable]
    head = (str(row.threads), row.peer, durable)
    if row.missing is not None:
        return (*head, "absent", "", "", "")
    if row.rate is None or row.slowest is None or row.fastest is None or row.micros is None:
        return (*head, "FAILED", "", "", "")
    ratio = "" if row.ratio is None else f"{row.ratio:.2f} x"
    spread = f"{row.slowest:,.0f} - {row.fastest:,.0f}"
    return (*head, f"{row.rate:,.0f}", spread, f"{row.micros:,.1f}", ratio)


def _aligned(header: str, cell: str, width: int) -> str:
    return cell.rjust(width) if header in _RIGHT else cell.ljust(width)


def write_json(path: Path, machine: Machine, plans: dict[str, Plan], rows: Sequence[Row]) -> None:
    """Write everything that was measured.

    Args:
        path: The file.
        machine: Where.
        plans: How much, by kind of work.
        rows: The figures.
    """
    everything: dict[str, Any] = {
        "machine": asdict(machine),
        "plans": {name: asdict(plan) for name, plan in plans.items()},
        "results": [asdict(row) for row in rows],
    }
    path.write_text(json.dumps(everything, indent=2) + "\n", encoding="utf-8")
