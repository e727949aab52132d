"""Which rows of the index a page shows: the statement for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

from sessionkeeper.storage.orders import microseconds

if TYPE_CHECKING:
    from datetime import datetime

    from sessionkeeper.storage.documents import Record
    from sessionkeeper.storage.orders import Order, Position

LARGEST: Final = 2**63 - 1
"""Of SQLite's numbers."""

FEW: Final = 2000
"""Sessions with a tag that are sorted for a page; where there are more, the order is gone through.

With a million sessions both then take a few milliseconds, at that number about the same.
"""

_BY_TAG: Final = (
    "tags AS k CROSS JOIN sessions AS s"
    " ON s.namespace = k.namespace AND s.session_id = k.session_id"
)


class Wanted(Protocol):
    """Which sessions a page shows; see `engine.query.Query`."""

    @property
    def namespace(self) -> str: ...  # noqa: D102
    @property
    def tags(self) -> frozenset[str]: ...  # noqa: D102 - see `Query`
    @property
    def all_tags(self) -> frozenset[str]: ...  # noqa: D102
    @property
    def after(self) -> datetime | None: ...  # noqa: D102
    @property
    def before(self) -> datetime | None: ...  # noqa: D102
    @property
    def min_cost(self) -> float | None: ...  # noqa: D102
    @property
    def max_cost(self) -> float | None: ...  # noqa: D102
    @property
    def status(self) -> str | None: ...  # noqa: D102
    @property
    def order(self) -> Order: ...  # noqa: D102
    def matches(self, record: Record) -> bool: ...  # noqa: D102


def driving(wanted: Wanted) -> list[str]:
    """Tags one of which every session wanted has; none if any session may be wanted."""
    return sorted(wanted.tags) or sorted(wanted.all_tags)[-1:]


def by_tag(wanted: Wanted) -> bool:
    """Whether the order of a tag's own index is that of the page."""
    return wanted.order.columns[0] == "lsn" and len(driving(wanted)) == 1


def count_few(wanted: Wanted) -> tuple[str, list[Any]]:
    """The statement that counts the sessions with the driving tags, up to one more than a few."""
    tags = driving(wanted)
    tagged = f"SELECT 1 FROM tags WHERE namespace = ? AND tag IN ({_marks(tags)}) LIMIT {FEW + 1}"
    return f"SELECT count(*) FROM ({tagged})", [wanted.namespace, *tags]


def select(
    wanted: Wanted,
    behind: Position | None,
    limit: int | None,
    *,
    few: bool,
) -> tuple[str, list[Any]]:
    """The statement for a page, and its values.

    Args:
        wanted: Which sessions, and their order.
        behind: Only those that come behind this position.
        limit: How many at most; None for all.
        few: Whether so few sessions have the driving tags that all of them may be sorted.
    """
    order, tags = wanted.order, driving(wanted)
    any_of, all_of = sorted(wanted.tags), sorted(wanted.all_tags)
    values: list[Any] = [wanted.namespace]
    if by_tag(wanted):
        source, key, conditions = _BY_TAG, "k", ["k.namespace = ?", "k.tag = ?"]
        values += tags
        any_of, all_of = [], [tag for tag in all_of if tag not in tags]
    else:
        # Left to itself SQLite may take the index of a condition, and sort all that it finds.
        index = "sqlite_autoindex_sessions_1" if few else order.index
        source, key, conditions = f"sessions AS s INDEXED BY {index}", "s", ["s.namespace = ?"]
        if few:
            conditions.append(
                "s.session_id IN (SELECT session_id FROM tags"
                f" WHERE namespace = ? AND tag IN ({_marks(tags)}))",
            )
            values += [wanted.namespace, *tags]
            any_of = []
    # With a sign, no index is looked for: of a few it is quicker to look up each.
    columns = [f"{'+' if few else ''}{key}.{column}" for column in order.columns]
    if behind is not None:
        sign = "<" if order.descending else ">"
        conditions.append(f"({', '.join(columns)}) {sign} ({_marks(columns)})")
        values += [_fitting(part) for part in behind]
    for some, least in ((any_of, 1), (all_of, len(all_of))):
        if some:
            conditions.append(
                "(SELECT count(*) FROM tags AS t"
                " WHERE t.namespace = s.namespace AND t.session_id = s.session_id"
                f" AND t.tag IN ({_marks(some)})) >= ?",
            )
            values += [*some, least]
    for condition, value in (
        ("s.updated_at >= ?", wanted.after and microseconds(wanted.after)),
        ("s.updated_at < ?", wanted.before and microseconds(wanted.before)),
        ("s.total_cost >= ?", wanted.min_cost),
        ("s.total_cost <= ?", wanted.max_cost),
        ("s.status = ?", wanted.status),
    ):
        if value is not None:
            conditions.append(condition)
            values.append(value)
    way = " DESC" if order.descending else ""
    statement = (
        f"SELECT s.* FROM {source} WHERE {' AND '.join(conditions)}"
        f" ORDER BY {', '.join(column + way for column in columns)}"
    )
    if limit is not None:
        statement += " LIMIT ?"
        values.append(min(limit, LARGEST))
    return statement, values


def _marks(values: list[str]) -> str:
    return ", ".join("?" * len(values))


def _fitting(part: float | str) -> float | str:
    """A number that SQLite can compare with those it holds."""
    return max(-LARGEST, min(part, LARGEST)) if type(part) is int else part
