"""Tags one by one, and the pin."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from sessionkeeper import (
    AddTags,
    InvalidSessionId,
    InvalidValue,
    PinSession,
    RemoveTags,
    SessionNotFound,
    SessionStore,
    UnpinSession,
)

if TYPE_CHECKING:
    from pathlib import Path

    from sessionkeeper import Command, Saved


def test_tags_are_added_behind_those_there_are(store: SessionStore) -> None:
    store.save_session("s1", ["kept"], tags=["b", "a"])
    saved = store.add_tags("s1", ["c", "a", "c"])
    assert (saved.generation, saved.message_count) == (2, 1)
    session = store.load_session("s1")
    assert session.tags == ("b", "a", "c")
    assert session.messages == ["kept"]
    assert [info.session_id for info in store.search(all_tags=["a", "c"])] == ["s1"]


def test_tags_are_removed(store: SessionStore) -> None:
    store.save_session("s1", tags=["a", "b", "c"])
    store.remove_tags("s1", ["b", "never there"])
    assert store.load_session("s1").tags == ("a", "c")
    assert list(store.search(tags=["b"])) == []


def test_what_changes_nothing_makes_no_generation(store: SessionStore) -> None:
    store.save_session("s1", tags=["a"])
    assert store.add_tags("s1", ["a"]).generation == 1
    assert store.add_tags("s1", []).generation == 1
    assert store.remove_tags("s1", ["b"]).generation == 1
    assert store.unpin("s1").generation == 1
    assert store.pin("s1").generation == 2
    assert store.pin("s1").generation == 2


@pytest.mark.parametrize(
    "command",
    [AddTags("s9", ["a"]), RemoveTags("s9", ["a"]), PinSession("s9"), UnpinSession("s9")],
)
def test_marks_of_an_absent_session(command: Command[Saved], store: SessionStore) -> None:
    with pytest.raises(SessionNotFound, match="s9"):
        store.ask(command)
    assert len(store) == 0


@pytest.mark.parametrize("tags", ["text", 3, None, [1], [b"a"]])
def test_tags_of_the_wrong_type(tags: Any, store: SessionStore) -> None:
    store.save_session("s1")
    with pytest.raises(TypeError, match="tag"):
        store.add_tags("s1", tags)
    with pytest.raises(TypeError, match="tag"):
        store.remove_tags("s1", tags)
    with pytest.raises(InvalidSessionId):
        store.pin("../s1")
    assert store.load_session("s1").generation == 1


def test_too_many_tags_are_refused_together(store: SessionStore) -> None:
    store.save_session("s1", tags=[f"t{number}" for number in range(999)])
    store.add_tags("s1", ["t999"])
    with pytest.raises(InvalidValue, match="1001"):
        store.add_tags("s1", ["one more"])
    with pytest.raises(InvalidValue, match="blank"):
        store.add_tags("s1", [" "])
    assert len(store.load_session("s1").tags) == 1000


@pytest.mark.parametrize("field", ["tags", "title", "summary", "status"])
def test_a_lone_surrogate_is_refused_before_anything_is_sent(
    field: str,
    folder: Path,
) -> None:
    with SessionStore.open(folder, watch=False) as store:
        store.save_session("s1", [1])
        changes: dict[str, Any] = {field: ["\ud800"] if field == "tags" else "\ud800"}
        with pytest.raises(InvalidValue, match="lone surrogate"):
            store.save_session("s1", **changes)
        assert store.load_session("s1").generation == 1
        assert store.info().restarts == 0


def test_the_pin_is_kept_by_everything_but_unpin(folder: Path) -> None:
    with SessionStore.open(folder, watch=False) as store:
        store.save_session("s1", [1])
        store.pin("s1")
        store.append("s1", [2])
        store.save_session("s1", [3], title="Title")
        assert store.load_session("s1").pinned
        store.delete_session("s1")
        store.undelete_session("s1")
    assert b'"pinned":true' in (folder / "s1.json").read_bytes()
    with SessionStore.open(folder, watch=False) as store:
        assert store.load_session("s1").info.pinned
        assert [info.pinned for info in store.list_sessions()] == [True]
        store.unpin("s1")
        assert not store.load_session("s1").pinned


def test_a_document_without_a_pin_is_not_pinned(folder: Path) -> None:
    with SessionStore.open(folder, watch=False) as store:
        store.save_session("s1", [1])
    path = folder / "s1.json"
    fields = json.loads(path.read_bytes())
    del fields["pinned"], fields["checksum"]
    path.write_text(json.dumps(fields))
    with SessionStore.open(folder, watch=False) as store:
        assert store.load_session("s1").messages == [1]
        assert not store.load_session("s1").pinned
