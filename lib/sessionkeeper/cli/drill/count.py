"""Counting: what was acknowledged against what is found. Pure, so that it can be tested."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


class Mark(NamedTuple):
    """What makes a message one of a kind.

    Attributes:
        writer: Who wrote it.
        number: Its place among all that this writer wrote, from 1.
    """

    writer: int
    number: int


@dataclass(frozen=True, slots=True)
class Count:
    """The result of a count.

    Attributes:
        acknowledged: Messages whose writer was told that they are durable.
        found: How many of these are in their sessions.
        lost: Those that are not, with their sessions.
        doubled: Marks found more than once, in one session or in several.
        disordered: Marks found behind a later one of the same writer, with their sessions.
        unacknowledged: Messages found that were never acknowledged: they were on their way.
    """

    acknowledged: int
    found: int
    lost: tuple[tuple[str, Mark], ...]
    doubled: tuple[Mark, ...]
    disordered: tuple[tuple[str, Mark], ...]
    unacknowledged: int

    @property
    def passed(self) -> bool:
        """Whether something was acknowledged, and all of it is there once and in order."""
        return bool(self.acknowledged) and not (self.lost or self.doubled or self.disordered)


def count(
    acknowledged: Mapping[str, Sequence[Mark]],
    found: Mapping[str, Sequence[Mark]],
) -> Count:
    """Compare the marks acknowledged with the marks found, session by session.

    Args:
        acknowledged: By session, in any order.
        found: By session, in the order of its messages.
    """
    expected = {(session_id, mark) for session_id, marks in acknowledged.items() for mark in marks}
    present = {(session_id, mark) for session_id, marks in found.items() for mark in marks}
    copies = Counter(mark for marks in found.values() for mark in marks)
    return Count(
        acknowledged=len(expected),
        found=len(expected & present),
        lost=tuple(sorted(expected - present)),
        doubled=tuple(sorted(mark for mark, number in copies.items() if number > 1)),
        disordered=tuple(
            (session_id, mark)
            for session_id, marks in sorted(found.items())
            for mark in _out_of_order(marks)
        ),
        unacknowledged=len(present - expected),
    )


def _out_of_order(marks: Iterable[Mark]) -> list[Mark]:
    latest: dict[int, int] = {}
    behind: list[Mark] = []
    for mark in marks:
        if mark.number < latest.get(mark.writer, 0):
            behind.append(mark)
        latest[mark.writer] = max(mark.number, latest.get(mark.writer, 0))
    return behind
