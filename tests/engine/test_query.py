from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest

from sessionkeeper import InvalidQuery, InvalidValue, SessionStore
from sessionkeeper.testing import FakeClock, Injected, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sessionkeeper.pages import SessionOrder


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(datetime(2025, 1, 1, 12, tzinfo=UTC))


@pytest.fixture(params=["index", "records"])
def filled(
    folder: Path,
    clock: FakeClock,
    request: pytest.FixtureRequest,
) -> Iterator[SessionStore]:
    """A store that answers from its index, or from the records in memory."""
    with SessionStore.open(folder, watch=False, inject=Injected(clock=clock)) as store:
        tags = [("a",), ("a", "b"), ("b", "c"), ()]
        for number in range(8):
            store.save_session(
                f"s{number}",
                [{"type": "result", "total_cost_usd": number / 2}],
                tags=tags[number % 4],
                status="completed" if number % 2 else None,
            )
            clock.advance(days=1)
        wait_indexed(store)
        with pytest.MonkeyPatch.context() as patch:
            if request.param == "records":
                patch.setattr(store._view, "_catalog", None)
            yield store


def wait_indexed(store: SessionStore) -> None:
    catalog = store._view._catalog
    assert catalog is not None
    wait_until(lambda: catalog.after("", 1) is not None)


def ids(page: Any) -> list[str]:
    return [info.session_id for info in page]


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ({}, "76543210"),
        ({"tags": ["a"]}, "5410"),
        ({"tags": ["a", "c"]}, "654210"),
        ({"all_tags": ["a", "b"]}, "51"),
        ({"tags": ["c"], "all_tags": ["b"]}, "62"),
        ({"tags": ["absent"]}, ""),
        ({"after": date(2025, 1, 6)}, "765"),
        ({"after": datetime(2025, 1, 5, 12, tzinfo=UTC)}, "7654"),
        ({"after": datetime(2025, 1, 5, 12, 0, 1, tzinfo=UTC)}, "765"),
        ({"before": date(2025, 1, 3)}, "10"),
        ({"before": datetime(2025, 1, 2, 12, tzinfo=UTC)}, "0"),
        ({"after": date(2025, 1, 2), "before": date(2025, 1, 4)}, "21"),
        ({"after": date(2025, 1, 4), "before": date(2025, 1, 2)}, ""),
        ({"after": datetime(2025, 1, 8, 20, tzinfo=timezone(timedelta(hours=8)))}, "7"),
        ({"min_cost": 3}, "76"),
        ({"max_cost": 0.5}, "10"),
        ({"min_cost": 1, "max_cost": 1.5}, "32"),
        ({"status": "completed"}, "7531"),
        ({"status": "completed", "tags": ["b"]}, "51"),
        ({"limit": 3}, "765"),
        ({"limit": 0}, ""),
        ({"limit": 1000}, "76543210"),
    ],
)
def test_search(filled: SessionStore, conditions: dict[str, Any], expected: str) -> None:
    assert ids(filled.search(**conditions)) == [f"s{digit}" for digit in expected]


def test_pages_cover_everything_once(filled: SessionStore) -> None:
    seen: list[str] = []
    cursor: str | None = None
    while True:
        page = filled.list_sessions(limit=3, cursor=cursor)
        seen += ids(page)
        cursor = page.cursor
        if cursor is None:
            break
    assert seen == [f"s{number}" for number in range(7, -1, -1)]
    assert filled.list_sessions(limit=8).cursor is None
    assert filled.list_sessions(limit=0, cursor="changed.desc:5:s4").cursor == "changed.desc:5:s4"


def pages(store: Any, limit: int, **conditions: Any) -> list[str]:
    """The ids of all pages, one after the other."""
    seen: list[str] = []
    cursor: str | None = None
    while True:
        page = store.search(limit=limit, cursor=cursor, **conditions)
        seen += ids(page)
        cursor = page.cursor
        if cursor is None:
            return seen


# What each goes by: equals in every one but the first two, and titles that are sorted by no byte.
MADE = {
    "a": ("Beta", 1.0, 2),
    "B": ("Alpha", 1.0, 0),
    "c": (None, 0.0, 2),
    "d": ("alpha", 2.5, 1),
    "e": (None, 0.0, 0),
    "f": ("Äther: 50 % & more", 0.25, 1),
}
BY: dict[SessionOrder, str] = {
    "changed": "Bcdefa",
    "created": "aBcdef",
    "updated": "Bcdefa",
    "title": "Bdafce",
    "cost": "cefBad",
    "messages": "Bedfac",
    "id": "Bacdef",
}


