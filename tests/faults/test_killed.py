"""Cases 1 and 2: a process killed at any call that changes the disk, also in mid-write."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import workers

import sessionkeeper

if TYPE_CHECKING:
    from collections.abc import Callable

    Covered = Callable[[str, int, str], None]

LIBRARY = Path(sessionkeeper.__file__).parents[1]


@pytest.fixture
def shim(tmp_path: Path, require: Callable[..., None]) -> Path:
    """The preloaded library, compiled here."""
    require("gcc")
    built = tmp_path / "shim.so"
    source = Path(__file__).with_name("shim.c")
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-O1", "-o", str(built), str(source), "-ldl"],  # noqa: S607
        check=True,
    )
    return built


def killed_at(shim: Path, folder: Path, call: int, threads: int, **more: str) -> tuple[int, int]:
    """Run a worker that is killed at a call; returns its status and what was found."""
    acks = folder.with_suffix(".acks")
    environment = {
        **os.environ,
        "PYTHONPATH": str(LIBRARY),
        "LD_PRELOAD": str(shim),
        "KILL_AT": str(call),
        **more,
    }
    status = workers.run(folder, acks, threads, 6, environment)
    return status, workers.compare(folder, workers.acknowledged(acks))


def campaign(shim: Path, folder: Path, calls: list[int], threads: int) -> tuple[int, int]:
    """Kill at each of the calls, in turn whole and torn; returns kills and changes found."""
    kills = found = 0
    for number, call in enumerate(calls):
        more = {"KILL_TORN": "1"} if number % 2 else {}
        status, count = killed_at(shim, folder / f"{number}", call, threads, **more)
        assert status in (0, -signal.SIGKILL), status
        kills += status == -signal.SIGKILL
        found += count
    return kills, found


def test_no_kill_at_any_call_loses_what_was_acknowledged(
    shim: Path,
    tmp_path: Path,
    covered: Covered,
) -> None:
    (tmp_path / "runs").mkdir()
    calls = [*range(1, 20, 3), *random.Random(1).sample(range(20, 160), 12)]
    kills, found = campaign(shim, tmp_path / "runs", calls, threads=2)
    assert kills > len(calls) // 2
    covered("1", kills, f"kills at a call, {found} acknowledged changes")


def test_no_kill_in_a_batch_of_many_threads_loses_what_was_acknowledged(
    shim: Path,
    tmp_path: Path,
    covered: Covered,
) -> None:
    (tmp_path / "runs").mkdir()
    kills, found = campaign(shim, tmp_path / "runs", [40, 80, 160, 320], threads=64)
    assert kills >= 3
    covered("2", kills, f"kills among 64 threads, {found} acknowledged changes")


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EMFILE])
def test_an_error_of_any_call_loses_nothing(
    number: int,
    shim: Path,
    tmp_path: Path,
    covered: Covered,
) -> None:
    (tmp_path / "runs").mkdir()
    found = 0
    for call in (25, 60, 110):
        folder = tmp_path / "runs" / f"{call}"
        status, count = killed_at(shim, folder, call, 2, KILL_ERRNO=str(number))
        assert status == 0, status
        found += count
    covered("11, 16, 18", found, f"acknowledged changes around {errno.errorcode[number]}")


@pytest.mark.campaign
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("block", range(8))
def test_no_kill_at_every_call_loses_what_was_acknowledged(
    block: int,
    shim: Path,
    tmp_path: Path,
    covered: Covered,
) -> None:
    (tmp_path / "runs").mkdir()
    kills, found = campaign(shim, tmp_path / "runs", list(range(1 + block, 320, 8)), threads=4)
    covered("1", kills, f"kills at a call, {found} acknowledged changes")
