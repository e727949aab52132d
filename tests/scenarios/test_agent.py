"""An agent's conversations: saved, tagged, searched, cleaned up, and resumed after a kill."""

from __future__ import annotations

from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from running import Program

from sessionkeeper import (
    SessionNotFound,
    SessionStore,
    calculate_cost,
    count_turns,
    extract_session_id,
)
from sessionkeeper.testing import FakeClock, Injected

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def agent(folder: Path, clock: FakeClock) -> Iterator[SessionStore]:
    """A store of the preset, beneath a clock that stands still."""
    injected = Injected(clock=clock)
    with SessionStore.open(folder, preset="agent", watch=False, inject=injected) as opened:
        yield opened


def conversation(session_id: str, cost: float = 0.0) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = [
        {"type": "system", "data": {"session_id": session_id}},
        {"type": "assistant", "data": {"message": {"content": "Hello"}}},
    ]
    return [*messages, {"type": "result", "data": {"total_cost_usd": cost}}] if cost else messages


def test_a_conversation_is_saved_and_loaded(agent: SessionStore) -> None:
    messages = conversation("test-123")
    agent.save_session("test-123", messages, tags=["test"])
    loaded = agent.load_session("test-123")
    assert len(loaded.messages) == 2
    assert loaded.messages == messages
    assert loaded.tags == ("test",)


def test_conversations_are_found_by_their_tags(agent: SessionStore) -> None:
    agent.save_session("s1", conversation("s1"), tags=["review"])
    agent.save_session("s2", conversation("s2"), tags=["test"])
    results = agent.search(tags=["review"])
    assert [info.session_id for info in results] == ["s1"]


def test_old_conversations_are_cleaned_up(agent: SessionStore, clock: FakeClock) -> None:
    agent.save_session("old", conversation("old"))
    clock.set_wall_clock(clock.now() + timedelta(days=29))
    agent.save_session("new", conversation("new"))
    assert agent.cleanup() == []
    clock.set_wall_clock(clock.now() + timedelta(days=2))
    (removed,) = agent.cleanup()
    assert (removed.session_id, removed.reason) == ("old", "age")
    with pytest.raises(SessionNotFound):
        agent.load_session("old")
    assert agent.load_session("new").messages == conversation("new")


def test_a_conversation_that_is_gone_on_with_does_not_get_old(
    agent: SessionStore,
    clock: FakeClock,
) -> None:
    agent.save_session("s1", conversation("s1"), status="completed")
    clock.set_wall_clock(clock.now() + timedelta(days=20))
    agent.append("s1", [{"type": "user", "content": "One more thing."}])
    clock.set_wall_clock(clock.now() + timedelta(days=20))
    assert agent.cleanup() == []
    assert "s1" in agent


def test_conversations_are_found_by_date_and_cost(agent: SessionStore, clock: FakeClock) -> None:
    agent.save_session("cheap", conversation("cheap", 0.02), tags=["security"])
    clock.set_wall_clock(clock.now() + timedelta(days=2))
    agent.save_session("dear", conversation("dear", 3.5), tags=["security", "code-review"])
    tomorrow = date(2025, 1, 2)
    assert [info.session_id for info in agent.search(tags=["security"])] == ["dear", "cheap"]
    assert [info.session_id for info in agent.search(after=tomorrow)] == ["dear"]
    assert [info.session_id for info in agent.search(before=tomorrow)] == ["cheap"]
    assert [info.session_id for info in agent.search(min_cost=1)] == ["dear"]
    (info,) = agent.search(all_tags=["security", "code-review"])
    assert (info.message_count, info.total_cost, info.summary) == (3, 3.5, None)
    assert info.created_at == info.updated_at == clock.now()


def test_an_agent_is_resumed_where_a_kill_ended_it(folder: Path, tmp_path: Path) -> None:
    with Program("agent_at_work", folder, "review-7", folder=tmp_path) as working:
        while working.expect("done")["turn"] < 30:
            pass
        working.kill()
        done = working.told[-1]["turn"]

    with SessionStore.open(folder, preset="agent", watch=False) as store:
        store.save_session("finished", conversation("finished"), status="completed")
        (left,) = store.interrupted_sessions()
        assert (left.session_id, left.status, left.tags) == (
            "review-7",
            "active",
            ("code-review",),
        )
        session = store.resume(left.session_id)
        turns = count_turns(session.messages)
        assert turns in (done, done + 1), "one more may have been under way"
        assert extract_session_id(session.messages) == "review-7"
        assert calculate_cost(session.messages) == session.info.total_cost == turns * 0.25
        costs = [message for message in session.messages if message["type"] == "result"]
        assert [message["data"]["turn"] for message in costs] == [*range(1, turns + 1)]

        more = {"type": "user", "content": "Continue from where we left off"}
        store.append("review-7", [more])
        store.save_session("review-7", status="completed", summary="All read.")

    with SessionStore.open(folder, preset="agent", watch=False) as store:
        assert store.interrupted_sessions() == []
        session = store.load_session("review-7")
        assert session.messages[-1] == more
        assert len(session.messages) == 1 + 2 * turns + 1
        assert session.info.summary == "All read."
