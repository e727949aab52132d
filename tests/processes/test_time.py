"""Retention by the actor's timer, the trash's grace, and the cache's age: all on a fake clock."""

from __future__ import annotations

import time
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from sessionkeeper import Cleanup, SessionNotFound, SessionStore
from sessionkeeper.retention import Retention
from sessionkeeper.testing import EventLog, FakeClock, Injected, crash_actor, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.mark.parametrize("crash_first", [False, True])
@pytest.mark.parametrize("memory", [False, True])
def test_an_old_session_is_trashed_by_the_timer_also_after_a_crash(
    crash_first: bool,  # noqa: FBT001 - a parameter of the test
    memory: bool,  # noqa: FBT001 - the same
    folder: Path,
    clock: FakeClock,
) -> None:
    with (
        SessionStore.open(
            folder,
            retention_days=30,
            persistence=not memory,
            watch=False,
            inject=Injected(clock=clock),
        ) as store,
        EventLog(store) as log,
    ):
        store.save_session("old", [1])
        clock.advance(days=29)
        store.save_session("young", [1])
        if crash_first:
            crash_actor(store)
            log.wait_for("recovered")
            store.flush()
        assert "old" in store
        clock.advance(days=1.5)
        trashed = log.wait_for("trashed")
        assert [event.session_id for event in trashed] == ["old"]
        assert "30 days" in trashed[0].detail
        with pytest.raises(SessionNotFound):
            store.load_session("old")
        assert "young" in store
        assert store.undelete_session("old").generation == 2


def test_a_session_that_expired_while_the_store_was_closed_goes_at_start(
    folder: Path,
    clock: FakeClock,
) -> None:
    with SessionStore.open(folder, watch=False, inject=Injected(clock=clock)) as store:
        store.save_session("old", [1])
    clock.advance(days=40)
    with SessionStore.open(
        folder,
        retention_days=30,
        watch=False,
        inject=Injected(clock=clock),
    ) as store:
        wait_until(lambda: "old" not in store)


def test_nothing_is_ever_removed_unless_asked(folder: Path, clock: FakeClock) -> None:
    with SessionStore.open(folder, watch=False, inject=Injected(clock=clock)) as store:
        for number in range(20):
            store.save_session(f"s{number}", [1])
        clock.set_wall_clock(clock.now() + timedelta(days=36_500))
        assert store.cleanup() == []
        assert len(store) == 20


def test_a_clock_that_is_set_forward_makes_nothing_old(folder: Path, clock: FakeClock) -> None:
    settings: dict[str, Any] = {"retention_days": 30, "trash_days": 7, "watch": False}
    with SessionStore.open(folder, inject=Injected(clock=clock), **settings) as store:
        log = EventLog(store)
        store.save_session("kept", [1])
        store.save_session("deleted", [1])
        store.delete_session("deleted")
        clock.set_wall_clock(clock.now() + timedelta(days=36_500))
        clock.advance(3600)
        store.flush()
        assert "kept" in store
        assert store.undelete_session("deleted").generation == 2
        clock.advance(days=31)
        log.wait_for("trashed", 2)
        assert "kept" not in store


def test_a_cleanup_by_hand_goes_by_the_wall_clock(folder: Path, clock: FakeClock) -> None:
    inject = Injected(clock=clock)
    with SessionStore.open(folder, retention_days=30, watch=False, inject=inject) as store:
        store.save_session("old", [1])
        clock.set_wall_clock(clock.now() + timedelta(days=31))
        assert [removal.session_id for removal in store.cleanup(dry_run=True)] == ["old"]
        assert [removal.session_id for removal in store.cleanup()] == ["old"]


def test_a_cleanup_is_explained_for_every_session_and_can_apply_other_settings(
    folder: Path,
    clock: FakeClock,
) -> None:
    inject = Injected(clock=clock)
    with SessionStore.open(folder, retention_days=30, watch=False, inject=inject) as store:
        store.save_session("old", [1])
        store.save_session("pinned", [1])
        store.pin("pinned")
        clock.set_wall_clock(clock.now() + timedelta(days=31))
        store.save_session("new", [1])

        reasons = {d.session_id: (d.removed, d.reason) for d in store.explain_cleanup()}
        assert reasons == {
            "old": (True, "age"),
            "pinned": (False, "pinned"),
            "new": (False, "young"),
        }
        assert store.ask(Cleanup(retention=Retention(None, None))) == []
        (removal,) = store.ask(Cleanup(retention=Retention(None, 1)))
        assert (removal.session_id, removal.reason) == ("old", "count")
        assert "old" not in store


def test_the_oldest_go_when_there_are_too_many(folder: Path, clock: FakeClock) -> None:
    with SessionStore.open(
        folder,
        max_sessions=3,
        watch=False,
        inject=Injected(clock=clock),
    ) as store:
        store.save_session("working", [1], status="active")
        for number in range(6):
            store.save_session(f"s{number}", [1])
        store.flush()
        assert [info.session_id for info in store.list_sessions()] == ["s5", "s4", "s3", "working"]


@pytest.mark.parametrize("status", ["active", "paused"])
def test_unfinished_sessions_are_protected(status: str, folder: Path, clock: FakeClock) -> None:
    with SessionStore.open(
        folder,
        retention_days=1,
        watch=False,
        inject=Injected(clock=clock),
    ) as store:
        store.save_session("busy", [1], status=status)
        clock.advance(days=10)
        assert store.cleanup() == []
        store.save_session("busy", status="completed")
        clock.advance(days=10)
        store.flush()
        assert "busy" not in store


