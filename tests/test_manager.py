"""The life of a session in an application, saved as it goes."""

from __future__ import annotations

import shutil
import threading
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from sessionkeeper import (
    AdvanceSession,
    InvalidConfig,
    InvalidValue,
    NoCurrentSession,
    OutcomeUnknown,
    SessionExists,
    SessionManager,
    SessionNotFound,
    SessionRunning,
    SessionStore,
    StorageFailed,
)
from sessionkeeper.testing import FakeClock, Fault, FaultyBackend, Injected

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from sessionkeeper.storage.backend import Backend, Change


@pytest.fixture
def manager(store: SessionStore, clock: FakeClock) -> SessionManager:
    return SessionManager(store, clock=clock)


def current(manager: SessionManager) -> str | None:
    return manager.session_id


def is_dirty(manager: SessionManager) -> bool:
    return manager.dirty


def test_a_session_from_beginning_to_end(store: SessionStore, manager: SessionManager) -> None:
    session_id = manager.start_session("Write the docs", tags=["docs"], state={"step": 0})
    assert str(UUID(session_id)) == session_id
    assert current(manager) == session_id
    started = store.load_session(session_id)
    assert (started.title, started.status, started.tags) == ("Write the docs", "active", ("docs",))
    note = manager.annotate("half done", kind="milestone")
    event = manager.add_event("command", {"line": "make"})
    manager.append([{"role": "user"}])
    manager.pause()
    assert store.load_session(session_id).status == "paused"
    assert store.load_session(session_id).messages == [{"role": "user"}]
    manager.resume()
    assert store.load_session(session_id).status == "active"
    manager.append([{"role": "assistant"}])
    manager.change(state={"step": 1}, summary="All of it")
    stopped = manager.stop_session()
    assert stopped == store.load_session(session_id)
    assert (stopped.status, stopped.state, stopped.summary) == (
        "completed",
        {"step": 1},
        "All of it",
    )
    assert stopped.completed_at is not None
    assert (stopped.annotations, stopped.events) == ([note], [event])
    assert stopped.messages == [{"role": "user"}, {"role": "assistant"}]
    assert current(manager) is None
    assert manager.start_session("The next one") != session_id


def test_what_is_collected_is_saved_as_one_change(
    store: SessionStore,
    manager: SessionManager,
) -> None:
    session_id = manager.start_session("Title", metadata={"m": 1})
    manager.append([1])
    manager.append([2, 3])
    manager.change(tags=["a"], metadata={"m": 2})
    manager.change(title="Other", state=None)
    assert store.load_session(session_id).generation == 1
    assert is_dirty(manager)
    assert manager.force_save() is True
    session = store.load_session(session_id)
    assert (session.generation, session.messages) == (2, [1, 2, 3])
    assert (session.tags, session.metadata, session.title) == (("a",), {"m": 2}, "Other")
    assert not is_dirty(manager)
    assert manager.force_save() is False
    assert store.load_session(session_id).generation == 2


def test_it_is_saved_when_that_is_due(
    store: SessionStore,
    manager: SessionManager,
    clock: FakeClock,
) -> None:
    assert manager.check_auto_save() is False, "there is no session"
    session_id = manager.start_session("Title")
    clock.advance(100)
    assert manager.check_auto_save() is False, "nothing is collected"
    manager.append([1])
    assert manager.check_auto_save() is True
    manager.append([2])
    clock.advance(29.9)
    assert manager.check_auto_save() is False, "too early"
    clock.advance(0.1)
    assert manager.check_auto_save() is True
    assert manager.check_auto_save() is False
    assert store.load_session(session_id).messages == [1, 2]


def test_the_interval_is_the_one_set(store: SessionStore, clock: FakeClock) -> None:
    manager = SessionManager(store, auto_save_interval=5, clock=clock)
    manager.start_session("Title")
    manager.append([1])
    clock.advance(4.9)
    assert manager.check_auto_save() is False
    clock.advance(0.1)
    assert manager.check_auto_save() is True


@pytest.mark.parametrize(
    "save",
    [
        lambda manager: manager.force_save(),
        lambda manager: manager.annotate("text"),
        lambda manager: manager.add_event("kind"),
        lambda manager: manager.pause(),
        lambda manager: manager.resume(),
    ],
)
def test_a_save_of_any_kind_counts(
    save: Callable[[SessionManager], Any],
    store: SessionStore,
    manager: SessionManager,
    clock: FakeClock,
) -> None:
    session_id = manager.start_session("Title")
    manager.append([1])
    clock.advance(29)
    save(manager)
    assert store.load_session(session_id).messages == [1], "with what was collected"
    manager.append([2])
    clock.advance(29)
    assert manager.check_auto_save() is False
    clock.advance(1)
    assert manager.check_auto_save() is True


