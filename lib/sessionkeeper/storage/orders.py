"""The orders in which sessions are listed: what each goes by, in a record and in the index."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from sessionkeeper.pages import SessionOrder
    from sessionkeeper.storage.documents import Record

Position: TypeAlias = tuple[int | float | str, ...]
"""Where a session stands in an order; no two sessions stand in one place."""

_UNIX_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)

# So much of a title is compared, and kept a second time in the index.
_TITLE: Final = 100
# Behind every title there is.
_UNTITLED: Final = "\U0010ffff"


@dataclass(frozen=True, slots=True)
class Order:
    """One order of sessions. What it goes by is followed by the id, which tells equals apart.

    Attributes:
        name: As callers know it; a `-` in front of it means that the highest comes first.
        columns: Those of the index that make up a position.
        index: That of the database which has them in this order.
        position: Where a session stands.
        kinds: The types of what a position is made of.
    """

    name: SessionOrder
    columns: tuple[str, ...]
    index: str
    position: Callable[[Record], Position]
    kinds: tuple[type[int | float | str], ...]

    @property
    def descending(self) -> bool:
        """Whether the highest comes first."""
        return self.name.startswith("-")

    def in_order(self, before: Position, after: Position) -> bool:
        """Whether these two positions follow each other."""
        return before > after if self.descending else before < after

    def is_behind(self, record: Record, place: Position | None) -> bool:
        """Whether a session comes behind where a page begins; every one does if it is None."""
        return place is None or self.in_order(place, self.position(record))

    def first(self, records: Iterable[Record], limit: int | None) -> list[Record]:
        """The first of these sessions, in order; all if the limit is None."""
        if limit is None:
            return sorted(records, key=self.position, reverse=self.descending)
        choose = heapq.nlargest if self.descending else heapq.nsmallest
        return choose(limit, records, key=self.position)


def microseconds(moment: datetime) -> int:
    """An instant as a number, as the index has it."""
    return (moment - _UNIX_EPOCH) // _MICROSECOND


def title_key(title: str | None) -> str:
    """What a title is sorted by: its beginning without regard to capitals, nothing comes last."""
    return _UNTITLED if title is None else title.casefold()[:_TITLE]


def cost_key(cost: float) -> float:
    """What a cost is sorted by: SQLite knows no -0.0."""
    return float(cost) + 0.0


def _by_change(record: Record) -> Position:
    return record.lsn, record.session_id


def _by_creation(record: Record) -> Position:
    return microseconds(record.created_at), record.session_id


def _by_time(record: Record) -> Position:
    return microseconds(record.updated_at), record.session_id


def _by_title(record: Record) -> Position:
    return title_key(record.title), record.session_id


def _by_cost(record: Record) -> Position:
    return cost_key(record.total_cost), record.session_id


def _by_length(record: Record) -> Position:
    return record.message_count, record.session_id


def _by_id(record: Record) -> Position:
    return (record.session_id,)


def _both(
    name: SessionOrder,
    reverse: SessionOrder,
    column: str,
    position: Callable[[Record], Position],
    kind: type[int | float | str],
) -> tuple[Order, Order]:
    columns, index, kinds = (column, "session_id"), f"sessions_by_{column}", (kind, str)
    one, other = (Order(each, columns, index, position, kinds) for each in (name, reverse))
    return one, other


# SQLite's own name for the index of a primary key.
_PRIMARY: Final = "sqlite_autoindex_sessions_1"

ORDERS: Final[Mapping[str, Order]] = {
    order.name: order
    for order in (
        *_both("changed", "-changed", "lsn", _by_change, int),
        *_both("created", "-created", "created_at", _by_creation, int),
        *_both("updated", "-updated", "updated_at", _by_time, int),
        *_both("title", "-title", "title", _by_title, str),
        *_both("cost", "-cost", "total_cost", _by_cost, float),
        *_both("messages", "-messages", "message_count", _by_length, int),
        Order("id", ("session_id",), _PRIMARY, _by_id, (str,)),
        Order("-id", ("session_id",), _PRIMARY, _by_id, (str,)),
    )
}

NEWEST: Final = ORDERS["-changed"]
"""The one changed last first."""
