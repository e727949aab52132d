"""The indexer: queries see every acknowledged change, and it never hurts one."""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from sessionkeeper import IndexBehind, SaveSession, SessionStore, StoreClosed
from sessionkeeper.engine import catalog as catalog_module
from sessionkeeper.engine import view as view_module
from sessionkeeper.engine.query import Query, select
from sessionkeeper.processes import writer as writer_module
from sessionkeeper.processes.indexer import Indexer, Indexing
from sessionkeeper.storage.database import IndexFailed
from sessionkeeper.storage.index import Index
from sessionkeeper.testing import (
    EventLog,
    FakeClock,
    FaultyFileSystem,
    Injected,
    InjectedCrash,
    crash_actor,
    wait_until,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from sessionkeeper.engine.catalog import Catalog
    from sessionkeeper.otp import ServerRef
    from sessionkeeper.storage.platform import Signature


class ReadNames(FaultyFileSystem):
    """Remembers the names of the session files that were read."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def read(self, path: Path) -> tuple[list[bytes], Signature]:
        if path.suffix == ".json" and ".sessionkeeper" not in path.parts:
            self.names.append(path.stem)
        return super().read(path)


def catalog_of(store: SessionStore) -> Catalog:
    assert store._tree is not None
    assert store._tree._catalog is not None
    return store._tree._catalog


def indexer_of(store: SessionStore) -> ServerRef:
    assert store._tree is not None
    return store._tree._indexer


def wait_indexed(store: SessionStore) -> None:
    """Wait until queries are answered from the index, with all there is."""
    wait_until(lambda: catalog_of(store).after("", 1) is not None)


def ids(infos: Any) -> list[str]:
    return [info.session_id for info in infos]


def agrees(store: SessionStore) -> bool:
    """Whether the index says what the records in memory say."""
    found = catalog_of(store).page(Query(), None, None)
    return found is not None and found == list(store._view.newest_first())


@pytest.fixture
def fs() -> ReadNames:
    return ReadNames()


@pytest.fixture(params=["journal", "file", "os"])
def durability(request: pytest.FixtureRequest) -> str:
    return str(request.param)


# --- queries see what was acknowledged ----------------------------------------------------


def test_a_query_sees_what_was_saved_before(folder: Path, durability: str) -> None:
    with SessionStore.open(folder, watch=False, durability=durability) as store:
        wait_indexed(store)
        for number in range(30):
            name = f"s{number % 7}"
            store.append(name, [number])
            first = store.get_recent(1)[0]
            assert (first.session_id, first.message_count) == (name, number // 7 + 1)
            store.save_session(name, tags=[f"t{number}"])
            assert ids(store.search(tags=[f"t{number}"])) == [name]
            if number % 10 == 9:
                store.delete_session(name)
                assert name not in ids(store.iter_sessions())
                store.undelete_session(name)
                assert name in ids(store.iter_sessions())
        assert agrees(store)
        assert catalog_of(store).page(Query(), None, 1) is not None, "it came from the index"


def test_queries_of_many_threads_see_their_own_saves(store: SessionStore) -> None:
    wait_indexed(store)
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(20):
                store.save_session(f"{number}-{turn}", [], tags=[f"by-{number}"])
                found = ids(store.search(tags=[f"by-{number}"]))
                assert found == [f"{number}-{past}" for past in range(turn, -1, -1)]
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_what_comes_while_it_writes_is_collected_first(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else it would never rest under load, and write every change of a session by itself."""
    monkeypatch.setattr(writer_module, "COLLECT", 1000.0)
    more: list[bool] = []
    step, write = Indexing.step, Index.write

    def noted_step(indexing: Indexing) -> bool:
        more.append(step(indexing))
        return more[-1]

    with SessionStore.open(folder, watch=False) as store:
        wait_indexed(store)

        def busy_write(index: Index, *arguments: Any, **changes: Any) -> None:
            monkeypatch.setattr(Index, "write", write)
            store.append("s2", ["while s1 is written"])
            write(index, *arguments, **changes)

        store.append("s1", ["first"])
        monkeypatch.setattr(Index, "write", busy_write)
        monkeypatch.setattr(Indexing, "step", noted_step)
        catalog_of(store).rouse()
        wait_until(lambda: len(more) == 1)
        indexer_of(store).info()
        assert more == [False], "it waits for more"
        assert catalog_of(store).is_behind()
        assert ids(store.get_recent(2)) == ["s2", "s1"], "but not when somebody asks"
        assert not catalog_of(store).is_behind()


def test_hand_made_changes_are_seen(folder: Path, tmp_path: Path) -> None:
    with SessionStore.open(folder, watch=False) as store, EventLog(store) as log:
        store.save_session("s1", ["one"])
        store.save_session("s2", ["two"])
        wait_indexed(store)
        (folder / "s1.json").unlink()
        text = (folder / "s2.json").read_text()
        (folder / "s2.json").write_text(text.replace('"two"', '"edited"'))
        store._tree._suspect("s1")  # type: ignore[union-attr]
        store._tree._suspect("s2")  # type: ignore[union-attr]
        log.wait_for("adopted")
        store.flush()
        assert [(i.session_id, i.generation) for i in store.list_sessions()] == [("s2", 2)]
        assert agrees(store)


class Gate:
    """Holds the indexer up before it writes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open = threading.Event()
        self.waiting = threading.Event()
        write = Index.write

        def held(index: Index, *arguments: Any, **named: Any) -> None:
            self.waiting.set()
            assert self.open.wait(20)
            write(index, *arguments, **named)

        monkeypatch.setattr(Index, "write", held)


def test_a_query_waits_for_the_index_and_not_for_ever(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with SessionStore.open(folder, watch=False, call_timeout=0.2) as store:
        wait_indexed(store)
        gate = Gate(monkeypatch)
        try:
            store.save_session("s1", [1])
            with pytest.raises(IndexBehind) as caught:
                store.list_sessions()
            assert caught.value.hint
            assert "s1" in store, "existence never comes from the index"
        finally:
            gate.open.set()
        wait_until(lambda: agrees(store))


def test_a_query_does_not_wait_for_what_comes_after_it(store: SessionStore) -> None:
    wait_indexed(store)
    store.save_session("s1", [1])
    assert ids(store.list_sessions()) == ["s1"]
    stop = threading.Event()

    def save() -> None:
        while not stop.is_set():
            store.save_session("busy", [])

    writer = threading.Thread(target=save)
    writer.start()
    try:
        for _ in range(20):
            assert "s1" in ids(store.list_sessions())
    finally:
        stop.set()
        writer.join()


def test_a_session_that_changes_again_and_again_is_written_once(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Time stands still, so nothing is written before somebody asks."""
    with SessionStore.open(folder, watch=False, inject=Injected(clock=FakeClock())) as store:
        wait_indexed(store)
        written: list[int] = []
        write = Index.write

        def counted(index: Index, entries: Sequence[Any], **named: Any) -> None:
            written.append(len(entries))
            write(index, entries, **named)

        monkeypatch.setattr(Index, "write", counted)
        for number in range(50):
            store.append("s1", [number])
        assert store.get_recent(1)[0].message_count == 50
        assert written == [1]


# --- a bounded backlog --------------------------------------------------------------------


def test_an_index_that_cannot_keep_up_slows_writers_and_stops_nobody(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        catalog_module.Catalog.__init__, "__kwdefaults__", {"limit": 5, "patience": 0.05}
    )
    with SessionStore.open(folder, watch=False) as store:
        wait_indexed(store)
        catalog = catalog_of(store)
        gate = Gate(monkeypatch)
        try:
            store.save_session("first", [1])
            catalog.rouse()
            assert gate.waiting.wait(5)
            waits: list[float] = []
            wait_for = catalog._changed.wait_for

            def counted(predicate: Callable[[], Any], timeout: float | None = None) -> Any:
                waits.append(timeout or 0)
                return wait_for(predicate, timeout)

            monkeypatch.setattr(catalog._changed, "wait_for", counted)
            for number in range(12):
                store.save_session(f"s{number}", [1])
            assert waits == [0.05], "one writer waited, then the index was given up"
            assert len(catalog._records) <= 6
            assert len(store.list_sessions()) == 13, "queries do without"
        finally:
            gate.open.set()
        wait_until(lambda: agrees(store))
        assert len(catalog.after("", 100) or ()) == 13


def test_writers_that_waited_go_on_when_there_is_room(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        catalog_module.Catalog.__init__, "__kwdefaults__", {"limit": 3, "patience": 20.0}
    )
    with SessionStore.open(folder, watch=False) as store:
        wait_indexed(store)
        receipts = [store.tell(SaveSession(f"s{number}", [1])) for number in range(40)]
        for receipt in receipts:
            receipt.result(10)
        assert agrees(store)


# --- crashes ------------------------------------------------------------------------------


def test_a_crash_of_the_actor_changes_nothing(store: SessionStore) -> None:
    wait_indexed(store)
    store.save_session("s1", [1])
    crash_actor(store)
    store.append("s1", [2])
    assert store.get_recent(1)[0].message_count == 2
    assert agrees(store)
    assert indexer_of(store).info().restarts == 0


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_crash_of_the_indexer_loses_nothing(
    after: bool,  # noqa: FBT001 - a case
    store: SessionStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for number in range(10):
        store.save_session(f"s{number}", [1], tags=["t"])
    wait_indexed(store)
    step = Indexing.step
    crashes = [InjectedCrash("in the indexer")]

    def crashing(indexing: Indexing) -> bool:
        if crashes and not after:
            catalog_of(store).take()  # what it held is lost
            raise crashes.pop()
        more = step(indexing)
        if crashes:
            raise crashes.pop()
        return more

    monkeypatch.setattr(Indexing, "step", crashing)
    store.save_session("s3", [1, 2], tags=["u"])
    store.delete_session("s5")
    assert ids(store.search(tags=["u"])) == ["s3"]
    assert len(store.search(tags=["t"])) == 8
    wait_until(lambda: indexer_of(store).info().restarts == 1 and agrees(store))
    assert ids(store.search(tags=["u"])) == ["s3"]
    assert store.info().restarts == 0


def test_an_error_nobody_thought_of_is_no_crash(
    store: SessionStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Crashes of the indexer would count against those of the store."""
    wait_indexed(store)
    write = Index.write
    errors: list[Exception] = [ZeroDivisionError()]

    def failing(index: Index, *arguments: Any, **named: Any) -> None:
        if errors:
            raise errors.pop()
        write(index, *arguments, **named)

    monkeypatch.setattr(Index, "write", failing)
    with EventLog(store) as log:
        store.save_session("s1", [1])
        assert ids(store.list_sessions()) == ["s1"]
        assert "made anew" in log.wait_for("damaged")[0].detail
    wait_until(lambda: agrees(store))
    assert indexer_of(store).info().restarts == 0


def test_what_a_query_read_while_a_comparison_began_proves_nothing(store: SessionStore) -> None:
    """By then the index may have been made anew, and hold next to nothing."""
    store.save_session("s1", [1])
    wait_indexed(store)
    catalog = catalog_of(store)

    def read() -> list[Any]:
        catalog.give_up()
        return []

    assert catalog._read(read) is None


# --- an index that is of no use -----------------------------------------------------------


@pytest.mark.parametrize("refusal", ["disk I/O error", "database or disk is full"])
def test_a_medium_that_refuses_the_index_hurts_nobody(
    refusal: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = FakeClock()
    with SessionStore.open(folder, watch=False, inject=Injected(clock=clock)) as store:
        wait_indexed(store)
        tries: list[int] = []

        def refused(index: Index, *arguments: Any, **named: Any) -> None:
            tries.append(1)
            raise IndexFailed(refusal, passing="full" in refusal)

        with monkeypatch.context() as patch:
            patch.setattr(Index, "write", refused)
            for number in range(20):
                store.save_session(f"s{number}", [1])
                assert len(store.list_sessions()) == number + 1
            wait_until(lambda: tries)
            assert catalog_of(store).after("", 1) is None
            wait_until(lambda: indexer_of(store).info().queued == 0)
            assert len(tries) <= 3, "it is not tried all the time"
        clock.advance(writer_module.RETRY)
        wait_until(lambda: agrees(store))


@pytest.mark.parametrize("what", ["index.db", "index.db-wal", "all", "a folder"])
def test_it_can_be_deleted_at_any_time(what: str, folder: Path, durability: str) -> None:
    private = folder / ".sessionkeeper"
    with SessionStore.open(folder, watch=False, durability=durability) as store:
        for number in range(5):
            store.save_session(f"s{number}", [1])
        wait_indexed(store)
        for path in private.glob("index.db*"):
            if what in (path.name, "all", "a folder"):
                path.unlink()
        if what == "a folder":
            (private / "index.db").mkdir()
        store.save_session("s5", [1])
        threads = [threading.Thread(target=store.list_sessions) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(store.list_sessions()) == 6
    with SessionStore.open(folder, watch=False, durability=durability) as store:
        assert store.last_recovery.problems == []
        assert len(store.list_sessions()) == 6
        if what != "a folder":
            wait_indexed(store)
        assert len(store.list_sessions()) == 6


def test_damage_is_noticed_told_and_made_good(folder: Path) -> None:
    with SessionStore.open(folder, watch=False) as store:
        for number in range(5):
            store.save_session(f"s{number}", [number], tags=["t"])
    index = folder / ".sessionkeeper" / "index.db"
    data = bytearray(index.read_bytes())
    data[4096:8192] = bytes(4096)
    index.write_bytes(data)
    with SessionStore.open(folder, watch=False) as store:
        assert len(store.search(tags=["t"])) == 5
        wait_until(lambda: agrees(store))
        assert len(store.search(tags=["t"])) == 5
        assert store.last_recovery.problems == []


def test_without_a_disk_there_is_no_index(tmp_path: Path) -> None:
    with SessionStore.open(tmp_path / "never", durability="memory") as store:
        for number in range(5):
            store.save_session(f"s{number}", [number])
        assert ids(store.list_sessions(limit=2)) == ["s4", "s3"]
        assert ids(store.iter_sessions()) == [f"s{number}" for number in range(5)]
        assert "indexer" not in [process.name for process in store.processes()]


def test_a_read_only_store_does_without(store: SessionStore, folder: Path) -> None:
    store.save_session("s1", [1])
    with SessionStore.open(folder, read_only=True) as beside:
        assert ids(beside.list_sessions()) == ["s1"]
        assert ids(beside.iter_sessions()) == ["s1"]


def test_after_a_fork_the_child_does_without(store: SessionStore) -> None:
    store.save_session("s1", [1])
    wait_indexed(store)
    catalog = catalog_of(store)
    catalog._process -= 1
    assert catalog.page(Query(), None, None) is None
    assert ids(store.list_sessions()) == ["s1"]


# --- iterating ----------------------------------------------------------------------------


def test_an_iteration_gives_each_session_once_whatever_changes(
    store: SessionStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(view_module, "_PAGE", 3)
    for number in range(10):
        store.save_session(f"s{number}", [])
    wait_indexed(store)
    seen = []
    for info in store.iter_sessions():
        seen.append(info.session_id)
        for number in range(0, 9, 3):
            store.append(f"s{number}", [1])
        if info.session_id == "s4":
            catalog_of(store).give_up()  # the rest comes from memory
            store.delete_session("s9")
    assert seen == [f"s{number}" for number in range(9)]


def test_an_iteration_over_a_store_that_is_closed_meanwhile_does_not_end_as_if_complete(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(view_module, "_PAGE", 2)
    for level in ("journal", "memory"):
        store = SessionStore.open(folder, watch=False, durability=level)
        for number in range(5):
            store.save_session(f"s{number}", [])
        iteration = store.iter_sessions()
        next(iteration)
        store.close()
        with pytest.raises(StoreClosed):
            list(iteration)


@pytest.mark.parametrize("read", ["search", "iterate"])
def test_a_query_that_meets_the_end_of_the_store_finds_no_empty_store(
    read: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = SessionStore.open(folder, watch=False)
    store.save_session("s1", [1])
    wait_indexed(store)
    catalog = catalog_of(store)
    query = catalog._read

    def late(*arguments: Any) -> Any:
        store.close()
        return query(*arguments)

    monkeypatch.setattr(catalog, "_read", late)
    with pytest.raises(StoreClosed):
        list(store.list_sessions() if read == "search" else store.iter_sessions())


# --- opening ------------------------------------------------------------------------------


def test_nothing_is_read_after_a_clean_close(folder: Path, durability: str, fs: ReadNames) -> None:
    with SessionStore.open(folder, watch=False, durability=durability) as store:
        for number in range(300):
            store.tell(SaveSession(f"s{number}", [number], tags=[f"t{number % 3}"]))
        for number in range(0, 300, 7):
            store.append(f"s{number}", ["more"])
        store.delete_session("s1")
        expected = store.list_sessions()
    inject = Injected(fs=fs)
    with SessionStore.open(folder, watch=False, durability=durability, inject=inject) as store:
        assert fs.names == []
        assert store.list_sessions() == expected
        assert store.last_recovery.problems == []
        assert len(store) == 299
        wait_indexed(store)
        assert fs.names == []
        assert store.load_session("s7").messages == [7, "more"]
        assert store.load_session("s2").messages == [2]
        assert store.append("s2", [3]).generation == 2


def killed(folder: Path, copy: Path) -> Path:
    """The folder as a process leaves it that is killed now; files keep their signatures."""
    private = folder / ".sessionkeeper"
    shutil.copytree(private, copy / ".sessionkeeper")
    for path in folder.glob("*.json"):
        os.link(path, copy / path.name)
    return copy


def test_after_a_kill_only_what_is_in_the_journal_is_read(
    folder: Path,
    tmp_path: Path,
    fs: ReadNames,
) -> None:
    with SessionStore.open(folder, watch=False) as store:
        for number in range(100):
            store.tell(SaveSession(f"s{number}", [number]))
        store.checkpoint()
        store.append("s3", ["more"])
        store.save_session("s4", ["new"])
        store.delete_session("s5")
        expected = store.list_sessions()
        copy = killed(folder, tmp_path / "copy")
    with SessionStore.open(copy, watch=False, inject=Injected(fs=fs)) as store:
        assert sorted(set(fs.names)) == ["s3", "s4"]
        assert store.list_sessions() == expected
        assert store.load_session("s3").messages == [3, "more"]
        assert store.load_session("s4").messages == ["new"]


def test_after_a_kill_files_that_the_index_does_not_know_are_read(
    folder: Path,
    tmp_path: Path,
    fs: ReadNames,
) -> None:
    """At the level `file` nothing else says what came after the last transaction."""
    clock = FakeClock()
    inject = Injected(clock=clock)
    with SessionStore.open(folder, watch=False, durability="file", inject=inject) as store:
        for number in range(10):
            store.save_session(f"s{number}", [number])
        wait_indexed(store)
        store.append("s3", ["more"])
        store.save_session("new", [])
        copy = killed(folder, tmp_path / "copy")
        expected = store.list_sessions()
    with SessionStore.open(copy, watch=False, durability="file", inject=Injected(fs=fs)) as store:
        assert sorted(set(fs.names)) == ["new", "s3"]
        assert store.list_sessions() == expected
        wait_until(lambda: agrees(store))


def test_what_was_changed_by_hand_while_the_store_was_closed_is_found(
    folder: Path,
    fs: ReadNames,
) -> None:
    with SessionStore.open(folder, watch=False) as store:
        for number in range(6):
            store.save_session(f"s{number}", ["first"])
            store.save_session(f"s{number}", ["second"])
    (folder / "s0.json").unlink()
    text = (folder / "s1.json").read_text()
    (folder / "s1.json").write_text(text.replace('"second"', '"edited"'))
    (backup,) = (folder / ".sessionkeeper" / "backups" / "s2").iterdir()
    shutil.copyfile(backup, folder / "s2.json")
    os.utime(folder / "s3.json")
    with SessionStore.open(folder, watch=False, inject=Injected(fs=fs)) as store:
        assert sorted(set(fs.names)) == ["s1", "s2", "s3"]
        loaded = {s.session_id: (s.messages, s.generation) for s in store.load_all()}
        assert loaded == {
            "s1": (["edited"], 3),
            "s2": (["first"], 3),
            "s3": (["second"], 2),
            "s4": (["second"], 2),
            "s5": (["second"], 2),
        }
        wait_until(lambda: agrees(store))


def test_numbers_are_never_used_twice(folder: Path) -> None:
    with SessionStore.open(folder, watch=False) as store:
        store.save_session("s1", [1])
        for number in range(5):
            store.append("s2", [number])
        last = store.get_recent(1)[0].lsn
    (folder / "s2.json").unlink()
    with SessionStore.open(folder, watch=False) as store:
        store.save_session("s1", [2])
        assert store.get_recent(1)[0].lsn > last


def rot(path: Path, old: bytes, new: bytes) -> None:
    status = path.stat()
    with path.open("r+b") as file:
        data = file.read()
        file.seek(data.index(old))
        file.write(new)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_rot_while_the_store_was_closed_is_found_by_a_load_and_healed(
    folder: Path,
    durability: str,
) -> None:
    with SessionStore.open(folder, watch=False, durability=durability) as store:
        store.save_session("s1", ["first"])
        store.save_session("s1", ["second"])
        store.save_session("s2", ["kept"])
    rot(folder / "s1.json", b"second", b"S")
    with (
        SessionStore.open(folder, watch=False, durability=durability) as store,
        EventLog(store) as log,
    ):
        assert store.last_recovery.problems == [], "nobody has read it yet"
        assert store.load_session("s1").messages == ["first"]
        assert "time did not" in log.wait_for("quarantined")[0].detail
        assert log.wait_for("healed")[0].session_id == "s1"
        assert store.load_session("s2").messages == ["kept"]
        assert store.get_recent(1)[0].generation == 2
        wait_until(lambda: agrees(store))


def test_a_power_loss_that_left_a_file_empty_is_made_good_from_the_journal(
    folder: Path,
    tmp_path: Path,
) -> None:
    """The signature is right and the bytes are not: what is in the journal is always read."""
    with SessionStore.open(folder, watch=False) as store:
        store.checkpoint()
        store.save_session("s1", ["precious"])
        wait_indexed(store)
        assert agrees(store)
        copy = killed(folder, tmp_path / "copy")
    rot(copy / "s1.json", b"precious", bytes(8))
    with SessionStore.open(copy, watch=False) as store:
        assert store.load_session("s1").messages == ["precious"]


# --- nothing is left over -----------------------------------------------------------------


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[sqlite3.Connection]]:
    made: list[sqlite3.Connection] = []
    connect = Index._connect

    def noted(index: Index) -> sqlite3.Connection:
        made.append(connect(index))
        return made[-1]

    monkeypatch.setattr(Index, "_connect", noted)
    yield made
    for connection in made:
        with pytest.raises(sqlite3.ProgrammingError):
            connection.execute("SELECT 1")


def test_no_connection_is_left_open(folder: Path, connections: list[sqlite3.Connection]) -> None:
    with SessionStore.open(folder, watch=False) as store:
        wait_indexed(store)
        threads = [threading.Thread(target=store.list_sessions) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert connections
    assert not list((folder / ".sessionkeeper").glob("index.db-*"))


def test_a_store_that_gave_up_leaves_no_connection_open(
    folder: Path,
    connections: list[sqlite3.Connection],
) -> None:
    store = SessionStore.open(folder, watch=False, max_restarts=0)
    wait_indexed(store)
    crash_actor(store)
    wait_until(lambda: store.info().state == "closed")
    with pytest.raises(StoreClosed):
        store.list_sessions()
    store.close()
    assert connections


def test_a_short_life_is_enough_to_build_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the indexer did not get to is done by closing."""
    monkeypatch.setattr(Indexer, "handle_info", lambda *_: None)
    monkeypatch.setattr(Indexer, "handle_continue", lambda *_: None)
    with SessionStore.open(folder, watch=False) as store:
        store.save_session("s1", [1])
        store.append("s1", [2])
        assert ids(store.list_sessions()) == ["s1"]
    with closing(sqlite3.connect(folder / ".sessionkeeper" / "index.db")) as raw:
        assert raw.execute("SELECT session_id, stem, lsn FROM sessions").fetchall() == [
            ("s1", "s1", 2),
        ]


# As version 2 had it.
_OLD = """
CREATE TABLE sessions (namespace TEXT NOT NULL, session_id TEXT NOT NULL, lsn INTEGER NOT NULL,
    updated_at INTEGER NOT NULL, total_cost REAL NOT NULL, status TEXT, record BLOB NOT NULL,
    stem TEXT, inode INTEGER, size INTEGER, mtime_ns INTEGER, crc INTEGER NOT NULL,
    PRIMARY KEY (namespace, session_id));
CREATE INDEX sessions_newest ON sessions (namespace, lsn, session_id);
CREATE TABLE tags (namespace TEXT NOT NULL, session_id TEXT NOT NULL, tag TEXT NOT NULL,
    lsn INTEGER NOT NULL, PRIMARY KEY (namespace, session_id, tag)) WITHOUT ROWID;
CREATE INDEX tags_newest ON tags (namespace, tag, lsn);
CREATE TABLE reached (one INTEGER PRIMARY KEY, lsn INTEGER NOT NULL, crc INTEGER NOT NULL);
INSERT INTO sessions VALUES ('', 's1', 9, 1, 2.0, NULL, X'7b7d', 's1', 1, 1, 1, 1);
PRAGMA user_version = 2;
"""


def test_an_index_of_an_older_version_is_made_anew(folder: Path) -> None:
    titles = ["b", "C", None, "a"]
    with SessionStore.open(folder, watch=False) as store:
        for number, title in enumerate(titles):
            store.save_session(f"s{number}", [number], title=title)
    path = folder / ".sessionkeeper" / "index.db"
    path.unlink()
    with closing(sqlite3.connect(path)) as raw:
        raw.executescript(_OLD)
    fs = ReadNames()
    with SessionStore.open(folder, watch=False, inject=Injected(fs=fs)) as store:
        assert sorted(fs.names) == ["s0", "s1", "s2", "s3"], "nothing in it was believed"
        wait_indexed(store)
        assert agrees(store)
        assert ids(store.list_sessions(order="title")) == ["s3", "s0", "s1", "s2"]
    with closing(sqlite3.connect(path)) as raw:
        assert raw.execute("PRAGMA user_version").fetchone() == (Index.VERSION,)


def test_what_a_page_shows_is_what_the_records_say(store: SessionStore) -> None:
    for number in range(12):
        store.save_session(f"s{number}", [], tags=["even"] if number % 2 == 0 else [])
    wait_indexed(store)
    query = Query.of(tags=["even"])
    page, expected = store.search(tags=["even"], limit=4), store._view.newest_first()
    assert page == select(expected, query, 4, None)
    assert catalog_of(store).page(query, None, 4) is not None


def test_a_file_is_only_taken_for_a_version_that_was_published_there(store: SessionStore) -> None:
    """An edit of the messages leaves the record equal, and its file is another."""
    store.save_session("s1", [1])
    record = store._view.record("s1")
    assert record is not None
    tree = store._tree
    assert tree is not None
    assert tree.journaled is not None
    assert tree.journaled.published(record) is not None
    assert tree.journaled.published(replace(record, lsn=record.lsn + 1)) is None
    known = tree.journaled._files.get("s1")
    assert known is not None
    tree.journaled._files["s1"] = replace(known, edited=True)
    assert tree.journaled.published(record) is None