def test_a_session_that_is_done_is_not_saved_by_the_timer(
    store: SessionStore,
    manager: SessionManager,
    clock: FakeClock,
) -> None:
    session_id = manager.start_session("Title")
    manager.append([1])
    clock.advance(60)
    store.save_session(session_id, status="completed")
    assert manager.check_auto_save() is False
    assert store.load_session(session_id).messages == []
    assert manager.force_save() is True
    assert store.load_session(session_id).messages == [1]
    manager.append([2])
    manager.pause()
    manager.append([3])
    clock.advance(60)
    assert manager.check_auto_save() is True, "a paused session is"


def test_what_is_collected_belongs_to_the_manager(
    store: SessionStore,
    manager: SessionManager,
) -> None:
    session_id = manager.start_session("Title")
    message, state = {"parts": [1]}, {"steps": [1]}
    manager.append([message])
    manager.change(state=state)
    message["parts"].append(2)
    state["steps"].append(2)
    manager.force_save()
    session = store.load_session(session_id)
    assert (session.messages, session.state) == ([{"parts": [1]}], {"steps": [1]})


def test_the_newest_of_what_a_crash_left_is_recovered(folder: Path, tmp_path: Path) -> None:
    with SessionStore.open(folder, watch=False) as store:
        store.save_session("old", status="active")
        store.save_session("new", ["kept"], status="paused")
        store.save_session("done", status="completed")
        shutil.copytree(folder, tmp_path / "left")
    with SessionStore.open(tmp_path / "left", watch=False) as store:
        manager = SessionManager(store)
        assert manager.recover_session() == "new"
        manager.append(["more"])
        with pytest.raises(SessionRunning):
            manager.recover_session()
        stopped = manager.stop_session()
        assert (stopped.messages, stopped.status) == (["kept", "more"], "completed")
        assert manager.recover_session() == "old"
        manager.stop_session()
        assert manager.recover_session() is None
        assert manager.session_id is None


def test_one_at_a_time(store: SessionStore, manager: SessionManager) -> None:
    first = manager.start_session("Title")
    with pytest.raises(SessionRunning, match=first):
        manager.start_session("Other")
    assert len(store) == 1
    other = SessionManager(store)
    other.start_session("Other", session_id="mine")
    with pytest.raises(SessionExists):
        SessionManager(store).start_session("Third", session_id="mine")


def test_without_a_session_there_is_nothing_to_do(manager: SessionManager) -> None:
    calls: list[Callable[[], Any]] = [
        manager.pause,
        manager.resume,
        manager.stop_session,
        manager.force_save,
        lambda: manager.annotate("text"),
        lambda: manager.add_event("kind"),
        lambda: manager.append([1]),
        lambda: manager.change(title="Title"),
    ]
    for call in calls:
        with pytest.raises(NoCurrentSession):
            call()
    assert not manager.dirty


def test_what_is_refused_is_kept_and_can_be_discarded(
    store: SessionStore,
    manager: SessionManager,
    clock: FakeClock,
) -> None:
    session_id = manager.start_session("Title")
    manager.append([float("nan")])
    clock.advance(60)
    for save in (manager.check_auto_save, manager.force_save, manager.pause, manager.stop_session):
        with pytest.raises(InvalidValue, match="nan"):
            save()
        assert manager.dirty
    assert manager.session_id == session_id
    assert store.load_session(session_id).status == "active"
    manager.discard_changes()
    manager.append(["fine"])
    assert manager.stop_session().messages == ["fine"]


def test_bad_input(store: SessionStore, manager: SessionManager) -> None:
    wrong: Any
    for wrong in ("", "  "):
        with pytest.raises(InvalidValue, match="description"):
            manager.start_session(wrong)
    with pytest.raises(TypeError, match="description"):
        manager.start_session(None)  # type: ignore[arg-type]
    for wrong in (0, -1, float("nan"), float("inf"), True, "3", None):
        with pytest.raises(InvalidConfig, match="auto_save_interval"):
            SessionManager(store, auto_save_interval=wrong)
    assert len(store) == 0
    manager.start_session("Title")
    with pytest.raises(TypeError, match="messages"):
        manager.append({"role": "user"})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="tags"):
        manager.change(tags="text")
    assert not manager.dirty


def test_a_session_that_was_deleted_is_not_made_anew(
    store: SessionStore,
    manager: SessionManager,
) -> None:
    session_id = manager.start_session("Title")
    manager.append([1])
    store.delete_session(session_id)
    with pytest.raises(SessionNotFound):
        manager.force_save()
    assert len(store) == 0
    store.undelete_session(session_id)
    assert manager.stop_session().messages == [1]


def faulty(folder: Path, backends: list[FaultyBackend]) -> SessionStore:
    def wrap(backend: Backend) -> Backend:
        backends.append(FaultyBackend(backend))
        return backends[-1]

    return SessionStore.open(folder, watch=False, inject=Injected(wrap_backend=wrap))


