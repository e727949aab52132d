from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest

from sessionkeeper import InvalidQuery, InvalidValue, SessionStore
from sessionkeeper.testing import FakeClock, Injected

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def filled(folder: Path) -> Iterator[SessionStore]:
    clock = FakeClock(datetime(2025, 1, 1, 12, tzinfo=UTC))
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
        yield store


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
    assert filled.list_sessions(limit=0, cursor="lsn:5").cursor == "lsn:5"


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
        {"cursor": "lsn:"},
        {"cursor": "lsn:-3"},
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
