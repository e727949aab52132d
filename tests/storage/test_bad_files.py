"""What may be found in the folder: each is reported, none is overwritten, the others load."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING, Any, Literal

import pytest

from sessionkeeper import (
    CorruptDocument,
    IdMismatch,
    NewerVersion,
    PathBlocked,
    SessionKeeperError,
    SessionNotFound,
    SessionStore,
    StoreDamaged,
)
from sessionkeeper.testing import EventLog, Fault, FaultyFileSystem, Injected

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def good(folder: Path) -> bytes:
    """A store with one good session; the bytes of another, `victim`."""
    with SessionStore.open(folder, watch=False) as store:
        store.save_session("good", ["kept"])
        store.save_session("victim", [{"text": "precious " * 20}])
    return (folder / "victim.json").read_bytes()


def _edited(data: bytes, **changes: Any) -> bytes:
    return json.dumps({**json.loads(data), **changes}).encode()


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "cut in the middle": lambda data: data[: len(data) // 2],
    "empty": lambda _: b"",
    "all zero": lambda data: b"\0" * len(data),
    "null": lambda _: b"null",
    "list": lambda _: b"[]",
    "number": lambda _: b"3",
    "text": lambda _: b'"x"',
    "empty object": lambda _: b"{}",
    "utf-16": lambda data: data.decode().encode("utf-16"),
    "byte order mark": lambda data: b"\xef\xbb\xbf" + data,
    "trailing garbage": lambda data: data + b"stale tail",
    "not utf-8": lambda data: data.replace(b"precious", b"\xff\xfe"),
    "duplicate key": lambda data: data.replace(b'"state":null', b'"state":null,"state":1'),
    "NaN": lambda data: data.replace(b'"state":null', b'"state":NaN'),
    "bad date": lambda data: _edited(data, created_at="soon"),
    "no messages": lambda data: _edited(data, messages=None),
    "other id": lambda data: _edited(data, session_id="good"),
    "hostile id": lambda data: _edited(data, session_id="../../pwned"),
    "version as text": lambda data: _edited(data, version="1"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_quarantined_with_its_reason(
    damage: str,
    good: bytes,
    folder: Path,
) -> None:
    bad = DAMAGE[damage](good)
    (folder / "victim.json").write_bytes(bad)
    with SessionStore.open(folder, watch=False) as store:
        problems = store.last_recovery.problems
        assert [problem.path.name for problem in problems] == ["victim.json"]
        assert "victim" in str(store.last_recovery)
        assert store.load_session("good").messages == ["kept"]
        with pytest.raises(SessionNotFound):
            store.load_session("victim")
        store.save_session("victim", ["new"])
    quarantine = folder / ".sessionkeeper" / "quarantine"
    kept = [path for path in quarantine.iterdir() if not path.name.endswith(".why.json")]
    assert [path.read_bytes() for path in kept] == [bad]
    why = json.loads(next(quarantine.glob("*.why.json")).read_bytes())
    assert why["file"] == "victim.json"
    assert why["detail"] == problems[0].detail


@pytest.mark.parametrize("thing", ["folder", "symlink", "dangling", "loop", "fifo", "newer"])
def test_what_is_no_readable_session_file_is_left_alone(
    thing: str,
    good: bytes,
    folder: Path,
    tmp_path: Path,
) -> None:
    path = folder / "victim.json"
    outside = tmp_path / "outside.json"
    path.rename(outside)
    make: dict[str, Callable[[], object]] = {
        "folder": path.mkdir,
        "symlink": lambda: path.symlink_to(outside),
        "dangling": lambda: path.symlink_to(tmp_path / "nowhere"),
        "loop": lambda: path.symlink_to(path),
        "fifo": lambda: os.mkfifo(path),
        "newer": lambda: path.write_bytes(_edited(good, version=99)),
    }
    make[thing]()
    before = path.lstat()
    expected = NewerVersion if thing == "newer" else PathBlocked
    with SessionStore.open(folder, watch=False) as store:
        assert [problem.path.name for problem in store.last_recovery.problems] == ["victim.json"]
        assert store.load_session("good").messages == ["kept"]
        with pytest.raises(expected):
            store.load_session("victim")
        with pytest.raises(expected):
            store.save_session("victim", ["new"])
        with pytest.raises(expected):
            store.append("victim", ["new"])
        assert "victim" not in store
        assert len(store) == 1
        assert store.info().restarts == 0
    after = path.lstat()
    assert (after.st_ino, after.st_mode, after.st_mtime_ns) == (
        before.st_ino,
        before.st_mode,
        before.st_mtime_ns,
    )
    assert outside.read_bytes() == good


def test_an_unreadable_file_is_neither_absent_nor_corrupt(good: bytes, folder: Path) -> None:
    fs = FaultyFileSystem()
    fs.fail(Fault("read", PermissionError(13, "Permission denied"), name="victim.json"))
    os.utime(folder / "victim.json")  # else nobody would read it
    with SessionStore.open(folder, watch=False, inject=Injected(fs=fs)) as store:
        assert [problem.kind for problem in store.last_recovery.problems] == ["unreadable"]
        with pytest.raises(PathBlocked):
            store.load_session("victim")
        with pytest.raises(PathBlocked):
            store.save_session("victim", ["new"])
    assert (folder / "victim.json").read_bytes() == good


def test_foreign_files_are_ignored(good: bytes, folder: Path) -> None:
    names = [
        "README",
        ".DS_Store",
        "Thumbs.db",
        "a.json~",
        ".#x.json",
        ".x.json",
        "x.tmp",
        "s.jsonl",
    ]
    for name in names:
        (folder / name).write_bytes(b"mine")
    with SessionStore.open(folder, watch=False) as store:
        assert store.last_recovery.problems == []
        assert len(store) == 2
    assert all((folder / name).read_bytes() == b"mine" for name in names)


@pytest.mark.parametrize("older", ["plain", "hashed"])
def test_the_second_file_of_one_session_is_reported_and_both_stay(
    older: str,
    good: bytes,
    folder: Path,
) -> None:
    with SessionStore.open(folder, watch=False) as store:
        for twin in ("abc", "ABC"):
            store.save_session(twin, [twin])
        store.append("ABC", ["newer"])
    hashed = next(folder.glob("ABC~*.json"))
    plain = folder / "ABC.json"
    # The same session under its other legal name, one generation older.
    old = _edited(hashed.read_bytes(), generation=1, messages=["ABC"])
    plain.write_bytes(old if older == "plain" else hashed.read_bytes())
    if older == "hashed":
        hashed.write_bytes(old)
    with SessionStore.open(folder, watch=False) as store:
        assert [problem.kind for problem in store.last_recovery.problems] == ["duplicate"]
        assert store.load_session("ABC").messages == ["ABC", "newer"]
        assert store.load_session("abc").messages == ["abc"]
    assert old in (plain.read_bytes(), hashed.read_bytes())
    assert plain.exists()
    assert hashed.exists()


def test_another_sessions_file_put_in_place_is_not_served(folder: Path) -> None:
    with SessionStore.open(folder, watch=False, cache_bytes=1) as store:
        store.save_session("mine", ["mine"])
        store.save_session("other", ["secret"])
        shutil.copyfile(folder / "other.json", folder / "mine.json")
        with pytest.raises(IdMismatch):
            store.load_session("mine")
        assert "mine" not in store
        assert store.load_session("other").messages == ["secret"]


def test_rot_in_an_open_store_is_never_served(folder: Path) -> None:
    """The bytes change, name, size and time do not: no hand did that."""
    with (
        SessionStore.open(folder, watch=False, durability="file", cache_bytes=1) as store,
        EventLog(store) as log,
    ):
        store.save_session("s1", ["precious"])
        path = folder / "s1.json"
        status = path.stat()
        with path.open("r+b") as file:
            data = file.read()
            file.seek(data.index(b"precious"))
            file.write(b"P")
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        with pytest.raises(CorruptDocument):
            store.load_session("s1")
        assert "time did not" in log.wait_for("quarantined")[0].detail
        assert "s1" not in store
        with pytest.raises(SessionNotFound):
            store.load_session("s1")
        assert store.save_session("s1", ["again"]).generation == 1


def rot(path: Path, old: bytes, new: bytes) -> None:
    status = path.stat()
    with path.open("r+b") as file:
        data = file.read()
        file.seek(data.index(old))
        file.write(new)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_rot_is_healed_from_the_journal_without_a_loss(folder: Path) -> None:
    with (
        SessionStore.open(folder, watch=False, cache_bytes=1) as store,
        EventLog(store) as log,
    ):
        store.save_session("s1", ["precious"])
        store.append("s1", ["and more"])
        rot(folder / "s1.json", b"precious", b"P")
        assert store.load_session("s1").messages == ["precious", "and more"]
        assert store.load_session("s1").generation == 3
        assert log.wait_for("healed")[0].session_id == "s1"
        assert "time did not" in log.wait_for("quarantined")[0].detail
        kept = (folder / ".sessionkeeper" / "quarantine").glob("s1.*Z.json")
        assert all(b"Precious" in path.read_bytes() for path in kept)


@pytest.mark.parametrize("durability", ["journal", "file"])
def test_rot_is_healed_from_the_newest_valid_backup(durability: str, folder: Path) -> None:
    with SessionStore.open(folder, watch=False, durability=durability) as store:
        for number in range(4):
            store.save_session("s1", [f"version {number}"])
    backups = sorted((folder / ".sessionkeeper" / "backups" / "s1").iterdir())
    rot(backups[-1], b"version", b"V")
    rot(folder / "s1.json", b"version", b"V")
    (folder / "s1.json").write_bytes(b"{")
    with SessionStore.open(folder, watch=False, durability=durability) as store:
        assert store.load_session("s1").messages == ["version 1"]
        assert store.load_session("s1").generation == 3, "one more than the version brought back"
        assert [p.kind for p in store.last_recovery.problems] == ["corrupt", "healed"]
    with SessionStore.open(folder, watch=False, durability=durability) as store:
        assert store.last_recovery.problems == []
        assert store.load_session("s1").messages == ["version 1"]


def test_as_many_backups_are_kept_as_the_setting_says(folder: Path) -> None:
    backups = folder / ".sessionkeeper" / "backups" / "s1"
    with SessionStore.open(folder, watch=False, max_backups=2) as store:
        for number in range(5):
            store.save_session("s1", [number])
    assert [json.loads(path.read_bytes())["messages"] for path in sorted(backups.iterdir())] == [
        [2],
        [3],
    ]
    with SessionStore.open(folder, watch=False, max_backups=0) as store:
        store.save_session("s2", [1])
        store.save_session("s2", [2])
    assert not backups.with_name("s2").exists()


def test_a_hand_made_file_is_taken_with_a_copy_aside(good: bytes, folder: Path) -> None:
    text = json.dumps(
        {
            "format": "sessionkeeper",
            "version": 1,
            "session_id": "by-hand",
            "messages": [{"role": "user", "content": "typed"}],
            "tags": ["hand"],
        },
        indent=2,
    ).encode()
    (folder / "by-hand.json").write_bytes(text)
    with SessionStore.open(folder, watch=False) as store:
        assert [p.kind for p in store.last_recovery.problems] == ["adopted"]
        session = store.load_session("by-hand")
        assert session.messages == [{"role": "user", "content": "typed"}]
        assert session.tags == ("hand",)
        assert store.get_recent(1)[0].session_id == "by-hand"
        copies = list((folder / ".sessionkeeper" / "backups" / "by-hand").iterdir())
        assert [copy.read_bytes() for copy in copies] == [text]
    with SessionStore.open(folder, watch=False) as store:
        assert store.last_recovery.problems == [], "it is one of ours now"
        assert store.load_session("by-hand").messages == session.messages


def test_dead_temporaries_are_swept_and_nothing_else(good: bytes, folder: Path) -> None:
    temporary = folder / ".sessionkeeper" / "tmp" / "77-1.tmp"
    temporary.write_bytes(good[:10])
    with SessionStore.open(folder, watch=False) as store:
        assert store.last_recovery.swept == 1
        assert len(store) == 2
    assert not temporary.exists()


def test_a_store_can_be_copied(good: bytes, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    with SessionStore.open(tmp_path / "copy", watch=False) as store:
        assert store.load_session("good").messages == ["kept"]
        assert store.last_recovery.problems == []


def _damage_file(folder: Path) -> None:
    (folder / "s1.json").write_bytes(b"{")


def _damage_backup(folder: Path) -> None:
    (backup,) = (folder / ".sessionkeeper" / "backups" / "s1").iterdir()
    backup.write_bytes(backup.read_bytes().replace(b"first", b"worst"))


def _rot_file(folder: Path) -> None:
    """Which the next opening would not even read."""
    rot(folder / "s1.json", b"second", b"S")


@pytest.mark.parametrize("damage", [_damage_file, _damage_backup, _rot_file])
def test_a_strict_store_is_not_opened_with_damage_and_nothing_is_changed(
    damage: Callable[[Path], None],
    folder: Path,
) -> None:
    with SessionStore.open(folder, watch=False, recovery="strict") as store:
        store.save_session("s1", ["first"])
        store.save_session("s1", ["second"])
    damage(folder)

    def contents() -> dict[Path, bytes]:
        files = [path for path in folder.rglob("*") if path.is_file()]
        return {path: path.read_bytes() for path in files if path.name not in ("lock", "holder")}

    before = contents()
    with pytest.raises(StoreDamaged) as caught:
        SessionStore.open(folder, watch=False, recovery="strict")
    assert len(caught.value.problems) == 1
    assert "s1" in caught.value.problems[0]
    assert contents() == before
    with SessionStore.open(folder, watch=False) as store:
        assert store.load_session("s1").messages in (["first"], ["second"])
    if damage is not _damage_backup:
        SessionStore.open(folder, watch=False, recovery="strict").close()


@pytest.mark.parametrize("durability", ["journal", "file"])
def test_a_store_that_only_reports_leaves_what_is_damaged_where_it_is(
    folder: Path,
    durability: Literal["journal", "file"],
) -> None:
    with SessionStore.open(folder, watch=False) as store:
        store.save_session("s1", ["first"])
        store.save_session("s1", ["second"])
        store.save_session("s2", ["whole"])
    damaged = (folder / "s1.json").read_bytes()[:-9]
    (folder / "s1.json").write_bytes(damaged)
    for _ in range(2):
        opened = SessionStore.open(folder, watch=False, recovery="report", durability=durability)
        with opened as store:
            assert [problem.path.name for problem in store.last_recovery.problems] == ["s1.json"]
            assert store.load_session("s2").messages[0] == "whole"
            with pytest.raises((CorruptDocument, PathBlocked)):
                store.load_session("s1")
            with pytest.raises(PathBlocked):
                store.save_session("s1", ["over it"])
            with pytest.raises(PathBlocked):
                store.append("s1", ["to it"])
            store.append("s2", ["more"], key="once")
        assert (folder / "s1.json").read_bytes() == damaged
        assert not list((folder / ".sessionkeeper" / "quarantine").iterdir())
    with SessionStore.open(folder, watch=False) as store:
        assert store.load_session("s1").messages == ["first"], "the backup, now that it may"


def test_a_store_that_only_reports_serves_what_the_journal_holds(folder: Path) -> None:
    settings: dict[str, Any] = {"watch": False, "durability": "journal"}
    store = SessionStore.open(folder, **settings)
    store.save_session("s2", [])
    store.checkpoint()  # none follows by itself for a while
    store.save_session("s1", ["kept"])
    killed = folder.with_name("killed")
    shutil.copytree(folder, killed)
    store.close()
    (killed / "s1.json").write_bytes(b"{torn")
    with SessionStore.open(killed, recovery="report", **settings) as store:
        assert store.load_session("s1").messages == ["kept"]
        store.checkpoint()
        assert (killed / "s1.json").read_bytes() == b"{torn"
    with SessionStore.open(killed, **settings) as store:
        assert store.load_session("s1").messages == ["kept"]
    assert b'"kept"' in (killed / "s1.json").read_bytes()


def test_a_hand_edit_is_no_damage(folder: Path) -> None:
    with SessionStore.open(folder, watch=False) as store:
        store.save_session("s1", ["first"])
    text = (folder / "s1.json").read_text()
    (folder / "s1.json").write_text(text.replace('"first"', '"edited"'))
    with SessionStore.open(folder, watch=False, recovery="strict") as store:
        assert store.load_session("s1").messages == ["edited"]


@pytest.mark.parametrize("damage", [None, b"{torn"])
def test_another_durability_level_finds_what_the_journal_holds(
    folder: Path,
    damage: bytes | None,
) -> None:
    store = SessionStore.open(folder, watch=False)
    store.save_session("s0", [])
    store.checkpoint()  # none follows by itself for a while
    store.save_session("s1", [1])
    store.append("s1", ["only in the journal"])
    store.save_session("s2", ["removed"])
    store.delete_session("s2")
    killed = folder.with_name("killed")
    shutil.copytree(folder, killed)
    store.close()
    if damage is not None:
        (killed / "s1.json").write_bytes(damage)
    for _ in range(2):
        with SessionStore.open(killed, watch=False, durability="file") as store:
            assert store.load_session("s1").messages == [1, "only in the journal"]
            assert [info.session_id for info in store.iter_sessions()] == ["s0", "s1"]
        assert not list((killed / ".sessionkeeper" / "journal").iterdir())
    with SessionStore.open(killed, watch=False) as store:
        assert store.load_session("s1").messages == [1, "only in the journal"]
        assert store.undelete_session("s2").message_count == 1


def test_a_journal_that_cannot_be_finished_is_not_passed_over(folder: Path) -> None:
    store = SessionStore.open(folder, watch=False)
    store.save_session("s0", [])
    store.checkpoint()
    store.save_session("s1", [1])
    killed = folder.with_name("killed")
    shutil.copytree(folder, killed)
    store.close()
    (killed / "s1.json").write_bytes(b"{torn")
    with pytest.raises(SessionKeeperError):
        SessionStore.open(killed, watch=False, durability="file", recovery="report")
    with SessionStore.open(killed, watch=False) as store:
        assert store.load_session("s1").messages == [1]
