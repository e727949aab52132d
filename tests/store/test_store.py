"""The façade, as an application uses it."""

from __future__ import annotations

import inspect
import subprocess
import sys
import threading
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import sessionkeeper
from sessionkeeper import (
    AppendMessages,
    Conflict,
    CountSessions,
    DeleteSession,
    InvalidConfig,
    InvalidValue,
    NotExecuted,
    OutcomeUnknown,
    SaveSession,
    Session,
    SessionExists,
    SessionKeeperError,
    SessionNotFound,
    SessionStore,
    StoreBusy,
    StoreClosed,
    StoreNotFound,
    StoreReadOnly,
    UnreadFailures,
)
from sessionkeeper.testing import FakeClock, Injected, crash_actor, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(params=["file", "memory"])
def any_store(request: pytest.FixtureRequest, folder: Path) -> Iterator[SessionStore]:
    with SessionStore.open(folder, durability=request.param, watch=False) as opened:
        yield opened
    assert folder.exists() is (request.param == "file"), "memory touches no disk"


# --- saving and loading -------------------------------------------------------------------


def test_what_is_saved_is_loaded_equal(
    any_store: SessionStore,
    conversation: Callable[[int], list[dict[str, Any]]],
) -> None:
    for seed in range(20):
        any_store.save_session(f"s{seed}", conversation(seed))
    for seed in range(20):
        assert any_store.load_session(f"s{seed}").messages == conversation(seed)
    assert len(any_store) == 20
    assert sorted(s.session_id for s in any_store.load_all()) == sorted(
        info.session_id for info in any_store.iter_sessions()
    )


def test_a_save_keeps_what_is_left_out(any_store: SessionStore) -> None:
    first = any_store.save_session(
        "s1",
        [1],
        state={"a": 1},
        metadata={"m": 1},
        tags=["x", "y", "x"],
        title="Title",
        summary="Summary",
        status="active",
    )
    created = any_store.load_session("s1").created_at
    second = any_store.save_session("s1", title="New")
    session = any_store.load_session("s1")
    assert (first.generation, second.generation) == (1, 2)
    assert session.messages == [1]
    assert session.state == {"a": 1}
    assert session.metadata == {"m": 1}
    assert session.tags == ("x", "y")
    assert (session.title, session.summary, session.status) == ("New", "Summary", "active")
    assert session.created_at == created <= session.updated_at


def test_none_and_empty_remove(any_store: SessionStore) -> None:
    any_store.save_session("s1", [1], state=1, tags=["x"], title="T", summary="S", status="active")
    any_store.save_session("s1", [], state=None, tags=[], title=None, summary=None, status=None)
    session = any_store.load_session("s1")
    assert session.messages == []
    assert session.state is None
    assert session.tags == ()
    assert (session.title, session.summary, session.status) == (None, None, None)


def test_append_creates_and_adds(any_store: SessionStore) -> None:
    assert any_store.append("s1", [1, 2]).message_count == 2
    assert any_store.append("s1", (3,)).message_count == 3
    assert any_store.append("s1", []).generation == 2, "nothing added, nothing changed"
    assert any_store.append("s2", []).generation == 1
    assert any_store.load_session("s1").messages == [1, 2, 3]
    assert any_store.load_session("s1", last=2).messages == [2, 3]
    assert any_store.load_session("s1", last=0).messages == []
    assert len(any_store.load_session("s1", last=99)) == 3


@pytest.mark.parametrize("messages", [{"role": "user"}, "text", b"bytes", 3, None])
def test_messages_that_are_no_list_are_a_type_error(store: SessionStore, messages: Any) -> None:
    with pytest.raises(TypeError, match="messages"):
        store.append("s1", messages)
    with pytest.raises(TypeError, match="messages"):
        store.save_session("s1", messages)
    assert "s1" not in store


