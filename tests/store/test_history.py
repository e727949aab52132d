"""Renaming, forking and rewinding sessions."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessionkeeper import (
    AppendMessages,
    DeleteSession,
    InvalidSessionId,
    InvalidValue,
    NewerVersion,
    NoBackup,
    PathBlocked,
    RenameSession,
    SaveSession,
    SessionExists,
    SessionNotFound,
    SessionStore,
)
from sessionkeeper.engine.commands.history import _first_lines
from sessionkeeper.storage.lines import Lines, encode_lines
from sessionkeeper.testing import (
    EventLog,
    FakeClock,
    Fault,
    FaultyBackend,
    FaultyFileSystem,
    Injected,
    InjectedCrash,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sessionkeeper.storage.backend import Backend

RESULT = {"type": "result", "total_cost_usd": 0.25}


# --- renaming -----------------------------------------------------------------------------


def test_a_renamed_session_has_all_it_had(folder: Path, clock: FakeClock) -> None:
    inject = Injected(clock=clock)
    with SessionStore.open(folder, watch=False, inject=inject) as store, EventLog(store) as log:
        store.save_session(
            "old",
            [1, RESULT],
            state={"a": 1},
            metadata={"m": 1},
            tags=["t"],
            title="Title",
            summary="Summary",
            status="active",
        )
        store.pin("old")
        store.append("old", [2], key="k")
        before = store.load_session("old")
        clock.advance(60)
        saved = store.rename_session("old", "new")
        after = store.load_session("new")
        assert (saved.session_id, saved.generation, saved.message_count) == ("new", 4, 3)
        assert "old" not in store
        assert after.messages == before.messages == [1, RESULT, 2]
        assert (after.state, after.metadata, after.tags) == ({"a": 1}, {"m": 1}, ("t",))
        assert (after.title, after.summary, after.status) == ("Title", "Summary", "active")
        assert (after.pinned, after.total_cost) == (True, 0.25)
        assert after.created_at == before.created_at < after.updated_at
        assert store.append("new", [2], key="k").message_count == 3, "the key came along"
        assert log.wait_for("trashed")[0].detail == "renamed to new"
        assert [info.session_id for info in store.search(tags=["t"])] == ["new"]
    assert sorted(path.name for path in folder.glob("*.json")) == ["new.json"]
    with SessionStore.open(folder, watch=False, inject=inject) as store:
        assert len(store) == 1
        assert store.load_session("new").messages == [1, RESULT, 2]
        assert store.undelete_session("old").message_count == 3


def test_a_rename_onto_another_session_is_refused(store: SessionStore) -> None:
    store.save_session("old", [1])
    store.save_session("new", [2])
    for target in ("new", "old"):
        with pytest.raises(SessionExists, match=target):
            store.rename_session("old", target)
    assert store.load_session("old").messages == [1]
    assert store.load_session("new").messages == [2]
    assert store.load_session("new").generation == 1


def test_a_rename_of_nothing_or_to_no_name(store: SessionStore) -> None:
    with pytest.raises(SessionNotFound):
        store.rename_session("old", "new")
    store.save_session("old")
    with pytest.raises(InvalidSessionId):
        store.rename_session("old", "../new")
    with pytest.raises(InvalidSessionId):
        store.rename_session("", "new")
    assert "old" in store


def test_names_that_differ_in_case_only(store: SessionStore) -> None:
    store.save_session("abc", [1])
    store.rename_session("abc", "ABC")
    assert "abc" not in store
    assert store.load_session("ABC").messages == [1]


def test_a_name_is_free_again_after_a_rename(store: SessionStore) -> None:
    store.save_session("a", [1])
    store.rename_session("a", "b")
    store.save_session("a", [2])
    store.rename_session("b", "c")
    assert store.load_session("a").messages == [2]
    assert store.load_session("c").messages == [1]
    assert store.load_session("c").generation == 3


def held(store: SessionStore, commands: list[Any]) -> list[Any]:
    """Have all commands taken in one turn; returns their receipts."""
    store.flush()
    busy, go = threading.Event(), threading.Event()

    def hold(event: Any) -> None:
        if event.session_id == "held":
            busy.set()
            go.wait(10)

    unsubscribe = store.subscribe(hold)
    store.tell(SaveSession("held", []))
    assert busy.wait(5)
    receipts = [store.tell(command) for command in commands]
    unsubscribe()
    go.set()
    return receipts


IN_ONE_TURN = [
    SaveSession("a", ["first"]),
    AppendMessages("a", ["more"]),
    RenameSession("a", "b"),
    SaveSession("a", ["second"]),
    AppendMessages("b", ["added"]),
    RenameSession("b", "c"),
    RenameSession("a", "b"),
    DeleteSession("held"),
]


@pytest.mark.parametrize("durability", ["journal", "file", "memory"])
@pytest.mark.parametrize("crash", ["never", "before", "after"])
def test_several_renames_in_one_turn(crash: str, durability: str, folder: Path) -> None:
    """Time stands still, so nothing but the numbers of the changes tells versions apart."""
    backends: list[FaultyBackend] = []

    def wrap(backend: Backend) -> Backend:
        backends.append(FaultyBackend(backend))
        return backends[-1]

    inject = Injected(clock=FakeClock(), wrap_backend=wrap)
    with SessionStore.open(
        folder, watch=False, durability=durability, inject=inject, call_timeout=20.0
    ) as store:
        if crash != "never":
            error = InjectedCrash("here")
            # The first commit is that of the session that holds the turn together.
            backends[0].fail(Fault("commit", error, skip=1, after=crash == "after"))
        receipts = held(store, IN_ONE_TURN)
        answers = [receipt.result(10) for receipt in receipts]
        assert store.info().restarts == (crash != "never")
        assert [answer.session_id for answer in answers[:-1]] == ["a", "a", "b", "a", "b", "c", "b"]
        assert [answer.generation for answer in answers[:-1]] == [1, 2, 3, 1, 4, 5, 2]
        assert sorted(info.session_id for info in store.list_sessions()) == ["b", "c"]
        assert store.load_session("b").messages == ["second"]
        assert store.load_session("c").messages == ["first", "more", "added"]


@pytest.mark.parametrize("durability", ["journal", "file"])
def test_a_session_made_under_the_old_name_is_not_taken_for_the_old_one(
    durability: str,
    folder: Path,
) -> None:
    """The turn is durable when the actor crashes, and the rename alone is looked at again."""
    backends: list[FaultyBackend] = []

    def wrap(backend: Backend) -> Backend:
        backends.append(FaultyBackend(backend))
        return backends[-1]

    inject = Injected(clock=FakeClock(), wrap_backend=wrap)
    with SessionStore.open(folder, watch=False, durability=durability, inject=inject) as store:
        store.save_session("a", ["old"])
        store.flush()
        backends[0].fail(Fault("commit", InjectedCrash("here"), skip=1, after=True))
        receipts = held(
            store,
            [RenameSession("a", "b"), SaveSession("a", ["new"]), AppendMessages("b", ["added"])],
        )
        assert [receipt.result(10).generation for receipt in receipts] == [2, 1, 3]
        assert store.info().restarts == 1
        assert store.load_session("a").messages == ["new"]
        assert store.load_session("b").messages == ["old", "added"]


# --- forking ------------------------------------------------------------------------------


def test_a_fork_copies_the_first_messages(store: SessionStore) -> None:
    store.save_session(
        "s1",
        [1, RESULT, 3, RESULT],
        state={"a": 1},
        metadata={"m": 1},
        tags=["t"],
        title="Title",
        status="completed",
    )
    store.pin("s1")
    saved = store.fork_session("s1", "s2", at=2)
    assert (saved.session_id, saved.generation, saved.message_count) == ("s2", 1, 2)
    fork = store.load_session("s2")
    assert fork.messages == [1, RESULT]
    assert fork.metadata == {"m": 1, "forked_from": "s1", "forked_at": 2}
    assert (fork.state, fork.tags, fork.title) == ({"a": 1}, ("t",), "Title")
    assert (fork.status, fork.completed_at, fork.pinned) == (None, None, False)
    assert (fork.total_cost, store.load_session("s1").total_cost) == (0.25, 0.5)
    store.append("s1", ["original"])
    store.append("s2", ["copy"])
    assert store.load_session("s1").messages == [1, RESULT, 3, RESULT, "original"]
    assert store.load_session("s2").messages == [1, RESULT, "copy"]


def test_a_fork_of_all_and_of_nothing(store: SessionStore) -> None:
    store.save_session("s1", [1])
    store.append("s1", [2, 3])
    store.fork_session("s1", "all")
    store.fork_session("s1", "none", at=0)
    assert store.load_session("all").messages == [1, 2, 3]
    assert store.load_session("none").messages == []
    assert store.load_session("none").metadata["forked_at"] == 0


def test_forks_that_are_refused(store: SessionStore) -> None:
    store.save_session("s1", [1, 2])
    store.save_session("s2", ["other"])
    with pytest.raises(SessionExists):
        store.fork_session("s1", "s2")
    with pytest.raises(SessionExists):
        store.fork_session("s1", "s1")
    with pytest.raises(SessionNotFound):
        store.fork_session("s9", "s3")
    with pytest.raises(InvalidValue, match="2 messages, not 3"):
        store.fork_session("s1", "s3", at=3)
    with pytest.raises(InvalidValue, match="at"):
        store.fork_session("s1", "s3", at=-1)
    with pytest.raises(TypeError, match="at"):
        store.fork_session("s1", "s3", at=True)
    with pytest.raises(InvalidSessionId):
        store.fork_session("s1", "a/b")
    store.save_session("s1", metadata={"big": "x" * 65_500})
    with pytest.raises(InvalidValue, match="metadata"):
        store.fork_session("s1", "s3")
    assert len(store) == 2


# --- rewinding ----------------------------------------------------------------------------


def test_a_rewound_session_has_its_first_messages(store: SessionStore) -> None:
    store.save_session("s1", [1, RESULT], state={"a": 1}, tags=["t"], status="active")
    store.append("s1", [3, RESULT])
    saved = store.rewind("s1", message=3)
    assert (saved.generation, saved.message_count) == (3, 3)
    session = store.load_session("s1")
    assert session.messages == [1, RESULT, 3]
    assert session.total_cost == 0.25
    assert (session.state, session.tags, session.status) == ({"a": 1}, ("t",), "active")
    assert store.append("s1", ["other"]).message_count == 4
    assert store.load_session("s1", last=2).messages == [3, "other"]
    assert store.rewind("s1", message=0).message_count == 0
    assert store.load_session("s1").messages == []


def test_a_rewind_to_the_end_changes_nothing(store: SessionStore) -> None:
    store.save_session("s1", [1, 2])
    assert store.rewind("s1", message=2).generation == 1


def test_rewinds_that_are_refused(store: SessionStore) -> None:
    store.save_session("s1", [1, 2])
    with pytest.raises(InvalidValue, match="2 messages, not 3"):
        store.rewind("s1", message=3)
    with pytest.raises(InvalidValue, match="message"):
        store.rewind("s1", message=-1)
    with pytest.raises(TypeError, match="message"):
        store.rewind("s1", message="1")  # type: ignore[arg-type]
    with pytest.raises(SessionNotFound):
        store.rewind("s9", message=0)
    assert store.load_session("s1").messages == [1, 2]


def test_a_rewind_to_a_version_that_is_kept(store: SessionStore) -> None:
    store.save_session("s1", [1, RESULT], state={"a": 1}, tags=["t"])
    store.save_session("s1", ["other"], state=None, tags=[])
    store.append("s1", ["more"])
    store.pin("s1")
    assert [backup.generation for backup in store.backups("s1")][-1] == 1
    saved = store.rewind("s1", generation=1)
    assert (saved.generation, saved.message_count) == (5, 2)
    session = store.load_session("s1")
    assert (session.messages, session.state, session.tags) == ([1, RESULT], {"a": 1}, ("t",))
    assert session.total_cost == 0.25
    assert session.pinned, "going back does not take the protection away"
    with pytest.raises(NoBackup):
        store.rewind("s1", generation=9)


def test_a_rewind_goes_to_one_point(store: SessionStore) -> None:
    store.save_session("s1", [1])
    with pytest.raises(TypeError, match="either"):
        store.rewind("s1")
    with pytest.raises(TypeError, match="either"):
        store.rewind("s1", generation=1, message=1)


def test_a_cost_that_the_application_gave_is_never_made_negative(store: SessionStore) -> None:
    store.save_session("less", [1, RESULT], total_cost=0.125)
    store.rewind("less", message=1)
    assert store.load_session("less").total_cost == 0.0
    store.save_session("refund", [1, RESULT], total_cost=-1.0)
    store.rewind("refund", message=1)
    assert store.load_session("refund").total_cost == -1.0


@given(st.lists(st.integers(0, 90_000), max_size=12), st.integers(0, 12), st.integers(1, 5))
def test_the_first_lines_are_found_wherever_they_are_cut(
    sizes: list[int],
    count: int,
    parts: int,
) -> None:
    messages = [{"n": number, "text": "x" * size} for number, size in enumerate(sizes)]
    lines = Lines()
    for start in range(0, len(messages), parts):
        lines = lines.extended(encode_lines(messages[start : start + parts]))
    assert Lines(_first_lines(lines, count)) == Lines(encode_lines(messages[:count]))


def test_a_long_session_is_forked_and_rewound(
    store: SessionStore,
    conversation: Callable[[int], list[dict[str, Any]]],
) -> None:
    messages = [message for seed in range(200) for message in conversation(seed)]
    store.save_session("s1", messages)
    store.fork_session("s1", "s2", at=1001)
    store.rewind("s1", message=1002)
    assert store.load_session("s2").messages == messages[:1001]
    assert store.load_session("s1").messages == messages[:1002]


@pytest.mark.parametrize("durability", ["journal", "file"])
def test_what_stands_in_the_way_of_the_new_name_is_left_alone(
    durability: str,
    folder: Path,
) -> None:
    with SessionStore.open(folder, watch=False) as store:
        store.save_session("s1", [1])
    (folder / "taken.json").mkdir()
    newer = b'{"format":"sessionkeeper","version":9,"session_id":"newer","messages":[]}'
    (folder / "newer.json").write_bytes(newer)
    with SessionStore.open(folder, watch=False, durability=durability) as store:
        for target in ("taken", "newer"):
            with pytest.raises((PathBlocked, NewerVersion)):
                store.rename_session("s1", target)
            with pytest.raises((PathBlocked, NewerVersion)):
                store.fork_session("s1", target)
        assert store.load_session("s1").messages == [1]
        assert store.load_session("s1").generation == 1
        assert len(store) == 1
    assert (folder / "taken.json").is_dir()
    assert (folder / "newer.json").read_bytes() == newer


@pytest.mark.parametrize("point", ["before", "after"])
def test_a_rename_that_is_cut_off_at_every_step(point: str, tmp_path: Path) -> None:
    """The process goes on with what it finds: one name, and all of the content."""
    for durability in ("journal", "file"):
        for operation in ("write_new", "replace", "sync_folder", "make_folder", "write_at"):
            for skip in range(4):
                folder = tmp_path / f"{durability}-{operation}-{skip}"
                fs = FaultyFileSystem()
                with SessionStore.open(
                    folder, watch=False, durability=durability, inject=Injected(fs=fs)
                ) as store:
                    store.save_session("old", [1, 2])
                    store.append("old", [3])
                    error = InjectedCrash("here")
                    fs.fail(Fault(operation, error, skip=skip, after=point == "after"))
                    assert store.rename_session("old", "new").generation == 3
                    fs.heal()
                    assert [info.session_id for info in store.list_sessions()] == ["new"]
                    assert store.load_session("new").messages == [1, 2, 3]
                with SessionStore.open(folder, watch=False) as store:
                    assert [info.session_id for info in store.list_sessions()] == ["new"]
                    assert store.undelete_session("old").message_count == 3
