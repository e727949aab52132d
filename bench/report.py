"""What people read, and what programs read."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from bench.kinds import Gauge, Workload
    from bench.machine import Machine
    from bench.measure import Plan
    from bench.results import Findings, GaugeRow, GrowthRow, Row

_HEADERS = (
    *("threads", "peer", "durable", "ops/s", "min - max", "µs each"),
    *("ratio", "worst - best", "target"),
)
_GAUGE_HEADERS = (
    *("peer", "figure", "median", "min - max", "samples"),
    *("ratio", "lowest - highest", "target"),
)
_GROWTH_HEADERS = (
    *("sessions", "question", "peer", "median", "min - max", "p99", "samples"),
    *("ratio", "target"),
)
_LEFT = frozenset({"question", "peer", "durable", "figure", "target"})
_WORDS = {"less than": "<", "at least": ">=", "at most times": "<="}
# From this load for each CPU on, others take part in every figure.
_BUSY = 0.5
_DURABLE = {True: "durable", False: "not durable", None: ""}


def print_machine(machine: Machine, plans: Mapping[str, Plan]) -> None:
    """Say where the figures come from."""
    packages = ", ".join(f"{name} {version}" for name, version in machine.packages.items())
    print(f"{machine.date}  {machine.command}")
    print(f"{machine.system}, {machine.cpus} CPUs ({machine.cpu})")
    print(f"{machine.python}, SQLite {machine.sqlite}, {packages}")
    print(f"file system: {machine.file_system}")
    if machine.load > machine.cpus * _BUSY:
        print(f"BUSY MACHINE: a load of {machine.load:.1f} before the start; trust the ratios only")
    for name, plan in plans.items():
        size = f"{plan.session_bytes / 2**20:g} MiB"
        lengths = {
            "loop": f"with a session of {size}",
            "open": f"with {plan.sessions:,} sessions, or a journal of {size}",
        }
        length = lengths.get(name, f"of {plan.seconds:g} s")
        print(f"{name}: {plan.rounds} rounds {length}, the peers in turns; medians")


def print_workload(workload: Workload, rows: Sequence[Row]) -> None:
    """Print one table: with rich on a terminal, where it is installed, else plain."""
    title = f"{workload.name}: {workload.operation} (ratio: {workload.subject} to the row)"
    _print_table(title, _HEADERS, [_cells(row) for row in rows])
    for row in rows:
        _print_trouble(f"{row.peer}, {row.threads} threads", row)
    sys.stdout.flush()


def print_gauge(gauge: Gauge, rows: Sequence[GaugeRow]) -> None:
    """Print one table of delays, or of what else is told."""
    title = f"{gauge.name}: {gauge.operation}"
    if len(gauge.entrants) > 1:
        title += f" (ratio: the row to {gauge.subject})"
    _print_table(title, _GAUGE_HEADERS, [_gauge_cells(row) for row in rows])
    for peer, row in {row.peer: row for row in rows}.items():
        _print_trouble(peer, row)
    sys.stdout.flush()


def print_growth(rows: Sequence[GrowthRow]) -> None:
    """Print the answers at one number of sessions."""
    title = f"growth: with {rows[0].sessions:,} sessions (ratio: the row to {rows[0].versus})"
    _print_table(title, _GROWTH_HEADERS, [_growth_cells(row) for row in rows])
    for peer, row in {row.peer: row for row in rows}.items():
        _print_trouble(peer, row)
        if row.stopped is not None:
            print(f"{peer}: stopped: {row.stopped}")
    sys.stdout.flush()


def print_targets(
    rows: Sequence[Row],
    gauges: Sequence[GaugeRow],
    growths: Sequence[GrowthRow] = (),
) -> None:
    """Print which targets are met: nobody finds them in all those tables."""
    lines = [_target_line(row) for row in rows if row.target is not None]
    lines += [_limit_line(row) for row in gauges if row.limit is not None]
    lines += [_growth_line(row) for row in growths if row.limit is not None]
    if lines:
        print("\ntargets")
        print("\n".join(lines))
        sys.stdout.flush()


def _target_line(row: Row) -> str:
    found = "?"
    if row.ratio is not None:
        found = f"{row.ratio:.2f} x {row.peer} ({row.lowest_ratio:.2f} - {row.highest_ratio:.2f})"
    where = f"{row.workload}, {row.threads} threads: {row.versus}"
    return f"{_verdict(row.met)}: {where}: {found}, target {_at_least(row.target)} {row.peer}"


def _limit_line(row: GaugeRow) -> str:
    found = "?"
    if row.value is not None:
        found = f"{_with_unit(row.value, row.unit)} ({_spread(row)})"
    if row.ratio is not None and row.limit is not None and row.limit.sense == "at most times":
        spread = f"{row.lowest_ratio:.2f} - {row.highest_ratio:.2f}"
        found = f"{row.ratio:.2f} x {row.versus} ({spread})"
    where = f"{row.gauge}: {row.peer}: {row.figure}"
    return f"{_verdict(row.met)}: {where} {found}, target {_limit(row)}"


def _growth_line(row: GrowthRow) -> str:
    found = "?" if row.value is None else f"p50 {_with_unit(row.value, 's')}"
    limit = "" if row.limit is None else f"< {row.limit.value * 1e3:g} ms"
    where = f"{row.growth}, {row.sessions:,} sessions: {row.peer}"
    return f"{_verdict(row.met)}: {where}: {found}, target {limit}"


def _print_trouble(who: str, row: Row | GaugeRow | GrowthRow) -> None:
    if row.missing is not None:
        print(f"{who}: the package {row.missing} is not installed")
    if row.failure is not None:
        print(f"{who}: {row.failure}")


def _print_table(title: str, headers: Sequence[str], body: Sequence[Sequence[str]]) -> None:
    # A column that says nothing in any row is left out.
    kept = [index for index in range(len(headers)) if any(cells[index] for cells in body)]
    headers = [headers[index] for index in kept]
    body = [[cells[index] for index in kept] for cells in body]
    if not (sys.stdout.isatty() and _print_rich(title, headers, body)):
        _print_plain(title, headers, body)


def _print_plain(title: str, headers: Sequence[str], body: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(headers, *body, strict=True)]
    print(f"\n{title}")
    for cells in (headers, *body):
        print("  ".join(map(_aligned, headers, cells, widths)).rstrip())


def _print_rich(title: str, headers: Sequence[str], body: Sequence[Sequence[str]]) -> bool:
    try:
        from rich.console import Console  # noqa: PLC0415 - it may be absent
        from rich.table import Table  # noqa: PLC0415
    except ImportError:
        return False
    table = Table(title=title, title_justify="left")
    for header in headers:
        table.add_column(header, justify="left" if header in _LEFT else "right")
    for cells in body:
        table.add_row(*cells)
    Console(markup=False, highlight=False).print(table)
    return True


def _cells(row: Row) -> tuple[str, ...]:
    durable = _DURABLE[row.durable]
    head = (str(row.threads), row.peer, durable)
    if row.missing is not None:
        return (*head, "absent", *[""] * 5)
    if row.rate is None or row.slowest is None or row.fastest is None or row.micros is None:
        return (*head, "FAILED", *[""] * 5)
    spread = f"{row.slowest:,.0f} - {row.fastest:,.0f}"
    figures = (*head, f"{row.rate:,.0f}", spread, f"{row.micros:,.1f}")
    if row.ratio is None:
        return (*figures, "", "", "")
    ratios = f"{row.lowest_ratio:.2f} - {row.highest_ratio:.2f}"
    target = "" if row.target is None else f"{_at_least(row.target)} {_verdict(row.met)}"
    return (*figures, f"{row.ratio:.2f} x", ratios, target)


def _gauge_cells(row: GaugeRow) -> tuple[str, ...]:
    head = (row.peer, row.figure)
    if row.missing is not None:
        return (*head, "absent", *[""] * 5)
    if row.value is None:
        return (*head, "FAILED", *[""] * 5)
    target = "" if row.limit is None else f"{_limit(row)} {_verdict(row.met)}"
    ratio = ("", "")
    if row.ratio is not None:
        ratio = (f"{row.ratio:.2f} x", f"{row.lowest_ratio:.2f} - {row.highest_ratio:.2f}")
    value = _with_unit(row.value, row.unit)
    return (*head, value, _spread(row), f"{row.samples:,}", *ratio, target)


def _growth_cells(row: GrowthRow) -> tuple[str, ...]:
    head = (f"{row.sessions:,}", row.growth, row.peer)
    if row.value is None or row.lowest is None or row.highest is None or row.p99 is None:
        why = "FAILED" if row.failure else "absent" if row.missing else "stopped"
        return (*head, why, *[""] * 5)
    spread = f"{row.lowest * 1e3:,.3f} - {row.highest * 1e3:,.3f}"
    median, slow = f"{row.value * 1e3:,.3f} ms", f"{row.p99 * 1e3:,.3f} ms"
    ratio = "" if row.ratio is None else f"{row.ratio:.2f} x"
    target = "" if row.limit is None else f"< {row.limit.value * 1e3:g} ms {_verdict(row.met)}"
    return (*head, median, spread, slow, f"{row.samples:,}", ratio, target)


def _limit(row: GaugeRow) -> str:
    if row.limit is None:
        return ""
    word, value = _WORDS[row.limit.sense], row.limit.value
    if row.limit.sense == "at most times":
        return f"{word} {value:g} x {row.versus}"
    return f"{word} {value * _scale(row.unit):g} {_shown(row.unit)}"


def _spread(row: GaugeRow) -> str:
    scale = _scale(row.unit)
    if row.lowest is None or row.highest is None:
        return ""
    return f"{row.lowest * scale:,.2f} - {row.highest * scale:,.2f}"


def _with_unit(value: float, unit: str) -> str:
    return f"{value * _scale(unit):,.2f} {_shown(unit)}"


def _scale(unit: str) -> float:
    return 1e3 if unit == "s" else 1.0


def _shown(unit: str) -> str:
    return "ms" if unit == "s" else unit


def _at_least(target: float | None) -> str:
    return f">= {target} x"


def _verdict(met: bool | None) -> str:  # noqa: FBT001 - a field of a row
    return {True: "met", False: "MISSED", None: "NOT MEASURED"}[met]


def _aligned(header: str, cell: str, width: int) -> str:
    return cell.ljust(width) if header in _LEFT else cell.rjust(width)


def write_json(
    path: Path,
    machine: Machine,
    plans: Mapping[str, Plan],
    findings: Findings,
) -> None:
    """Write everything that was measured.

    Args:
        path: The file.
        machine: Where.
        plans: How much, by kind of work.
        findings: The figures.
    """
    everything: dict[str, Any] = {
        "machine": asdict(machine),
        "plans": {name: asdict(plan) for name, plan in plans.items()},
        "results": [asdict(row) for row in findings.rows],
        "gauges": [asdict(row) for row in findings.gauges],
        "growth": [asdict(row) for row in findings.growths],
    }
    path.write_text(json.dumps(everything, indent=2) + "\n", encoding="utf-8")