def test_a_value_json_would_change_is_refused_with_its_path(store: SessionStore) -> None:
    store.save_session("s1", ["kept"])
    with pytest.raises(InvalidValue, match=r"messages\[1\]\['x'\]"):
        store.append("s1", ["ok", {"x": float("nan")}])
    with pytest.raises(InvalidValue, match="state"):
        store.save_session("s1", state={1, 2})
    with pytest.raises(TypeError, match="metadata"):
        store.save_session("s1", metadata=[1])  # type: ignore[arg-type]
    with pytest.raises(InvalidValue, match="metadata"):
        store.save_session("s1", metadata={"big": "x" * 100_000})
    with pytest.raises(InvalidValue, match="tag"):
        store.save_session("s1", tags=["ok", " "])
    with pytest.raises(TypeError, match="title"):
        store.save_session("s1", title=3)  # type: ignore[arg-type]
    assert store.load_session("s1").generation == 1


def test_an_object_that_says_how_to_rebuild_it_is_refused_and_not_asked(
    store: SessionStore,
) -> None:
    asked: list[object] = []

    class Hostile:
        def __reduce__(self) -> tuple[Any, ...]:
            asked.append(self)
            return print, ("pwned",)

    with pytest.raises(InvalidValue, match="Hostile"):
        store.save_session("s1", [Hostile()])
    with pytest.raises(InvalidValue, match="Hostile"):
        store.save_session("s1", state={"deep": [Hostile()]})
    assert asked == []
    assert "s1" not in store


def test_what_another_thread_changes_meanwhile_is_stored_as_it_was_at_one_moment_or_refused(
    store: SessionStore,
) -> None:
    shared: dict[str, Any] = {f"k{n}": n for n in range(2000)}
    stop = threading.Event()

    def change() -> None:
        turn = 0
        while not stop.is_set():
            shared[f"x{turn % 50}"] = turn
            shared.pop(f"x{(turn + 25) % 50}", None)
            turn += 1

    thread = threading.Thread(target=change)
    thread.start()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    outcomes: list[str] = []
    try:
        while len(outcomes) < 200 and len(set(outcomes)) < 2:
            try:
                store.save_session("s1", [shared])
            except InvalidValue as error:
                assert "would not come back equal" in str(error)  # noqa: PT017 - it may be raised
                outcomes.append("refused")
                continue
            outcomes.append("stored")
            (message,) = store.load_session("s1").messages
            assert [message[f"k{n}"] for n in range(2000)] == list(range(2000))
    finally:
        sys.setswitchinterval(interval)
        stop.set()
        thread.join()
    assert store.info().restarts == 0


def test_create_refuses_an_existing_session(any_store: SessionStore) -> None:
    assert any_store.create_session("s1", [1], tags=["a"]).generation == 1
    with pytest.raises(SessionExists):
        any_store.create_session("s1", [2])
    assert any_store.load_session("s1").messages == [1]


def test_compare_and_swap(any_store: SessionStore) -> None:
    any_store.save_session("s1", [1])
    assert any_store.save_session("s1", [2], expected_generation=1).generation == 2
    with pytest.raises(Conflict) as refused:
        any_store.save_session("s1", [3], expected_generation=1)
    assert refused.value.actual == 2
    with pytest.raises(Conflict):
        any_store.save_session("absent", [3], expected_generation=1)
    assert any_store.load_session("s1").messages == [2]


def test_update_repeats_on_conflict_and_loses_no_change(any_store: SessionStore) -> None:
    any_store.save_session("counter", [], state=0)

    def count() -> None:
        for _ in range(20):
            any_store.update("counter", lambda s: s.replace(state=s.state + 1))

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    session = any_store.load_session("counter")
    assert session.state == 80
    assert session.generation == 81


def test_update_of_an_absent_session(store: SessionStore) -> None:
    with pytest.raises(SessionNotFound):
        store.update("absent", lambda s: s.replace(state=1))


def test_an_idempotency_key_makes_an_append_happen_once(any_store: SessionStore) -> None:
    first = any_store.append("s1", ["paid"], key="order-1")
    for other in range(10):
        any_store.append("s1", [other])
    assert any_store.append("s1", ["paid"], key="order-1") == first
    assert any_store.load_session("s1").messages.count("paid") == 1
    assert any_store.append("s1", ["paid"], key="order-2").generation == 12
    assert any_store.append("s2", ["paid"], key="order-1").generation == 1, "keys are a session's"


