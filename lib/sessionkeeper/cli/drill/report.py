"""The result of the whole drill, for a terminal, for pipes and as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sessionkeeper.cli.output import Column

if TYPE_CHECKING:
    from sessionkeeper.cli.drill.part import Part

COLUMNS: Final = (
    Column("part"),
    Column("acknowledged", "right"),
    Column("found", "right"),
    Column("lost", "right"),
    Column("doubled", "right"),
    Column("out of order", "right"),
    Column("restarts", "right"),
    Column("time to ready", "right"),
)


@dataclass(frozen=True, slots=True)
class Report:
    """The result of the drill.

    Attributes:
        parts: The results of its parts.
        seconds: How long it took.
    """

    parts: tuple[Part, ...]
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether every part was carried out and nothing was lost or doubled."""
        return bool(self.parts) and all(part.passed for part in self.parts)


def row_of(part: Part) -> tuple[str, ...]:
    """The cells of one part, in the order of `COLUMNS`."""
    count = part.count
    numbers = (count.acknowledged, count.found, len(count.lost), len(count.doubled))
    return (
        part.name,
        *(f"{number:,}" for number in numbers),
        str(len(count.disordered)),
        str(part.restarts),
        _milliseconds(part.ready),
    )


def _milliseconds(ready: tuple[float, ...]) -> str:
    if not ready:
        return "-"
    fastest, slowest = (f"{seconds * 1000:.0f}" for seconds in (min(ready), max(ready)))
    return f"{slowest} ms" if fastest == slowest else f"{fastest} to {slowest} ms"


def verdict(report: Report) -> str:
    """The result in a sentence."""
    if report.passed:
        return "Every acknowledged message is there, once and in order."
    return "FAILED: acknowledged messages are missing, doubled or out of order, see above."


def report_as_json(report: Report) -> dict[str, Any]:
    """All of the result, for JSON."""
    return {
        "passed": report.passed,
        "seconds": round(report.seconds, 3),
        "parts": [_part_as_json(part) for part in report.parts],
    }


def _part_as_json(part: Part) -> dict[str, Any]:
    count = part.count
    return {
        "part": part.name,
        "passed": part.passed,
        "sessions": part.sessions,
        "acknowledged": count.acknowledged,
        "found": count.found,
        "lost": [[session_id, *mark] for session_id, mark in count.lost],
        "doubled": [list(mark) for mark in count.doubled],
        "out_of_order": [[session_id, *mark] for session_id, mark in count.disordered],
        "unacknowledged": count.unacknowledged,
        "restarts": part.restarts,
        "ready_seconds": [round(seconds, 6) for seconds in part.ready],
    }
