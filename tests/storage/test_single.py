"""All sessions in one file: whole at every instant, whatever happens to it."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import pytest

from sessionkeeper import (
    BackupsDamaged,
    InvalidConfig,
    NewerVersion,
    NoBackup,
    PathBlocked,
    SaveSession,
    SessionNotFound,
    SessionStore,
    StorageFailed,
    StoreDamaged,
    StoreFull,
    StoreGone,
    StoreLocked,
    check_store,
)
from sessionkeeper.layout import Layout
from sessionkeeper.storage import single
from sessionkeeper.storage.backend import SETTLE, Put, Trash
from sessionkeeper.storage.folder import prepare_folders
from sessionkeeper.storage.index import Recalled
from sessionkeeper.storage.onefile import decode_file
from sessionkeeper.storage.platform import FileSystem
from sessionkeeper.storage.single import SingleFileBackend
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
from sessionkeeper.testing.conformance import NOW, _document

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sessionkeeper.events import Event
    from sessionkeeper.storage.backend import RecoveryReport

SEPARATOR: Final = b"\n,\n"


def opened(folder: Path, **settings: Any) -> SessionStore:
    settings.setdefault("watch", False)
    return SessionStore.open(folder, layout="single", **settings)


def file_of(folder: Path) -> Path:
    return folder / "sessions.json"


def kept(folder: Path) -> list[Path]:
    return sorted((folder / ".sessionkeeper" / "single" / "sessions.json").iterdir())


def parsed(folder: Path) -> dict[str, dict[str, Any]]:
    content = json.loads(file_of(folder).read_bytes())
    assert (content["format"], content["version"]) == ("sessionkeeper-sessions", 1)
    return {session["session_id"]: session for session in content["sessions"]}


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> bytes:
    """As an editor does it: in place, and laid out anew."""
    content = json.loads(path.read_bytes())
    change(content)
    data = json.dumps(content, indent=2).encode()
    path.write_bytes(data)
    return data


def session_in(content: dict[str, Any], session_id: str) -> dict[str, Any]:
    found: dict[str, Any] = next(s for s in content["sessions"] if s["session_id"] == session_id)
    return found


@pytest.fixture
def one(folder: Path) -> Iterator[SessionStore]:
    with opened(folder) as store:
        yield store


# --- the file --------------------------------------------------------------------------------


def test_all_sessions_are_in_one_file_that_any_program_can_read(
    one: SessionStore,
    folder: Path,
) -> None:
    one.save_session("s1", [{"text": "Refund?"}], tags=["support"])
    one.save_session("index", ["two"], state={"step": 1})
    one.append("s1", [{"text": "Sent."}])
    found = parsed(folder)
    assert found["s1"]["messages"] == [{"text": "Refund?"}, {"text": "Sent."}]
    assert found["index"]["state"] == {"step": 1}
    assert [path.name for path in folder.iterdir() if path.is_file()] == ["sessions.json"]
    assert file_of(folder).stat().st_mode & 0o777 == 0o600
    assert not (folder / ".sessionkeeper" / "journal").exists()
    assert [i.session_id for i in one.search(tags=["support"])] == ["s1"]
    assert list(check_store(folder)) == []


def test_sessions_that_do_not_change_are_copied_byte_for_byte(
    one: SessionStore,
    folder: Path,
) -> None:
    one.save_session("s1", [1.5, "\u2028", {"b": 1, "a": 2}])
    (first,) = file_of(folder).read_bytes().splitlines(keepends=True)[1:-1:1000]
    before = file_of(folder).read_bytes()[:-3]
    assert first in before
    one.save_session("s2", [2])
    assert file_of(folder).read_bytes().startswith(before)
    assert file_of(folder).read_bytes().count(SEPARATOR) == 1


def test_messages_that_look_like_the_layout_of_the_file_are_kept(folder: Path) -> None:
    awkward = ["\n,\n", ",", {"format": "sessionkeeper", "version": 1}, "]}\n", [], {}]
    with opened(folder) as store:
        store.save_session("s1", awkward, title="\n,\n")
        store.save_session("s2", [])
    with opened(folder) as store:
        assert store.load_session("s1").messages == awkward
        assert store.load_session("s2").messages == []
        assert store.last_recovery.problems == []


def test_a_session_may_be_called_as_the_file_is(one: SessionStore, folder: Path) -> None:
    one.save_session("sessions", ["secret"])
    one.save_session("s2", [2])
    one.erase_session("sessions")
    assert list(parsed(folder)) == ["s2"]


def test_the_path_may_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "var" / ".sessions.json"
    with opened(path) as store:
        store.save_session("s1", ["one"])
        store.configure(max_backups=2)
    assert json.loads(path.read_bytes())["sessions"][0]["messages"] == ["one"]
    assert {p.name for p in path.parent.iterdir()} == {".sessions.json", ".sessionkeeper"}
    with opened(path) as store:
        assert store.load_session("s1").messages == ["one"]
        assert store.config.max_backups == 2
    with opened(path.parent) as store:
        assert store.load_session("s1").messages == ["one"]
    with pytest.raises(InvalidConfig, match="another file"):
        opened(path.with_name("other.json"))


def test_a_hidden_file_is_watched_too(tmp_path: Path) -> None:
    path = tmp_path / ".sessions.json"
    with opened(path, watch=True) as store:
        store.save_session("s1", ["one"])
        edit(path, lambda c: session_in(c, "s1").update(messages=["by hand"]))
        wait_until(lambda: store.load_session("s1").messages == ["by hand"])


def test_a_store_is_opened_in_the_layout_that_it_has(folder: Path, tmp_path: Path) -> None:
    with opened(folder) as store:
        store.save_session("s1", [1])
    for layout in ("flat", "rooted"):
        with pytest.raises(InvalidConfig, match="'single'"):
            SessionStore.open(folder, layout=layout)
    SessionStore.open(tmp_path / "flat").close()
    with pytest.raises(InvalidConfig, match="'flat'"):
        opened(tmp_path / "flat")
    with pytest.raises(InvalidConfig, match="'flat'"):
        opened(tmp_path / "flat" / "sessions.json")
    file_of(folder).unlink()
    with pytest.raises(InvalidConfig, match="'single'"):
        SessionStore.open(folder)


@pytest.mark.parametrize("durability", ["journal", "os", "file"])
def test_each_level_of_durability_is_that_of_the_file(durability: str, folder: Path) -> None:
    fs = FaultyFileSystem()
    with opened(folder, durability=durability, inject=Injected(fs=fs)) as store:
        before = len(fs.calls)
        store.save_session("s1", [1])
        assert fs.calls[before:] == ["write_new", "sync", "replace", "sync_folder"]
        store.checkpoint()
        assert list(parsed(folder)) == ["s1"]


def test_a_burst_of_saves_nobody_waits_for_is_complete_with_few_rewrites(folder: Path) -> None:
    fs = FaultyFileSystem()
    with opened(folder, inject=Injected(fs=fs), max_backups=2) as store:
        store.save_session("held", [0])
        busy, go = threading.Event(), threading.Event()

        def hold(event: Event) -> None:
            if event.session_id == "held":
                busy.set()
                go.wait(10)

        unsubscribe = store.subscribe(hold)
        store.tell(SaveSession("held", [1]))
        assert busy.wait(10)
        before = fs.calls.count("write_new")
        receipts = [store.tell(SaveSession(f"s{n}", [n])) for n in range(1000)]
        unsubscribe()
        go.set()
        for receipt in receipts:
            receipt.result(30)
        assert fs.calls.count("write_new") - before <= 8
    found = parsed(folder)
    assert [found[f"s{n}"]["messages"] for n in range(1000)] == [[n] for n in range(1000)]


# --- bounds ----------------------------------------------------------------------------------


def test_more_sessions_than_the_file_may_hold_are_refused(
    one: SessionStore,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(single, "MAX_SESSIONS", 2)
    one.save_session("s1", [1])
    one.save_session("s2", [2])
    before = file_of(folder).read_bytes()
    with pytest.raises(StoreFull, match="flat"):
        one.save_session("s3", [3])
    assert file_of(folder).read_bytes() == before
    assert "s3" not in one
    one.save_session("s2", ["changed"])
    one.delete_session("s1")
    one.save_session("s3", [3])


def test_more_bytes_than_the_file_may_hold_are_refused(
    one: SessionStore,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(single, "MAX_BYTES", 2000)
    one.save_session("s1", ["x" * 1000])
    before = file_of(folder).read_bytes()
    with pytest.raises(StoreFull):
        one.append("s1", ["x" * 1000])
    with pytest.raises(StoreFull):
        one.save_session("s2", ["x" * 1000])
    assert file_of(folder).read_bytes() == before
    monkeypatch.setattr(single, "MAX_BYTES", 500)
    one.save_session("s1", ["x" * 700])
    assert one.load_session("s1").messages == ["x" * 700]


def test_the_bounds_are_those_documented() -> None:
    assert (single.MAX_SESSIONS, single.MAX_BYTES) == (10_000, 64 * 1024 * 1024)


# --- versions, removals, erasures ------------------------------------------------------------


def test_the_files_replaced_last_are_the_backups(folder: Path) -> None:
    with opened(folder, max_backups=3) as store:
        for number in range(1, 6):
            store.save_session("s1", [number], title=f"Title {number}")
        assert len(kept(folder)) == 3
        assert [b.generation for b in store.backups("s1")] == [4, 3, 2]
        store.save_session("s2", ["other"])
        # The version in force is in a replaced file too, and is none.
        assert [b.generation for b in store.backups("s1")] == [4, 3]
        assert store.restore("s1", 3).generation == 6
        assert store.load_session("s1").messages == [3]
        with pytest.raises(NoBackup):
            store.restore("s1", 1)
        with pytest.raises(NoBackup):
            store.restore("s2")
        store.configure(max_backups=1)
        store.save_session("s1", ["last"])
        assert len(kept(folder)) == 1
    with opened(folder, max_backups=1) as store:
        assert [b.generation for b in store.backups("s1")] == [6]


def test_a_damaged_backup_is_never_served(folder: Path) -> None:
    with opened(folder) as store:
        for number in range(3):
            store.save_session("s1", [f"version {number}"])
        newest = store.backups("s1")[0]
        content = newest.path.read_bytes()
        newest.path.write_bytes(content.replace(b'"version 1"', b'"VERSION 1"'))
        assert {f.kind for f in check_store(folder)} == {"changed"}
        store.restore("s1")
        assert store.load_session("s1").messages == ["version 0"]
    for path in kept(folder):
        path.write_bytes(b"{")
    with opened(folder) as store, pytest.raises(BackupsDamaged):
        store.restore("s1")


def test_a_deleted_session_can_be_brought_back_until_it_is_purged(
    folder: Path,
    clock: FakeClock,
) -> None:
    with opened(folder, inject=Injected(clock=clock)) as store:
        store.save_session("s1", ["first"])
        store.save_session("s1", ["second"])
        store.save_session("s2", ["stays"])
        store.delete_session("s1")
        assert list(parsed(folder)) == ["s2"]
        with pytest.raises(SessionNotFound):
            store.load_session("s1")
        store.undelete_session("s1")
        assert store.load_session("s1").messages == ["second"]
        store.delete_session("s1")
        store.save_session("s1", ["anew"])
        assert store.backups("s1") == [], "those before are of the session that was deleted"
        with EventLog(store) as log:
            clock.advance(days=8)
            log.wait_for("purged")
        assert store.load_session("s1").messages == ["anew"]
        for path in kept(folder):
            assert b"second" not in path.read_bytes(), path
        assert [b.generation for b in store.backups("s1")] == []
        assert b"stays" in kept(folder)[-1].read_bytes()


def test_after_an_erasure_no_byte_is_left(folder: Path) -> None:
    name, secret = "patient-4711", "quagga-in-the-waiting-room"
    with opened(folder) as store:
        for number in range(3):
            store.save_session(name, [secret, number], title=secret, tags=[secret])
            store.save_session("other", ["kept", number])
        store.delete_session(name)
        store.save_session(name, [secret, "anew"])
        edit(file_of(folder), lambda c: session_in(c, name).update(messages=[secret, "edited"]))
        store.save_session("other", ["kept", 3])
        edit(file_of(folder), lambda c: session_in(c, name).update(messages=[secret, "again"]))
        erased = store.erase_session(name)
        assert erased.files > 3
        assert erased.size > 1000
        traces = [
            path
            for path in folder.rglob("*")
            if path.is_file() and (name in path.name or secret.encode() in path.read_bytes())
        ]
        assert traces == []
        assert store.load_session("other").messages == ["kept", 3]
        assert [b.generation for b in store.backups("other")] != []
        assert store.erase_session(name).files == 0
    with opened(folder) as store:
        assert [info.session_id for info in store.list_sessions()] == ["other"]


def test_what_cannot_be_read_and_names_an_erased_session_goes_whole(folder: Path) -> None:
    with opened(folder) as store:
        store.save_session("s1", ["secret"])
        store.save_session("s2", ["kept"])
        store.save_session("s2", ["kept too"])
        path = kept(folder)[-1]
        path.write_bytes(path.read_bytes()[:-40])
        store.erase_session("s1")
        assert not path.exists()
        assert all(b"secret" not in p.read_bytes() for p in kept(folder))


def test_a_torn_file_that_was_set_aside_names_nobody_who_was_erased(folder: Path) -> None:
    three_sessions(folder)
    file_of(folder).write_bytes(file_of(folder).read_bytes()[:-40])
    quarantine = folder / ".sessionkeeper" / "quarantine"
    with opened(folder) as store:
        assert len(list(quarantine.iterdir())) == 2
        store.erase_session("s1")
        assert list(quarantine.iterdir()) == []
        assert "s2" in store


# --- damage ----------------------------------------------------------------------------------


def damaged(folder: Path, session_id: str) -> bytes:
    """Break the JSON of one session."""
    path = file_of(folder)
    content = path.read_bytes()
    marker = f'"session_id":"{session_id}","namespace":"",\n"messages":['.encode()
    assert content.count(marker) == 1
    broken = content.replace(marker, marker[:-1] + b"#")
    path.write_bytes(broken)
    return broken


def three_sessions(folder: Path, **settings: Any) -> None:
    with opened(folder, **settings) as store:
        store.save_session("s1", ["one"])
        store.save_session("s2", ["two"])
        store.save_session("s3", ["three"])
        store.save_session("s2", ["two", "again"])


def test_one_damaged_session_is_set_aside_and_the_others_are_served(folder: Path) -> None:
    three_sessions(folder)
    damaged(folder, "s2")
    assert [(f.kind, f.session_id) for f in check_store(folder)] == [("corrupt", "s2")]
    with opened(folder) as store:
        assert store.load_session("s1").messages == ["one"]
        assert store.load_session("s3").generation == 1
        healed = store.load_session("s2")
        assert (healed.messages, healed.generation) == (["two"], 2)
        kinds = [p.kind for p in store.last_recovery.problems]
        assert kinds == ["corrupt", "healed"]
        names = {p.name[:3] for p in (folder / ".sessionkeeper" / "quarantine").iterdir()}
        assert names == {"s2."}
    with opened(folder) as store:
        assert store.last_recovery.problems == []


def test_a_damaged_session_without_a_copy_is_kept_in_the_quarantine(folder: Path) -> None:
    three_sessions(folder, max_backups=0)
    broken = damaged(folder, "s2")
    with opened(folder) as store:
        assert {i.session_id for i in store.list_sessions()} == {"s1", "s3"}
        aside = [
            path
            for path in (folder / ".sessionkeeper" / "quarantine").iterdir()
            if not path.name.endswith(".why.json")
        ]
        assert len(aside) == 1
        assert aside[0].name.startswith("s2.")
        assert aside[0].read_bytes() in broken
        assert b'"two"' in aside[0].read_bytes()


def test_a_bit_that_flips_is_told_from_a_hand_edit(folder: Path) -> None:
    three_sessions(folder)
    path = file_of(folder)
    status = path.stat()
    path.write_bytes(path.read_bytes().replace(b'"again"', b'"agaim"'))
    os.utime(path, ns=(status.st_mtime_ns, status.st_mtime_ns))
    with opened(folder) as store:
        assert store.load_session("s2").messages == ["two"]
        assert [p.kind for p in store.last_recovery.problems] == ["corrupt", "healed"]


@pytest.mark.parametrize("left", [0, 1, 40, -2, -3, -60])
def test_a_file_that_is_torn_loses_nothing_that_was_kept(left: int, folder: Path) -> None:
    three_sessions(folder)
    path = file_of(folder)
    torn = path.read_bytes()[:left]
    path.write_bytes(torn)
    with opened(folder) as store:
        found = {i.session_id: store.load_session(i.session_id) for i in store.list_sessions()}
        assert found.keys() == {"s1", "s2", "s3"}
        assert found["s1"].messages == ["one"]
        assert found["s2"].messages[0] == "two"
        assert found["s3"].messages == ["three"]
        kinds = {p.kind for p in store.last_recovery.problems}
        assert "corrupt" in kinds
        aside = (folder / ".sessionkeeper" / "quarantine").iterdir()
        assert torn in [p.read_bytes() for p in aside]
    assert {f.kind for f in check_store(folder)} == {"quarantined"}


def test_what_a_torn_file_still_holds_is_newer_than_its_backup(folder: Path) -> None:
    three_sessions(folder)
    path = file_of(folder)
    path.write_bytes(path.read_bytes()[: path.read_bytes().index(b'"session_id":"s3"')])
    with opened(folder) as store:
        assert store.load_session("s2").messages == ["two", "again"]
        assert store.load_session("s2").generation == 2
        assert store.load_session("s3").messages == ["three"]


def test_a_torn_file_does_not_bring_back_what_was_deleted(folder: Path) -> None:
    with opened(folder) as store:
        store.save_session("s1", ["one"])
        store.save_session("s2", ["two"])
        store.delete_session("s2")
    file_of(folder).write_bytes(b"{")
    with opened(folder) as store:
        assert [i.session_id for i in store.list_sessions()] == ["s1"]


def test_a_lost_separator_costs_no_session(folder: Path) -> None:
    three_sessions(folder)
    path = file_of(folder)
    path.write_bytes(path.read_bytes().replace(SEPARATOR, b"\n?\n", 1))
    with opened(folder) as store:
        assert store.load_session("s1").generation == 1
        assert store.load_session("s2").messages == ["two", "again"]
        assert store.load_session("s3").messages == ["three"]


def test_a_file_of_a_newer_version_is_not_touched(folder: Path) -> None:
    three_sessions(folder)
    path = file_of(folder)
    content = path.read_bytes().replace(b'sessions","version":1', b'sessions","version":2', 1)
    path.write_bytes(content)
    with opened(folder) as store:
        with pytest.raises(NewerVersion):
            store.save_session("s1", [])
        with pytest.raises(NewerVersion):
            store.load_session("s1")
    assert path.read_bytes() == content


def test_a_session_of_a_newer_version_stays_as_it_is(folder: Path) -> None:
    three_sessions(folder)
    newer = {"format": "sessionkeeper", "version": 9, "session_id": "s9", "new": [1]}
    edit(file_of(folder), lambda c: c["sessions"].append(newer))
    with opened(folder) as store:
        store.save_session("s1", ["changed"])
        with pytest.raises(NewerVersion):
            store.save_session("s9", [])
        with pytest.raises(NewerVersion):
            store.load_session("s9")
    assert parsed(folder)["s9"] == newer
    assert parsed(folder)["s1"]["messages"] == ["changed"]


def test_with_report_what_is_damaged_stays_where_it_is(folder: Path) -> None:
    three_sessions(folder)
    damaged(folder, "s2")
    with opened(folder, recovery="report") as store:
        with pytest.raises(PathBlocked):
            store.load_session("s2")
        with pytest.raises(PathBlocked):
            store.save_session("s2", [])
        store.save_session("s1", ["changed"])
    assert b'"session_id":"s2","namespace":"",\n"messages":#' in file_of(folder).read_bytes()
    assert list((folder / ".sessionkeeper" / "quarantine").iterdir()) == []
    torn = file_of(folder).read_bytes()[:-5]
    file_of(folder).write_bytes(torn)
    with opened(folder, recovery="report") as store, pytest.raises(Exception, match="cut off"):
        store.save_session("s1", [])
    assert file_of(folder).read_bytes() == torn


def test_with_strict_a_damaged_file_is_not_opened(folder: Path) -> None:
    three_sessions(folder)
    opened(folder, recovery="strict").close()
    edit(file_of(folder), lambda c: session_in(c, "s1").update(messages=["by hand"]))
    with opened(folder, recovery="strict") as store:
        assert store.load_session("s1").messages == ["by hand"]
    broken = damaged(folder, "s2")
    with pytest.raises(StoreDamaged):
        opened(folder, recovery="strict")
    assert file_of(folder).read_bytes() == broken


@pytest.mark.parametrize("kind", ["folder", "link"])
def test_what_is_no_file_is_not_replaced(kind: str, folder: Path, tmp_path: Path) -> None:
    opened(folder).close()
    path = file_of(folder)
    (tmp_path / "elsewhere").write_bytes(b"theirs")
    path.mkdir() if kind == "folder" else path.symlink_to(tmp_path / "elsewhere")
    with opened(folder) as store, pytest.raises(PathBlocked):
        store.save_session("s1", [])
    assert path.is_dir() or path.is_symlink()
    assert (tmp_path / "elsewhere").read_bytes() == b"theirs"


# --- hand edits ------------------------------------------------------------------------------


def test_a_hand_edit_while_nobody_watches_is_taken_at_the_opening(folder: Path) -> None:
    three_sessions(folder)
    edited = edit(file_of(folder), lambda c: session_in(c, "s2").update(messages=["by hand"]))
    with opened(folder) as store:
        assert store.load_session("s2").messages == ["by hand"]
        assert store.load_session("s2").generation == 3
        assert store.load_session("s1").generation == 1, "laid out anew, and not changed"
        assert [p.kind for p in store.last_recovery.problems] == ["adopted"]
        assert edited in [path.read_bytes() for path in kept(folder)]
    with opened(folder) as store:
        assert store.last_recovery.problems == []
        assert store.load_session("s2").generation == 3


def test_an_edit_in_place_is_taken_at_the_opening(folder: Path) -> None:
    three_sessions(folder)
    path = file_of(folder)
    path.write_bytes(path.read_bytes().replace(b'"again"', b'"differently"'))
    with opened(folder) as store:
        assert store.load_session("s2").messages == ["two", "differently"]
        assert store.load_session("s2").generation == 3


def test_hand_edits_of_an_open_store_are_taken(folder: Path) -> None:
    with opened(folder, watch=True) as store, EventLog(store) as log:
        for name in ("s1", "s2", "s3"):
            store.save_session(name, [name], tags=["old"])
        before = file_of(folder).read_bytes()

        def change(content: dict[str, Any]) -> None:
            session_in(content, "s1").update(messages=["by hand"], tags=["new"])
            content["sessions"].remove(session_in(content, "s2"))
            added = {"format": "sessionkeeper", "version": 1, "session_id": "s4", "messages": [4]}
            content["sessions"].append(added)

        edited = edit(file_of(folder), change)
        log.wait_for("adopted", 2)
        log.wait_for("vanished")
        wait_until(lambda: "s2" not in store)
        assert store.load_session("s1").generation == 2
        assert store.load_session("s1").messages == ["by hand"]
        assert store.load_session("s3").generation == 1
        assert store.load_session("s4").messages == [4]
        assert [i.session_id for i in store.search(tags=["new"])] == ["s1"]
        copies = [path.read_bytes() for path in kept(folder)]
        assert edited in copies
        assert before in copies, "the version before is kept"
        assert [b.generation for b in store.backups("s1")] == [1]
        assert store.append("s1", [2]).generation == 3
        assert log.of_kind("conflict") == []
    assert list(parsed(folder)) == ["s1", "s3", "s4"]


def test_an_edit_that_meets_a_write_is_merged_with_it(folder: Path) -> None:
    with opened(folder) as store, EventLog(store) as log:
        store.save_session("s1", ["one"])
        store.save_session("s2", ["two"])

        def change(content: dict[str, Any]) -> None:
            session_in(content, "s1").update(messages=["s1 by hand"])
            session_in(content, "s2").update(messages=["s2 by hand"])

        edited = edit(file_of(folder), change)
        store.save_session("s1", ["written"])
        assert len(log.of_kind("conflict")) == 1
        assert edited in [path.read_bytes() for path in kept(folder)]
        backend = store._tree.backend  # type: ignore[union-attr]
        assert backend.suspects() == ["sessions.json"]
        found = backend.reconcile(backend.suspects(), store._view.lsn)
        assert [r.session_id for r in found.records] == ["s2"]
        assert found.vanished == []
        assert backend.suspects() == []
    assert parsed(folder)["s1"]["messages"] == ["written"]
    assert parsed(folder)["s2"]["messages"] == ["s2 by hand"]


def backend_with_two(folder: Path, fs: FileSystem | None = None) -> SingleFileBackend:
    backend_in(folder)
    backend = backend_in(folder, fs or FileSystem())
    backend.recover()
    backend.commit([Put(_document("s1", 1)), Put(_document("s2", 2))])
    return backend


def test_a_removal_by_hand_that_meets_a_write_loses_nothing(folder: Path) -> None:
    backend = backend_with_two(folder)
    edit(file_of(folder), lambda c: c["sessions"].clear())
    backend.commit([Put(_document("s1", 3, generation=2, text="written"))])
    found = backend.reconcile(["sessions.json"], 3)
    assert found.vanished == ["s2"]
    assert texts(backend) == {"s1": "written"}


@pytest.mark.parametrize("cut", [True, False])
def test_an_edit_that_is_damaged_and_meets_a_write_removes_nothing(
    *,
    cut: bool,
    folder: Path,
) -> None:
    backend = backend_with_two(folder)
    content = file_of(folder).read_bytes()
    at = content.index(b'"session_id":"s2"')
    file_of(folder).write_bytes(content[:at] + (b"" if cut else b"#" + content[at + 16 :]))
    backend.commit([Put(_document("s1", 3, generation=2, text="written"))])
    found = backend.reconcile(["sessions.json"], 3)
    assert (found.vanished, found.records) == ([], [])
    assert texts(backend) == {"s1": "written", "s2": "hello"}


def test_a_session_whose_id_cannot_be_read_any_more_is_not_taken_to_be_removed(
    folder: Path,
) -> None:
    backend = backend_with_two(folder)
    content = file_of(folder).read_bytes()
    file_of(folder).write_bytes(content.replace(b'"session_id":"s2"', b'"session_#d":"s2"'))
    clock = backend._clock
    assert isinstance(clock, FakeClock)
    assert backend.reconcile(["sessions.json"], 2).unsettled != []
    clock.advance(SETTLE)
    assert backend.reconcile(["sessions.json"], 2).vanished == []
    assert texts(backend).keys() == {"s1", "s2"} == parsed(folder).keys()


def test_an_edit_that_cannot_be_kept_is_taken_later(folder: Path) -> None:
    fs = FaultyFileSystem()
    backend = backend_with_two(folder, fs)
    edit(file_of(folder), lambda c: session_in(c, "s2").update(title="first edit"))
    backend.commit([Put(_document("s1", 3, generation=2, text="written"))])
    edit(file_of(folder), lambda c: session_in(c, "s1").update(title="second edit"))
    fs.fail(Fault("link", os_error(errno.ENOSPC)))
    assert backend.reconcile(["sessions.json"], 3).records == []
    assert backend.suspects() == ["sessions.json"]
    found = backend.reconcile(["sessions.json"], 3)
    assert {(r.session_id, r.title) for r in found.records} >= {("s1", "second edit")}
    assert parsed(folder)["s1"]["title"] == "second edit"
    assert parsed(folder)["s2"]["title"] == "first edit"


def test_an_edit_that_waits_does_not_bring_back_what_was_erased(folder: Path) -> None:
    backend = backend_with_two(folder)

    def change(content: dict[str, Any]) -> None:
        session_in(content, "s2").update(messages=["secret"])
        content["sessions"].append({**session_in(content, "s2"), "session_id": "s3"})

    edit(file_of(folder), change)
    backend.commit([Put(_document("s1", 3, generation=2, text="written"))])
    backend.erase("s2", 4)
    backend.erase("s3", 5)
    found = backend.reconcile(["sessions.json"], 5)
    assert (found.records, found.vanished) == ([], [])
    assert parsed(folder).keys() == {"s1"}


def test_a_damaged_edit_is_replaced_by_what_is_known(folder: Path) -> None:
    with opened(folder, watch=True) as store, EventLog(store) as log:
        store.save_session("s1", ["one"])
        store.save_session("s2", ["two"])
        broken = damaged(folder, "s2")
        log.wait_for("quarantined")
        wait_until(lambda: file_of(folder).read_bytes() != broken)
        assert store.load_session("s2").messages == ["two"]
        assert store.load_session("s2").generation == 1
        file_of(folder).write_bytes(b"")
        log.wait_for("quarantined", 2)
        wait_until(lambda: file_of(folder).stat().st_size > 0)
    assert parsed(folder).keys() == {"s1", "s2"}


def test_what_an_editor_may_be_writing_is_waited_for(folder: Path) -> None:
    backend = backend_in(folder)
    backend.recover()
    backend.commit([Put(_document("s1", 1)), Put(_document("s2", 2))])
    content = file_of(folder).read_bytes()
    clock = backend._clock
    assert isinstance(clock, FakeClock)
    for unfinished in (b"", content[:-30], None):
        if unfinished is None:
            file_of(folder).unlink()
        else:
            file_of(folder).write_bytes(unfinished)
        for _ in range(2):
            found = backend.reconcile(["sessions.json"], 2)
            assert found.unsettled == ["sessions.json"]
            assert (found.problems, found.vanished) == ([], [])
        file_of(folder).write_bytes(content.replace(b"hello", b"edited", 1))
        found = backend.reconcile(["sessions.json"], 2)
        assert [record.session_id for record in found.records] in (["s1"], [])
        assert found.vanished == []
    file_of(folder).write_bytes(b"{")
    assert backend.reconcile(["sessions.json"], 9).unsettled == ["sessions.json"]
    clock.advance(SETTLE)
    found = backend.reconcile(["sessions.json"], 9)
    assert (found.unsettled, found.vanished) == ([], [])
    assert [problem.kind for problem in found.problems] == ["corrupt"]
    assert parsed(folder).keys() == {"s1", "s2"}


def test_other_files_in_the_folder_are_none_of_ours(tmp_path: Path) -> None:
    path = tmp_path / ".sessions.json"
    other = tmp_path / "package.json"
    other.write_bytes(b"{")
    with opened(path, watch=True) as store:
        store.save_session("s1", ["one"])
        stats = store.stats()
        assert (stats.session_count, stats.session_size) == (1, path.stat().st_size)
        assert [info.session_id for info in store.list_sessions()] == ["s1"]
    assert list(check_store(path)) == []
    assert other.read_bytes() == b"{"


def test_a_file_that_is_removed_takes_its_sessions_with_it(folder: Path) -> None:
    with opened(folder, watch=True) as store:
        store.save_session("s1", ["one"])
        before = file_of(folder).read_bytes()
        file_of(folder).unlink()
        wait_until(lambda: "s1" not in store)
        assert before in [path.read_bytes() for path in kept(folder)]
        store.save_session("s2", ["two"])
    assert list(parsed(folder)) == ["s2"]


def test_an_older_file_put_back_counts_as_an_edit(folder: Path) -> None:
    three_sessions(folder)
    shutil.copy(kept(folder)[-1], file_of(folder))
    with opened(folder) as store:
        assert store.load_session("s2").messages == ["two"]
        assert store.load_session("s2").generation == 3
        assert store.load_session("s1").generation == 1


# --- a medium that fails, and crashes --------------------------------------------------------


def os_error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("operation", ["write_new", "sync"])
def test_what_the_medium_refuses_changes_nothing(
    operation: str,
    number: int,
    folder: Path,
) -> None:
    fs = FaultyFileSystem()
    with opened(folder, inject=Injected(fs=fs)) as store:
        store.save_session("s1", ["old"])
        before = file_of(folder).read_bytes()
        for change in (
            lambda: store.save_session("s1", ["new"]),
            lambda: store.delete_session("s1"),
        ):
            fs.fail(Fault(operation, os_error(number)))
            with pytest.raises(StorageFailed):
                change()
            assert file_of(folder).read_bytes() == before
            assert list((folder / ".sessionkeeper" / "tmp").iterdir()) == []
            assert list((folder / ".sessionkeeper" / "trash").iterdir()) == []
        assert store.info().restarts == 0
        assert store.save_session("s1", ["new"]).generation == 2
        assert store.delete_session("s1")


@pytest.mark.parametrize("operation", ["replace", "sync_folder"])
def test_a_commit_that_fails_half_way_is_settled_by_looking(operation: str, folder: Path) -> None:
    fs = FaultyFileSystem()
    with opened(folder, inject=Injected(fs=fs)) as store:
        store.save_session("s1", ["old"])
        before = len(fs.calls)
        fs.fail(Fault(operation, os_error(errno.EIO)))
        assert store.save_session("s1", ["new"]).generation == 2
        assert store.info().restarts == 1
        failed = fs.calls[before:].index(operation)
        # A second sync of the folder would prove nothing: the file is written and synced anew.
        assert "sync" in fs.calls[before:][failed + 1 :]
    assert parsed(folder)["s1"]["messages"] == ["new"]
    assert parsed(folder)["s1"]["generation"] == 2


def test_a_crashed_actor_finds_its_sessions_again(one: SessionStore) -> None:
    one.save_session("s1", ["one"])
    crash_actor(one)
    assert one.append("s1", ["two"]).generation == 2


def test_a_session_that_is_damaged_and_stays_is_not_replaced(folder: Path) -> None:
    three_sessions(folder)
    damaged(folder, "s2")
    backend = SingleFileBackend(Layout.of(folder, "single"), FakeClock(NOW), repairs=False)
    backend.recover()
    before = file_of(folder).read_bytes()
    with pytest.raises(PathBlocked):
        backend.commit([Put(_document("s2", 99))])
    assert file_of(folder).read_bytes() == before


def test_a_folder_that_was_moved_away_is_not_written_to(folder: Path, tmp_path: Path) -> None:
    backend = backend_with_two(folder)
    folder.rename(tmp_path / "elsewhere")
    backend_in(folder)
    with pytest.raises(StoreGone):
        backend.commit([Put(_document("s3", 3))])
    assert not file_of(folder).exists()


def test_a_number_is_not_used_twice_though_its_session_is_gone(folder: Path) -> None:
    backend_in(folder)
    layout = Layout.of(folder, "single")
    backend = SingleFileBackend(layout, FakeClock(NOW), recall=lambda: Recalled(lsn=50))
    assert backend.recover().lsn == 50
    assert backend.recover().lsn == 50


class NotingFileSystem(FileSystem):
    """Notes the folders that are synced, and the names that are replaced."""

    def __init__(self) -> None:
        self.noted: list[str] = []

    def sync_folder(self, path: Path) -> None:
        super().sync_folder(path)
        self.noted.append(path.name)

    def replace(self, source: Path, target: Path) -> None:
        super().replace(source, target)
        self.noted.append(target.name)


def test_a_deleted_session_is_durable_in_the_trash_before_it_leaves_the_file(
    folder: Path,
) -> None:
    fs = NotingFileSystem()
    backend = backend_with_two(folder, fs)
    fs.noted.clear()
    backend.commit([Trash(_document("s2", 2).record, 3, "deleted", NOW, "request-3")])
    removal = next((folder / ".sessionkeeper" / "trash").iterdir()).name
    assert fs.noted == [removal, removal, "trash", "sessions.json", "store"]
    fs.noted.clear()
    backend_in(folder, fs).recover()
    assert {"trash", "store"} <= set(fs.noted)


def test_what_a_refused_removal_left_is_not_in_the_way_of_the_next(folder: Path) -> None:
    fs = FaultyFileSystem()
    backend = backend_with_two(folder, fs)
    change = Trash(_document("s2", 2).record, 3, "deleted", NOW, "request-3")
    fs.fail(Fault("write_new", os_error(errno.ENOSPC), skip=2))
    fs.fail(Fault("unlink", os_error(errno.EIO)))
    with pytest.raises(StorageFailed):
        backend.commit([change])
    assert texts(backend).keys() == {"s1", "s2"}
    backend.commit([change])
    assert texts(backend).keys() == {"s1"}
    assert backend.trashed("s2") is not None


def test_a_file_is_kept_once_though_a_crash_came_before_its_replacement(folder: Path) -> None:
    backend_with_two(folder)
    fs = FaultyFileSystem()
    crashing = backend_in(folder, fs)
    crashing.recover()
    fs.fail(Fault("replace", InjectedCrash("dead"), name="sessions.json"))
    with pytest.raises(InjectedCrash):
        crashing.commit([Put(_document("s3", 3))])
    later = FakeClock(NOW + timedelta(seconds=1))
    backend = SingleFileBackend(Layout.of(folder, "single"), later)
    backend.recover()
    backend.commit([Put(_document("s3", 3))])
    assert len(kept(folder)) == 1
    assert texts(backend).keys() == {"s1", "s2", "s3"}


class CrashingFileSystem(FileSystem):
    """Stops for good at the nth call that changes anything, before or behind it."""

    def __init__(self, at: int, *, after: bool) -> None:
        self.left = at
        self._after = after

    def _call(self, name: str, *arguments: Any) -> Any:
        if self.left < 0:
            raise InjectedCrash("dead")
        self.left -= 1
        if self.left >= 0:
            return getattr(super(), name)(*arguments)
        if self._after:
            getattr(super(), name)(*arguments)
        raise InjectedCrash(name)

    def begin_new(self, *arguments: Any) -> Any:
        return self._call("begin_new", *arguments)

    def finish_new(self, descriptor: int) -> Any:
        try:
            return self._call("finish_new", descriptor)
        except InjectedCrash:
            if not self._after:
                os.close(descriptor)
            raise

    def replace(self, *arguments: Any) -> Any:
        return self._call("replace", *arguments)

    def link(self, *arguments: Any) -> Any:
        return self._call("link", *arguments)

    def unlink(self, *arguments: Any) -> Any:
        return self._call("unlink", *arguments)

    def remove_folder(self, *arguments: Any) -> Any:
        return self._call("remove_folder", *arguments)

    def make_folder(self, *arguments: Any) -> Any:
        return self._call("make_folder", *arguments)

    def sync_folder(self, *arguments: Any) -> Any:
        return self._call("sync_folder", *arguments)


def backend_in(folder: Path, fs: FileSystem | None = None) -> SingleFileBackend:
    layout = Layout.of(folder, "single")
    if fs is None:
        prepare_folders(FileSystem(), layout)
    return SingleFileBackend(layout, FakeClock(NOW), fs=fs, max_backups=2)


class Script:
    """Changes one after the other, and what must be there after each."""

    def __init__(self) -> None:
        self.done = 0
        self.states: list[dict[str, str]] = [{}]

    def steps(self) -> list[Callable[[SingleFileBackend], object]]:
        s1, s2, s3 = (_document(f"s{n}", n, text=f"text {n}") for n in (1, 2, 3))
        changed = _document("s1", 5, generation=2, text="changed")
        last = _document("s3", 7, generation=2, text="last")
        self.states += [
            {"s1": "text 1"},
            {"s1": "text 1", "s2": "text 2", "s3": "text 3"},
            {"s1": "changed", "s3": "text 3"},
            {"s1": "changed", "s3": "last"},
            {"s3": "last"},
            {"s3": "last"},
        ]
        return [
            lambda b: b.commit([Put(s1)]),
            lambda b: b.commit([Put(s2), Put(s3)]),
            lambda b: b.commit([Put(changed), Trash(s2.record, 6, "deleted", NOW, "request-6")]),
            lambda b: b.commit([Put(last)]),
            lambda b: b.erase("s1", 8),
            lambda b: b.purge(NOW + timedelta(days=1)),
        ]


def texts(backend: SingleFileBackend) -> dict[str, str]:
    found = {}
    for key in list(backend.keys()):
        document = backend.read(key)
        assert document is not None
        found[key] = document.session().messages[0]["content"]
    return found


@pytest.mark.parametrize("after", [False, True])
def test_a_crash_at_any_call_leaves_one_version_or_the_next(
    *,
    after: bool,
    tmp_path: Path,
) -> None:
    crashes = 0
    for at in range(1000):
        folder = tmp_path / f"{at}"
        backend_in(folder)
        fs = CrashingFileSystem(at, after=after)
        script = Script()
        steps = script.steps()
        try:
            backend = backend_in(folder, fs)
            backend.recover()
            for step in steps:
                step(backend)
                script.done += 1
        except InjectedCrash:
            crashes += 1
        else:
            break
        if file_of(folder).exists():
            contents = decode_file(file_of(folder).read_bytes(), NOW)
            assert contents.whole, f"call {at}"
        again = backend_in(folder)
        report = again.recover()
        assert report.problems == [], f"call {at}"
        allowed = script.states[script.done : script.done + 2]
        assert texts(again) in allowed, f"call {at}"
        _check_removal(again, report, script)
        # It can be gone on with, and what was half done can be done.
        if script.done == 4:
            again.erase("s1", 8)
        if script.done >= 4:
            for path in (file_of(folder), *kept(folder)):
                assert b'"changed"' not in path.read_bytes(), f"call {at}: {path}"
        again.commit([Put(_document("s9", report.lsn + 1))])
        assert "s9" in texts(again)
        again.close()
        assert [f.kind for f in check_store(folder)] == [], f"call {at}"
    else:
        pytest.fail("the script never came to its end")
    assert crashes > 50
    shutil.rmtree(tmp_path)


def _check_removal(again: SingleFileBackend, report: RecoveryReport, script: Script) -> None:
    """A removal is answered if, and only if, it happened; then its session is in the trash."""
    if script.done == 2:
        happened = "s2" not in texts(again)
        assert (report.answer("s2", "request-6") is True) is happened
        assert (again.trashed("s2") is not None) is happened
    if 3 <= script.done < 5:
        assert again.trashed("s2") is not None


# --- others ----------------------------------------------------------------------------------


def test_a_second_process_is_told_who_has_the_file(one: SessionStore, folder: Path) -> None:
    one.save_session("s1", ["one"])
    code = (
        "import sys\n"
        "from sessionkeeper import SessionStore, StoreLocked\n"
        "try:\n"
        "    SessionStore.open(sys.argv[1], layout='single')\n"
        "except StoreLocked as error:\n"
        "    print(error.holder['pid'])\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(folder)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert run.stdout.strip() == str(os.getpid())
    with pytest.raises(StoreLocked):
        opened(file_of(folder))


def test_two_processes_one_after_the_other_lose_nothing(folder: Path) -> None:
    code = (
        "import sys\n"
        "from sessionkeeper import SessionStore\n"
        "with SessionStore.open(sys.argv[1], layout='single') as store:\n"
        "    store.append('s1', [sys.argv[2]])\n"
    )
    for number in range(3):
        subprocess.run(
            [sys.executable, "-c", code, str(folder), f"{number}"],
            check=True,
            timeout=60,
        )
    with opened(folder) as store:
        assert store.load_session("s1").messages == ["0", "1", "2"]
        assert store.load_session("s1").generation == 3


def test_a_reader_beside_the_owner_sees_what_it_saves(one: SessionStore, folder: Path) -> None:
    one.save_session("s1", ["one"])
    one.save_session("s1", ["two"])
    with opened(folder, read_only=True) as reader:
        assert reader.load_session("s1").messages == ["two"]
        one.save_session("s1", ["three"])
        assert reader.load_session("s1").messages == ["three"]
        assert [b.generation for b in reader.backups("s1")][-1] == 1
    file_of(folder).write_bytes(b"{")
    with opened(folder, read_only=True) as reader:
        assert list(reader.list_sessions()) == []
    assert file_of(folder).read_bytes() == b"{"


def test_the_index_is_not_made_anew_for_a_file_that_is_the_same(folder: Path) -> None:
    three_sessions(folder)
    index = folder / ".sessionkeeper" / "index.db"
    with opened(folder) as store:
        rows = store._tree._catalog.index.recall().files  # type: ignore[union-attr]
        assert rows.keys() == {"s1", "s2", "s3"}
        view = store._view
        for stem, known in rows.items():
            backend = store._tree.backend  # type: ignore[union-attr]
            assert isinstance(backend, SingleFileBackend)
            record = view.record(stem)
            assert record is not None
            assert backend.published(record) == (stem, known.signature)
    assert index.exists()