def test_an_idempotency_key_survives_a_restart(folder: Path) -> None:
    with SessionStore.open(folder, watch=False) as store:
        first = store.append("s1", ["paid"], key="order-1")
        store.append("s1", ["more"])
    with SessionStore.open(folder, watch=False) as store:
        assert store.append("s1", ["paid"], key="order-1") == first
        assert store.load_session("s1").messages == ["paid", "more"]


def test_keys_are_remembered_for_64_keyed_changes(any_store: SessionStore) -> None:
    for number in range(70):
        any_store.append("s1", [number], key=f"k{number}")
    assert any_store.append("s1", [69], key="k69").message_count == 70
    assert any_store.append("s1", [6], key="k6").message_count == 7
    assert any_store.append("s1", [0], key="k0").message_count == 71


def test_costs_are_added_up(any_store: SessionStore) -> None:
    turn = [{"role": "user"}, {"type": "result", "total_cost_usd": 0.25}]
    any_store.append("s1", turn)
    any_store.append("s1", turn)
    assert any_store.load_session("s1").total_cost == 0.5
    any_store.append("s1", ["no result"], total_cost=1.5)
    assert any_store.load_session("s1").total_cost == 2.0
    any_store.save_session("s1", total_cost=7)
    assert any_store.load_session("s1").total_cost == 7.0
    any_store.save_session("s1", turn)
    assert any_store.load_session("s1").total_cost == 0.25
    with pytest.raises(InvalidValue):
        any_store.save_session("s1", total_cost=float("inf"))


def test_delete_and_undelete(any_store: SessionStore) -> None:
    any_store.save_session("s1", [1], tags=["a"])
    assert any_store.delete_session("s1") is True
    assert any_store.delete_session("s1") is False
    assert "s1" not in any_store
    with pytest.raises(SessionNotFound) as missing:
        any_store.load_session("s1")
    assert isinstance(missing.value, LookupError)
    assert any_store.undelete_session("s1").generation == 2
    assert any_store.load_session("s1").messages == [1]
    assert any_store.load_session("s1").tags == ("a",)
    with pytest.raises(SessionExists):
        any_store.undelete_session("s1")
    with pytest.raises(SessionNotFound):
        any_store.undelete_session("never")


def test_the_trash_lists_what_can_be_brought_back(any_store: SessionStore) -> None:
    def listed() -> list[tuple[str, str]]:
        return [(removal.session_id, removal.reason) for removal in any_store.list_trash()]

    assert listed() == []
    for session_id in ("s1", "s2", "s3"):
        any_store.save_session(session_id, [session_id])
    any_store.scope("team").save_session("s1", [])
    before = datetime.now(UTC)
    any_store.delete_session("s2")
    any_store.rename_session("s1", "s4")
    any_store.scope("team").delete_session("s1")
    assert listed() == [("s1", "renamed to s4"), ("s2", "deleted")]
    (other,) = any_store.scope("team").list_trash()
    assert (other.session_id, other.namespace) == ("s1", "team")
    assert before <= other.removed_at <= datetime.now(UTC)
    any_store.save_session("s2", ["anew"])
    assert listed() == [("s1", "renamed to s4")], "what is there cannot be brought back"
    any_store.delete_session("s2")
    assert listed() == [("s2", "deleted"), ("s1", "renamed to s4")], "each of them once"
    any_store.undelete_session("s2")
    assert any_store.load_session("s2").messages == ["anew"]
    any_store.erase_session("s1")
    assert listed() == []


def test_recent_shows_the_last_changed_first(any_store: SessionStore) -> None:
    for number in range(8):
        any_store.save_session(f"s{number}", [])
    any_store.append("s2", [1])
    assert [info.session_id for info in any_store.get_recent()] == ["s2", "s7", "s6", "s5", "s4"]
    assert len(any_store.get_recent(2)) == 2


def test_a_loaded_session_compares_and_shows_itself(store: SessionStore) -> None:
    store.save_session("s1", [1])
    one, other = store.load_session("s1"), store.load_session("s1")
    assert one == other
    other.messages.append(2)
    assert one != other
    assert one != "s1"
    assert bool(one)
    assert repr(one) == "Session('s1', generation=1, messages=1)"
    assert isinstance(one, Session)


