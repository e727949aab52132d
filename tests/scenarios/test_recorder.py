"""A program that records one long session: backups, recovery, auto-save, export, statistics."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

import pytest
from running import Program

from sessionkeeper import (
    BackupsDamaged,
    ImportRefused,
    NoBackup,
    Session,
    SessionManager,
    SessionNotFound,
    SessionStore,
    ValidationFailed,
)
from sessionkeeper.testing import FakeClock, Injected
from sessionkeeper.transfer import export_session, import_session

if TYPE_CHECKING:
    from pathlib import Path


def opened(folder: Path, **more: Any) -> SessionStore:
    return SessionStore.open(folder, preset="recorder", watch=False, **more)


def record(folder: Path, versions: int = 3, **more: Any) -> str:
    """Record a session of so many versions and close the store."""
    with opened(folder, **more) as store:
        manager = SessionManager(store)
        session_id = manager.start_session("My workflow", state=0)
        for version in range(1, versions):
            manager.append([f"command {version}"])
            manager.change(state=version)
            manager.force_save()
        return session_id


def cut(path: Path) -> bytes:
    """Leave half of a file, as a program does that writes in place and dies."""
    half = path.read_bytes()[: path.stat().st_size // 2]
    path.write_bytes(half)
    return half


def rot(path: Path) -> None:
    """Change a letter of what was recorded and nothing else, as a failing medium does."""
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(path.read_bytes().index(b"command"))
        file.write(b"k")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def set_aside(folder: Path) -> list[bytes]:
    """What could not be read and was kept, without the notes that say why."""
    found = (folder / ".sessionkeeper" / "quarantine").glob("*.json")
    return [path.read_bytes() for path in found if not path.name.endswith(".why.json")]


# --- what was damaged ---------------------------------------------------------------------------


def test_a_damaged_session_is_brought_back_from_its_newest_backup(folder: Path) -> None:
    session_id = record(folder)
    damaged = cut(folder / "sessions" / f"{session_id}.json")
    with opened(folder) as store:
        assert [problem.kind for problem in store.last_recovery.problems] == ["corrupt", "healed"]
        session = store.load_session(session_id)
        assert (session.state, session.messages) == (1, ["command 1"])
        assert session.status == "active"
        store.append(session_id, ["command 2, again"])
    assert set_aside(folder) == [damaged]
    with opened(folder) as store:
        assert not store.last_recovery.problems
        assert store.load_session(session_id).messages == ["command 1", "command 2, again"]


def test_a_damaged_backup_is_passed_over_for_the_one_before(folder: Path) -> None:
    session_id = record(folder, versions=5)
    with opened(folder, read_only=True) as store:
        newest, *_ = store.backups(session_id)
    cut(folder / "sessions" / f"{session_id}.json")
    rot(newest.path)
    with opened(folder) as store:
        assert store.load_session(session_id).state == 2
        assert newest.path.exists(), "nothing that cannot be read is removed"


def test_with_all_backups_damaged_each_of_them_is_named(folder: Path) -> None:
    session_id = record(folder, versions=4)
    cut(folder / "sessions" / f"{session_id}.json")
    backups = sorted((folder / "backups").glob("*/*.json"))
    for path in backups[1:]:
        rot(path)
    backups[0].write_bytes(b"")
    with opened(folder) as store:
        assert [problem.kind for problem in store.last_recovery.problems] == ["corrupt"]
        with pytest.raises(SessionNotFound):
            store.load_session(session_id)
        with pytest.raises(BackupsDamaged) as failed:
            store.restore(session_id)
        for path in backups:
            assert path.name in str(failed.value)
        assert failed.value.hint
    assert len(backups) == 3
    assert all(path.exists() for path in backups)


def test_without_backups_it_is_another_error(folder: Path) -> None:
    session_id = record(folder, max_backups=0)
    damaged = cut(folder / "sessions" / f"{session_id}.json")
    with opened(folder) as store:
        with pytest.raises(NoBackup) as failed:
            store.restore(session_id)
        assert not isinstance(failed.value, BackupsDamaged)
        assert failed.value.session_id == session_id
    assert set_aside(folder) == [damaged]


def test_what_rots_while_it_is_open_is_not_served(folder: Path) -> None:
    session_id = record(folder)
    with opened(folder) as store:
        rot(folder / "sessions" / f"{session_id}.json")
        assert store.load_session(session_id).messages == ["command 1"]


# --- what is not valid --------------------------------------------------------------------------


def commands_counted(session: Session) -> list[str]:
    """The number it tells is that of its commands."""
    told = session.state["commands"]
    found = len(session.messages)
    return [] if told == found else [f"{told} commands are told of, {found} are there"]


CHECKS = ["description", "times", "counts", "ids", commands_counted]


def test_a_session_that_is_not_valid_is_rejected_with_its_issues(
    folder: Path,
    tmp_path: Path,
) -> None:
    coming = tmp_path / "coming.json"
    with opened(folder, validators=CHECKS) as store:
        manager = SessionManager(store)
        session_id = manager.start_session("My workflow", state={"commands": 0})
        manager.append(["createdb"])
        with pytest.raises(ValidationFailed) as failed:
            manager.force_save()
        assert failed.value.issues == ["0 commands are told of, 1 are there"]
        manager.change(state={"commands": 1})
        assert manager.force_save(), "what was collected was kept"

        with opened(tmp_path / "other") as other:
            other.save_session("in", ["ls"], state={"commands": 2})
            export_session(other, "in", coming)
        with pytest.raises(ImportRefused, match="it has no title; 2 commands are told of, 1 are"):
            import_session(store, coming)
        assert "in" not in store
        assert store.validate_session(session_id) == []

    with opened(folder) as store:
        store.save_session(session_id, title=" ", state={"commands": 7})
    with opened(folder, validators=CHECKS) as store:
        assert store.validate_session(session_id) == [
            "it has no title",
            "7 commands are told of, 1 are there",
        ]
        store.restore(session_id)
        assert store.validate_session(session_id) == [], "the version before was valid"
        with pytest.raises(ValidationFailed):
            store.restore(session_id, store.backups(session_id)[0].generation)


# --- what was interrupted -----------------------------------------------------------------------


def test_the_next_start_goes_on_where_a_kill_ended_it(folder: Path, tmp_path: Path) -> None:
    with Program("recorder_at_work", folder, folder=tmp_path) as recorder:
        begun = recorder.expect("recording")
        assert not begun["recovered"]
        while recorder.expect("saved")["step"] < 20:
            pass
        recorder.kill()
        saved = recorder.told[-1]["step"]

    with Program("recorder_at_work", folder, folder=tmp_path) as recorder:
        again = recorder.expect("recording")
        assert again == {**begun, "recovered": True}
        recorder.expect("saved")
        recorder.kill()

    with opened(folder) as store:
        manager = SessionManager(store)
        assert manager.recover_session() == begun["session_id"]
        session = store.load_session(begun["session_id"])
        steps = [message["command"] for message in session.messages]
        assert steps[:saved] == [f"step {step}" for step in range(1, saved + 1)]
        assert "step 1" in steps[saved:], "the second run has added its own"
        assert all(isinstance(note.id, UUID) for note in session.annotations)
        manager.annotate("Recovered.")
        stopped = manager.stop_session()
        assert (stopped.status, stopped.title) == ("completed", "Set up the database")
        assert len(store.backups(begun["session_id"])) == 5
    with opened(folder) as store:
        assert SessionManager(store).recover_session() is None


@pytest.mark.parametrize(
    ("durability", "unapplied"),
    [("journal", []), ("journal", ["added later"]), ("file", [])],
)
def test_a_recovery_that_is_killed_is_done_by_the_next(
    durability: Literal["journal", "file"],
    unapplied: list[str],
    folder: Path,
    tmp_path: Path,
) -> None:
    session_id = record(folder)
    original, copies = tmp_path / "original", tmp_path / "copies"
    with opened(folder) as store:
        store.checkpoint()  # the next is far away, so nothing changes while it is copied
        if unapplied:
            store.append(session_id, unapplied)
        shutil.copytree(folder, original)
    damaged = cut(original / "sessions" / f"{session_id}.json")

    environment = {"SESSIONKEEPER_DURABILITY": durability}
    arguments = ("killed_openings", original, copies)
    with Program(*arguments, folder=tmp_path, environment=environment) as openings:
        *killed, last = openings.rest()
    assert len(killed) > 5
    assert all(told["killed"] for told in killed)
    assert not last["killed"]
    for number in range(1, last["number"] + 1):
        for _ in range(2):
            with opened(copies / str(number), durability=durability) as store:
                session = store.load_session(session_id)
                assert (session.state, session.messages) == (1, ["command 1", *unapplied]), number
        assert not store.last_recovery.problems, number
        assert set_aside(copies / str(number)) == [damaged], number


# --- what is saved when, and what it takes ------------------------------------------------------


def test_what_is_typed_is_saved_every_30_seconds(folder: Path, clock: FakeClock) -> None:
    with opened(folder, inject=Injected(clock=clock)) as store:
        manager = SessionManager(store, clock=clock)
        session_id = manager.start_session("My workflow")
        manager.append(["one"])
        clock.advance(29)
        assert not manager.check_auto_save()
        assert store.load_session(session_id).messages == []
        clock.advance(1)
        assert manager.check_auto_save()
        assert not manager.check_auto_save(), "nothing is left to save"
        assert store.load_session(session_id).messages == ["one"]
        manager.append(["two"])
        clock.advance(20)
        manager.annotate("Any save counts.")
        manager.append(["three"])
        clock.advance(20)
        assert not manager.check_auto_save()
        store.save_session(session_id, status="completed")
        clock.advance(20)
        assert not manager.check_auto_save(), "it is not to be modified any more"
        assert manager.force_save()
        assert store.load_session(session_id).messages == ["one", "two", "three"]


def test_a_session_can_be_taken_elsewhere_and_back(folder: Path, tmp_path: Path) -> None:
    session_id = record(folder)
    exported, hostile = tmp_path / "exported.json", tmp_path / "hostile.json"
    with opened(folder) as store:
        export_session(store, session_id, exported)
        with pytest.raises(ImportRefused):
            import_session(store, exported)
        copy = import_session(store, exported, on_conflict="rename")
        assert copy != session_id
        assert store.load_session(copy).messages == ["command 1", "command 2"]
        hostile.write_text('{"id": "../../pwned", "messages": []}')
        with pytest.raises(ImportRefused):
            import_session(store, hostile)
        rot(exported)
        with pytest.raises(ImportRefused):
            import_session(store, exported, on_conflict="replace")
    with opened(tmp_path / "other") as other:
        assert len(other) == 0
    assert not list(tmp_path.glob("**/pwned*"))


def test_what_it_takes_and_what_a_month_removes(folder: Path, clock: FakeClock) -> None:
    with opened(folder, inject=Injected(clock=clock)) as store:
        for session_id in ("done", "going on"):
            for version in range(8):
                store.save_session(session_id, [version] * 10, status="active")
        store.save_session("done", status="completed")
        store.checkpoint()
        stats = store.stats()
        files = {part: [*(folder / part).glob("**/*.json")] for part in ("sessions", "backups")}
        assert (stats.session_count, stats.backup_count) == (2, 10)
        assert [len(files["sessions"]), len(files["backups"])] == [2, 10]
        assert stats.session_size == sum(path.stat().st_size for path in files["sessions"])
        assert stats.backup_size == sum(path.stat().st_size for path in files["backups"])
        assert stats.total_size > stats.session_size + stats.backup_size

        clock.set_wall_clock(clock.now().replace(year=clock.now().year + 1))
        (removed,) = store.cleanup()
        assert removed.session_id == "done", "one that is going on stays"
        left = store.stats()
        assert (left.session_count, left.backup_count) == (1, 5), "its backups go with it"
