"""A store with more sessions than memory has room for: the others are looked up in the index."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from sessionkeeper import SessionNotFound, SessionStore
from sessionkeeper.layout import hashed_stem
from sessionkeeper.storage.index import Entry, Index
from sessionkeeper.storage.shelf import Shelf
from sessionkeeper.testing import (
    EventLog,
    FakeClock,
    FaultyFileSystem,
    Injected,
    crash_actor,
    wait_until,
)

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator
    from pathlib import Path

    from sessionkeeper.processes.tree import StoreTree
    from sessionkeeper.storage.folder import SessionFolder

ROOM = 4
COUNT = 60


def tree_of(store: SessionStore) -> StoreTree:
    assert store._tree is not None
    return store._tree


def folder_of(store: SessionStore) -> SessionFolder:
    return tree_of(store)._own  # type: ignore[return-value]


def opened(folder: Path, **settings: Any) -> SessionStore:
    return SessionStore.open(folder, watch=False, **{"max_records": ROOM, **settings})


def wait_trimmed(store: SessionStore) -> None:
    """Wait until only as many sessions are in memory as there is room for."""
    store.list_sessions(limit=1)
    wait_until(lambda: tree_of(store).view.held <= ROOM)
    assert tree_of(store).view.is_shelved
    tree_of(store).view.cache.clear()


def fill(folder: Path, count: int = COUNT, **settings: Any) -> None:
    with opened(folder, **settings) as store:
        for number in range(count):
            store.save_session(f"s{number}", [number], tags=[f"t{number % 2}"])
        wait_trimmed(store)


@pytest.fixture
def bounded(folder: Path) -> Iterator[SessionStore]:
    with opened(folder) as store:
        for number in range(COUNT):
            store.save_session(f"s{number}", [number], tags=[f"t{number % 2}"])
        wait_trimmed(store)
        yield store


class CountingFileSystem(FaultyFileSystem):
    """Counts how many session files are looked at."""

    def __init__(self) -> None:
        super().__init__()
        self.looks = 0

    def status(self, path: Path) -> os.stat_result | None:
        self.looks += path.suffix == ".json" and path.parent.name == "store"
        return super().status(path)


# --- what stays in memory -------------------------------------------------------------------


@pytest.mark.parametrize("durability", ["journal", "os", "file"])
def test_memory_holds_as_many_as_set(folder: Path, durability: str) -> None:
    with opened(folder, durability=durability) as store:
        for number in range(COUNT):
            store.save_session(f"s{number}", [number])
        wait_trimmed(store)
        known = folder_of(store)
        assert len(list(known._files.all_in_memory())) <= ROOM
        assert len(known._names._stems) <= ROOM
        assert len(known._names._owners) <= ROOM
        assert not store.last_recovery.records
        for number in range(COUNT):
            assert store.load_session(f"s{number}").messages == [number]
        wait_trimmed(store)
        assert len(store) == COUNT


def test_a_store_with_room_for_all_holds_all(folder: Path) -> None:
    with SessionStore.open(folder, watch=False) as store:
        for number in range(COUNT):
            store.save_session(f"s{number}", [number])
        store.list_sessions(limit=1)
        assert tree_of(store).view.held == COUNT
        assert not tree_of(store).view.is_shelved


def test_the_room_can_be_changed_while_the_store_is_open(folder: Path) -> None:
    with SessionStore.open(folder, watch=False) as store:
        for number in range(COUNT):
            store.save_session(f"s{number}", [number])
        store.configure(max_records=ROOM)
        store.save_session("one more", [])
        wait_trimmed(store)


def test_every_query_gives_the_same_as_if_all_were_in_memory(bounded: SessionStore) -> None:
    names = [f"s{number}" for number in range(COUNT)]
    assert [info.session_id for info in bounded.list_sessions(limit=None)] == names[::-1]
    assert [i.session_id for i in bounded.search(tags=["t1"], limit=3)] == ["s59", "s57", "s55"]
    assert sorted(info.session_id for info in bounded.iter_sessions()) == sorted(names)
    assert [info.session_id for info in bounded.get_recent(2)] == ["s59", "s58"]
    assert sum(1 for _ in bounded.load_all()) == COUNT
    assert set(folder_of(bounded).keys()) == set(names)
    assert "s7" in bounded
    assert "s77" not in bounded
    with pytest.raises(SessionNotFound):
        bounded.load_session("s77")


def test_changes_go_upon_what_is_looked_up(bounded: SessionStore) -> None:
    assert bounded.save_session("s1", ["new"]).generation == 2
    assert bounded.append("s2", ["more"]).message_count == 2
    bounded.add_tags("s3", ["tagged"])
    assert bounded.rename_session("s4", "renamed").generation >= 1
    bounded.delete_session("s5")
    wait_trimmed(bounded)
    assert bounded.load_session("s1").messages == ["new"]
    assert bounded.load_session("s2").messages == [2, "more"]
    assert bounded.load_session("s3").tags == ("t1", "tagged")
    assert bounded.load_session("renamed").messages == [4]
    assert "s4" not in bounded
    assert "s5" not in bounded
    assert bounded.undelete_session("s5").message_count == 1
    assert len(bounded) == COUNT


def test_what_has_to_stay_in_memory_keeps_nothing_else_there(bounded: SessionStore) -> None:
    for number in range(ROOM):
        bounded.append(f"s{number}", ["only in the journal"])
    wait_trimmed(bounded)
    view = tree_of(bounded).view
    view.hold(["s20", "s21", "s22"])
    assert view.held == ROOM + 3
    while view.trim(ROOM, view.lsn):
        pass
    assert view.held == ROOM
    rounds = 1
    while view.trim(1, view.lsn):
        rounds += 1
    assert view.held == ROOM, "what only the journal holds"
    assert rounds <= ROOM, "it does not look for ever"


def test_what_is_gone_stays_gone_when_memory_forgets_that_it_is(
    bounded: SessionStore,
    folder: Path,
) -> None:
    for number in range(30):
        bounded.delete_session(f"s{number}")
    wait_trimmed(bounded)
    assert [n for n in range(30) if f"s{n}" in bounded] == []
    assert bounded.save_session("s7", []).generation == 1
    assert len(bounded) == 31
    bounded.close()
    with opened(folder) as store:
        assert len(store) == 31
        assert {info.session_id for info in store.list_sessions(limit=None)} == {
            "s7",
            *(f"s{number}" for number in range(30, COUNT)),
        }


def test_twins_never_share_a_file(bounded: SessionStore, folder: Path) -> None:
    bounded.save_session("S1", ["the twin"])
    wait_trimmed(bounded)
    assert (folder / f"{hashed_stem('S1')}.json").exists()
    assert not (folder / "S1.json").exists()
    wait_trimmed(bounded)
    assert bounded.load_session("s1").messages == [1]
    assert bounded.load_session("S1").messages == ["the twin"]
    bounded.append("S1", ["more"])
    assert bounded.load_session("s1").messages == [1]


def test_a_cleanup_goes_through_all_of_them(folder: Path) -> None:
    clock = FakeClock()
    with opened(folder, inject=Injected(clock=clock)) as store:
        for number in range(20):
            store.save_session(f"old{number}", [])
        clock.advance(40 * 86400)
        for number in range(20):
            store.save_session(f"new{number}", [])
        clock.advance(1)
        store.list_sessions(limit=1)
        wait_until(lambda: tree_of(store).view.held <= ROOM)
        store.configure(retention_days=30)
        wait_until(lambda: len(store) == 20)
        assert {info.session_id[:3] for info in store.list_sessions(limit=None)} == {"new"}
        store.configure(retention_days=None, max_sessions=5)
        wait_until(lambda: len(store) == 5)
        assert store.clear() == 5
        assert len(store) == 0


def test_a_cleanup_by_hand_counts_what_it_removed(bounded: SessionStore) -> None:
    bounded.configure(max_sessions=10, cleanup_interval=3600)
    bounded.cleanup()
    wait_until(lambda: len(bounded) == 10)
    assert len(bounded.list_sessions(limit=None)) == 10


def test_sessions_of_namespaces_are_counted_apart(folder: Path) -> None:
    with opened(folder) as store:
        team = store.scope("team")
        for number in range(20):
            store.save_session(f"s{number}", [])
            team.save_session(f"s{number}", [number])
        wait_trimmed(store)
        assert (len(store), len(team)) == (20, 20)
        team.clear()
        assert store.namespaces() == []
    with opened(folder) as store:
        assert (len(store), len(store.scope("team"))) == (20, 0)


def test_many_threads_see_what_was_acknowledged(bounded: SessionStore) -> None:
    """Each has sessions of its own, which are let go of and fetched all the time."""
    wrong: list[str] = []
    left: list[str] = []

    def work(number: int) -> None:
        expected: dict[str, list[int]] = {}
        for turn in range(40):
            name = f"own{number}-{turn % 9}"
            if turn % 7 == 6:
                bounded.delete_session(name)
                expected.pop(name, None)
            else:
                bounded.append(name, [turn])
                expected.setdefault(name, []).append(turn)
            for other, messages in expected.items():
                if bounded.load_session(other).messages != messages:
                    wrong.append(other)
            if name not in expected and name in bounded:
                wrong.append(name)
        left.extend(expected)

    threads = [threading.Thread(target=work, args=[number]) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    bounded.checkpoint()  # what is only in the journal stays in memory
    wait_trimmed(bounded)
    assert len(bounded) == COUNT + len(left)
    assert {info.session_id for info in bounded.list_sessions(limit=None)} == {
        *left,
        *(f"s{number}" for number in range(COUNT)),
    }


def test_a_session_that_comes_and_goes_counts_once(bounded: SessionStore) -> None:
    catalog = tree_of(bounded)._catalog
    assert catalog is not None
    for _ in range(5):
        with catalog.writing:  # the index has the session that is gone
            bounded.delete_session("s1")
            assert "s1" not in bounded
            bounded.save_session("s1", ["again"])
    assert len(bounded) == COUNT
    wait_trimmed(bounded)
    assert bounded.load_session("s1").messages == ["again"]


def test_what_only_the_journal_holds_stays_in_memory(bounded: SessionStore) -> None:
    names = [f"s{number}" for number in range(20)]
    for name in names:
        bounded.append(name, ["more"])
    bounded.list_sessions(limit=1)
    wait_until(lambda: tree_of(bounded).view.held == len(names))
    tree_of(bounded).view.cache.clear()
    for name in names:
        assert bounded.load_session(name).messages[-1] == "more"
    bounded.checkpoint()
    wait_trimmed(bounded)
    for name in names:
        assert bounded.load_session(name).messages[-1] == "more"


# --- opening, and coming up again -----------------------------------------------------------


def test_opening_looks_at_no_file_that_the_index_knows(folder: Path) -> None:
    fill(folder)
    fs = CountingFileSystem()
    with opened(folder, inject=Injected(fs=fs)) as store:
        assert store.last_recovery.looked_at == set()
        assert len(store) == COUNT
        assert store.load_session("s7").messages == [7]
    fs = CountingFileSystem()
    with SessionStore.open(folder, watch=False, inject=Injected(fs=fs)) as store:
        assert fs.looks >= COUNT, "one that has room for all looks at all"


_KILLED = """
import os, signal, sys
from sessionkeeper import SessionStore
store = SessionStore.open(sys.argv[1], watch=False, max_records=4)
for number in range(60):
    store.save_session(f"s{number}", [number])
