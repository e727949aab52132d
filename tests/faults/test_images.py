"""Cases 3, 4 and 17: real file systems that stop, and that are full."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import workers
from images import PROGRAMS, image, memory

import sessionkeeper
from sessionkeeper import SessionKeeperError, SessionStore, StorageFailed
from sessionkeeper.testing import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from images import Kind

    Covered = Callable[[str, int, str], None]

LIBRARY = Path(sessionkeeper.__file__).parents[1]
CASE_OF: dict[Kind, str] = {"ext4": "3", "xfs": "4", "btrfs": "17"}


def shut_down_at_work(kind: Kind, place: Path, rounds: int) -> int:
    """Let a process write, shut its file system down, mount it again and compare."""
    found = 0
    with image(kind, place) as disk:
        for number in range(rounds):
            folder, acks = disk.folder / f"store-{number}", place / f"{number}.acks"
            command = [sys.executable, str(workers.WORKER), str(folder), str(acks), "8", "100000"]
            environment = {**os.environ, "PYTHONPATH": str(LIBRARY)}
            with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
                wanted = 30 * (number + 1)
                wait_until(lambda: acks.exists() and _lines(acks) > wanted, timeout=60)  # noqa: B023
                disk.shut_down()
                process.send_signal(signal.SIGKILL)
            disk.unmount()
            disk.mount()
            found += workers.compare(folder, workers.acknowledged(acks))
            subprocess.run(["rm", "-rf", str(folder)], check=True)  # noqa: S607
    return found


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n")


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_a_file_system_that_stops_loses_nothing_acknowledged(
    kind: Kind,
    tmp_path: Path,
    require: Callable[..., None],
    covered: Covered,
) -> None:
    require(PROGRAMS[kind], "mount", root=True)
    found = shut_down_at_work(kind, tmp_path, 3)
    covered(CASE_OF[kind], found, f"acknowledged changes found after 3 shutdowns of {kind}")


@pytest.mark.campaign
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_a_file_system_that_stops_again_and_again_loses_nothing_acknowledged(
    kind: Kind,
    tmp_path: Path,
    require: Callable[..., None],
    covered: Covered,
) -> None:
    require(PROGRAMS[kind], "mount", root=True)
    found = shut_down_at_work(kind, tmp_path, 40)
    covered(CASE_OF[kind], found, f"acknowledged changes found after 40 shutdowns of {kind}")


def fill_and_free(folder: Path, filler: Path) -> int:
    """Write until the disk is full, delete, make room, go on; nothing acknowledged is lost."""
    kept: dict[str, list[str]] = {}
    refusals = 0
    with SessionStore.open(folder, watch=False) as store:
        store.save_session("first", ["x"])
        kept["first"] = ["x"]
        for number in range(4000):
            session_id = f"s{number}"
            messages = [f"{number}:" + "y" * 20_000]
            try:
                store.save_session(session_id, messages)
            except StorageFailed:
                refusals += 1
                break
            kept[session_id] = messages
        assert refusals, "the disk never was full"
        for session_id, messages in kept.items():
            assert store.load_session(session_id).messages == messages
        # Reads and deletes work on a full disk; the trash takes no room for what is moved there.
        filler.unlink()
        gone = [session_id for session_id in list(kept)[-3:] if store.delete_session(session_id)]
        for session_id in gone:
            del kept[session_id]
        for number in range(3):
            store.append("first", [f"after {number}"])
            kept["first"].append(f"after {number}")
        assert store.info().state == "ready"
    with SessionStore.open(folder, watch=False) as again:
        assert [p for p in again.last_recovery.problems if p.kind != "adopted"] == []
        for session_id, messages in kept.items():
            assert again.load_session(session_id).messages == messages
        assert all(session_id not in again for session_id in gone)
    return len(kept)


@pytest.mark.parametrize("kind", ["ext4", "btrfs"])
def test_a_disk_that_is_full_and_has_room_again_loses_nothing(
    kind: Kind,
    tmp_path: Path,
    require: Callable[..., None],
    covered: Covered,
) -> None:
    require(PROGRAMS[kind], "mount", root=True)
    with image(kind, tmp_path) as disk:
        filler = disk.folder / "filler"
        filler.write_bytes(bytes(6 << 20))
        kept = fill_and_free(disk.folder / "store", filler)
    covered("17", kept, f"sessions kept through a full disk, {kind}")


def test_memory_that_is_full_and_has_room_again_loses_nothing(
    tmp_path: Path,
    require: Callable[..., None],
    covered: Covered,
) -> None:
    require("mount", root=True)
    with memory(tmp_path / "small", "8m") as folder:
        filler = folder / "filler"
        filler.write_bytes(bytes(3 << 20))
        kept = fill_and_free(folder / "store", filler)
    covered("17", kept, "sessions kept through a full tmpfs")


def test_a_disk_too_small_for_a_store_refuses_and_says_so(
    tmp_path: Path,
    require: Callable[..., None],
    covered: Covered,
) -> None:
    require("mount", root=True)
    with memory(tmp_path / "tiny", "1m") as folder:
        (folder / "filler").write_bytes(bytes(900_000))
        with SessionStore.open(folder / "store", watch=False) as store:
            with pytest.raises(SessionKeeperError):
                store.save_session("s1", ["z" * 200_000])
            assert "s1" not in store
    covered("16, 17", 1, "refusal of a disk that was always too small")