# --- ask and tell -------------------------------------------------------------------------


def test_tell_gives_a_receipt_that_can_be_checked(store: SessionStore) -> None:
    done = threading.Event()
    receipt = store.tell(SaveSession("s1", [1]))
    receipt.add_done_callback(lambda r: done.set() if r is receipt else None)
    assert receipt.result(timeout=5).generation == 1
    assert receipt.exception() is None
    assert receipt.done()
    assert done.wait(5)
    assert store.ask(CountSessions(), timeout=5) == 1


def test_commands_of_one_thread_keep_their_order(store: SessionStore) -> None:
    receipts = [store.tell(AppendMessages("s1", [number])) for number in range(300)]
    assert [receipt.result(10).message_count for receipt in receipts] == list(range(1, 301))
    assert store.load_session("s1").messages == list(range(300))


def test_a_save_and_a_delete_in_one_turn(store: SessionStore) -> None:
    receipts = [
        store.tell(command)
        for command in (
            SaveSession("s1", ["first"]),
            DeleteSession("s1"),
            SaveSession("s1", ["second"]),
            DeleteSession("s1"),
            SaveSession("s1", ["third"]),
            CountSessions(),
        )
    ]
    answers = [receipt.result(5) for receipt in receipts]
    assert answers[1] is True
    assert answers[5] == 1
    assert store.load_session("s1").messages == ["third"]


def test_an_invalid_command_is_refused_before_it_is_sent(store: SessionStore) -> None:
    with pytest.raises(InvalidValue):
        store.tell(SaveSession("s1", [float("nan")]))
    with pytest.raises(TypeError):
        store.ask(AppendMessages("s1", "text"))


def test_a_failed_tell_nobody_looked_at_is_raised_by_flush_once(
    store: SessionStore,
    caplog: pytest.LogCaptureFixture,
) -> None:
    store.save_session("s1", [1])
    store.tell(SaveSession("s1", [2], expected_generation=9))
    looked_at = store.tell(SaveSession("s1", [2], expected_generation=8))
    assert isinstance(looked_at.exception(5), Conflict)
    with pytest.raises(UnreadFailures) as raised:
        store.flush()
    assert [type(error) for error in raised.value.failures] == [Conflict]
    assert "generation 1, not 9" in caplog.text
    store.flush()


def test_a_failed_tell_is_raised_by_close(folder: Path) -> None:
    store = SessionStore.open(folder, watch=False)
    store.tell(SaveSession("s1", [2], expected_generation=9))
    with pytest.raises(UnreadFailures):
        store.close()
    store.close()
    SessionStore.open(folder, watch=False).close()


def test_close_does_all_that_was_told(folder: Path) -> None:
    store = SessionStore.open(folder, watch=False)
    receipts = [store.tell(AppendMessages(f"s{n % 10}", [n])) for n in range(500)]
    store.close()
    assert all(receipt.done() and receipt.exception() is None for receipt in receipts)
    with SessionStore.open(folder, watch=False) as again:
        assert sum(len(session) for session in again.load_all()) == 500


def test_the_error_of_close_becomes_a_note_on_the_error_of_the_body(folder: Path) -> None:
    def body() -> None:
        with SessionStore.open(folder, watch=False) as store:
            store.save_session("s1", [1])
            store.tell(SaveSession("s1", [2], expected_generation=9))
            raise KeyError("the body's own")

    with pytest.raises(KeyError) as raised:
        body()
    assert "UnreadFailures" in raised.value.__notes__[0]
    with SessionStore.open(folder, watch=False) as again:
        assert again.load_session("s1").messages == [1]


# --- time and room ------------------------------------------------------------------------


def _hold(store: SessionStore) -> tuple[threading.Event, Callable[[], None]]:
    """Keep the actor busy until the event is set."""
    store.flush()  # past what the recovery posted
    busy, go = threading.Event(), threading.Event()

    def hold(event: Any) -> None:
        if event.session_id == "held":
            busy.set()
            go.wait(10)

    unsubscribe = store.subscribe(hold)
    store.tell(SaveSession("held", []))
    assert busy.wait(5)
    return go, unsubscribe