def test_a_medium_that_refuses_loses_nothing(folder: Path) -> None:
    backends: list[FaultyBackend] = []
    with faulty(folder, backends) as store:
        manager = SessionManager(store)
        session_id = manager.start_session("Title")
        manager.append([1])
        backends[0].fail(Fault("commit", StorageFailed("full")))
        with pytest.raises(StorageFailed):
            manager.pause()
        assert store.load_session(session_id).status == "active"
        manager.append([2])
        assert manager.force_save() is True
        session = store.load_session(session_id)
        assert (session.messages, session.status) == ([1, 2], "active")


class Slow(FaultyBackend):
    """Commits when it is told to."""

    def __init__(self, inner: Backend) -> None:
        super().__init__(inner)
        self.go = threading.Event()
        self.go.set()

    def commit(self, batch: Sequence[Change]) -> None:
        assert self.go.wait(10)
        super().commit(batch)


def test_a_save_that_happened_after_all_happens_once(folder: Path) -> None:
    backends: list[Slow] = []

    def wrap(backend: Backend) -> Backend:
        backends.append(Slow(backend))
        return backends[-1]

    inject = Injected(wrap_backend=wrap)
    with SessionStore.open(folder, watch=False, inject=inject, call_timeout=0.2) as store:
        manager = SessionManager(store)
        session_id = manager.start_session("Title")
        manager.append([1])
        backends[0].go.clear()
        with pytest.raises(OutcomeUnknown):
            manager.pause()
        backends[0].go.set()
        store.flush(timeout=10)
        assert is_dirty(manager), "it does not know"
        manager.append([2])
        assert manager.force_save() is True
        session = store.load_session(session_id)
        assert (session.messages, session.status) == ([1, 2], "paused")
        assert not is_dirty(manager)


def test_a_save_that_did_not_happen_is_repeated(folder: Path) -> None:
    backends: list[FaultyBackend] = []
    with faulty(folder, backends) as store:
        manager = SessionManager(store)
        session_id = manager.start_session("Title")
        manager.append([1])
        backends[0].fail(Fault("commit", OutcomeUnknown("nobody knows"), times=2))
        for _ in range(2):
            with pytest.raises(OutcomeUnknown):
                manager.force_save()
        manager.append([2])
        assert manager.force_save() is True
        assert store.load_session(session_id).messages == [1, 2]


def test_several_threads_append(store: SessionStore, manager: SessionManager) -> None:
    session_id = manager.start_session("Title")

    def work(number: int) -> None:
        for turn in range(20):
            manager.append([[number, turn]])
            if turn % 5 == 0:
                manager.force_save()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    messages = manager.stop_session().messages
    assert len(messages) == 80
    for number in range(4):
        assert [turn for owner, turn in messages if owner == number] == list(range(20))
    assert store.load_session(session_id).status == "completed"


# --- the command it is made of ------------------------------------------------------------


def test_a_save_that_adds(store: SessionStore) -> None:
    result = {"type": "result", "cost": 0.5}
    assert store.ask(AdvanceSession("s1", [1, result], state=1)).message_count == 2
    added = store.ask(AdvanceSession("s1", [2, result], tags=["t"], key="k"))
    assert (added.generation, added.message_count) == (2, 4)
    assert store.ask(AdvanceSession("s1", [2, result], key="k")) == added
    session = store.load_session("s1")
    assert session.messages == [1, result, 2, result]
    assert (session.total_cost, session.state, session.tags) == (1.0, 1, ("t",))
    store.save_session("s1", total_cost=9)
    store.ask(AdvanceSession("s1", [3]))
    assert store.load_session("s1").total_cost == 9.0
    huge = {"type": "result", "cost": 1e308}
    store.ask(AdvanceSession("s1", [huge]))
    with pytest.raises(InvalidValue, match="finite"):
        store.ask(AdvanceSession("s1", [huge]))
    with pytest.raises(TypeError, match="messages"):
        store.ask(AdvanceSession("s1", {"role": "user"}))  # type: ignore[arg-type]
    with pytest.raises(InvalidValue, match=r"messages\[1\]"):
        store.ask(AdvanceSession("s1", [1, (2,)]))
    assert len(store.load_session("s1")) == 6


def test_a_long_save_that_adds(folder: Path) -> None:
    large = [{"n": number, "text": "x" * 1000} for number in range(500)]
    with SessionStore.open(folder, watch=False) as store:
        store.append("s1", ["first"])
        store.ask(AdvanceSession("s1", large))
        store.ask(AdvanceSession("s1", ["last"], status="completed"))
    with SessionStore.open(folder, watch=False) as store:
        assert store.load_session("s1").messages == ["first", *large, "last"]
