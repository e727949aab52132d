"""Pictures of what was measured: ratios by peer, and what grows with the number of sessions."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from bench.results import GrowthRow, Row

PACKAGE = "pygal"
_WIDTH = 900
_ROW_HEIGHT = 26
_FRAME_HEIGHT = 160
_LINE_HEIGHT = 480
_MARGIN = 1.25


class PlotsMissing(Exception):
    """The library that draws is not installed."""


def write_plots(folder: Path, rows: Sequence[Row], growths: Sequence[GrowthRow]) -> list[Path]:
    """Write an SVG for each workload: the same figures give the same bytes.

    Args:
        folder: Made unless it is there.
        rows: The figures that are rates: bars of how many times faster the subject is, with
            the worst and the best round.
        growths: What grows with the number of sessions: lines.

    Returns:
        The files.

    Raises:
        PlotsMissing: The library that draws is not installed.
    """
    pygal = library()
    folder.mkdir(parents=True, exist_ok=True)
    charts = {
        name: _ratios(pygal, name, [row for row in rows if row.workload == name])
        for name in _unique(row.workload for row in rows if row.ratio is not None)
    }
    for name in _unique(row.growth for row in growths if row.value is not None):
        charts[f"growth-{name}"] = _growth(pygal, [row for row in growths if row.growth == name])
    written: list[Path] = []
    for name, chart in charts.items():
        path = folder / f"{name}.svg"
        path.write_bytes(chart.render())
        written.append(path)
    return written


def library() -> Any:
    """The library that draws.

    Raises:
        PlotsMissing: It is not installed.
    """
    try:
        return importlib.import_module(PACKAGE)
    except ImportError as error:
        raise PlotsMissing(f"plots need {PACKAGE}: pip install 'sessionkeeper[bench]'") from error


def _ratios(pygal: Any, name: str, rows: Sequence[Row]) -> Any:
    compared = [row for row in rows if row.ratio is not None]
    peers = list(_unique(row.peer for row in reversed(compared)))  # drawn from below
    low = min(row.lowest_ratio or 1.0 for row in compared)
    high = max(row.highest_ratio or 1.0 for row in compared)
    threads = sorted({row.threads for row in compared})
    chart = pygal.HorizontalBar(
        **_looks(pygal),
        height=_FRAME_HEIGHT + _ROW_HEIGHT * len(compared),
        title=f"{name}: how many times faster {rows[0].versus} is than",
        x_title="times, the median of the rounds; the lines reach from the worst to the best",
        logarithmic=True,
        range=(low / _MARGIN, high * _MARGIN),
    )
    chart.x_labels = peers
    for count in threads:
        found = {row.peer: row for row in compared if row.threads == count}
        chart.add(_threads(count), [_bar(found.get(peer)) for peer in peers])
    return _named(chart, name)


def _bar(row: Row | None) -> dict[str, Any] | None:
    if row is None:
        return None
    return {"value": row.ratio, "ci": {"low": row.lowest_ratio, "high": row.highest_ratio}}


def _growth(pygal: Any, rows: Sequence[GrowthRow]) -> Any:
    name = rows[0].growth
    sizes = sorted({row.sessions for row in rows})
    chart = pygal.Line(
        **_looks(pygal),
        height=_LINE_HEIGHT,
        title=f"{name}: {rows[0].operation}",
        x_title="sessions",
        y_title="ms, the median",
        logarithmic=True,
    )
    chart.x_labels = [f"{size:,}" for size in sizes]
    for peer in _unique(row.peer for row in rows):
        found = {row.sessions: row.value for row in rows if row.peer == peer}
        values = [found.get(size) for size in sizes]
        if any(values):
            chart.add(peer, [value and value * 1e3 for value in values])
    return _named(chart, f"growth-{name}")


def _looks(pygal: Any) -> dict[str, Any]:
    return {
        "width": _WIDTH,
        "js": (),  # else whoever opens it asks a server for a script
        "style": pygal.style.CleanStyle,
        "print_values": True,
        "formatter": lambda value: f"{value:.3g}",
        "truncate_legend": -1,
        "truncate_label": -1,
        "no_data_text": "nothing was measured",
    }


def _named(chart: Any, name: str) -> Any:
    # In place of a random number, so that two runs over the same figures give the same file.
    chart.uuid = name
    return chart


def _threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"


def _unique(names: Iterable[str]) -> dict[str, None]:
    return dict.fromkeys(names)
