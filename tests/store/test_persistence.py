"""Persistence switched off and on while the store is open."""

from __future__ import annotations

import asyncio
import errno
from typing import TYPE_CHECKING, Any, Literal, cast

import pytest

from sessionkeeper import (
    AsyncSessionStore,
    EnablePersistence,
    InvalidConfig,
    NoBackup,
    PersistenceOff,
    SaveSession,
    SessionStore,
    StorageFailed,
    StoreReadOnly,
)
from sessionkeeper.storage import overlay
from sessionkeeper.storage.backend import CommitUncertain, RecoveryReport, Trash
from sessionkeeper.storage.index import Index
from sessionkeeper.testing import (
    EventLog,
    FakeClock,
    Fault,
    FaultyFileSystem,
    Injected,
    InjectedCrash,
    crash_actor,
    wait_until,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sessionkeeper import SessionScope
    from sessionkeeper.config import Durability
    from sessionkeeper.layout import LayoutName
    from sessionkeeper.storage.backend import Backend, Change

Kind = tuple[Literal["flat", "single"], Literal["journal", "file", "os"]]
KINDS: list[Kind] = [("flat", "journal"), ("flat", "file"), ("flat", "os"), ("single", "file")]
EVERY = pytest.mark.parametrize("kind", KINDS, ids="-".join)


def opened(folder: Path, kind: Kind = ("flat", "journal"), **settings: Any) -> SessionStore:
    layout: LayoutName = kind[0]
    durability: Durability = kind[1]
    given = {"watch": False, "layout": layout, "durability": durability, **settings}
    return SessionStore.open(folder, **given)


def on_the_disk(folder: Path) -> dict[str, bytes | None]:
    """Every name below the folder, and every byte."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
        # SQLite's memory, and its log, which whoever reads may bring into the file.
        if "index.db" not in path.name
    }


def contents(view: SessionStore | SessionScope) -> dict[str, Any]:
    return {session.session_id: session.messages for session in view.load_all()}


def change_much(store: SessionStore) -> dict[str, Any]:
    """Changes of every kind, given the sessions of `fill`; returns what there is then."""
    store.save_session("saved", ["anew"], tags=["off"])
    store.append("appended", ["more"])
    store.append("appended", ["and more"])
    store.save_session("new", ["x" * 100_000])
    store.append("new", ["small"])
    store.delete_session("deleted")
    store.delete_session("back")
    store.undelete_session("back")
    store.rename_session("renamed", "other name")
    store.save_session("brief", [])
    store.delete_session("brief")
    store.scope("team").append("saved", ["of the team"])
    store.scope("fresh").save_session("first", [1])
    return {
        "saved": ["anew"],
        "appended": [0, "more", "and more"],
        "new": ["x" * 100_000, "small"],
        "back": [0],
        "other name": [0],
        "left": [0],
    }


def fill(store: SessionStore) -> None:
    for name in ("saved", "appended", "deleted", "back", "renamed", "left"):
        store.save_session(name, [0], tags=["before"])
    store.scope("team").save_session("saved", [0])


@EVERY
def test_changes_stay_in_memory_and_are_stored_when_it_is_switched_on(
    folder: Path,
    kind: Kind,
) -> None:
    fs = FaultyFileSystem()
    inject = Injected(fs=fs)
    with opened(folder, kind, inject=inject) as store, EventLog(store) as log:
        fill(store)
        assert store.info().persistence
        store.enable_persistence(enabled=False)
        assert (store.info().persistence, store.info().unsaved) == (False, 0)
        before, calls = on_the_disk(folder), len(fs.calls)
        expected = change_much(store)
        assert contents(store) == expected
        assert contents(store.scope("team")) == {"saved": [0, "of the team"]}
        assert store.namespaces() == ["fresh", "team"]
        assert [i.session_id for i in store.search(tags=["off"])] == ["saved"]
        assert [i.session_id for i in store.iter_sessions()] == sorted(expected)
        assert store.info().unsaved == 10
        store.flush()
        assert on_the_disk(folder) == before
        assert set(fs.calls[calls:]) <= {"read"}
        infos = {info.session_id: info for info in store.list_sessions()}

        store.enable_persistence()
        assert (store.info().persistence, store.info().unsaved) == (True, 0)
        assert {info.session_id: info for info in store.list_sessions()} == infos
        with opened(folder, kind, read_only=True) as reader:
            assert contents(reader) == expected
        store.append("left", ["after"])
        assert len(log.of_kind("volatile")) == 1
        assert [event.detail.split()[0] for event in log.of_kind("persistent")] == ["10"]
    with opened(folder, kind) as store:
        assert store.last_recovery.problems == []
        assert contents(store) == {**expected, "left": [0, "after"]}
        assert contents(store.scope("fresh")) == {"first": [1]}
        assert store.undelete_session("brief").message_count == 0
        assert store.undelete_session("deleted").message_count == 1


@EVERY
def test_what_is_stored_can_be_read_meanwhile(folder: Path, kind: Kind) -> None:
    with opened(folder, kind, cache_bytes=1) as store:
        fill(store)
        store.save_session("saved", ["second"])
        store.append("left", ["in the journal"])
        store.enable_persistence(enabled=False)
        store.append("appended", ["in memory"])
        assert store.load_session("left").messages == [0, "in the journal"]
        assert store.load_session("appended").messages == [0, "in memory"]
        assert [info.generation for info in store.backups("saved")] == [1]


@EVERY
def test_a_crash_of_the_actor_loses_nothing(folder: Path, kind: Kind) -> None:
    with opened(folder, kind, max_restarts=100) as store:
        fill(store)
        store.enable_persistence(enabled=False)
        before = on_the_disk(folder)
        receipts = []
        for number in range(40):
            receipts.append(store.tell(SaveSession("told", [number])))
            if number % 13 == 0:
                crash_actor(store)
        assert [receipt.result(5).generation for receipt in receipts] == list(range(1, 41))
        expected = change_much(store)
        crash_actor(store)
        assert contents(store) == {**expected, "told": [39]}
        assert store.append("left", [1], key="k").generation == 2
        crash_actor(store)
        assert store.append("left", [1], key="k").generation == 2
        assert on_the_disk(folder) == before
        store.enable_persistence()
    with opened(folder, kind) as store:
        assert contents(store) == {**expected, "told": [39], "left": [0, 1]}


@EVERY
def test_closing_meanwhile_loses_the_changes_and_says_how_many(folder: Path, kind: Kind) -> None:
    with opened(folder, kind) as store, EventLog(store) as log:
        fill(store)
        stored = contents(store)
        store.enable_persistence(enabled=False)
        before = on_the_disk(folder)
        change_much(store)
        store.close()
        assert [e.detail.split()[0] for e in log.of_kind("dropped")] == ["10"]
    now = on_the_disk(folder)
    assert {name for name in before if name not in now} == {".sessionkeeper/holder"}
    sessions = {name: before[name] for name in before if name.endswith(".json")}
    assert {name: now[name] for name in sessions} == sessions
    with opened(folder, kind) as store:
        assert contents(store) == stored


def test_a_session_undeleted_meanwhile_gets_its_backups_when_it_is_stored(folder: Path) -> None:
    with opened(folder) as store:
        for name in ("before", "meanwhile"):
            for turn in range(3):
                store.save_session(name, [turn])
        store.delete_session("before")
        store.enable_persistence(enabled=False)
        store.delete_session("meanwhile")
        for name in ("before", "meanwhile"):
            store.undelete_session(name)
        store.enable_persistence()
        for name in ("before", "meanwhile"):
            assert [info.generation for info in store.backups(name)] == [2, 1]
            assert store.load_session(name).messages == [2]


@EVERY
def test_a_session_made_anew_meanwhile_has_no_backups_of_the_one_that_was_deleted(
    folder: Path,
    kind: Kind,
) -> None:
    with opened(folder, kind) as store:
        store.save_session("s1", ["another"])
        store.save_session("s1", ["another", "replaced"])
        store.enable_persistence(enabled=False)
        assert [backup.generation for backup in store.backups("s1")] == [1]
        store.delete_session("s1")
        store.save_session("s1", ["new"])
        assert store.backups("s1") == []
        with pytest.raises(NoBackup):
            store.restore("s1")
        store.enable_persistence()
        assert store.backups("s1") == []
        assert store.load_session("s1").messages == ["new"]


def test_nothing_is_said_when_nothing_is_lost(folder: Path) -> None:
    with opened(folder) as store, EventLog(store) as log:
        store.enable_persistence(enabled=False)
        store.close()
        assert log.of_kind("dropped") == []


@pytest.mark.parametrize("kind", KINDS[:2], ids="-".join)
def test_a_medium_that_refuses_leaves_it_off_and_loses_nothing(folder: Path, kind: Kind) -> None:
    fs = FaultyFileSystem()
    with opened(folder, kind, inject=Injected(fs=fs)) as store:
        fill(store)
        store.enable_persistence(enabled=False)
        expected = change_much(store)
        operation = "write_at" if kind[1] == "journal" else "write_new"
        full = OSError(errno.ENOSPC, "No space left on device")
        fs.fail(Fault(operation, full, times=1000))
        with pytest.raises(StorageFailed):
            store.enable_persistence()
        assert not store.info().persistence
        store.append("left", ["still off"])
        assert contents(store) == {**expected, "left": [0, "still off"]}
        fs.heal()
        store.enable_persistence()
    with opened(folder, kind) as store:
        assert contents(store) == {**expected, "left": [0, "still off"]}


# What is certainly done by the actor while it writes.
MET = {
    *((kind, name) for kind in KINDS for name in ("write_new", "replace", "sync_folder")),
    *((("flat", level), "write_at") for level in ("journal", "os")),
    (("flat", "journal"), "sync_data"),
}


@pytest.mark.parametrize("kind", KINDS, ids="-".join)
@pytest.mark.parametrize("skip", [0, 1, 3])
@pytest.mark.parametrize(
    "operation", ["write_new", "replace", "sync_folder", "write_at", "sync_data"]
)
def test_a_crash_while_it_is_switched_on_is_gone_on_from(
    folder: Path,
    kind: Kind,
    operation: str,
    skip: int,
) -> None:
    fs = FaultyFileSystem()
    with opened(folder, kind, inject=Injected(fs=fs)) as store:
        fill(store)
        store.enable_persistence(enabled=False)
        expected = change_much(store)
        fs.fail(Fault(operation, InjectedCrash("while it is written"), skip=skip))
        store.enable_persistence()
        fs.heal()
        assert store.info().persistence
        if skip == 0 and (kind, operation) in MET:
            assert store.info().restarts > 0
        assert contents(store) == expected
        generations = {info.session_id: info.generation for info in store.list_sessions()}
    with opened(folder, kind) as store:
        assert contents(store) == expected
        assert {i.session_id: i.generation for i in store.list_sessions()} == generations


@pytest.mark.parametrize("kind", KINDS, ids="-".join)
@pytest.mark.parametrize("operation", ["replace", "sync_folder", "sync_data"])
def test_a_medium_that_fails_in_the_midst_is_gone_on_from(
    folder: Path,
    kind: Kind,
    operation: str,
) -> None:
    fs = FaultyFileSystem()
    with opened(folder, kind, inject=Injected(fs=fs)) as store:
        fill(store)
        store.enable_persistence(enabled=False)
        expected = change_much(store)
        fs.fail(Fault(operation, OSError(errno.EIO, "Input/output error"), skip=1))
        try:
            store.enable_persistence()
        except StorageFailed:
            store.enable_persistence()
        assert store.info().persistence
        assert contents(store) == expected
    with opened(folder, kind) as store:
        assert contents(store) == expected


def test_what_needs_the_disk_is_refused_meanwhile(folder: Path) -> None:
    with opened(folder) as store:
        fill(store)
        store.enable_persistence(enabled=False)
        with pytest.raises(PersistenceOff):
            store.erase_session("left")
        with pytest.raises(PersistenceOff):
            store.checkpoint()
        assert "left" in store
        store.enable_persistence()
        store.checkpoint()
        assert store.erase_session("left").files == 1


def test_a_large_save_stages_nothing_meanwhile(folder: Path) -> None:
    fs = FaultyFileSystem()
    with opened(folder, inject=Injected(fs=fs)) as store:
        store.enable_persistence(enabled=False)
        calls = len(fs.calls)
        store.save_session("large", ["x" * 50_000] * 5)
        store.flush()
        assert fs.calls[calls:] == []
        store.enable_persistence()
    with opened(folder) as store:
        assert len(store.load_session("large").messages) == 5


def test_retention_goes_on_in_memory(folder: Path, clock: FakeClock) -> None:
    with opened(folder, trash_days=1, inject=Injected(clock=clock)) as store:
        store.save_session("old", [1])
        store.delete_session("old")
        store.enable_persistence(enabled=False)
        before = on_the_disk(folder)
        for number in range(3):
            store.save_session(f"s{number}", [])
        store.configure(max_sessions=2)
        wait_until(lambda: len(store) == 2)
        clock.advance(3 * 86_400)
        store.flush()
        after = on_the_disk(folder)
        # Settings are stored when they are given; the trash is not purged.
        assert {name for name in after if after[name] != before.get(name)} == {
            ".sessionkeeper/config.json",
        }
        store.enable_persistence()
        assert [info.session_id for info in store.list_sessions()] == ["s2", "s1"]


def test_files_changed_by_hand_meanwhile_are_taken_when_it_is_switched_on(folder: Path) -> None:
    with opened(folder) as store, EventLog(store) as log:  # nobody watches
        fill(store)
        store.checkpoint()
        store.enable_persistence(enabled=False)
        store.append("appended", ["in memory"])
        for name in ("left", "appended"):
            path = folder / f"{name}.json"
            path.write_bytes(path.read_bytes().replace(b"\n0\n", b"\n1\n"))
        assert store.load_session("appended").messages == [0, "in memory"]
        store.enable_persistence()
        # Not by loading it: whoever finds that it was changed has it looked at.
        wait_until(lambda: [i.session_id for i in store.list_sessions(limit=1)] == ["left"])
        assert store.load_session("left").messages == [1]
        assert store.load_session("appended").messages == [0, "in memory"]
        assert [event.path for event in log.of_kind("conflict")] == [folder / "appended.json"]


def test_it_is_a_setting_that_is_not_put_into_the_file(folder: Path) -> None:
    with opened(folder) as store:
        store.configure(persistence=False, max_backups=2)
        assert not store.info().persistence
        assert store.config.max_backups == 2
        store.save_session("s1", [1])
        store.configure(persistence=True)
        assert store.info().persistence
        assert b"persistence" not in (folder / ".sessionkeeper" / "config.json").read_bytes()
        with pytest.raises(TypeError):
            store.configure(persistence="no")
        with pytest.raises(TypeError):
            store.ask(EnablePersistence(1))  # type: ignore[arg-type]
        store.enable_persistence()  # on already
    with opened(folder) as store:
        assert contents(store) == {"s1": [1]}


def test_a_store_in_memory_has_no_place_on_the_disk() -> None:
    with SessionStore.open("unused", persistence=False) as store:
        assert not store.info().persistence
        store.enable_persistence(enabled=False)
        with pytest.raises(InvalidConfig, match="without a place on the disk"):
            store.enable_persistence()


def test_a_store_open_for_reading_only_has_nothing_to_switch(folder: Path) -> None:
    with opened(folder), opened(folder, read_only=True) as reader:
        assert not reader.info().persistence
        with pytest.raises(StoreReadOnly):
            reader.enable_persistence(enabled=False)


def test_the_index_json_follows_when_it_is_switched_on(folder: Path) -> None:
    listing = folder / ".sessionkeeper" / "index.json"
    with opened(folder, index_json=True) as store:
        store.save_session("s1", [])
        wait_until(lambda: listing.is_file() and b'"s1"' in listing.read_bytes())
        store.enable_persistence(enabled=False)
        before = listing.read_bytes()
        store.save_session("s2", [])
        store.flush()
        assert listing.read_bytes() == before
        store.enable_persistence()
        wait_until(lambda: b'"s2"' in listing.read_bytes())
    with opened(folder) as store:
        assert [info.session_id for info in store.list_sessions()] == ["s2", "s1"]


def test_the_index_is_not_written_meanwhile(folder: Path) -> None:
    with opened(folder) as store:
        store.save_session("s1", [])
        assert len(store.list_sessions()) == 1
        store.enable_persistence(enabled=False)
        reached = Index(folder / ".sessionkeeper" / "index.db").recall().lsn
        for number in range(5):
            store.save_session(f"off-{number}", [])
            assert len(store.list_sessions()) == 2 + number
        assert Index(folder / ".sessionkeeper" / "index.db").recall().lsn == reached
        store.enable_persistence()
        assert len(store.list_sessions()) == 6
        wait_until(lambda: Index(folder / ".sessionkeeper" / "index.db").recall().lsn > reached)


def test_the_index_is_not_brought_up_to_date_when_the_store_is_closed_meanwhile(
    folder: Path,
) -> None:
    index = Index(folder / ".sessionkeeper" / "index.db")
    with opened(folder) as store:
        store.save_session("s1", [])
        assert len(store.list_sessions()) == 1
        store.enable_persistence(enabled=False)
        store.save_session("off", [])
        reached = index.recall().lsn
    assert index.recall().lsn == reached


class _Noted:
    """A backend that notes what it was asked to store, and may fail once, in the midst."""

    def __init__(self, inner: Backend) -> None:
        self._inner = inner
        self.stored: list[int] = []
        self.recoveries = 0
        self.fails = False

    def commit(self, batch: Sequence[Change]) -> None:
        for change in batch:
            self.stored.append(change.lsn if isinstance(change, Trash) else change.record.lsn)
        self._inner.commit(batch)
        if self.fails:
            self.fails = False
            raise CommitUncertain("half-way")

    def recover(self) -> RecoveryReport:
        self.recoveries += 1
        return self._inner.recover()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def test_it_is_stored_in_order_and_after_an_uncertain_commit_looked_for_first(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(overlay, "BATCH", 4)
    noted: list[_Noted] = []

    def wrap(inner: Backend) -> Backend:
        noted.append(_Noted(inner))
        return cast("Backend", noted[-1])

    with opened(folder, ("flat", "file"), inject=Injected(wrap_backend=wrap)) as store:
        fill(store)
        (backend,) = noted
        store.enable_persistence(enabled=False)
        expected = change_much(store)
        store.append("saved", ["last of all"])
        expected["saved"].append("last of all")
        backend.stored.clear()
        backend.fails = True
        recoveries = backend.recoveries
        store.enable_persistence()
        assert backend.recoveries == recoveries + 1
        assert len(backend.stored) == 12
        # In order, so that no crash in between takes what was renamed; and nothing twice.
        assert backend.stored == sorted(set(backend.stored))
        assert contents(store) == expected


def test_no_checkpoint_is_made_meanwhile(folder: Path, clock: FakeClock) -> None:
    fs = FaultyFileSystem()
    with opened(folder, inject=Injected(fs=fs, clock=clock)) as store:
        fill(store)
        store.append("left", ["in the journal"])
        fs.fail(Fault("replace", OSError(errno.EACCES, "Permission denied"), times=100))
        store.enable_persistence(enabled=False)
        fs.heal()
        calls = len(fs.calls)
        store.append("left", ["in memory"])
        clock.advance(600)
        store.flush()
        wait_until(lambda: not any(process.queued for process in store.processes()))
        store.flush()
        assert set(fs.calls[calls:]) <= {"read"}
        store.enable_persistence()
        store.checkpoint()
        assert store.load_session("left").messages == [0, "in the journal", "in memory"]


def test_an_event_loop_switches_it_too(folder: Path) -> None:
    async def scenario() -> None:
        async with await AsyncSessionStore.open(folder, watch=False) as store:
            await store.enable_persistence(enabled=False)
            await store.save_session("s1", [1])
            assert store.info().unsaved == 1
            await store.configure(persistence=True)
            assert store.info().unsaved == 0

    asyncio.run(scenario())
    with opened(folder) as store:
        assert contents(store) == {"s1": [1]}
