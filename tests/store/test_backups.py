"""What a save replaced can be seen and brought back."""

from __future__ import annotations

import errno
from datetime import UTC
from typing import TYPE_CHECKING, Literal

import pytest

from sessionkeeper import (
    BackupsDamaged,
    InvalidSessionId,
    NoBackup,
    RestoreBackup,
    Session,
    SessionStore,
    ValidationFailed,
)
from sessionkeeper.testing import (
    EventLog,
    FakeClock,
    Fault,
    FaultyBackend,
    FaultyFileSystem,
    Injected,
    InjectedCrash,
    crash_actor,
)

if TYPE_CHECKING:
    from pathlib import Path

    from sessionkeeper.storage.backend import Backend

LEVELS = pytest.mark.parametrize("durability", ["journal", "file"])


def saved_often(store: SessionStore, times: int = 3) -> None:
    for number in range(1, times + 1):
        store.save_session("s1", [f"version {number}"], title=f"Title {number}", state=number)


@LEVELS
def test_what_a_save_replaced_is_listed(
    folder: Path,
    durability: Literal["journal", "file"],
) -> None:
    with SessionStore.open(folder, watch=False, durability=durability, max_backups=3) as store:
        saved_often(store, 6)
        backups = store.backups("s1")
        assert [backup.generation for backup in backups] == [5, 4, 3]
        for backup in backups:
            assert backup.session_id == "s1"
            assert backup.size == backup.path.stat().st_size > 0
            assert backup.updated_at.tzinfo is UTC
        assert backups[0].updated_at > backups[-1].updated_at
        assert store.backups("nobody") == []
        with pytest.raises(InvalidSessionId):
            store.backups("../s1")


@LEVELS
def test_five_are_kept_unless_told_otherwise(
    folder: Path,
    durability: Literal["journal", "file"],
) -> None:
    with SessionStore.open(folder, watch=False, durability=durability) as store:
        saved_often(store, 8)
        assert [backup.generation for backup in store.backups("s1")] == [7, 6, 5, 4, 3]


@LEVELS
def test_versions_of_one_instant_are_all_kept(
    folder: Path,
    durability: Literal["journal", "file"],
    clock: FakeClock,
) -> None:
    inject = Injected(clock=clock)
    with SessionStore.open(folder, watch=False, durability=durability, inject=inject) as store:
        saved_often(store, 4)
        backups = store.backups("s1")
        assert [backup.generation for backup in backups] == [3, 2, 1]
        assert {backup.updated_at for backup in backups} == {clock.now()}
        store.restore("s1", 2)
        assert store.load_session("s1").messages == ["version 2"]


def test_a_version_that_would_not_be_valid_now_is_not_brought_back(folder: Path) -> None:
    with SessionStore.open(folder, watch=False) as store:
        saved_often(store, 2)

    def second_only(session: Session) -> list[str]:
        return [] if session.messages == ["version 2"] else ["it is not the second"]

    with SessionStore.open(folder, watch=False, validators=[second_only]) as store:
        with pytest.raises(ValidationFailed, match="not the second"):
            store.restore("s1")
        assert store.load_session("s1").messages == ["version 2"]
        assert store.load_session("s1").generation == 2


@LEVELS
def test_a_version_comes_back_as_a_new_generation(
    folder: Path,
    durability: Literal["journal", "file"],
) -> None:
    with SessionStore.open(folder, watch=False, durability=durability) as store:
        saved_often(store)
        store.append("s1", ["more"])
        assert store.restore("s1", 1).generation == 5
        session = store.load_session("s1")
        assert session.messages == ["version 1"]
        assert session.info.title == "Title 1"
        assert session.state == 1
        assert store.restore("s1").message_count >= 1
        assert store.load_session("s1").generation == 6
    with SessionStore.open(folder, watch=False, durability=durability) as store:
        assert store.load_session("s1").generation == 6


def test_a_damaged_backup_is_passed_over_and_never_served(folder: Path) -> None:
    with SessionStore.open(folder, watch=False) as store:
        saved_often(store)
        newest = store.backups("s1")[0]
        newest.path.write_bytes(newest.path.read_bytes().replace(b"version", b"VERSION"))
        with pytest.raises(BackupsDamaged, match=newest.path.name):
            store.restore("s1", newest.generation)
        store.restore("s1")
        assert store.load_session("s1").messages == ["version 1"]
        for backup in store.backups("s1"):
            backup.path.write_bytes(b"{")
        with pytest.raises(BackupsDamaged):
            store.restore("s1")
        assert store.load_session("s1").messages == ["version 1"]


