"""Cases 5 and 13: every write that real file systems sent to their disk, and a disk that fails."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import workers
from blocks import FLUSH, BlockLog, exported, state
from images import PROGRAMS, Image, image
from mutants import no_journal_sync
from oracle import Lost

from sessionkeeper import OutcomeUnknown, SessionKeeperError, SessionNotFound, SessionStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from images import Kind

    Covered = Callable[[str, int, str], None]

TOOLS = ("nbdfuse:nbdfuse", "fusermount3:fuse3", "mount")


def blank(kind: Kind, place: Path) -> bytes:
    """A new file system, not mounted."""
    with image(kind, place) as made:
        made.unmount()
        return made.file.read_bytes()


def mounted(file: Path, place: Path) -> Image:
    folder = place / "mounted"
    folder.mkdir()
    found = Image(file, folder)
    found.mount()
    return found


def write_and_note(folder: Path, disk: BlockLog, changes: int) -> list[tuple[int, list[str]]]:
    """Write; note with each acknowledgement how long the log of the disk was."""
    told: list[tuple[int, list[str]]] = []
    with SessionStore.open(folder, watch=False, checkpoint_bytes=60_000) as store:
        for number in range(changes):
            text = f"0.{number}"
            store.append("shared", [text])
            told.append((len(disk.log), ["shared", "shared", text]))
            store.append("own-0", [text + ":" + "x" * (number % 5 * 3000)])
            told.append((len(disk.log), ["added", "own-0", text]))
            store.save_session(f"brief-{text}", [text])
            store.delete_session(f"brief-{text}")
            told.append((len(disk.log), ["gone", f"brief-{text}"]))
        store.checkpoint()
    return told


def replay(kind: Kind, place: Path, states: int, changes: int = 12) -> int:
    """Mount prefixes and subsets of what was written, and recover from each."""
    before = blank(kind, place)
    disk = BlockLog(bytearray(before))
    with exported(disk, place) as file:
        work = mounted(file, place)
        told = write_and_note(work.folder / "store", disk, changes)
        work.unmount()
    rng = random.Random(1)
    made = next(length for length, _ in told)
    done = 0
    for _ in range(states):
        length = rng.randint(made, len(disk.log))
        content = state(before, disk.log, length, rng if rng.random() < 0.5 else None)
        acknowledged = [words for at, words in told if at <= length]
        inner = Path(tempfile.mkdtemp(dir=place))
        (inner / "image").write_bytes(content)
        found = mounted(inner / "image", inner)
        try:
            workers.compare(found.folder / "store", acknowledged)
        except Lost as error:
            raise Lost(f"{kind}, after {length} of {len(disk.log)} writes: {error}") from error
        finally:
            found.unmount()
            shutil.rmtree(inner)
        done += 1
    assert FLUSH in disk.log
    return done


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
def test_recovers_from_what_a_real_file_system_had_written(
    kind: Kind,
    tmp_path: Path,
    require: Callable[..., None],
    covered: Covered,
) -> None:
    require(*TOOLS, PROGRAMS[kind], root=True)
    covered("5", replay(kind, tmp_path, 12), f"states of the disk below {kind}")


def test_notices_a_journal_that_is_not_synced(
    tmp_path: Path,
    require: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    covered: Covered,
) -> None:
    require(*TOOLS, PROGRAMS["ext4"], root=True)
    no_journal_sync(monkeypatch)
    with pytest.raises((Lost, SessionNotFound)):  # all of a session may be lost
        replay("ext4", tmp_path, 100)
    covered("mutant", 1, "block replay that noticed 'no journal sync'")


@pytest.mark.campaign
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
def test_recovers_from_many_states_of_what_a_real_file_system_had_written(
    kind: Kind,
    tmp_path: Path,
    require: Callable[..., None],
    covered: Covered,
) -> None:
    require(*TOOLS, PROGRAMS[kind], root=True)
    covered("5", replay(kind, tmp_path, 400, 40), f"states of the disk below {kind}")


@pytest.mark.parametrize("metadata", [False, True])
def test_a_disk_that_fails_and_heals_has_all_that_was_acknowledged(
    metadata: bool,  # noqa: FBT001 - a parameter of the test
    tmp_path: Path,
    require: Callable[..., None],
    covered: Covered,
) -> None:
    """The kernel reports an error once; then it calls pages clean that never were written."""
    require(*TOOLS, PROGRAMS["ext4"], root=True)
    disk = BlockLog(bytearray(blank("ext4", tmp_path)))
    told: list[list[str]] = []
    failures = 0
    with exported(disk, tmp_path) as file:
        work = mounted(file, tmp_path)
        store = SessionStore.open(work.folder / "store", watch=False, max_restarts=1000)
        try:
            for number in range(30):
                disk.broken = number in (10, 11, 20)
                if metadata and disk.broken:  # then the file system goes read-only, for good
                    with contextlib.suppress(OSError):
                        (work.folder / "other").touch()
                        os.sync()
                try:
                    store.append("shared", [f"0.{number}"])
                    told.append(["shared", "shared", f"0.{number}"])
                except (OutcomeUnknown, SessionKeeperError):
                    failures += 1
        finally:
            disk.broken = False
            # As the power fails: what is only in memory does not count.
            content = bytes(disk.content)
            try:
                store.close()
            finally:
                work.unmount()
    assert failures
    inner = tmp_path / "after"
    inner.mkdir()
    (inner / "image").write_bytes(content)
    found = mounted(inner / "image", inner)
    try:
        workers.compare(found.folder / "store", told)
    finally:
        found.unmount()
    covered("13", len(told), f"acknowledged changes around {failures} failures of the disk")
