"""A medium that fails: nothing acknowledged is lost, nothing refused is written."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import threading
from typing import TYPE_CHECKING, Literal

import pytest

from sessionkeeper import (
    AppendMessages,
    Conflict,
    CorruptDocument,
    OutcomeUnknown,
    PathBlocked,
    SaveSession,
    SessionStore,
    StorageFailed,
    StoreGone,
)
from sessionkeeper.testing import (
    EventLog,
    FakeClock,
    Fault,
    FaultyFileSystem,
    Injected,
    InjectedCrash,
    wait_until,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sessionkeeper import Receipt, Saved


@pytest.fixture
def fs() -> FaultyFileSystem:
    return FaultyFileSystem()


@pytest.fixture
def faulty(folder: Path, fs: FaultyFileSystem) -> Iterator[SessionStore]:
    with SessionStore.open(
        folder,
        watch=False,
        durability="file",
        inject=Injected(fs=fs),
    ) as opened:
        yield opened


def os_error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def temporaries(folder: Path) -> list[str]:
    return [path.name for path in (folder / ".sessionkeeper" / "tmp").iterdir()]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE])
@pytest.mark.parametrize("operation", ["write_new", "sync"])
def test_a_save_the_medium_refuses_changes_nothing(
    operation: str,
    number: int,
    faulty: SessionStore,
    fs: FaultyFileSystem,
    folder: Path,
) -> None:
    faulty.save_session("s1", ["old"])
    before = (folder / "s1.json").read_bytes()
    fs.fail(Fault(operation, os_error(number)))
    with pytest.raises(StorageFailed):
        faulty.save_session("s1", ["new"])
    assert (folder / "s1.json").read_bytes() == before
    assert temporaries(folder) == []
    assert faulty.load_session("s1").messages == ["old"]
    assert faulty.info().restarts == 0
    faulty.save_session("s1", ["new"])
    assert faulty.load_session("s1").messages == ["new"]
    assert faulty.load_session("s1").generation == 2


def test_a_full_disk_refuses_the_culprit_and_not_its_neighbours(
    faulty: SessionStore,
    fs: FaultyFileSystem,
    folder: Path,
) -> None:
    """In one turn: the group is refused, then each is tried alone."""
    faulty.save_session("held", [0])
    with EventLog(faulty) as log:
        # The turn's temporaries: the third of the group fails, and again when tried alone.
        receipts = _one_turn(
            faulty,
            [SaveSession(f"s{number}", [number]) for number in range(5)],
            lambda: _fail_writes_of(fs, 2, 5),
        )
        errors = [receipt.exception(5) for receipt in receipts]
        assert sum(isinstance(error, StorageFailed) for error in errors) == 1
        log.wait_for("saved", 4)
    saved = [n for n, error in enumerate(errors) if error is None]
    assert {info.session_id for info in faulty.list_sessions()} == {
        "held",
        *(f"s{n}" for n in saved),
    }
    assert temporaries(folder) == []
    assert faulty.info().restarts == 0


def _fail_writes_of(fs: FaultyFileSystem, first: int, group: int) -> None:
    fs.fail(Fault("write_new", os_error(errno.ENOSPC), skip=first))
    fs.fail(Fault("write_new", os_error(errno.ENOSPC), skip=group - first - 1))


def _one_turn(
    store: SessionStore,
    commands: list[SaveSession],
    prepare: Callable[[], None],
) -> list[Receipt[Saved]]:
    """Send commands while the actor is busy, so that they are taken together."""
    busy, go = threading.Event(), threading.Event()

    def hold(_: object) -> None:
        busy.set()
        go.wait(5)

    unsubscribe = store.subscribe(lambda event: hold(event) if event.session_id == "held" else None)
    held = store.tell(AppendMessages("held", [1]))
    assert busy.wait(5)
    receipts = [store.tell(command) for command in commands]
    prepare()
    unsubscribe()
    go.set()
    held.result(5)
    return receipts


@pytest.mark.parametrize("operation", ["replace", "sync_folder"])
def test_a_commit_that_fails_half_way_is_settled_by_looking_at_the_disk(
    operation: str,
    faulty: SessionStore,
    fs: FaultyFileSystem,
    folder: Path,
) -> None:
    faulty.save_session("s1", ["old"])
    fs.fail(Fault(operation, os_error(errno.EIO)))
    assert faulty.save_session("s1", ["new"]).generation == 2
    assert faulty.info().restarts == 1
    assert faulty.load_session("s1").messages == ["new"]
    assert faulty.load_session("s1").generation == 2, "applied once, not twice"


def test_a_directory_sync_that_failed_is_not_taken_for_durable_by_trying_again(
    faulty: SessionStore,
    fs: FaultyFileSystem,
    folder: Path,
) -> None:
    """After a failed sync the next one may succeed and mean nothing: the file is written anew."""
    faulty.save_session("s1", ["old"])
    before = len(fs.calls)
    fs.fail(Fault("sync_folder", os_error(errno.EIO)))
    faulty.save_session("s1", ["new"])
    calls = fs.calls[before:]
    failed = calls.index("sync_folder")
    assert "write_new" in calls[failed:], "the doubtful file was not written again"
    assert "replace" in calls[failed:]


def test_a_medium_that_stays_broken_is_reported_as_unknown_not_as_refused(
    folder: Path,
) -> None:
    fs = FaultyFileSystem()
    store = SessionStore.open(
        folder, durability="file", watch=False, inject=Injected(fs=fs), max_restarts=1
    )
    store.save_session("s1", ["old"])
    fs.fail(Fault("sync_folder", os_error(errno.EIO), times=1000))
    with pytest.raises(OutcomeUnknown):
        store.save_session("s1", ["new"])
    # Callers are answered first; a moment later reads are refused too, and the store is closed.
    wait_until(lambda: store.info().state == "closed")
    store.close()
    fs.heal()
    with SessionStore.open(folder, durability="file", watch=False) as again:
        assert again.load_session("s1").messages in (["old"], ["new"])


def test_a_delete_the_medium_refuses_keeps_the_session(
    faulty: SessionStore,
    fs: FaultyFileSystem,
    folder: Path,
) -> None:
    faulty.save_session("s1", ["kept"])
    fs.fail(Fault("write_new", os_error(errno.ENOSPC)))
    with pytest.raises(StorageFailed):
        faulty.delete_session("s1")
    assert faulty.load_session("s1").messages == ["kept"]
    assert list((folder / ".sessionkeeper" / "trash").iterdir()) == []
    assert faulty.delete_session("s1")


def test_the_order_of_a_durable_save(faulty: SessionStore, fs: FaultyFileSystem) -> None:
    """Write and sync the temporary, rename it, sync the folder; only then answer."""
    before = len(fs.calls)
    faulty.save_session("s1", [1])
    assert fs.calls[before:] == ["write_new", "sync", "replace", "sync_folder"]


def test_files_are_for_the_owner_only_from_the_first_moment(folder: Path) -> None:
    old = os.umask(0)
    try:
        with SessionStore.open(folder, durability="file", watch=False) as store:
            store.save_session("s1", [1])
            store.delete_session("s1")
            store.save_session("s2", [1])
            for path in folder.rglob("*"):
                expected = 0o700 if path.is_dir() else 0o600
                assert path.stat().st_mode & 0o777 == expected, path
            assert folder.stat().st_mode & 0o777 == 0o700
    finally:
        os.umask(old)


def test_a_folder_that_is_replaced_is_noticed(folder: Path, tmp_path: Path) -> None:
    store = SessionStore.open(folder, durability="file", watch=False)
    store.save_session("s1", [1])
    folder.rename(tmp_path / "moved")
    shutil.copytree(tmp_path / "moved", folder)
    with pytest.raises(StoreGone):
        store.save_session("s1", [2])
    with pytest.raises(StoreGone):
        store.append("s2", [2])
    assert not (folder / "s2.json").exists(), "nothing is spread into a strange folder"
    store.close()


def test_a_folder_in_the_way_is_a_typed_error_and_stays(folder: Path) -> None:
    with SessionStore.open(folder, durability="file", watch=False) as store:
        (folder / "s1.json").mkdir()
        with pytest.raises(PathBlocked) as refused:
            store.save_session("s1", [1])
        assert refused.value.session_id == "s1"
        assert (folder / "s1.json").is_dir()
        assert store.info().restarts == 0


def test_an_edit_that_came_in_between_is_kept_aside(folder: Path) -> None:
    with SessionStore.open(folder, durability="file", watch=False) as store, EventLog(store) as log:
        store.save_session("s1", ["first"])
        edited = (folder / "s1.json").read_bytes().replace(b"first", b"EDIT!")
        (folder / "s1.json").write_bytes(edited)
        store.save_session("s1", ["second"])
        conflict = log.wait_for("conflict")[0]
        assert "edited" in conflict.detail
        copies = list((folder / ".sessionkeeper" / "backups" / "s1").iterdir())
        assert [copy.read_bytes() for copy in copies] == [edited]
        assert store.load_session("s1").messages == ["second"]


def test_a_conflict_of_generations_writes_nothing(
    faulty: SessionStore,
    fs: FaultyFileSystem,
) -> None:
    faulty.save_session("s1", [1])
    before = len(fs.calls)
    with pytest.raises(Conflict) as refused:
        faulty.save_session("s1", [2], expected_generation=7)
    assert (refused.value.expected, refused.value.actual) == (7, 1)
    assert fs.calls[before:] == []


def test_a_medium_that_cannot_keep_an_edit_aside_refuses_the_save(
    faulty: SessionStore,
    fs: FaultyFileSystem,
    folder: Path,
) -> None:
    faulty.save_session("s1", ["first"])
    edited = (folder / "s1.json").read_bytes().replace(b"first", b"EDIT!")
    (folder / "s1.json").write_bytes(edited)
    fs.fail(Fault("link", os_error(errno.ENOSPC)))
    with pytest.raises(StorageFailed):
        faulty.save_session("s1", ["second"])
    assert (folder / "s1.json").read_bytes() == edited
    assert faulty.info().restarts == 0
    faulty.save_session("s1", ["second"])
    copies = list((folder / ".sessionkeeper" / "backups" / "s1").iterdir())
    assert [copy.read_bytes() for copy in copies] == [edited]


@pytest.mark.parametrize("known", [True, False])
def test_an_edit_that_a_full_disk_does_not_let_in_is_taken_later(
    known: bool,  # noqa: FBT001 - a parameter of the test
    folder: Path,
    clock: FakeClock,
) -> None:
    fs = FaultyFileSystem()
    inject = Injected(fs=fs, clock=clock)
    with SessionStore.open(
        folder, durability="file", reconcile_interval=60, inject=inject
    ) as store:
        store.save_session("s1", ["first"])
        edited = (folder / "s1.json").read_bytes().replace(b"first", b"EDIT!")
        name = "s1" if known else "s2"
        edited = edited.replace(b'"session_id":"s1"', f'"session_id":"{name}"'.encode())
        fs.fail(Fault("write_new", os_error(errno.ENOSPC), times=10**6))
        (folder / f"{name}.json").write_bytes(edited)
        clock.advance(61)
        wait_until(lambda: fs.calls.count("write_new") >= 2)
        store.flush()
        assert (folder / f"{name}.json").read_bytes() == edited
        assert store.load_session("s1").messages == ["first"], "as it was before the edit"
        fs.heal()
        clock.advance(61)
        wait_until(lambda: name in store and store.load_session(name).messages == ["EDIT!"])
        assert store.info().restarts == 0


def test_a_hand_made_file_that_cannot_be_taken_at_start_is_reported_and_stays(
    folder: Path,
) -> None:
    with SessionStore.open(folder, durability="file", watch=False) as store:
        store.save_session("good", ["kept"])
    data = (folder / "good.json").read_bytes().replace(b'"good"', b'"hand"')
    (folder / "hand.json").write_bytes(data)
    fs = FaultyFileSystem()
    fs.fail(Fault("write_new", os_error(errno.ENOSPC)))
    with SessionStore.open(folder, durability="file", watch=False, inject=Injected(fs=fs)) as store:
        problems = store.last_recovery.problems
        assert [(p.kind, p.session_id) for p in problems] == [("unreadable", "hand")]
        assert "hand" not in store
        assert store.load_session("good").messages == ["kept"]
    assert (folder / "hand.json").read_bytes() == data


def test_a_file_that_cannot_be_moved_to_the_quarantine_stays_and_is_blocked(folder: Path) -> None:
    SessionStore.open(folder, durability="file", watch=False).close()
    (folder / "bad.json").write_bytes(b"{")
    fs = FaultyFileSystem()
    fs.fail(Fault("replace", os_error(errno.EROFS)))
    with SessionStore.open(folder, durability="file", watch=False, inject=Injected(fs=fs)) as store:
        with pytest.raises(PathBlocked):
            store.save_session("bad", ["new"])
        with pytest.raises(PathBlocked):
            store.load_session("bad")
    assert (folder / "bad.json").read_bytes() == b"{"


def test_a_session_brought_back_survives_a_medium_that_refuses_the_rest(
    folder: Path,
    tmp_path: Path,
) -> None:
    left = tmp_path / "left"
    with SessionStore.open(folder, watch=False) as store:
        store.save_session("s1", ["first"])
        store.save_session("s1", ["second"])
        store.checkpoint()
        store.append("s1", ["third"])
        shutil.copytree(folder, left)
    half = (left / "s1.json").read_bytes()[:200]
    (left / "s1.json").write_bytes(half)
    fs = FaultyFileSystem()
    fs.fail(Fault("write_at", os_error(errno.EIO), times=1000))
    fs.fail(Fault("write_new", os_error(errno.ENOSPC), skip=1, times=1000))
    with SessionStore.open(left, watch=False, inject=Injected(fs=fs)) as store:
        assert store.load_session("s1").messages == ["first", "third"]
        assert (left / "s1.json").read_bytes() == half, "nothing stands in for it yet"
        fs.heal()
    with SessionStore.open(left, watch=False) as store:
        assert store.load_session("s1").messages == ["first", "third"]
        assert not store.last_recovery.problems
    kept = [path.read_bytes() for path in (left / ".sessionkeeper" / "quarantine").iterdir()]
    assert half in kept


def test_a_temporary_that_cannot_be_removed_keeps_nobody_from_opening(folder: Path) -> None:
    SessionStore.open(folder, durability="file", watch=False).close()
    temporary = folder / ".sessionkeeper" / "tmp" / "1-1.tmp"
    temporary.write_bytes(b"half")
    fs = FaultyFileSystem()
    fs.fail(Fault("unlink", os_error(errno.EPERM)))
    with SessionStore.open(folder, durability="file", watch=False, inject=Injected(fs=fs)) as store:
        assert store.last_recovery.swept == 0
        store.save_session("s1", [1])
    assert temporary.exists()


def test_a_deleted_session_takes_its_kept_edits_with_it(folder: Path) -> None:
    with SessionStore.open(folder, durability="file", watch=False) as store:
        store.save_session("s1", ["first"])
        edited = (folder / "s1.json").read_bytes().replace(b"first", b"EDIT!")
        (folder / "s1.json").write_bytes(edited)
        store.save_session("s1", ["second"])
        store.delete_session("s1")
        assert list((folder / ".sessionkeeper" / "backups").iterdir()) == []
        removal = next((folder / ".sessionkeeper" / "trash").iterdir())
        assert [path.read_bytes() for path in (removal / "backups").iterdir()] == [edited]
        assert json.loads((removal / "removal.json").read_bytes())["reason"] == "deleted"


def test_a_trash_that_cannot_be_emptied_is_tried_again(folder: Path, clock: FakeClock) -> None:
    fs = FaultyFileSystem()
    inject = Injected(fs=fs, clock=clock)
    with (
        SessionStore.open(folder, durability="file", watch=False, inject=inject) as store,
        EventLog(store) as log,
    ):
        store.save_session("s1", ["secret"])
        store.delete_session("s1")
        fs.fail(Fault("unlink", os_error(errno.EIO), times=10**6))
        clock.advance(days=8)
        store.flush()
        assert log.of_kind("purged") == []
        fs.heal()
        clock.advance(3601)
        log.wait_for("purged")
        assert store.info().restarts == 0


def test_a_removal_whose_manifest_is_lost_is_kept_for_ever(folder: Path, clock: FakeClock) -> None:
    with SessionStore.open(
        folder, durability="file", watch=False, inject=Injected(clock=clock)
    ) as store:
        store.save_session("s1", ["secret"])
        store.delete_session("s1")
        removal = next((folder / ".sessionkeeper" / "trash").iterdir())
        (removal / "removal.json").write_bytes(b"{")
        clock.advance(days=100)
        store.flush()
        assert (removal / "session.json").exists()


def test_a_removal_that_was_acknowledged_is_left_alone_when_a_later_save_fails(
    folder: Path,
) -> None:
    """Written anew, it would be there again for an instant, and a power loss then would keep it."""
    placed: list[Path] = []

    class Noting(FaultyFileSystem):
        def replace(self, source: Path, target: Path) -> None:
            super().replace(source, target)
            placed.append(target)

    fs = Noting()
    with SessionStore.open(folder, durability="file", watch=False, inject=Injected(fs=fs)) as store:
        store.save_session("s1", ["removed"])
        store.delete_session("s1")
        (removal,) = (folder / ".sessionkeeper" / "trash").iterdir()
        placed.clear()
        fs.fail(Fault("replace", os_error(errno.EROFS)))
        store.save_session("s1", ["anew"])
        assert store.info().restarts == 1, "the save failed half-way, and was settled by a recovery"
        assert placed == [folder / "s1.json"], "nothing else was put there in between"
        assert (removal / "session.json").exists()


def test_a_removal_whose_sync_failed_is_written_anew(folder: Path) -> None:
    fs = FaultyFileSystem()
    with SessionStore.open(folder, durability="file", watch=False, inject=Injected(fs=fs)) as store:
        store.save_session("s1", ["removed"])
        # The manifest's folder, then what was moved into it, then the folder it came from.
        fs.fail(Fault("sync_folder", os_error(errno.EIO), skip=2))
        assert store.delete_session("s1") is True
        assert store.info().restarts == 1
        (removal,) = (folder / ".sessionkeeper" / "trash").iterdir()
        assert removal.name == "0000000000000002+s1", "another sync of the first proves nothing"
        assert "s1" not in store
        assert store.undelete_session("s1").message_count == 1


def test_a_delete_that_crashed_is_answered_only_when_its_copy_is_durable(folder: Path) -> None:
    synced: list[Path] = []

    class Noting(FaultyFileSystem):
        def sync_folder(self, path: Path) -> None:
            super().sync_folder(path)
            synced.append(path)

    fs = Noting()
    with SessionStore.open(folder, durability="file", watch=False, inject=Injected(fs=fs)) as store:
        store.save_session("s1", ["kept"])
        fs.fail(Fault("replace", InjectedCrash("behind the move"), after=True))
        synced.clear()
        assert store.delete_session("s1") is True
        removal = next((folder / ".sessionkeeper" / "trash").iterdir())
        # Once for the manifest, and again by the recovery, for the session moved there.
        assert synced.count(removal) == 2
        assert synced.index(folder) > synced.index(removal)
        assert store.info().restarts == 1


@pytest.mark.parametrize(
    "operation",
    ["write_new", "link", "sync_folder", "write_at", "sync_data", "replace"],
)
@pytest.mark.parametrize("durability", ["journal", "file"])
@pytest.mark.parametrize("after", [False, True])
def test_a_crash_while_rot_is_healed_loses_nothing(
    operation: str,
    durability: Literal["journal", "file"],
    after: bool,  # noqa: FBT001 - a parameter of the test
    folder: Path,
    fs: FaultyFileSystem,
) -> None:
    with SessionStore.open(
        folder,
        watch=False,
        durability=durability,
        cache_bytes=1,
        inject=Injected(fs=fs),
    ) as store:
        store.save_session("s1", ["first"])
        store.save_session("s1", ["second"])
        store.checkpoint()
        path = folder / "s1.json"
        before = path.stat()
        with path.open("r+b") as file:
            file.write(path.read_bytes().replace(b"second", b"SECOND"))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        fs.fail(Fault(operation, InjectedCrash(operation), after=after))
        with contextlib.suppress(CorruptDocument):  # the actor crashed over it
            store.load_session("s1")
        store.flush()
        assert store.load_session("s1").messages == ["first"]
    with SessionStore.open(folder, durability=durability, watch=False) as store:
        assert store.load_session("s1").messages == ["first"]
