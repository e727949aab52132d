"""Cases 10 to 12, 14 to 16 and 18: a medium that shortens, refuses, and forgets what it refused.

Each round plans one fault at one call and runs a workload over it; then the power fails at some
point of what was done, and the store recovers. A sync that failed leaves what was pending in
doubt for ever (see `simdisk`).
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from mutants import doubt_ignored, sync_retried, void_ignored
from oracle import Lost, observe
from recorder import RecordingFileSystem
from replays import SESSIONS, Driver, Explorer, Trace, opened, scratch

from sessionkeeper import OutcomeUnknown, SessionKeeperError, SessionStore
from sessionkeeper.testing import Fault, FaultyFileSystem, Injected

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from replays import Durability

    from sessionkeeper.session import Chunk

    Covered = Callable[[str, int, str], None]

SYNCS = ("sync", "sync_data", "sync_files", "sync_folder")
FOR_EVER = 10**6


class Refusing(RecordingFileSystem):
    """Records, and refuses so many calls of one kind after so many others."""

    def __init__(self, top: Path, operation: str, number: int) -> None:
        super().__init__(top)
        self.operation = operation
        self.number = number
        self.skip = 0
        self.times = 0
        self.refused = 0
        self.refuses = lambda name, _: self._due(name)

    def _due(self, operation: str) -> bool:
        if operation != self.operation or not self.times:
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.times -= 1
        self.refused += 1
        return True

    def _raise_if_due(self, operation: str, path: Path) -> None:
        with self.lock:
            if self._due(operation):
                raise OSError(self.number, os.strerror(self.number), str(path))

    def begin_new(self, path: Path, chunks: Sequence[Chunk]) -> int:
        self._raise_if_due("begin_new", path)
        return super().begin_new(path, chunks)

    def write_at(self, descriptor: int, chunks: Sequence[Chunk], offset: int) -> None:
        with self.lock:
            if self._due("write_at"):  # a part of it gets through
                whole = b"".join(chunks)
                super().write_at(descriptor, [whole[: len(whole) // 2]], offset)
                raise OSError(self.number, os.strerror(self.number))
            super().write_at(descriptor, chunks, offset)

    def replace(self, source: Path, target: Path) -> None:
        self._raise_if_due("replace", target)
        super().replace(source, target)

    def link(self, source: Path, target: Path) -> None:
        self._raise_if_due("link", target)
        super().link(source, target)

    def open_blank(self, path: Path) -> int:
        self._raise_if_due("open_blank", path)
        return super().open_blank(path)


def faulty_run(
    seed: int,
    operation: str,
    number: int,
    times: int,
    durability: Durability,
) -> tuple[Trace, int]:
    """Run a workload over a planned fault.

    Returns:
        What it did, and how often the medium refused.
    """
    rng = random.Random(seed)
    with scratch() as name:
        fs = Refusing(Path(name), operation, number)
        before = fs.disk.clone()
        driver = Driver(fs, rng)
        # A store whose medium stays broken may give up.
        with contextlib.suppress(SessionKeeperError), opened(fs.top, fs, durability) as store:
            driver.burst(store, 4)
            fs.skip, fs.times = rng.randrange(6), times
            for _ in range(6):
                driver.burst(store, rng.choice([1, 3, 6]))
            store.checkpoint()
            fs.times = 0
            driver.burst(store, 2)
        return Trace(before, fs.log), fs.refused


EIO, ENOSPC = errno.EIO, errno.ENOSPC
ONCE: list[tuple[str, str, int, int, Durability]] = [
    ("11", "sync_data", EIO, 1, "journal"),
    ("12", "sync_data", EIO, 30, "journal"),
    ("14", "sync", EIO, 1, "journal"),
    ("14", "sync_files", EIO, 1, "journal"),
    ("14", "sync", EIO, 1, "file"),
    ("15", "replace", EIO, 1, "journal"),
    ("15", "replace", EIO, 1, "file"),
    ("15", "sync_folder", EIO, 1, "journal"),
    ("15", "sync_folder", EIO, 1, "file"),
    ("16", "write_at", ENOSPC, 1, "journal"),
    ("16", "begin_new", ENOSPC, 1, "journal"),
    ("16", "begin_new", ENOSPC, 40, "journal"),
    ("16", "begin_new", ENOSPC, 5, "file"),
    ("18", "begin_new", errno.EMFILE, 3, "journal"),
    ("18", "open_blank", errno.EMFILE, 1, "journal"),
    ("18", "replace", errno.EACCES, 3, "journal"),
    ("18", "replace", errno.EROFS, 20, "file"),
    ("18", "link", errno.EACCES, 20, "journal"),
]


def survive(seeds: range, plan: tuple[str, str, int, int, Durability], points: int) -> int:
    """Run and recover; returns how many states were recovered from."""
    _, operation, number, times, durability = plan
    explorer = Explorer(random.Random(seeds.start), "weak", durability)
    refusals = 0
    for seed in seeds:
        trace, refused = faulty_run(seed, operation, number, times, durability)
        refusals += refused
        explorer.explore(trace, points, 2)
    assert refusals, "the fault was never met"
    return explorer.states


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("plan", ONCE, ids=lambda p: f"{p[0]}-{p[1]}-{p[3]}-{p[4]}")
def test_nothing_is_lost_on_a_medium_that_refuses(
    plan: tuple[str, str, int, int, Durability],
    covered: Covered,
) -> None:
    states = survive(range(2), plan, 12)
    what = f"states after {plan[1]} failed with {errno.errorcode[plan[2]]}, level {plan[4]}"
    covered(plan[0], states, what)


@pytest.mark.campaign
@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("plan", ONCE, ids=lambda p: f"{p[0]}-{p[1]}-{p[3]}-{p[4]}")
def test_nothing_is_lost_on_a_medium_that_refuses_at_many_points(
    plan: tuple[str, str, int, int, Durability],
    covered: Covered,
) -> None:
    covered(plan[0], survive(range(10, 22), plan, 60), f"states after {plan[1]} failed")


@pytest.mark.usefixtures("small")
def test_a_sync_asked_for_twice_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
    covered: Covered,
) -> None:
    sync_retried(monkeypatch)

    def search() -> None:
        for seed in range(20):
            survive(range(seed, seed + 1), ("11", "sync_data", EIO, 1, "journal"), 60)

    with pytest.raises(Lost):
        search()
    covered("mutant", 1, "rig that noticed 'a failed sync retried'")


@pytest.mark.usefixtures("small")
def test_a_sync_that_is_believed_after_one_that_failed_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
    covered: Covered,
) -> None:
    doubt_ignored(monkeypatch)

    def search() -> None:
        for seed in range(60):
            plan: tuple[str, str, int, int, Durability] = ("15", "sync_folder", EIO, 1, "journal")
            survive(range(seed, seed + 1), plan, 30)

    with pytest.raises(Lost):
        search()
    covered("mutant", 1, "rig that noticed 'a later sync believed after a failed one'")


# --- a change that was given up --------------------------------------------------------------


def given_up_then_crashed(folder: Path) -> tuple[list[Any], list[Any]]:
    """What readers saw of a session whose last append was given up, before and after a crash."""
    fs = FaultyFileSystem()
    inject = Injected(fs=fs)
    store = SessionStore.open(folder, watch=False, durability="journal", inject=inject)
    try:
        store.save_session("s1", ["kept"])
        store.checkpoint()  # the first one is over: none will retire the frame that is given up
        fs.fail(Fault("sync_data", OSError(EIO, "broken"), times=2))
        with pytest.raises(OutcomeUnknown):
            store.append("s1", ["given up"])
        store.append("s2", ["after it"])
        seen = list(store.load_session("s1").messages)
        copy = folder.with_name("crashed")
        shutil.copytree(folder, copy)
    finally:
        store.close()
    with SessionStore.open(copy, watch=False) as again:
        assert again.load_session("s2").messages == ["after it"]
        return seen, list(again.load_session("s1").messages)


def test_what_was_given_up_does_not_come_back(folder: Path, covered: Covered) -> None:
    """Its frame is intact on the medium all the same: a later one voids it."""
    before, after = given_up_then_crashed(folder)
    assert after == before
    covered("11, 12", 1, "given-up frame that stayed away")


def test_a_void_mark_that_is_ignored_is_noticed(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    covered: Covered,
) -> None:
    void_ignored(monkeypatch)
    before, after = given_up_then_crashed(folder)
    assert after != before, "the given-up change should have come back"
    covered("mutant", 1, "rig that noticed 'the void mark ignored'")


# --- short writes ----------------------------------------------------------------------------


def test_short_writes_are_continued(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    covered: Covered,
) -> None:
    calls = 0
    writev, pwritev = os.writev, os.pwritev

    def short(buffers: Sequence[memoryview]) -> list[memoryview]:
        nonlocal calls
        calls += 1
        whole = memoryview(b"".join(buffers))
        return [whole[: max(1, len(whole) * (calls % 7 + 1) // 8)]]

    monkeypatch.setattr(os, "writev", lambda fd, b: writev(fd, short(b)))
    monkeypatch.setattr(os, "pwritev", lambda fd, b, at: pwritev(fd, short(b), at))
    texts = {f"s{number}": ["x" * (number * 3001)] for number in range(40)}
    with SessionStore.open(folder, watch=False) as store:
        for session_id, messages in texts.items():
            store.append(session_id, messages)
            store.append(session_id, ["more"])
    with SessionStore.open(folder, watch=False) as again:
        assert again.last_recovery.problems == []
        for session_id, messages in texts.items():
            assert again.load_session(session_id).messages == [*messages, "more"]
    covered("10", calls, "short writes")


def test_a_seen_state_is_one_that_can_be_seen(covered: Covered) -> None:
    """The rig itself: what is observed of an open store is what its recovery shows."""
    with scratch() as name:
        fs = RecordingFileSystem(Path(name))
        with opened(fs.top, fs) as store:
            Driver(fs, random.Random(1)).burst(store, 20)
            seen = observe(store, SESSIONS)
        with opened(fs.top) as store:
            assert observe(store, SESSIONS) == seen
    covered("rig", len(seen), "sessions seen twice")
