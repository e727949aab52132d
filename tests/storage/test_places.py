"""Where a store writes, and what the path of its folder may be."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sessionkeeper import InvalidConfig, OutcomeUnknown, SessionStore, StorageFailed, check_store
from sessionkeeper.storage.platform import MAX_FILE_BYTES, FileSystem
from sessionkeeper.testing import Fault, FaultyFileSystem, Injected

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sessionkeeper.session import Chunk


class Noting(FileSystem):
    """Notes which files are begun, and what is renamed where."""

    def __init__(self) -> None:
        self.begun: list[Path] = []
        self.renamed: list[tuple[Path, Path]] = []

    def begin_new(self, path: Path, chunks: Sequence[Chunk]) -> int:
        self.begun.append(path)
        return super().begin_new(path, chunks)

    def replace(self, source: Path, target: Path) -> None:
        assert source.stat().st_dev == target.parent.stat().st_dev
        self.renamed.append((source, target))
        super().replace(source, target)


@pytest.mark.parametrize(
    "settings",
    [
        {"durability": "journal"},
        {"durability": "file"},
        {"layout": "rooted"},
        {"layout": "single"},
    ],
)
def test_temporaries_have_a_folder_of_their_own_and_names_that_are_never_used_twice(
    settings: dict[str, Any],
    folder: Path,
) -> None:
    fs = Noting()
    with SessionStore.open(folder, watch=False, inject=Injected(fs=fs), **settings) as store:
        fs.begun.clear()
        for number in range(3):
            store.save_session("s1", [number])
            store.save_session("s1.tmp", ["y" * 100_000])
        store.checkpoint()
        private = folder / ".sessionkeeper"
        temporaries = [path for path in fs.begun if path.parent == private / "tmp"]
        assert len(temporaries) == len(set(temporaries)) > 3
        assert {path.parent for path in fs.begun} <= {private / "tmp", private / "journal"}
        assert all(source.parent == private / "tmp" for source, _ in fs.renamed)
        assert list((private / "tmp").iterdir()) == []
        assert store.load_session("s1.tmp").messages == ["y" * 100_000]


@pytest.mark.parametrize("name", ["tmp", "backups", "trash", "quarantine"])
def test_a_folder_on_another_medium_is_refused_at_the_opening(
    folder: Path,
    tmp_path: Path,
    name: str,
) -> None:
    """What is written there could not be renamed to where it belongs, nor linked."""
    memory = Path("/dev/shm")  # noqa: S108 - a file system that is there on every Linux
    if not memory.is_dir() or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is one file system only")
    with SessionStore.open(folder, watch=False) as store:
        store.save_session("s1", ["kept"])
    within = folder / ".sessionkeeper" / name
    within.rmdir()
    with tempfile.TemporaryDirectory(dir=memory) as elsewhere:
        within.symlink_to(elsewhere)
        with pytest.raises(InvalidConfig, match="another file system") as refused:
            SessionStore.open(folder, watch=False)
        assert refused.value.path == within
    within.unlink()
    with SessionStore.open(folder, watch=False) as store:
        assert store.load_session("s1").messages == ["kept"]


def test_missing_folders_are_made(tmp_path: Path) -> None:
    path = tmp_path / "var" / "lib" / "agent"
    with SessionStore.open(path, watch=False) as store:
        store.save_session("s1", [1])
    assert (path / "s1.json").is_file()
    assert (tmp_path / "var").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("name", [b"with spaces", b"a\nline", b"\xff\xfe", "smörgås".encode()])
def test_the_folder_may_have_any_name(name: bytes, tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/" + name
    with SessionStore.open(os.fsdecode(path)) as store:
        store.save_session("s1", [1], tags=["t"])
        store.append("s1", [2])
        assert [info.session_id for info in store.search(tags=["t"])] == ["s1"]
    with SessionStore.open(os.fsdecode(path), read_only=True) as store:
        assert store.load_session("s1").messages == [1, 2]
    assert (Path(os.fsdecode(path)) / "s1.json").is_file()


@pytest.mark.parametrize("path", ["~nobody-of-that-name/store", "a\0b"])
def test_a_path_without_a_home_is_refused(path: str) -> None:
    with pytest.raises(InvalidConfig):
        SessionStore.open(path)


def test_a_link_to_the_folder_is_followed_once(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "other").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "real")
    with SessionStore.open(link, watch=False) as store:
        link.unlink()
        link.symlink_to(tmp_path / "other")
        store.save_session("s1", [1])
        assert store.path == tmp_path / "real"
    assert (tmp_path / "real" / "s1.json").is_file()
    assert list((tmp_path / "other").iterdir()) == []


@pytest.mark.parametrize("durability", ["journal", "file"])
def test_a_file_that_is_also_linked_elsewhere_is_never_written_in_place(
    durability: str,
    folder: Path,
    tmp_path: Path,
) -> None:
    with SessionStore.open(folder, watch=False, durability=durability) as store:
        store.save_session("s1", [1])
        store.checkpoint()
        os.link(folder / "s1.json", tmp_path / "outside.json")
        before = (tmp_path / "outside.json").read_bytes()
        store.append("s1", [2])
        store.save_session("s1", [3])
        store.checkpoint()
        assert store.load_session("s1").messages == [3]
    assert (tmp_path / "outside.json").read_bytes() == before


@pytest.mark.parametrize("name", ["s1 (conflicted copy).json", "s1.sync-conflict-1.json"])
def test_the_copy_that_a_synchroniser_left_is_reported_and_kept(name: str, folder: Path) -> None:
    with SessionStore.open(folder, watch=False) as store:
        store.save_session("s1", ["mine"])
    theirs = (folder / "s1.json").read_bytes().replace(b'"mine"', b'"theirs"')
    (folder / name).write_bytes(theirs)
    with SessionStore.open(folder, watch=False) as store:
        (problem,) = store.last_recovery.problems
        assert (problem.kind, problem.path.name) == ("id-mismatch", name)
        assert store.load_session("s1").messages == ["mine"]
        assert len(store) == 1
    kept = (folder / ".sessionkeeper" / "quarantine").iterdir()
    assert theirs in [path.read_bytes() for path in kept]


def test_a_folder_that_others_may_write_to_is_pointed_out(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    folder.chmod(0o777)
    with SessionStore.open(folder, watch=False) as store:
        store.save_session("s1", [1])
    (folder / "s1.json").chmod(0o666)
    found = {(finding.kind, finding.path.name): finding.detail for finding in check_store(folder)}
    assert "0777" in found["permissions", folder.name]
    assert "0666" in found["permissions", "s1.json"]


def test_a_file_larger_than_any_session_is_not_even_read(folder: Path) -> None:
    with SessionStore.open(folder, watch=False) as store:
        store.save_session("s1", ["kept"])
    with (folder / "huge.json").open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)  # it takes no room
    with SessionStore.open(folder, watch=False) as store:
        (problem,) = store.last_recovery.problems
        assert (problem.kind, problem.path.name) == ("unreadable", "huge.json")
        assert store.load_session("s1").messages == ["kept"]
    assert (folder / "huge.json").stat().st_size == MAX_FILE_BYTES + 1


def test_a_medium_that_has_become_read_only_is_read_and_says_so(folder: Path) -> None:
    fs = FaultyFileSystem()
    with SessionStore.open(folder, watch=False, inject=Injected(fs=fs)) as store:
        store.save_session("s1", ["kept"])
        store.checkpoint()
        for operation in ("write_new", "write_at", "replace", "link", "unlink", "make_folder"):
            refusal = OSError(errno.EROFS, os.strerror(errno.EROFS))
            fs.fail(Fault(operation, refusal, times=10**6))
        for change in (
            lambda: store.save_session("s1", ["new"]),
            lambda: store.append("s2", ["new"]),
            lambda: store.delete_session("s1"),
        ):
            with pytest.raises((StorageFailed, OutcomeUnknown), match="Read-only file system"):
                change()
        assert store.load_session("s1").messages == ["kept"]
        assert [info.session_id for info in store.list_sessions()] == ["s1"]
        fs.heal()
        store.save_session("s1", ["again"])
        assert store.load_session("s1").messages == ["again"]


@pytest.mark.parametrize("layout", ["flat", "rooted"])
def test_backups_of_names_that_begin_alike_are_kept_apart(layout: str, folder: Path) -> None:
    twins = ["job", "job_2", "job_2_1735732800", "job-2", "job.2", "job~2", "Job"]
    with SessionStore.open(folder, watch=False, layout=layout) as store:
        for twin in twins:
            store.save_session(twin, [twin, "first"])
            store.save_session(twin, [twin, "second"])
        for twin in twins:
            assert [backup.session_id for backup in store.backups(twin)] == [twin]
            store.restore(twin)
            assert store.load_session(twin).messages == [twin, "first"]
    sessions = folder / "sessions" if layout == "rooted" else folder
    (sessions / "job.json").write_bytes(b"{")
    with SessionStore.open(folder, watch=False, layout=layout) as store:
        assert store.load_session("job").messages[0] == "job"


def test_names_that_look_alike_are_different_sessions(folder: Path, tmp_path: Path) -> None:
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    with SessionStore.open(folder, watch=False) as store:
        store.save_session(composed, ["composed"])
        store.save_session(decomposed, ["decomposed"])
    assert all(path.name.isascii() for path in folder.glob("*.json"))
    shutil.copytree(folder, tmp_path / "copy")
    with SessionStore.open(tmp_path / "copy", watch=False) as store:
        assert store.load_session(composed).messages == ["composed"]
        assert store.load_session(decomposed).messages == ["decomposed"]
