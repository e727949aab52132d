"""Which sessions a list or a search shows: a pure filter over records, newest change first."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from itertools import islice
from typing import TYPE_CHECKING

from sessionkeeper.errors import InvalidQuery
from sessionkeeper.keys import namespace_of
from sessionkeeper.pages import Page
from sessionkeeper.session import SessionInfo, check_tags

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from sessionkeeper.storage.documents import Record

_CURSOR = "lsn:"


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
    """

    tags: frozenset[str] = frozenset()
    all_tags: frozenset[str] = frozenset()
    after: datetime | None = None
    before: datetime | None = None
    min_cost: float | None = None
    max_cost: float | None = None
    status: str | None = None
    namespace: str = ""

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
    ) -> Query:
        """Check what a caller asks for.

        Raises:
            InvalidQuery: A naive datetime, or a value of the wrong type.
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

    A cursor names the last change shown, so pages never overlap; a session changed between two
    pages moves to the front and may be missing from the rest.

    Raises:
        InvalidQuery: A negative limit, or a cursor that is not ours.
    """
    below = position(limit, cursor)
    if limit == 0:
        return Page([], cursor)
    more = None if limit is None else limit + 1
    return newest_page(list(islice(matching(newest_first, query, below), more)), limit)


def matching(
    newest_first: Iterable[Record],
    query: Query,
    below: tuple[int, str] | None,
) -> Iterator[Record]:
    """Those that match, and come behind where a page begins."""
    for record in newest_first:
        if is_below(record, below) and query.matches(record):
            yield record


def is_below(record: Record, below: tuple[int, str] | None) -> bool:
    """Whether a session comes behind where a page begins."""
    return below is None or (record.lsn, record.session_id) < below


def newest_page(found: Sequence[Record], limit: int | None) -> Page[SessionInfo]:
    """A page, with its cursor, of what was found.

    Args:
        found: The newest of what is wanted; one more than the limit, if there are so many.
        limit: The size of the page; None for all.
    """
    shown = found if limit is None else found[:limit]
    infos = [record.info() for record in shown]
    if len(shown) == len(found):
        return Page(infos, None)
    last, following = found[len(shown) - 1 : len(shown) + 1]
    # Two sessions have one number only where a file was copied here from another store.
    tie = f":{last.session_id}" if following.lsn == last.lsn else ""
    return Page(infos, f"{_CURSOR}{last.lsn}{tie}")


def position(limit: int | None, cursor: str | None) -> tuple[int, str] | None:
    """Before which number and id a page begins; None for the first.

    Raises:
        InvalidQuery: A negative limit, or a cursor that is not ours.
    """
    if limit is not None and (type(limit) is not int or limit < 0):
        raise InvalidQuery(f"limit must be None or 0 or more, not {limit!r}")
    if cursor is None:
        return None
    digits, _, session_id = cursor.removeprefix(_CURSOR).partition(":")
    if not cursor.startswith(_CURSOR) or not digits.isascii() or not digits.isdigit():
        raise InvalidQuery(f"{cursor!r} is not a cursor of this store")
    return int(digits), session_id


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