store.checkpoint()
store.list_sessions(limit=1)
for number in range(10):
    store.append(f"s{number}", ["more"])
store.delete_session("s10")
store.save_session("last", ["last"])
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_after_a_kill_only_what_the_journal_names_is_looked_at(folder: Path) -> None:
    for _ in range(2):
        killed = [sys.executable, "-c", _KILLED, str(folder)]
        subprocess.run(killed, check=False, timeout=60)
    with opened(folder) as store:
        looked_at = store.last_recovery.looked_at
        assert looked_at is not None
        assert looked_at >= {f"s{number}" for number in range(11)} | {"last"}
        assert len(looked_at) < COUNT
        assert len(store) == COUNT
        assert "s10" not in store
        for number in range(10):
            assert store.load_session(f"s{number}").messages == [number, "more"]
        assert store.load_session("s33").messages == [33]
        assert store.load_session("last").messages == ["last"]
        assert len(store.list_sessions(limit=None)) == COUNT
        assert store.append("s33", ["more"]).generation >= 2


def test_a_session_of_which_the_index_knows_no_file_is_looked_at(folder: Path) -> None:
    """The indexer was killed before it was told of the checkpoint."""
    fill(folder)
    index = Index(folder / ".sessionkeeper" / "index.db")
    index.open()
    index.write([Entry(Shelf(index).of_keys(["s5"])["s5"].record)])
    index.close()
    with opened(folder) as store:
        assert store.last_recovery.looked_at == {"s5"}
        assert store.load_session("s5").messages == [5]
        assert store.append("s5", ["more"]).generation == 2
        assert len(store) == COUNT


