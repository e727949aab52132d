"""Lists of live sessions together with stored ones."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from sessionkeeper import InvalidQuery, SessionStore
from sessionkeeper.testing import FakeClock, Injected

START = datetime(2025, 1, 1, 12, tzinfo=UTC)


@dataclass
class Live:
    session_id: Any
    updated_at: Any


def minute(number: float) -> datetime:
    return START + timedelta(minutes=number)


@pytest.fixture
def stored(folder: Any) -> Any:
    clock = FakeClock(START)
    with SessionStore.open(folder, durability="memory", inject=Injected(clock=clock)) as store:
        for number in range(6):
            store.save_session(f"s{number}")
            clock.advance(60)
        yield store


def names(found: list[Any]) -> list[str]:
    return [each.session_id for each in found]


def test_live_and_stored_ones_are_merged_by_time(stored: SessionStore) -> None:
    live = [Live("l1", minute(2.5)), Live("l2", minute(9))]
    found = stored.merge_recent(live, limit=None)
    assert names(found) == ["l2", "s5", "s4", "s3", "l1", "s2", "s1", "s0"]
    assert found[0] is live[1]
    assert found[1] == stored.list_sessions(limit=1)[0]


def test_a_live_one_hides_its_stored_self(stored: SessionStore) -> None:
    live = [Live("s5", minute(9)), Live("s0", minute(8)), Live("s4", minute(0.5))]
    found = stored.merge_recent(live, limit=None)
    assert names(found) == ["s5", "s0", "s3", "s2", "s1", "s4"]
    assert [each for each in found if isinstance(each, Live)] == live


def test_the_limit_counts_what_is_left(stored: SessionStore) -> None:
    live = [Live("s5", minute(-1)), Live("s4", minute(-2)), Live("s3", minute(-3))]
    assert names(stored.merge_recent(live)) == ["s2", "s1", "s0", "s5", "s4"]
    assert names(stored.merge_recent(live, limit=1)) == ["s2"]
    assert stored.merge_recent(live, limit=0) == []
    assert names(stored.merge_recent([], limit=2)) == ["s5", "s4"]
    assert names(stored.merge_recent((each for each in live), limit=4)) == ["s2", "s1", "s0", "s5"]


def test_the_newer_of_two_live_ones_counts(stored: SessionStore) -> None:
    twins = [Live("s1", minute(7)), Live("s1", minute(8)), Live("s1", minute(6))]
    assert stored.merge_recent(twins, limit=1)[0] is twins[1]
    assert len(stored.merge_recent(twins, limit=None)) == 6


def test_what_is_no_live_session_is_refused(stored: SessionStore) -> None:
    with pytest.raises(InvalidQuery, match="time zone"):
        stored.merge_recent([Live("l1", datetime(2025, 1, 1))])  # noqa: DTZ001 - that is the point
    with pytest.raises(TypeError, match="updated_at"):
        stored.merge_recent([Live("l1", "2025-01-01")])
    with pytest.raises(TypeError, match="session_id"):
        stored.merge_recent([Live(1, START)])
    with pytest.raises(InvalidQuery, match="limit"):
        stored.merge_recent([], limit=-1)