def test_a_call_that_was_not_begun_in_time_never_happens(store: SessionStore) -> None:
    go, unsubscribe = _hold(store)
    with pytest.raises(NotExecuted) as late:
        store.ask(SaveSession("s1", [1]), timeout=0.05)
    assert isinstance(late.value, TimeoutError)
    go.set()
    unsubscribe()
    store.flush()
    assert "s1" not in store


def test_a_call_that_was_begun_is_not_called_undone(folder: Path) -> None:
    clock = FakeClock()
    with SessionStore.open(folder, watch=False, inject=Injected(clock=clock)) as store:
        busy, go = threading.Event(), threading.Event()
        now = clock.now()

        def slow() -> Any:
            if threading.current_thread().name.startswith("sessionkeeper.store"):
                busy.set()
                go.wait(10)
            return now

        clock.now = slow  # type: ignore[method-assign]
        with pytest.raises(OutcomeUnknown):
            store.ask(SaveSession("s1", [1]), timeout=0.2)
        go.set()
        store.flush()
        assert store.load_session("s1").messages == [1]


def test_a_full_mailbox_is_busy_and_nothing_is_queued(folder: Path) -> None:
    with SessionStore.open(folder, watch=False, max_pending=3, call_timeout=0.05) as store:
        go, unsubscribe = _hold(store)
        try:
            receipts = [store.tell(SaveSession(f"s{n}", [])) for n in range(3)]
            with pytest.raises(StoreBusy):
                store.tell(SaveSession("s3", []))
            assert store.info().pending == 3
        finally:
            go.set()
            unsubscribe()
        for receipt in receipts:
            receipt.result(5)
        assert "s3" not in store


def test_the_mailbox_is_bounded_in_bytes(folder: Path) -> None:
    with SessionStore.open(
        folder,
        watch=False,
        max_pending_bytes=10_000,
        call_timeout=0.5,
    ) as store:
        go, unsubscribe = _hold(store)
        try:
            kept = store.tell(SaveSession("s1", ["x" * 6000]))
            with pytest.raises(StoreBusy):
                store.tell(SaveSession("s2", ["x" * 6000]))
            assert 6000 < store.info().pending_bytes < 10_000
        finally:
            go.set()
            unsubscribe()
        kept.result(5)


def test_reads_never_wait_behind_writers(store: SessionStore) -> None:
    store.save_session("s1", [1])
    go, unsubscribe = _hold(store)
    assert store.load_session("s1").messages == [1]
    assert [info.session_id for info in store.search()] == ["held", "s1"]
    assert "s1" in store
    go.set()
    unsubscribe()


def test_a_subscriber_that_raises_hurts_nobody(store: SessionStore) -> None:
    seen: list[str] = []

    def broken(_: object) -> None:
        raise RuntimeError("subscriber")

    end = store.subscribe(broken)
    # A checkpoint may be under way: of that no session is told.
    store.subscribe(lambda event: seen.append(event.kind) if event.session_id else None)
    store.save_session("s1", [1])
    end()
    end()
    store.save_session("s1", [2])
    store.flush()
    assert seen == ["saved", "saved"]
    assert store.info().restarts == 0


def test_a_subscriber_that_calls_the_store_back_gets_an_error_not_a_deadlock(
    store: SessionStore,
) -> None:
    errors: list[BaseException] = []

    def calls_back(_: object) -> None:
        try:
            store.save_session("s2", [])
        except SessionKeeperError as error:
            errors.append(error)

    end = store.subscribe(calls_back)
    store.save_session("s1", [])
    store.flush()
    end()
    assert "subscriber" in str(errors[0])
    assert store.info().restarts == 0