@pytest.mark.parametrize("change", ["frame", "journal", "lost"])
def test_an_index_that_lacks_what_the_journal_lacks_is_not_trusted(
    folder: Path,
    change: str,
) -> None:
    fill(folder)
    path = folder / ".sessionkeeper" / "index.db"
    if change == "lost":
        path.unlink()
    else:
        older = path.read_bytes()
        with opened(folder) as store:
            store.save_session("s1", ["newer"])
            store.delete_session("s2")
            if change == "journal":
                store.erase_session("s3")
        path.write_bytes(older)
    with opened(folder) as store:
        assert store.last_recovery.looked_at is None
        gone = {"frame": {"s2"}, "journal": {"s2", "s3"}, "lost": set[str]()}[change]
        assert len(store) == COUNT - len(gone)
        found = {info.session_id for info in store.list_sessions(limit=None)}
        assert found == {f"s{number}" for number in range(COUNT)} - gone
        assert store.load_session("s1").messages == ([1] if change == "lost" else ["newer"])
        wait_trimmed(store)


def test_an_index_that_is_ahead_of_the_journal_is_not_trusted(folder: Path) -> None:
    """A power loss can take frames that nobody had synced, and leave the rows of them."""
    fill(folder)
    index = Index(folder / ".sessionkeeper" / "index.db")
    index.open()
    reached = Shelf(index).reached()
    index.write([], reached=replace(reached, frame=reached.frame + 1000))
    index.close()
    with opened(folder) as store:
        assert store.last_recovery.looked_at is None
        assert len(store) == COUNT


