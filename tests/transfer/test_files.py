"""A file for outside is there whole under its name, or nothing has changed."""

from __future__ import annotations

import errno
import stat
from typing import TYPE_CHECKING

import pytest

from sessionkeeper.errors import PathBlocked
from sessionkeeper.storage.platform import FileSystem
from sessionkeeper.transfer.files import new_file

if TYPE_CHECKING:
    from pathlib import Path


class Told(FileSystem):
    """Says what it was asked for, and fails where it is told to."""

    def __init__(self, failing: str = "", number: int = errno.EIO) -> None:
        self.calls: list[str] = []
        self._failing = failing
        self._number = number

    def _note(self, name: str) -> None:
        self.calls.append(name)
        if name == self._failing:
            raise OSError(self._number, name)

    def sync(self, descriptor: int) -> None:
        self._note("sync")
        super().sync(descriptor)

    def link(self, source: Path, target: Path) -> None:
        self._note("link")
        super().link(source, target)

    def replace(self, source: Path, target: Path) -> None:
        self._note("replace")
        super().replace(source, target)

    def sync_folder(self, path: Path) -> None:
        self._note("sync_folder")
        super().sync_folder(path)


def write(path: Path, content: bytes, *, overwrite: bool = False, fs: FileSystem) -> None:
    with new_file(path, overwrite=overwrite, fs=fs) as file:
        file.write(content)
        assert not path.exists() or path.read_bytes() != content


def test_a_file_is_synced_before_it_gets_its_name_and_its_folder_afterwards(
    tmp_path: Path,
) -> None:
    path, fs = tmp_path / "a", Told()

    write(path, b"one", fs=fs)
    assert fs.calls == ["sync", "link", "sync_folder"]
    write(path, b"two", overwrite=True, fs=fs)
    assert fs.calls[3:] == ["sync", "replace", "sync_folder"]

    assert path.read_bytes() == b"two"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [found.name for found in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("failing", ["sync", "replace"])
def test_what_was_there_stays_if_anything_fails(tmp_path: Path, failing: str) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")

    with pytest.raises(OSError, match=failing):
        write(path, b"new", overwrite=True, fs=Told(failing))

    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_is_left_if_the_body_fails(tmp_path: Path) -> None:
    def half() -> None:
        with new_file(tmp_path / "a") as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        half()

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["file", "folder", "dangling link"])
def test_what_stands_there_is_never_replaced_unless_asked(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a"
    if kind == "file":
        path.write_bytes(b"old")
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(tmp_path / "absent")
    fs = Told()

    with pytest.raises(PathBlocked, match="exists already") as caught:
        write(path, b"new", fs=fs)

    assert "overwrite" in caught.value.hint
    assert fs.calls == []
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("links", [True, False])
def test_what_comes_there_meanwhile_is_not_replaced(tmp_path: Path, *, links: bool) -> None:
    path = tmp_path / "a"
    fs = FileSystem() if links else Told("link", errno.EPERM)

    def race() -> None:
        with new_file(path, fs=fs) as file:
            file.write(b"new")
            path.write_bytes(b"mine")

    with pytest.raises(PathBlocked, match="exists already"):
        race()

    assert path.read_bytes() == b"mine"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_system_without_hard_links_will_do(tmp_path: Path) -> None:
    fs = Told("link", errno.EPERM)

    write(tmp_path / "a", b"new", fs=fs)

    assert (tmp_path / "a").read_bytes() == b"new"
    assert fs.calls == ["sync", "link", "replace", "sync_folder"]


def test_any_other_failure_of_a_link_is_one(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="link"):
        write(tmp_path / "a", b"new", fs=Told("link", errno.ENOSPC))

    assert list(tmp_path.iterdir()) == []


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    victim, path = tmp_path / "victim", tmp_path / "a"
    victim.write_bytes(b"mine")
    path.symlink_to(victim)

    write(path, b"new", overwrite=True, fs=FileSystem())

    assert victim.read_bytes() == b"mine"
    assert not path.is_symlink()