# --- opening and closing ------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {"retention_days": 0},
        {"retention_days": -1},
        {"retention_days": float("nan")},
        {"retention_days": float("inf")},
        {"retention_days": "3"},
        {"retention_days": True},
        {"max_sessions": 0},
        {"max_sessions": -1},
        {"max_sessions": 2.5},
        {"cleanup_interval": 0},
        {"cleanup_interval": -1},
        {"trash_days": 0},
        {"cache_bytes": 0},
        {"cache_ttl": 0},
        {"call_timeout": 0},
        {"max_pending": 0},
        {"max_pending_bytes": 0},
        {"max_restarts": -1},
        {"max_restarts": True},
        {"max_seconds": 0},
        {"watch": 1},
        {"persistence": None},
        {"reconcile_interval": 0},
        {"layout": "round"},
        {"durability": "wishful"},
    ],
)
def test_a_setting_out_of_range_is_refused_before_anything_is_touched(
    settings: dict[str, Any],
    folder: Path,
) -> None:
    with pytest.raises(InvalidConfig, match=next(iter(settings))):
        SessionStore.open(folder, **settings)
    assert not folder.exists()


def test_an_unknown_setting_is_named_with_the_known_ones(folder: Path) -> None:
    with pytest.raises(TypeError, match=r"'retention'.*retention_days"):
        SessionStore.open(folder, retention=3)


@pytest.mark.parametrize("settings", [{"persistence": False}, {"durability": "memory"}])
def test_without_persistence_nothing_touches_the_disk(
    settings: dict[str, Any],
    tmp_path: Path,
) -> None:
    with SessionStore.open(tmp_path / "never", **settings) as store:
        store.save_session("s1", [1])
        store.delete_session("s1")
        store.save_session("s2", [1])
    assert list(tmp_path.iterdir()) == []


def test_the_rooted_layout_puts_folders_side_by_side(folder: Path) -> None:
    with SessionStore.open(folder, layout="rooted") as store:
        store.save_session("s1", [1])
    assert (folder / "sessions" / "s1.json").is_file()
    assert (folder / "backups").is_dir()
    with SessionStore.open(folder, layout="rooted", read_only=True) as store:
        assert store.load_session("s1").messages == [1]


@pytest.mark.parametrize(("made", "asked"), [("rooted", "flat"), ("flat", "rooted")])
@pytest.mark.parametrize("read_only", [False, True])
def test_a_store_is_not_opened_with_another_layout(
    made: str,
    asked: str,
    read_only: bool,  # noqa: FBT001 - a parameter of the test
    folder: Path,
) -> None:
    with SessionStore.open(folder, layout=made) as store:
        store.save_session("s1", [1])
    before = sorted(folder.rglob("*"))
    with pytest.raises(InvalidConfig, match=made):
        SessionStore.open(folder, layout=asked, read_only=read_only)
    assert sorted(folder.rglob("*")) == before


def test_a_relative_path_is_resolved_once(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    with SessionStore.open("here") as store:
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        store.save_session("s1", [1])
        assert store.path == tmp_path / "here"
    assert (tmp_path / "here" / "s1.json").is_file()
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with SessionStore.open("~/sessions", watch=False) as store:
        assert store.path == tmp_path / "sessions"


def test_after_close_everything_says_so(folder: Path) -> None:
    store = SessionStore.open(folder, watch=False)
    store.save_session("s1", [1])
    store.close()
    store.close()
    for call in (
        lambda: store.save_session("s1", [2]),
        lambda: store.load_session("s1"),
        store.list_sessions,
        lambda: "s1" in store,
        lambda: store.tell(CountSessions()),
        store.flush,
    ):
        with pytest.raises(StoreClosed):
            call()
    assert store.info().state == "closed"


def test_read_only_needs_a_store_and_creates_nothing(tmp_path: Path) -> None:
    with pytest.raises(StoreNotFound):
        SessionStore.open(tmp_path / "absent", read_only=True)
    with pytest.raises(StoreNotFound):
        SessionStore.open(tmp_path, read_only=True)
    assert list(tmp_path.iterdir()) == []


def test_read_only_beside_a_live_owner(store: SessionStore, folder: Path) -> None:
    store.save_session("s1", [1])
    (folder / "bad.json").write_bytes(b"{")
    with SessionStore.open(folder, read_only=True) as beside:
        assert beside.load_session("s1").messages == [1]
        store.append("s1", [2])
        store.save_session("s2", [3])
        store.delete_session("s2")
        store.checkpoint()
        assert beside.load_session("s1").messages == [1, 2], "each session as it is when loaded"
        for call in (
            lambda: beside.save_session("s1", []),
            lambda: beside.delete_session("s1"),
            lambda: beside.append("s1", [1]),
            lambda: beside.tell(CountSessions()),
            beside.cleanup,
        ):
            with pytest.raises(StoreReadOnly):
                call()
        beside.flush()
        assert beside.info().state == "read-only"
    assert (folder / "bad.json").read_bytes() == b"{"


@pytest.mark.parametrize("drop", ["", "del store\n"])
def test_a_store_left_open_is_closed_when_the_interpreter_exits(drop: str, folder: Path) -> None:
    script = (
        "import sys\n"
        "from sessionkeeper import AppendMessages, SessionStore\n"
        "store = SessionStore.open(sys.argv[1])\n"
        f"for n in range(200): store.tell(AppendMessages('s1', [n]))\n{drop}"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder)],
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert not (folder / ".sessionkeeper" / "holder").exists(), "it was closed, not only emptied"
    with SessionStore.open(folder, watch=False) as store:
        assert store.load_session("s1").messages == list(range(200))


