"""Annotations and events of a session."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest

from sessionkeeper import (
    AddAnnotation,
    AddEvent,
    Annotation,
    InvalidValue,
    SessionEvent,
    SessionNotFound,
    SessionStore,
    StoreReadOnly,
)
from sessionkeeper.engine.commands.notes import MAX_NOTES
from sessionkeeper.testing import FakeClock, Injected

if TYPE_CHECKING:
    from pathlib import Path

AT = datetime(2025, 3, 4, 5, 6, 7, 891234, tzinfo=UTC)


def test_notes_are_kept_in_order_with_ids_of_their_own(folder: Path, clock: FakeClock) -> None:
    with SessionStore.open(folder, watch=False, inject=Injected(clock=clock)) as store:
        store.save_session("s1", [1])
        first = store.annotate("s1", "looks \u201codd\u201d\n")
        clock.advance(60)
        second = store.annotate("s1", "is fine", kind="warning")
        started = store.add_event("s1", "command", {"line": "make", "status": 0})
        ended = store.add_event("s1", "end")
        assert isinstance(first.id, UUID)
        assert len({first.id, second.id, started.id, ended.id}) == 4
        assert (first.kind, second.kind) == ("note", "warning")
        assert second.at - first.at == timedelta(seconds=60)
    with SessionStore.open(folder, watch=False) as store:
        session = store.load_session("s1")
        assert session.annotations == [first, second]
        assert session.events == [started, ended]
        assert (session.generation, session.messages) == (5, [1])
    written = json.loads((folder / "s1.json").read_bytes())
    assert written["annotations"][1] == {
        "id": str(second.id),
        "kind": "warning",
        "at": "2025-01-01T12:01:00.000000Z",
        "text": "is fine",
    }
    assert written["events"][0]["data"] == {"line": "make", "status": 0}


def test_every_change_but_a_fork_keeps_them(store: SessionStore) -> None:
    store.save_session("s1", [1])
    note, event = store.annotate("s1", "text"), store.add_event("s1", "kind")
    store.save_session("s1", [2], state=3)
    store.append("s1", [4])
    store.checkpoint()
    store.append("s1", [5])
    store.add_tags("s1", ["t"])
    store.update("s1", lambda session: session.replace(title="Title"))
    store.rewind("s1", message=1)
    store.delete_session("s1")
    store.undelete_session("s1")
    store.rename_session("s1", "s2")
    session = store.load_session("s2")
    assert (session.annotations, session.events) == ([note], [event])
    assert store.load_session("s2", last=0).annotations == [note]
    store.fork_session("s2", "s3")
    fork = store.load_session("s3")
    assert (fork.annotations, fork.events) == ([], [])


def test_a_session_compares_with_its_notes(store: SessionStore) -> None:
    store.save_session("s1", [1])
    one = store.load_session("s1")
    store.annotate("s1", "text")
    other = store.load_session("s1")
    one.info = other.info
    assert one != other
    assert other == store.load_session("s1")


def test_the_same_note_is_added_once(store: SessionStore) -> None:
    store.save_session("s1")
    note = Annotation(uuid4(), "text", "note", AT)
    event = SessionEvent(uuid4(), "kind", AT, [1])
    for _ in range(3):
        saved = store.ask(AddAnnotation("s1", note))
        entered = store.ask(AddEvent("s1", event))
    assert (saved.generation, entered.generation) == (3, 3)
    assert store.load_session("s1").annotations == [note]
    assert store.load_session("s1").events == [event]


def test_times_are_kept_in_utc(store: SessionStore) -> None:
    store.save_session("s1")
    there = AT.astimezone(timezone(timedelta(hours=5)))
    store.ask(AddEvent("s1", SessionEvent(uuid4(), "kind", there)))
    (event,) = store.load_session("s1").events
    assert event.at == AT
    assert event.at.tzinfo is UTC


def test_notes_that_are_refused(store: SessionStore) -> None:
    store.save_session("s1")
    wrong: Any = None
    for text in ("", "\ud800", "x" * 65_537):
        with pytest.raises(InvalidValue, match="text"):
            store.annotate("s1", text)
    for kind in ("", "  ", "k" * 257, "\ud800"):
        with pytest.raises(InvalidValue, match="kind"):
            store.annotate("s1", "text", kind)
        with pytest.raises(InvalidValue, match="kind"):
            store.add_event("s1", kind)
    for wrong in (3, b"x", ["x"]):
        with pytest.raises(TypeError, match="text"):
            store.annotate("s1", wrong)
        with pytest.raises(TypeError, match="kind"):
            store.add_event("s1", wrong)
    for data in (float("nan"), {1, 2}, {"at": AT}, "x" * 65_536):
        with pytest.raises(InvalidValue, match="event"):
            store.add_event("s1", "kind", data)
    with pytest.raises(InvalidValue, match="time zone"):
        store.ask(AddEvent("s1", SessionEvent(uuid4(), "kind", AT.replace(tzinfo=None))))
    wrong = "no UUID"
    with pytest.raises(TypeError, match="UUID"):
        store.ask(AddAnnotation("s1", Annotation(wrong, "text", "note", AT)))
    with pytest.raises(SessionNotFound):
        store.annotate("s9", "text")
    assert store.load_session("s1").generation == 1


def test_a_session_has_room_for_so_many(store: SessionStore) -> None:
    store.save_session("s1", [1])
    large = "x" * 60_000
    for _ in range(MAX_NOTES // 60_200):
        store.annotate("s1", large)
    with pytest.raises(InvalidValue, match=str(MAX_NOTES)) as refused:
        store.annotate("s1", large)
    assert "append" in refused.value.hint
    event = store.add_event("s1", "events have room of their own")
    note = store.annotate("s1", "a short one fits")
    session = store.load_session("s1")
    assert (session.events, session.annotations[-1]) == ([event], note)


def test_a_read_only_store_takes_none(folder: Path) -> None:
    with SessionStore.open(folder, watch=False) as store:
        store.save_session("s1")
        note = store.annotate("s1", "text")
    with SessionStore.open(folder, read_only=True) as store:
        with pytest.raises(StoreReadOnly):
            store.annotate("s1", "more")
        assert store.load_session("s1").annotations == [note]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("annotations", {}),
        ("annotations", [3]),
        ("annotations", [{"id": "x", "kind": "note", "at": "2025-01-01T00:00:00Z", "text": "t"}]),
        ("annotations", [{"id": str(uuid4()), "kind": "note", "at": "2025-01-01T00:00:00Z"}]),
        ("annotations", [{"id": str(uuid4()), "kind": "note", "at": "noon", "text": "t"}]),
        ("annotations", [{"id": str(uuid4()), "kind": "note", "text": "t"}]),
        ("annotations", [{"id": str(uuid4()), "kind": 3, "at": "2025-01-01T00:00:00Z"}]),
        ("events", None),
        ("events", [{"kind": "k", "at": "2025-01-01T00:00:00Z"}]),
        ("events", [{"id": str(uuid4()), "kind": "k", "at": "2025-01-01T00:00:00"}]),
    ],
)
def test_a_hand_edit_of_notes_is_looked_at_strictly(folder: Path, field: str, value: Any) -> None:
    with SessionStore.open(folder, watch=False) as store:
        store.save_session("s1", ["first"])
        note = store.annotate("s1", "text")
        store.save_session("s1", ["second"])
    path = folder / "s1.json"
    fields = json.loads(path.read_bytes())
    del fields["checksum"]
    fields[field] = value
    path.write_text(json.dumps(fields))
    with SessionStore.open(folder, watch=False) as store:
        (problem,) = [p for p in store.last_recovery.problems if p.kind == "corrupt"]
        assert field in problem.detail
        session = store.load_session("s1")
        assert (session.messages, session.annotations) == (["first"], [note]), "the backup"


def test_a_hand_edit_may_add_one(folder: Path) -> None:
    with SessionStore.open(folder, watch=False) as store:
        store.save_session("s1", ["first"])
        store.annotate("s1", "text")
    path = folder / "s1.json"
    fields = json.loads(path.read_bytes())
    added = {"id": str(uuid4()), "kind": "by hand", "at": "2025-01-01T00:00:00+02:00", "text": "t"}
    fields["annotations"].append(added | {"colour": "red"})
    path.write_text(json.dumps(fields))
    with SessionStore.open(folder, watch=False) as store:
        note = store.load_session("s1").annotations[1]
        assert (note.kind, note.at.hour, note.at.tzinfo) == ("by hand", 22, UTC)
        store.append("s1", ["more"])
    assert json.loads(path.read_bytes())["annotations"][1]["colour"] == "red"