def test_without_a_backup_the_error_says_so(folder: Path) -> None:
    with SessionStore.open(folder, watch=False) as store:
        store.save_session("s1", ["only"])
        with pytest.raises(NoBackup, match="no backup of session 's1'"):
            store.restore("s1")
        store.save_session("s1", ["again"])
        with pytest.raises(NoBackup, match="generation 7"):
            store.restore("s1", 7)
        with pytest.raises(NoBackup):
            store.restore("nobody")
        assert store.load_session("s1").messages == ["again"]


def test_in_memory_nothing_is_kept() -> None:
    with SessionStore.open("unused", persistence=False) as store:
        saved_often(store)
        assert store.backups("s1") == []
        with pytest.raises(NoBackup):
            store.restore("s1")


def test_a_session_whose_file_is_lost_comes_back(folder: Path) -> None:
    with SessionStore.open(folder, watch=False) as store:
        saved_often(store)
    (folder / "s1.json").unlink()
    with SessionStore.open(folder, watch=False) as store:
        assert "s1" not in store
        assert store.restore("s1").generation == 3
        assert store.load_session("s1").messages == ["version 2"]


def test_a_crash_makes_it_happen_once(folder: Path) -> None:
    with SessionStore.open(folder, watch=False) as store:
        saved_often(store)
        receipt = store.tell(RestoreBackup("s1", 2))
        crash_actor(store)
        assert receipt.result(10).generation == 4
        assert store.load_session("s1").generation == 4
        assert store.load_session("s1").messages == ["version 2"]


# --- deleted and undeleted --------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["flat", "rooted"])
@pytest.mark.parametrize("durability", ["journal", "file", "os"])
def test_an_undeleted_session_has_its_backups(
    folder: Path,
    durability: Literal["journal", "file", "os"],
    layout: Literal["flat", "rooted"],
) -> None:
    opened = SessionStore.open(
        folder,
        watch=False,
        durability=durability,
        layout=layout,
        max_backups=3,
    )
    with opened as store:
        for scope in (store, store.scope("team")):
            for number in range(1, 5):
                scope.save_session("s1", [f"version {number}"])
            scope.delete_session("s1")
            assert scope.backups("s1") == []
            assert scope.undelete_session("s1").generation == 5
            assert [backup.generation for backup in scope.backups("s1")] == [3, 2, 1]
            scope.save_session("s1", ["version 6"])
            assert [backup.generation for backup in scope.backups("s1")] == [5, 3, 2]
            scope.restore("s1", 2)
            assert scope.load_session("s1").messages == ["version 2"]


def test_an_undeleted_session_comes_back_without_backups_that_cannot_be_linked(
    folder: Path,
) -> None:
    fs = FaultyFileSystem()
    with (
        SessionStore.open(folder, watch=False, inject=Injected(fs=fs)) as store,
        EventLog(store) as log,
    ):
        saved_often(store)
        store.delete_session("s1")
        fs.fail(Fault("link", OSError(errno.EIO, "broken")))
        assert store.undelete_session("s1").generation == 4
        assert store.backups("s1") == []
        (told,) = log.of_kind("ignored")
        assert "its backups stay in the trash" in told.detail
        store.delete_session("s1")
        store.undelete_session("s1")
    (first, _) = sorted((folder / ".sessionkeeper" / "trash").iterdir())
    assert len(list((first / "backups").iterdir())) == 2


def test_backups_come_back_once_when_the_actor_crashes_over_the_undelete(folder: Path) -> None:
    backends: list[FaultyBackend] = []

    def wrapped(backend: Backend) -> FaultyBackend:
        backends.append(FaultyBackend(backend))
        return backends[-1]

    with SessionStore.open(folder, watch=False, inject=Injected(wrap_backend=wrapped)) as store:
        saved_often(store)
        store.delete_session("s1")
        backends[0].fail(Fault("commit", InjectedCrash("after the commit"), after=True))
        assert store.undelete_session("s1").generation == 4
        assert store.info().restarts == 1
        assert [backup.generation for backup in store.backups("s1")] == [2, 1]