def test_age_counts_from_completion(folder: Path, clock: FakeClock) -> None:
    with SessionStore.open(
        folder,
        retention_days=10,
        watch=False,
        cleanup_interval=10**9,
        inject=Injected(clock=clock),
    ) as store:
        store.save_session("done", [1], status="completed")
        completed_at = store.load_session("done").completed_at
        clock.advance(days=9)
        store.save_session("done", title="renamed later")
        assert store.load_session("done").completed_at == completed_at
        clock.advance(days=2)
        # The rename made a new promise of ten days, which stands.
        assert store.cleanup(dry_run=True) == []
        clock.advance(days=9)
        assert [removal.session_id for removal in store.cleanup(dry_run=True)] == ["done"]
        assert "done" in store, "a dry run removes nothing"
        assert [removal.reason for removal in store.cleanup()] == ["age"]
        assert "done" not in store


def test_a_promise_is_not_shortened_by_a_new_setting(folder: Path, clock: FakeClock) -> None:
    inject = Injected(clock=clock)
    with SessionStore.open(folder, retention_days=30, watch=False, inject=inject) as store:
        store.save_session("promised", [1])
        until = store.load_session("promised").info.persisted_until
        assert until == clock.now() + timedelta(days=30)
    clock.advance(days=10)
    with SessionStore.open(folder, retention_days=3, watch=False, inject=inject) as store:
        assert store.cleanup() == []
        store.append("promised", [2])
        assert store.load_session("promised").info.persisted_until == until
        clock.advance(days=21)
        store.flush()
        assert "promised" not in store


def test_the_trash_is_emptied_after_its_grace(folder: Path, clock: FakeClock) -> None:
    with (
        SessionStore.open(
            folder,
            trash_days=3,
            watch=False,
            inject=Injected(clock=clock),
        ) as store,
        EventLog(store) as log,
    ):
        store.save_session("s1", ["secret"])
        store.delete_session("s1")
        clock.advance(days=2)
        store.flush()
        assert list((folder / ".sessionkeeper" / "trash").iterdir()) != []
        clock.advance(days=2)
        assert [event.session_id for event in log.wait_for("purged")] == ["s1"]
        assert list((folder / ".sessionkeeper" / "trash").iterdir()) == []
        with pytest.raises(SessionNotFound):
            store.undelete_session("s1")


def test_a_cached_entry_dies_at_its_time(folder: Path, clock: FakeClock) -> None:
    with SessionStore.open(
        folder,
        cache_ttl=60,
        watch=False,
        inject=Injected(clock=clock),
    ) as store:
        store.save_session("s1", [1])
        for seconds, expected_misses in ((0, 0), (59, 0), (2, 1), (0, 1), (61, 2)):
            clock.advance(seconds)
            assert store.load_session("s1").messages == [1]
            assert store.info().cache_misses == expected_misses
        clock.advance(61)
        assert store.info().cached_sessions == 0


@pytest.mark.parametrize("zone", ["Asia/Shanghai", "America/Los_Angeles", "UTC"])
def test_the_zone_of_the_machine_decides_nothing(
    zone: str,
    folder: Path,
    clock: FakeClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with SessionStore.open(
        folder, retention_days=3, watch=False, inject=Injected(clock=clock)
    ) as store:
        store.save_session("s1", [1])
        saved_at = clock.now()
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        try:
            clock.advance(11.5 * 3600)
            store.save_session("late", [1])
            clock.advance(3600)
            store.save_session("next day", [1])
            found = [info.session_id for info in store.search(after=date(2025, 1, 2))]
            assert found == ["next day"]
            found = [info.session_id for info in store.search(before=date(2025, 1, 2))]
            assert found == ["late", "s1"]
            clock.advance(days=2, seconds=11.5 * 3600 - 60)
            store.cleanup()
            assert store.load_session("s1").updated_at == saved_at
            clock.advance(61)
            store.cleanup()
            assert "s1" not in store
            assert "late" in store
        finally:
            monkeypatch.undo()
            time.tzset()


def test_a_session_is_created_once_and_updated_with_each_change(
    folder: Path,
    clock: FakeClock,
) -> None:
    with SessionStore.open(folder, watch=False, inject=Injected(clock=clock)) as store:
        created = clock.now()
        changes: list[Callable[[], object]] = [
            lambda: store.save_session("s1", [1]),
            lambda: store.save_session("s1", title="Title"),
            lambda: store.append("s1", [2]),
            lambda: store.add_tags("s1", ["t"]),
        ]
        for change in changes:
            clock.advance(10)
            change()
            session = store.load_session("s1")
            assert session.updated_at == clock.now()
            assert session.created_at == created + timedelta(seconds=10)


def test_times_are_utc_and_never_run_backwards_within_a_session(
    folder: Path,
    clock: FakeClock,
) -> None:
    with SessionStore.open(folder, watch=False, inject=Injected(clock=clock)) as store:
        store.save_session("s1", [1])
        store.save_session("s2", [1])
        created = store.load_session("s1").created_at
        assert created == clock.now()
        assert created.tzinfo is UTC
        clock.set_wall_clock(datetime(2001, 1, 1, tzinfo=UTC))
        store.append("s1", [2])
        session = store.load_session("s1")
        assert session.created_at == session.updated_at == created
        assert [info.session_id for info in store.list_sessions()] == ["s1", "s2"]
