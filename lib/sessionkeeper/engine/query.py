"""Which sessions a list or a search shows, and in what order: pure functions over records."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from itertools import islice
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from sessionkeeper.errors import InvalidQuery
from sessionkeeper.keys import namespace_of
from sessionkeeper.pages import Page
from sessionkeeper.session import SessionInfo, check_tags
from sessionkeeper.storage.orders import NEWEST, ORDERS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from sessionkeeper.storage.documents import Record
    from sessionkeeper.storage.orders import Order, Position


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """What to look for; every condition given must hold.

    Attributes:
        tags: Sessions with any of these.
        all_tags: Sessions with all of these.
        after: Changed at or after this instant; a date is midnight UTC.
        before: Changed before this instant.
        min_cost: With at least this `total_cost`.
        max_cost: With at most this `total_cost`.
        status: With this status.
        namespace: In this namespace.
        order: What they are shown by.
    """

    tags: frozenset[str] = frozenset()
    all_tags: frozenset[str] = frozenset()
    after: datetime | None = None
    before: datetime | None = None
    min_cost: float | None = None
    max_cost: float | None = None
    status: str | None = None
    namespace: str = ""
    order: Order = NEWEST

    @classmethod
    def of(
        cls,
        *,
        tags: Iterable[str] = (),
        all_tags: Iterable[str] = (),
        after: date | datetime | None = None,
        before: date | datetime | None = None,
        min_cost: float | None = None,
        max_cost: float | None = None,
        status: str | None = None,
        namespace: str = "",
        order: str = NEWEST.name,
    ) -> Query:
        """Check what a caller asks for.

        Raises:
            InvalidQuery: A naive datetime, an order that there is not, or a value of the wrong
                type.
        """
        return cls(
            tags=frozenset(check_tags(tags)),
            all_tags=frozenset(check_tags(all_tags)),
            after=_instant("after", after),
            before=_instant("before", before),
            min_cost=_number("min_cost", min_cost),
            max_cost=_number("max_cost", max_cost),
            status=status,
            namespace=namespace,
            order=_order(order),
        )

    def matches(self, record: Record) -> bool:
        """Whether a session is among those asked for."""
        return (
            namespace_of(record.session_id) == self.namespace
            and (not self.tags or not self.tags.isdisjoint(record.tags))
            and (not self.all_tags or self.all_tags.issubset(record.tags))
            and (self.after is None or record.updated_at >= self.after)
            and (self.before is None or record.updated_at < self.before)
            and (self.min_cost is None or record.total_cost >= self.min_cost)
            and (self.max_cost is None or record.total_cost <= self.max_cost)
            and (self.status is None or record.status == self.status)
        )


def select(
    newest_first: Iterable[Record],
    query: Query,
    limit: int | None,
    cursor: str | None,
) -> Page[SessionInfo]:
    """One page of the sessions that match.

    A cursor names the last session shown and where it stood, so pages never overlap; a session
    that changes its place between two pages may be missing from the rest, or come again.

    Raises:
        InvalidQuery: A negative limit, or a cursor that is not of this order.
    """
    behind = position(query.order, limit, cursor)
    if limit == 0:
        return Page([], cursor)
    more = None if limit is None else limit + 1
    found = matching(newest_first, query, behind)
    if query.order is NEWEST:
        return page_of(query.order, list(islice(found, more)), limit)
    return page_of(query.order, query.order.first(found, more), limit)


def matching(
    records: Iterable[Record],
    query: Query,
    behind: Position | None,
) -> Iterator[Record]:
    """Those that match, and come behind where a page begins."""
    for record in records:
        if query.order.is_behind(record, behind) and query.matches(record):
            yield record


def page_of(order: Order, found: Sequence[Record], limit: int | None) -> Page[SessionInfo]:
    """A page, with its cursor, of what was found.

    Args:
        order: What it was looked for by.
        found: The first of what is wanted; one more than the limit, if there are so many.
        limit: The size of the page; None for all.
    """
    shown = found if limit is None else found[:limit]
    infos = [record.info() for record in shown]
    more = len(shown) < len(found)
    return Page(infos, _cursor(order, order.position(shown[-1])) if more else None)


def position(order: Order, limit: int | None, cursor: str | None) -> Position | None:
    """Behind which position a page begins; None for the first.

    Raises:
        InvalidQuery: A negative limit, or a cursor that is not of this order.
    """
    if limit is not None and (type(limit) is not int or limit < 0):
        raise InvalidQuery(f"limit must be None or 0 or more, not {limit!r}")
    if cursor is None:
        return None
    name, *parts = cursor.split(":")
    if name != _mark(order) or len(parts) != len(order.kinds) or not cursor.isascii():
        raise InvalidQuery(f"{cursor!r} is no cursor of this store by {order.name!r}")
    try:
        place = tuple(kind(unquote(part)) for kind, part in zip(order.kinds, parts, strict=True))
    except ValueError as error:
        raise InvalidQuery(f"{cursor!r} is no cursor of this store") from error
    if any(part != part for part in place):  # noqa: PLR0124 - NaN is neither before nor behind
        raise InvalidQuery(f"{cursor!r} is no cursor of this store")
    return place


def _cursor(order: Order, place: Position) -> str:
    # Without a character that means something to a shell.
    return ":".join((_mark(order), *(quote(str(part), safe="") for part in place)))


def _mark(order: Order) -> str:
    return f"{order.name.removeprefix('-')}.{'desc' if order.descending else 'asc'}"


def _order(name: object) -> Order:
    order = ORDERS.get(name) if isinstance(name, str) else None
    if order is None:
        raise InvalidQuery(
            f"there is no order {name!r}",
            hint=f"There are {', '.join(ORDERS)}; with a '-' in front the highest comes first.",
        )
    return order


def _instant(name: str, value: object) -> datetime | None:
    if value is None:
        return None
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise InvalidQuery(f"{name} is a datetime without a time zone")
        return value.astimezone(UTC)
    if isinstance(value, date):
        return datetime.combine(value, time(), UTC)
    raise InvalidQuery(f"{name} must be a date or a datetime, not {type(value).__name__}")


def _number(name: str, value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:  # noqa: PLR0124 - NaN
        raise InvalidQuery(f"{name} must be a number, not {value!r}")
    return float(value)
