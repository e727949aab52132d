"""What a file holds, which commands come of it, and what is refused."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

import pytest

from sessionkeeper import ImportRefused, Session, SessionStore
from sessionkeeper.transfer import FieldMapping, StagedFile, stage_file, write_staged

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


MESSAGES = [{"role": "user", "content": "Refund?"}, {"role": "assistant", "content": "Sent."}]


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def writer(value: Any, name: str = "sessions.json") -> Path:
        path = tmp_path / name
        encoded = json.dumps(value, ensure_ascii=False).encode()
        if ".jsonl" in name:
            encoded = b"".join(json.dumps(item).encode() + b"\n" for item in value)
        path.write_bytes(gzip.compress(encoded) if name.endswith(".gz") else encoded)
        return path

    return writer


def only(staged: StagedFile) -> Session:
    """The one session of a file, as it is when it is stored."""
    (command,) = staged.commands
    with SessionStore.open("nowhere", durability="memory") as store:
        write_staged(store, staged)
        return store.load_session(command.session_id)


# --- shapes -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.json", "a.json.gz", "a.jsonl", "a.jsonl.gz"])
def test_a_list_of_sessions(write: Callable[..., Path], name: str) -> None:
    path = write(
        [{"session_id": "s1", "messages": MESSAGES}, {"id": 2, "messages": []}],
        name,
    )

    staged = stage_file(path)

    assert [command.session_id for command in staged.commands] == ["s1", "2"]
    assert staged.message_count == 2
    assert staged.path == path


def test_an_empty_list_holds_no_sessions(write: Callable[..., Path]) -> None:
    assert stage_file(write([])).commands == ()


def test_one_session(write: Callable[..., Path]) -> None:
    session = only(stage_file(write({"session_id": "s1", "messages": MESSAGES})))

    assert session.session_id == "s1"
    assert session.messages == MESSAGES


@pytest.mark.parametrize(
    ("name", "session_id"),
    [
        ("chat.json", "chat"),
        ("chat.2024.jsonl.gz", "chat.2024"),
        ("chat.json.json", "chat"),
        ("chat", "chat"),
    ],
)
def test_a_list_of_messages_is_one_session_named_as_the_file(
    write: Callable[..., Path],
    name: str,
    session_id: str,
) -> None:
    # Messages have ids of their own; these are not ids of sessions.
    messages = [{"id": f"msg_{n}", **message} for n, message in enumerate(MESSAGES)]

    session = only(stage_file(write(messages, name)))

    assert session.session_id == session_id
    assert session.messages == messages


def test_the_id_of_a_list_of_messages_can_be_given(write: Callable[..., Path]) -> None:
    path = write([{"sessionId": "abc", **message} for message in MESSAGES])

    assert only(stage_file(path, FieldMapping.of(session_id="mine"))).session_id == "mine"
    from_first = FieldMapping.of(session_id="{messages.0.sessionId}")
    assert only(stage_file(path, from_first)).session_id == "abc"


@pytest.mark.parametrize(
    ("items", "reason"),
    [
        ([{"task": 1, "traj": []}], "item 1: neither a session"),
        ([*MESSAGES, {"task": 1}], "item 3: neither a session"),
        ([*MESSAGES, {"session_id": "s1", "role": "user"}], "item 3: it has `session_id` and no"),
        (["Hello"], "item 1: str is neither a session nor a message"),
        ([*MESSAGES, None], "item 3: NoneType is neither"),
    ],
)
def test_a_list_of_something_else_is_no_session(
    write: Callable[..., Path],
    items: list[Any],
    reason: str,
) -> None:
    with pytest.raises(ImportRefused) as caught:
        stage_file(write(items))
    assert reason in str(caught.value)


def test_a_message_among_sessions_is_refused(write: Callable[..., Path]) -> None:
    path = write([{"id": "s1", "messages": MESSAGES}, *MESSAGES])

    with pytest.raises(ImportRefused, match="item 2: it has neither `session_id` nor `id`"):
        stage_file(path)


# --- mapping ------------------------------------------------------------------------------


def test_every_field_can_be_mapped(write: Callable[..., Path]) -> None:
    item = {
        "task": 3,
        "trial": 1,
        "traj": MESSAGES,
        "info": {"cost": 0.25, "user": {"name": "Mia"}, "memory": {"step": 2}},
        "reward": 1.0,
    }
    mapping = FieldMapping.of(
        session_id="{task}-{trial}",
        messages="traj",
        cost="info.cost",
        tags=["trial-{trial}", "bench"],
        title="{info.user.name}, task {task}",
        metadata={"reward": "reward", "who": "info.user"},
        state="info.memory",
    )

    session = only(stage_file(write([item]), mapping))

    assert session.session_id == "3-1"
    assert session.messages == MESSAGES
    assert session.total_cost == 0.25
    assert session.tags == ("trial-1", "bench")
    assert session.title == "Mia, task 3"
    assert session.metadata == {"reward": 1.0, "who": {"name": "Mia"}}
    assert session.state == {"step": 2}


def test_a_cost_that_is_null_or_not_mapped_is_what_the_messages_say(
    write: Callable[..., Path],
) -> None:
    item = {"id": "s1", "messages": [{"type": "result", "cost": 0.5}], "cost": None}

    assert only(stage_file(write([item]))).total_cost == 0.5
    assert only(stage_file(write([item]), FieldMapping.of(cost="cost"))).total_cost == 0.5


@pytest.mark.parametrize(
    ("item", "mapping", "reason"),
    [
        ({"messages": []}, {}, "it has neither `session_id` nor `id`"),
        ({"id": 1.5, "messages": []}, {}, "`id` is float"),
        ({"id": True, "messages": []}, {}, "`id` is bool"),
        ({"session_id": None, "id": "a", "messages": []}, {}, "`session_id` is NoneType"),
        ({"id": "../../etc/passwd", "messages": []}, {}, "path separator"),
        ({"id": "", "messages": []}, {}, "is empty"),
        ({"id": "a\n", "messages": []}, {}, "begins or ends with"),
        ({"id": "CON", "messages": []}, {}, "device name"),
        ({"id": "a", "b": "/x", "messages": []}, {"session_id": "{b}"}, "path separator"),
        ({"id": "a", "messages": []}, {"session_id": "{b}"}, "no field `b`"),
        ({"id": "a", "messages": []}, {"messages": "traj"}, "no field `traj`"),
        ({"id": "a", "traj": {}}, {"messages": "traj"}, "`traj` is dict, not a list"),
        ({"id": "a", "messages": []}, {"cost": "cost"}, "no field `cost`"),
        ({"id": "a", "messages": [], "c": "1"}, {"cost": "c"}, "must be a finite number"),
        ({"id": "a", "messages": []}, {"tags": [" "]}, "is blank"),
        ({"id": "a", "messages": []}, {"title": "{t}"}, "no field `t`"),
        ({"id": "a", "messages": []}, {"metadata": {"k": "x"}}, "no field `x`"),
        ({"id": "a", "messages": []}, {"state": "x.y"}, "no field `x`"),
        (["id"], {"messages": "traj"}, "it is list, not an object"),
    ],
)
def test_an_unfit_item_is_refused_with_path_number_and_reason(
    write: Callable[..., Path],
    item: Any,
    mapping: dict[str, Any],
    reason: str,
) -> None:
    good: dict[str, Any] = {"id": "good", "messages": [], "traj": [], "x": {"y": 1}}
    good |= {"b": "good", "t": "good", "cost": 1, "c": 1}
    path = write([good, item])

    with pytest.raises(ImportRefused) as caught:
        stage_file(path, FieldMapping.of(**{"tags": [], **mapping}))

    place = "item 1" if mapping.get("tags") else "item 2"
    assert str(caught.value).startswith(f"{path}: {place}: ")
    assert reason in str(caught.value)
    assert caught.value.path == path


def test_the_same_id_twice_is_refused(write: Callable[..., Path]) -> None:
    items: list[Any] = [{"id": session_id, "messages": []} for session_id in ("a", "b", "a")]

    with pytest.raises(ImportRefused, match="item 3: the id 'a' is that of item 1 already"):
        stage_file(write(items))


def test_a_million_bytes_of_one_bad_item_do_not_end_up_in_the_message(
    write: Callable[..., Path],
) -> None:
    with pytest.raises(ImportRefused) as caught:
        stage_file(write([{"id": "x" * 1_000_000, "messages": []}]))
    assert len(str(caught.value)) < 1000


def test_progress_is_told(write: Callable[..., Path]) -> None:
    seen: list[tuple[int, int]] = []
    items = [{"id": str(n), "messages": []} for n in range(3)]

    stage_file(write(items), progress=lambda done, total: seen.append((done, total)))

    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_the_bound_is_that_of_the_call(write: Callable[..., Path]) -> None:
    with pytest.raises(ImportRefused, match="more than 10 bytes"):
        stage_file(write([{"id": "a", "messages": []}]), max_bytes=10)


# --- our own documents --------------------------------------------------------------------


@pytest.fixture
def document(folder: Path) -> Path:
    with SessionStore.open(folder, watch=False) as store:
        store.save_session(
            "s:1",
            MESSAGES,
            state={"step": 2},
            metadata={"user": "mia"},
            tags=["a"],
            title="Refund",
            summary="Sent",
            status="completed",
            total_cost=0.5,
        )
    (path,) = folder.glob("*.json")
    return path


def test_a_session_file_of_ours_is_understood(document: Path) -> None:
    session = only(stage_file(document))

    assert session.session_id == "s:1"
    assert session.messages == MESSAGES
    assert (session.state, session.metadata) == ({"step": 2}, {"user": "mia"})
    assert (session.tags, session.title, session.summary) == (("a",), "Refund", "Sent")
    assert (session.status, session.total_cost) == ("completed", 0.5)


def test_flags_come_before_what_a_document_says(document: Path) -> None:
    mapping = FieldMapping.of(
        session_id="copy-{session_id}",
        tags=["b"],
        title="{status}",
        metadata={"n": "message_count"},
    )

    session = only(stage_file(document, mapping))

    assert session.session_id == "copy-s:1"
    assert session.tags == ("a", "b")
    assert session.title == "completed"
    assert session.metadata == {"user": "mia", "n": 2}


def test_a_list_of_documents_is_understood(document: Path, write: Callable[..., Path]) -> None:
    first = json.loads(document.read_bytes())
    second = {**first, "session_id": "s2"}

    for name in ("all.json", "all.jsonl"):
        staged = stage_file(write([first, second], name))
        assert [command.session_id for command in staged.commands] == ["s:1", "s2"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"version": 99}, "version 99 is newer than"),
        ({"version": "1"}, "`version` is not a whole number"),
        ({"session_id": "../x"}, "path separator"),
        ({"messages": None}, "`messages` is not a list"),
        ({"tags": "a"}, "`tags` is str"),
        ({"created_at": "yesterday"}, "`created_at` is no ISO 8601 time"),
    ],
)
def test_a_document_that_is_none_is_refused(
    document: Path,
    write: Callable[..., Path],
    change: dict[str, Any],
    reason: str,
) -> None:
    fields = {**json.loads(document.read_bytes()), **change}
    del fields["checksum"]
    path = write(fields)

    with pytest.raises(ImportRefused) as caught:
        stage_file(path)
    assert reason in str(caught.value)