def test_a_crashed_actor_comes_up_without_a_look_at_the_folder(folder: Path) -> None:
    fs = CountingFileSystem()
    with opened(folder, inject=Injected(fs=fs)) as store:
        for number in range(COUNT):
            store.save_session(f"s{number}", [number])
        store.checkpoint()
        wait_trimmed(store)
        store.append("s3", ["more"])
        store.delete_session("s4")
        before = fs.looks
        crash_actor(store)
        assert store.save_session("s5", ["anew"]).generation == 2
        assert fs.looks - before < COUNT
        looked_at = store.last_recovery.looked_at
        assert looked_at is not None
        assert {"s3", "s4"} <= looked_at
        assert store.load_session("s3").messages == [3, "more"]
        assert "s4" not in store
        assert len(store) == COUNT - 1
        assert len(store.list_sessions(limit=None)) == COUNT - 1


# --- what people do to the files --------------------------------------------------------------


def edit(path: Path, *messages: object) -> None:
    document = json.loads(path.read_bytes())
    document["messages"] += messages
    path.write_text(json.dumps(document))


def test_what_was_changed_while_it_was_closed_is_found_in_the_background(folder: Path) -> None:
    fill(folder)
    edit(folder / "s1.json", "by hand")
    (folder / "s2.json").unlink()
    (folder / "new.json").write_text(
        '{"format":"sessionkeeper","version":1,"session_id":"new","messages":["made"]}'
    )
    with opened(folder) as store:
        assert store.last_recovery.looked_at == set()
        wait_until(lambda: "new" in store and store.load_session("s1").info.generation == 2)
        wait_until(lambda: len(store) == COUNT)
        found = {info.session_id for info in store.list_sessions(limit=None)}
        assert found == {"new", *(f"s{number}" for number in range(COUNT))} - {"s2"}
        assert store.load_session("s1").messages == [1, "by hand"]


