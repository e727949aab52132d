"""What the kernel tells of a folder, and when."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sessionkeeper.storage import inotify
from sessionkeeper.storage.inotify import Inotify

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(not inotify.AVAILABLE, reason="there is no inotify")

LIMIT = Path("/proc/sys/fs/inotify/max_queued_events")


@pytest.fixture
def notices() -> Iterator[Inotify]:
    opened = Inotify()
    yield opened
    opened.close()


def told(notices: Inotify) -> list[tuple[str, bool, bool]]:
    found, lost = notices.read()
    assert not lost
    return [(notice.name, notice.is_folder, notice.went) for notice in found]


def test_whatever_changes_an_entry_is_told(notices: Inotify, tmp_path: Path) -> None:
    folder, outside = tmp_path / "watched", tmp_path / "outside"
    folder.mkdir()
    watch = notices.watch(folder)
    one = folder / "one ä"
    for change, expected in (
        (one.touch, {(one.name, False, False)}),
        (lambda: one.write_bytes(b"more"), {(one.name, False, False)}),
        (lambda: os.utime(one, ns=(1, 1)), {(one.name, False, False)}),
        (lambda: one.rename(outside), {(one.name, False, True)}),
        (lambda: outside.rename(one), {(one.name, False, False)}),
        (lambda: os.link(one, folder / "two"), {("two", False, False)}),
        (one.unlink, {(one.name, False, True)}),
        ((folder / "below").mkdir, {("below", True, False)}),
        ((folder / "below" / "deep").touch, set()),
        ((folder / "below" / "deep").unlink, set()),
        ((folder / "below").rmdir, {("below", True, True)}),
    ):
        change()
        found, lost = notices.read()
        assert {notice.watch for notice in found} <= {watch}
        assert {(each.name, each.is_folder, each.went) for each in found} == expected
        assert not lost


def test_reading_a_file_is_no_change(notices: Inotify, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"text")
    notices.watch(tmp_path)
    (tmp_path / "file").read_bytes()
    list(tmp_path.iterdir())
    assert told(notices) == []


def test_folders_are_told_apart_by_their_numbers(notices: Inotify, tmp_path: Path) -> None:
    numbers = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        numbers.append(notices.watch(tmp_path / name))
    (tmp_path / "b" / "file").touch()
    assert {notice.watch for notice in notices.read()[0]} == {numbers[1]}


def test_of_a_folder_that_is_not_watched_any_more_nothing_is_told(
    notices: Inotify,
    tmp_path: Path,
) -> None:
    watch = notices.watch(tmp_path)
    notices.unwatch(watch)
    (tmp_path / "file").touch()
    assert told(notices) == []


def test_a_folder_that_is_gone_can_be_let_go_of(notices: Inotify, tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    watch = notices.watch(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    notices.unwatch(watch)
    with pytest.raises(FileNotFoundError):
        notices.watch(tmp_path / "gone")
    (tmp_path / "gone").touch()
    with pytest.raises(NotADirectoryError):
        notices.watch(tmp_path / "gone")


def test_who_waits_is_told_once_until_it_is_read(notices: Inotify, tmp_path: Path) -> None:
    notices.watch(tmp_path)
    turns: list[int] = []
    woken, ended = threading.Semaphore(0), threading.Event()

    def wait() -> None:
        while notices.wait():
            turns.append(1)
            woken.release()
        ended.set()

    threading.Thread(target=wait).start()
    try:
        (tmp_path / "first").touch()
        assert woken.acquire(timeout=5)
        for number in range(100):
            (tmp_path / f"more-{number}").touch()
        assert {name for name, _, _ in told(notices)} >= {"first", "more-99"}
        (tmp_path / "later").touch()
        assert woken.acquire(timeout=5)
        assert "later" in {name for name, _, _ in told(notices)}
    finally:
        notices.stop()
        assert ended.wait(5)
    assert len(turns) == 2


def test_what_does_not_fit_one_reading_comes_with_the_next(
    notices: Inotify,
    tmp_path: Path,
) -> None:
    notices.watch(tmp_path)
    names = {f"{number:04}-{'x' * 200}" for number in range(1000)}
    for name in names:
        (tmp_path / name).touch()
    found: set[str] = set()
    readings = 0
    while found != names:
        assert notices.wait()
        found |= {name for name, _, _ in told(notices)}
        readings += 1
    assert readings > 1


def test_notices_that_were_lost_are_told_of(notices: Inotify, tmp_path: Path) -> None:
    files = [tmp_path / "a", tmp_path / "b"]
    for file in files:
        file.touch()
    notices.watch(tmp_path)
    # The same again is no new notice.
    for number in range(int(LIMIT.read_text()) + 10):
        os.utime(files[number % 2])
    lost = False
    while not lost:
        found, lost = notices.read()
        assert found or lost