@pytest.mark.parametrize("limit", [1, 2, 5, 6])
@pytest.mark.parametrize("order", BY)
def test_sessions_are_listed_by_what_is_asked_for(
    order: SessionOrder,
    limit: int,
    filled: SessionStore,
    clock: FakeClock,
) -> None:
    for info in filled.list_sessions():
        filled.delete_session(info.session_id)
    scope = filled.scope("team")
    for place in (filled, scope):
        for session_id, (title, cost, messages) in MADE.items():
            paid = [{"type": "result", "total_cost_usd": cost}, *[1] * (messages - 1)]
            place.save_session(session_id, paid[:messages], title=title, total_cost=cost)
            clock.advance(seconds=1)
        place.add_tags("a", ["changed last"])
    expected = list(BY[order])
    for place in (filled, scope):
        assert pages(place, limit, order=order) == expected
        assert pages(place, limit, order=f"-{order}") == expected[::-1]
        assert ids(place.list_sessions(order=order)) == expected
    some = [session_id for session_id in expected if MADE[session_id][1] >= 1]
    assert pages(filled, limit, order=order, min_cost=1) == some


def test_a_cursor_continues_the_order_it_is_of(filled: SessionStore) -> None:
    by_cost = filled.list_sessions(order="-cost", limit=2).cursor
    assert by_cost is not None
    assert ids(filled.list_sessions(order="-cost", limit=2, cursor=by_cost)) == ["s5", "s4"]
    for order in ("cost", "-changed", "id"):
        with pytest.raises(InvalidQuery, match=f"by {order!r}"):
            filled.search(order=order, cursor=by_cost)
    with pytest.raises(InvalidQuery) as caught:
        filled.search(order="price")  # type: ignore[arg-type]
    assert "-messages" in str(caught.value.hint)


def test_pages_stay_whole_while_sessions_change(filled: SessionStore) -> None:
    first = filled.list_sessions(limit=4)
    filled.save_session("new", [])
    filled.append("s7", [1])
    assert ids(filled.list_sessions(limit=10, cursor=first.cursor)) == ["s3", "s2", "s1", "s0"]


@pytest.mark.parametrize(
    "conditions",
    [
        {"limit": -1},
        {"limit": True},
        {"limit": "3"},
        {"cursor": "nonsense"},
        {"cursor": "created.asc:5:s3"},
        {"cursor": "changed.asc:5:s3"},
        {"cursor": "changed.desc:5:s3:s4"},
        {"cursor": "changed.desc:5:\ud800"},
        {"cursor": f"changed.desc:{'9' * 5000}:s3"},
        {"order": "cost", "cursor": "cost.asc:nan:s3"},
        {"order": "colour"},
        {"order": "--cost"},
        {"order": ["cost"]},
        {"cursor": "lsn:5"},
        {"cursor": "changed.desc:x:s3"},
        {"after": datetime(2025, 1, 1)},  # noqa: DTZ001 - a naive one is the point
        {"before": "2025-01-01"},
        {"min_cost": float("nan")},
        {"max_cost": "1"},
        {"min_cost": True},
    ],
)
def test_what_cannot_be_understood_is_refused(
    filled: SessionStore,
    conditions: dict[str, Any],
) -> None:
    with pytest.raises(InvalidQuery):
        filled.search(**conditions)


def test_unknown_conditions_and_odd_tags_are_refused(filled: SessionStore) -> None:
    with pytest.raises(TypeError):
        filled.search(colour="red")  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        filled.search(tags="a")
    with pytest.raises(InvalidValue):
        filled.search(tags=[""])


def test_lists_survive_a_restart_in_order(filled: SessionStore, folder: Path) -> None:
    filled.append("s3", [1])
    expected = filled.list_sessions()
    filled.close()
    with SessionStore.open(folder, watch=False) as again:
        assert again.list_sessions() == expected


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_pages_stay_whole_where_two_changes_have_one_number(
    limit: int,
    filled: SessionStore,
    folder: Path,
    tmp_path: Path,
) -> None:
    """A file copied here from another store may have a number that is in use."""
    filled.close()
    with SessionStore.open(tmp_path / "other", watch=False) as other:
        for number in range(8):
            other.save_session(f"t{number}", [])
    for number in range(2, 6):
        (tmp_path / "other" / f"t{number}.json").rename(folder / f"t{number}.json")
    expected = ["s7", "s6", "t5", "s5", "t4", "s4", "t3", "s3", "t2", "s2", "s1", "s0"]
    with SessionStore.open(folder, watch=False) as store:
        for _ in range(2):
            assert ids(store.list_sessions()) == expected
            seen: list[str] = []
            page = store.list_sessions(limit=limit)
            seen += ids(page)
            while page.cursor is not None:
                page = store.list_sessions(limit=limit, cursor=page.cursor)
                seen += ids(page)
            assert seen == expected
            wait_indexed(store)
