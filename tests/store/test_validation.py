"""Validators: what they see, what they refuse, and what is built in."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from sessionkeeper import (
    AppendMessages,
    AsyncSessionStore,
    Conflict,
    InvalidConfig,
    SaveSession,
    Session,
    SessionNotFound,
    SessionStore,
    ValidationFailed,
)
from sessionkeeper.engine.validation import CHECKS
from sessionkeeper.testing import FakeClock, Injected, crash_actor

if TYPE_CHECKING:
    from pathlib import Path


def at_most_three(session: Session) -> list[str]:
    return [] if len(session.messages) <= 3 else [f"{len(session.messages)} messages"]


def has_owner(session: Session) -> None:
    if "owner" not in session.metadata:
        raise ValueError("nobody owns it")


def checked(folder: Path, *validators: Any, **settings: Any) -> SessionStore:
    return SessionStore.open(folder, watch=False, validators=validators, **settings)


def test_a_save_is_refused_with_every_issue(folder: Path) -> None:
    with checked(folder, at_most_three, has_owner, "description") as store:
        with pytest.raises(ValidationFailed) as refused:
            store.save_session("s1", [1, 2, 3, 4])
        assert refused.value.issues == [
            "4 messages",
            "has_owner: nobody owns it",
            "it has no title",
        ]
        for issue in refused.value.issues:
            assert issue in str(refused.value)
        assert refused.value.session_id == "s1"
        assert isinstance(refused.value, ValueError)
        assert len(store) == 0
        store.save_session("s1", [1, 2, 3], metadata={"owner": "me"}, title="Title")
        assert store.load_session("s1").generation == 1


def test_every_change_is_looked_at_as_it_would_be(folder: Path) -> None:
    with checked(folder, at_most_three, has_owner) as store:
        store.save_session("s1", [1, 2], metadata={"owner": "me"})
        store.save_session("s1", state=3)
        store.append("s1", [3])
        with pytest.raises(ValidationFailed, match="4 messages"):
            store.append("s1", [4])
        with pytest.raises(ValidationFailed, match="nobody owns it"):
            store.save_session("s1", metadata={})
        with pytest.raises(ValidationFailed, match="nobody owns it"):
            store.append("new", [1])
        with pytest.raises(ValidationFailed, match="nobody owns it"):
            store.update("s1", lambda session: session.replace(metadata={"m": 1}))
        with pytest.raises(ValidationFailed, match="4 messages"):
            store.tell(AppendMessages("s1", [4]))
        store.fork_session("s1", "s2", at=1)
        store.rename_session("s2", "s3")
        store.delete_session("s3")
        assert store.undelete_session("s3").message_count == 1
        assert store.load_session("s1").messages == [1, 2, 3]
        store.flush()


def test_what_a_validator_sees(folder: Path) -> None:
    seen: list[tuple[Any, ...]] = []

    def look(session: Session) -> None:
        seen.append((session.generation, list(session.messages), session.tags, session.status))
        session.messages.clear()

    clock = FakeClock()
    with checked(folder, look, inject=Injected(clock=clock)) as store:
        store.save_session("s1", ["a"], tags=["t"], status="completed")
        store.append("s1", ["b"])
        store.add_tags("s1", ["u"])
        assert store.load_session("s1").messages == ["a", "b"], "what it does to it is its own"
    assert seen == [
        (1, ["a"], ("t",), "completed"),
        (2, ["a", "b"], ("t",), "completed"),
        (3, ["a", "b"], ("t", "u"), "completed"),
    ]


def test_what_the_store_refuses_needs_no_validator(folder: Path) -> None:
    seen: list[Session] = []
    with checked(folder, seen.append) as store:
        store.save_session("s1", [1])
        with pytest.raises(Conflict):
            store.save_session("s1", [2], expected_generation=9)
        with pytest.raises(SessionNotFound):
            store.add_tags("s9", ["t"])
        store.append("s1", [2], key="k")
        store.append("s1", [2], key="k")
        store.delete_session("s1")
        assert [session.generation for session in seen] == [1, 2]
        crash_actor(store)


def test_a_change_upon_one_that_is_still_waiting(folder: Path) -> None:
    with checked(folder, at_most_three) as store:
        for _ in range(50):
            store.tell(SaveSession("s1", [1]))
            store.add_tags("s1", ["t"])
            assert store.load_session("s1").tags == ("t",)
            store.delete_session("s1")


def test_a_validator_that_answers_anything_else_is_a_mistake(folder: Path) -> None:
    answer: Any
    for answer in (True, "issue", 3):
        with checked(folder, lambda _, found=answer: found) as store:
            with pytest.raises(TypeError, match="not a list of issues"):
                store.save_session("s1")
            assert len(store) == 0


def test_what_cannot_be_a_validator(folder: Path) -> None:
    validators: Any
    for validators in (["no such check"], [3], "description"):
        with pytest.raises(InvalidConfig, match=r"check|called|list"):
            SessionStore.open(folder, validators=validators)
    assert not folder.exists()


def test_a_stored_session_is_validated_on_request(folder: Path) -> None:
    with SessionStore.open(folder, watch=False) as store:
        store.save_session("s1", [1, 2, 3, 4])
        assert store.validate_session("s1") == []
        with pytest.raises(SessionNotFound):
            store.validate_session("s9")
    with checked(folder, at_most_three, "description") as store:
        assert store.validate_session("s1") == ["4 messages", "it has no title"]
    with SessionStore.open(folder, read_only=True, validators=[at_most_three]) as store:
        assert store.validate_session("s1") == ["4 messages"]


def test_what_is_wrong_with_a_session_made_by_hand(folder: Path) -> None:
    note = {
        "id": "6f9619ff-8b86-4011-b42d-00c04fc964ff",
        "kind": "note",
        "at": "2025-01-01T00:00:00Z",
        "text": "t",
    }
    folder.mkdir()
    (folder / "s1.json").write_text(
        json.dumps(
            {
                "format": "sessionkeeper",
                "version": 1,
                "session_id": "s1",
                "messages": [],
                "created_at": "2025-01-02T00:00:00Z",
                "completed_at": "2025-01-01T00:00:00Z",
                "annotations": [note, note],
                "events": [note, note],
            }
        )
    )
    with SessionStore.open(folder, watch=False) as store:
        assert store.validate_session("s1") == [
            "it was not completed between its creation and its last change",
            "two annotations have the same id",
            "two events have the same id",
        ]


def test_the_checks_of_a_session_that_is_as_it_should_be(store: SessionStore) -> None:
    store.save_session("s1", [1], title="Title", status="completed")
    store.annotate("s1", "text")
    store.add_event("s1", "kind")
    session = store.load_session("s1")
    assert {name: check(session) for name, check in CHECKS.items()} == {name: [] for name in CHECKS}
    assert CHECKS["counts"](store.load_session("s1", last=0)) == ["it says 1 messages and has 0"]
    store.save_session("s1", title=" ")
    assert CHECKS["description"](store.load_session("s1")) == ["it has no title"]


def test_on_an_event_loop(folder: Path) -> None:
    async def scenario() -> None:
        async with await AsyncSessionStore.open(
            folder, watch=False, validators=[at_most_three]
        ) as store:
            await store.save_session("s1", [1])
            with pytest.raises(ValidationFailed, match="4 messages"):
                await store.append("s1", [2, 3, 4])
            assert await store.validate_session("s1") == []

    asyncio.run(scenario())