@pytest.mark.parametrize("write", ["save", "append"])
def test_a_write_meets_an_edit_that_nobody_has_noticed(
    bounded: SessionStore,
    folder: Path,
    write: str,
) -> None:
    edit(folder / "s1.json", "by hand")
    with EventLog(bounded) as log:
        if write == "save":
            bounded.save_session("s1", tags=["kept"])
            expected: list[Any] = [1, "by hand"]
        else:
            bounded.append("s1", ["more"])
            expected = [1, "by hand", "more"]
        assert [event.session_id for event in log.of_kind("adopted")] == ["s1"]
    assert bounded.load_session("s1").messages == expected
    assert bounded.load_session("s1").info.generation == 3
    assert any((folder / ".sessionkeeper" / "backups" / "s1").glob("*-edited-*"))


def test_a_write_meets_a_removal_that_nobody_has_noticed(
    bounded: SessionStore,
    folder: Path,
) -> None:
    (folder / "s1.json").unlink()
    assert bounded.append("s1", ["anew"]).generation == 1
    assert bounded.load_session("s1").messages == ["anew"]
    assert len(bounded) == COUNT
    (folder / "s2.json").unlink()
    assert "s2" not in bounded
    with pytest.raises(SessionNotFound):
        bounded.load_session("s2")


def test_a_load_meets_an_edit_that_nobody_has_noticed(bounded: SessionStore, folder: Path) -> None:
    edit(folder / "s1.json", "by hand")
    tree_of(bounded).view.cache.clear()
    assert bounded.load_session("s1").messages == [1, "by hand"]
    assert bounded.load_session("s1").info.generation == 2


def test_a_file_that_the_index_has_no_row_of_is_found(bounded: SessionStore, folder: Path) -> None:
    """The file decides what there is."""
    with sqlite3.connect(folder / ".sessionkeeper" / "index.db") as connection:
        connection.execute("DELETE FROM sessions WHERE session_id IN ('s1', 's2')")
    connection.close()
    tree_of(bounded).view.cache.clear()
    assert bounded.load_session("s1").messages == [1]
    assert bounded.append("s2", ["more"]).message_count == 2


# --- when it cannot be looked up --------------------------------------------------------------


@pytest.mark.parametrize("how", ["deleted", "damaged"])
def test_an_index_that_is_lost_is_made_anew_from_the_files(
    bounded: SessionStore,
    folder: Path,
    how: str,
) -> None:
    index = folder / ".sessionkeeper" / "index.db"
    if how == "deleted":
        for path in index.parent.glob("index.db*"):
            path.unlink()
        catalog = tree_of(bounded)._catalog
        assert catalog is not None
        while catalog.index._idle:  # they would go on with the file that has no name
            catalog.index._idle.pop().close()
        assert len(bounded.list_sessions(limit=None)) == COUNT
    else:
        with sqlite3.connect(index) as connection:
            connection.execute("UPDATE sessions SET record = x'00'")
        connection.close()
    assert bounded.append("s1", ["more"]).message_count == 2
    for number in range(2, COUNT):
        assert bounded.load_session(f"s{number}").messages == [number]
    assert len(bounded.list_sessions(limit=None)) == COUNT
    assert len(bounded) == COUNT
    bounded.save_session("s2", ["again"])
    wait_until(lambda: tree_of(bounded).view.is_shelved)
    assert bounded.load_session("s2").messages == ["again"]


def test_persistence_can_be_switched_off_and_on(bounded: SessionStore) -> None:
    bounded.enable_persistence(enabled=False)
    bounded.save_session("s1", ["volatile"])
    bounded.delete_session("s2")
    assert len(bounded.list_sessions(limit=None)) == COUNT - 1
    bounded.enable_persistence()
    wait_trimmed(bounded)
    assert bounded.load_session("s1").messages == ["volatile"]
    assert "s2" not in bounded
    assert len(bounded) == COUNT - 1


def test_with_a_text_index_all_are_in_memory(bounded: SessionStore) -> None:
    bounded.save_session("s1", ["a word"])
    bounded.configure(full_text=True)
    assert [info.session_id for info in bounded.search(text="word")] == ["s1"]
    assert not tree_of(bounded).view.is_shelved
    bounded.configure(full_text=False)
    bounded.save_session("s1", ["a word"])
    wait_trimmed(bounded)
