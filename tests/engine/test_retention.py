from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from sessionkeeper.retention import Retention
from sessionkeeper.session import Basis, SessionInfo

NOW = datetime(2025, 6, 1, tzinfo=UTC)
INFO = SessionInfo(
    session_id="s",
    namespace="",
    generation=1,
    lsn=1,
    created_at=NOW,
    updated_at=NOW,
    completed_at=None,
    persisted_until=None,
    status=None,
    title=None,
    summary=None,
    tags=(),
    message_count=0,
    total_cost=0.0,
    metadata={},
)


def aged(days: float, **changes: object) -> SessionInfo:
    return replace(INFO, updated_at=NOW - timedelta(days=days), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("session", "removed"),
    [
        (aged(29.99), False),
        (aged(30), False),
        (aged(30.01), True),
        (aged(100, status="active"), False),
        (aged(100, status="paused"), False),
        (aged(100, status="completed"), True),
        (aged(100, pinned=True), False),
        (aged(100, completed_at=NOW - timedelta(days=1)), False),
        (aged(1, completed_at=NOW - timedelta(days=31)), True),
        (aged(100, persisted_until=NOW + timedelta(seconds=1)), False),
        (aged(100, persisted_until=NOW - timedelta(seconds=1)), True),
        (aged(-5), False),
    ],
)
def test_age(session: SessionInfo, removed: bool) -> None:  # noqa: FBT001 - a table of cases
    assert bool(Retention(30, None).removals([session], NOW)) is removed


@pytest.mark.parametrize(
    ("basis", "removed"),
    [("completed", {"done long ago"}), ("updated", {"changed long ago"}), ("created", {"old"})],
)
def test_the_age_counts_from_what_was_chosen(basis: Basis, removed: set[str]) -> None:
    ago, recently = NOW - timedelta(days=50), NOW - timedelta(days=1)
    fresh = replace(INFO, created_at=recently, updated_at=recently, completed_at=recently)
    sessions = [
        replace(fresh, session_id="old", created_at=ago),
        replace(fresh, session_id="changed long ago", updated_at=ago),
        replace(fresh, session_id="done long ago", completed_at=ago),
    ]
    removals = Retention(30, None, basis).removals(sessions, NOW)
    assert {removal.session_id for removal in removals} == removed


def test_count_removes_the_oldest_and_counts_no_unfinished_ones() -> None:
    sessions = [
        replace(INFO, session_id=f"s{n}", status="active" if n == 1 else None) for n in range(5)
    ]
    removals = Retention(None, 2).removals(sessions, NOW)
    assert [(r.session_id, r.reason) for r in removals] == [("s3", "count"), ("s4", "count")]


def test_nothing_is_asked_nothing_goes() -> None:
    assert Retention(None, None).removals([aged(10**5)], NOW) == []
    assert Retention(None, None).deadline(None, NOW) is None


def test_a_very_long_retention_is_for_ever() -> None:
    forever = Retention(1e9, None)
    assert forever.deadline(None, NOW) is None
    assert forever.removals([aged(10**5)], NOW) == []


def test_a_promise_only_grows() -> None:
    promised = NOW + timedelta(days=30)
    assert Retention(3, None).deadline(promised, NOW) == promised
    assert Retention(60, None).deadline(promised, NOW) == NOW + timedelta(days=60)
    assert Retention(None, None).deadline(promised, NOW) == promised


@pytest.mark.parametrize(
    ("session", "reason", "detail"),
    [
        (aged(31), "age", "older than 30 days"),
        (aged(31, pinned=True), "pinned", "it is pinned"),
        (aged(31, status="paused"), "unfinished", "its status is paused"),
        (
            aged(31, persisted_until=NOW),
            "promised",
            "it was promised to be kept until 2025-06-01 00:00:00+00:00",
        ),
        (aged(1.25), "young", "1.2 of 30 days old"),
        (aged(-5), "young", "0.0 of 30 days old"),
    ],
)
def test_each_decision_says_why(session: SessionInfo, reason: str, detail: str) -> None:
    (decision,) = Retention(30, None).decisions([session], NOW)
    assert (decision.reason, decision.detail) == (reason, detail)
    assert decision.removed is (reason == "age")


def test_a_promise_and_the_age_do_not_help_against_the_count() -> None:
    sessions = [replace(INFO, session_id=f"s{n}") for n in range(2)]
    promised = aged(100, session_id="s2", persisted_until=NOW)
    decisions = Retention(30, 2).decisions([*sessions, promised], NOW)
    assert [(d.removed, d.reason) for d in decisions] == [
        (False, "young"),
        (False, "young"),
        (True, "count"),
    ]


def test_without_an_age_what_stays_is_among_the_newest_or_unlimited() -> None:
    sessions = [replace(INFO, session_id=f"s{n}") for n in range(2)]
    newest, beyond = Retention(None, 1).decisions(sessions, NOW)
    assert (newest.reason, newest.detail) == ("newest", "among the newest 1")
    assert (beyond.reason, beyond.removed) == ("count", True)
    assert [d.reason for d in Retention(None, None).decisions(sessions, NOW)] == ["unlimited"] * 2