def test_info_tells_what_the_store_is_up_to(store: SessionStore, folder: Path) -> None:
    store.save_session("s1", [1])
    store.load_session("s1")
    store.flush()
    info = store.info()
    assert info.path == folder
    assert (info.state, info.sessions, info.epoch, info.restarts) == ("ready", 1, 1, 0)
    assert info.last_exit is None
    # A checkpoint has messages of its own, at any time.
    wait_until(lambda: (store.info().pending, store.info().oldest_pending) == (0, None))
    assert info.cached_sessions == 1
    assert info.cache_hits == 1
    wait_until(lambda: store.info().uptime > 0)


def test_the_supervision_tree_can_be_looked_at(folder: Path) -> None:
    with SessionStore.open(folder) as store:
        crash_actor(store)
        store.flush()
        wait_until(lambda: {process.state for process in store.processes()} == {"ready"})
        processes = _, actor, _, _, _, watcher = store.processes()
        names = ["supervisor", "store", "checkpointer", "indexer", "texts", "watcher"]
        assert [process.name for process in processes] == names
        assert (actor.epoch, actor.restarts) == (2, 1)
        assert "InjectedCrash" in str(actor.last_exit)
        assert (watcher.epoch, watcher.restarts, watcher.last_exit) == (1, 0, None)
    assert store.processes() == []


# --- the public surface -------------------------------------------------------------------


def test_the_core_needs_no_more_than_it_says(folder: Path) -> None:
    """What the extras bring is not there: neither imported, nor missed."""
    program = (
        "import sys\n"
        "for name in ('typer', 'rich', 'trio', 'pytest', 'hypothesis', 'pydantic'):\n"
        "    sys.modules[name] = None\n"
        "from sessionkeeper import SessionStore\n"
        "with SessionStore.open(sys.argv[1]) as store:\n"
        "    store.save_session('s1', [1], tags=['t'])\n"
        "    assert len(store.search(tags=['t'])) == 1\n"
    )
    subprocess.run([sys.executable, "-c", program, str(folder)], check=True, timeout=60)
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert len(project["dependencies"]) <= 5, "each one more is a decision"


def test_every_public_name_is_there_and_documented() -> None:
    for name in sessionkeeper.__all__:
        thing = getattr(sessionkeeper, name)
        if inspect.isclass(thing) or inspect.isfunction(thing):
            assert thing.__doc__, name


def test_every_error_has_a_hint_and_a_family() -> None:
    errors = [
        thing
        for thing in vars(sessionkeeper).values()
        if inspect.isclass(thing) and issubclass(thing, SessionKeeperError)
    ]
    assert len(errors) > 20
    for error in errors:
        assert error.default_hint
        if error not in (SessionKeeperError, sessionkeeper.StoreError):
            assert error.default_hint != SessionKeeperError.default_hint, error


def test_the_arguments_of_methods_and_commands_agree() -> None:
    method = inspect.signature(SessionStore.save_session).parameters
    command = inspect.signature(SaveSession).parameters
    assert list(method)[1:] == list(command)
    for name in command:
        assert method[name].default == command[name].default, name
        assert str(method[name].annotation) == str(command[name].annotation), name
