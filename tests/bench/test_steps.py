"""Processes that work on a store and are killed, reading beside writers, long sessions."""

from __future__ import annotations

import subprocess
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from bench import million, payloads
from bench.busy import BusyLoadSampler, BusySearchSampler, Writers
from bench.growth import KeeperCatalog, name_of
from bench.loads import LongLoadTrial
from bench.measure import Plan, WorkNotDone, run_round
from bench.steps import STEPS, Child, resident, told
from sessionkeeper import SessionStore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TINY = Plan(rounds=1, seconds=0.0, max_operations=3, warm_up=0.0, sessions=60)


def test_a_process_that_writes_is_killed_and_what_it_wrote_is_there(tmp_path: Path) -> None:
    found = told(tmp_path, 50, "create", "write")
    assert list(found) == ["bare", "create", "write"]
    assert [step.sessions for step in found.values()] == [0, 50, 50]
    assert found["create"].seconds > 0
    assert found["create"].resident > found["bare"].resident > 0
    assert (tmp_path / ".sessionkeeper" / "holder").exists()  # nobody closed it
    with SessionStore.open(tmp_path) as store:
        assert sum(info.message_count for info in store.iter_sessions()) >= 50 + 200


def test_a_tenth_is_from_long_ago_and_expires(tmp_path: Path) -> None:
    found = told(tmp_path, 50, "create", "list", "search", "expire", "close")
    assert found["expire"].sessions == 45
    with SessionStore.open(tmp_path) as store:
        assert name_of(4) not in store
        assert name_of(5) in store


def test_a_process_that_fails_is_an_error(
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "file").touch()
    with Child(tmp_path / "file", 10, "open") as child, pytest.raises(subprocess.SubprocessError):
        list(child)
    assert "Error" in capfd.readouterr().err


def test_the_memory_of_this_process_is_seen() -> None:
    before = resident()
    held = bytearray(32 * 2**20)
    held[:: 2**10] = b"x" * len(held[:: 2**10])
    assert resident() - before > 16 * 2**20


def test_the_million_works_with_any_number(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert million.main(["--sessions", "200", "--path", str(tmp_path), "--here"]) == 0
    lines = capsys.readouterr().out.splitlines()
    table = [line.split(maxsplit=3) for line in lines[lines.index("") + 2 :]]
    counts = [int(sessions.replace(",", "")) for _, _, sessions, _ in table]
    assert counts == [0, 200, 200, 200, 200, 180, 180, 180, 180, *([0, 180, 180, 180, 0] * 2)]
    told_of = {what for *_, what in table}
    assert {"opened until ready", "what is from long ago removed", "closed"} <= told_of
    assert all(float(seconds) > 0 for seconds, *_, what in table if "bare" not in what)
    assert all(float(above) > 0 for _, above, _, what in table if "bare" not in what)
    assert list(tmp_path.iterdir()) == []


def test_every_step_of_the_million_is_one_that_is_known() -> None:
    done = {step for life in million._LIVES for step in life}
    assert done == set(STEPS)
    assert done | {"bare"} == set(million._TOLD)


@pytest.mark.parametrize("wrong", ["9", "many"])
def test_too_few_sessions_are_refused(wrong: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        million.main(["--sessions", wrong])
    assert stopped.value.code == 2
    assert "from 10 on" in capsys.readouterr().err


# --- beside writers -----------------------------------------------------------------------


class Counting:
    """Counts what is appended, and by whom; it may fail, or come back with too little."""

    def __init__(self, *, failing: bool = False, kept: int = 1_000) -> None:
        self.failing = failing
        self.kept = kept
        self.appended: dict[str, int] = {}
        self.messages: list[Any] = []

    @contextmanager
    def client(self) -> Iterator[Counting]:
        yield self

    def append(self, session_id: str, message: Any) -> None:
        if self.failing:
            raise OSError("full")
        who = threading.current_thread().name
        self.appended[who] = self.appended.get(who, 0) + 1

    def save(self, session_id: str, messages: Any) -> None:
        self.messages = list(messages)

    def load(self, session_id: str) -> Any:
        return self.messages[: self.kept]


def test_all_writers_are_at_work_before_anything_is_read() -> None:
    peer = Counting()
    with Writers(peer, 4).at_work():
        assert len(peer.appended) == 4
    done = dict(peer.appended)
    assert peer.appended == done


def test_a_writer_that_fails_is_not_hidden() -> None:
    with pytest.raises(OSError, match="full"):
        BusyLoadSampler(Counting(failing=True)).sample(TINY, 0.0)  # type: ignore[arg-type]


def test_sessions_are_read_while_others_write() -> None:
    peer = Counting()
    assert len(BusyLoadSampler(peer).sample(TINY, 60.0)) == 3  # type: ignore[arg-type]
    assert len(peer.appended) == 8
    short = Counting(kept=payloads.SESSION_MESSAGES - 1)
    with pytest.raises(WorkNotDone):
        BusyLoadSampler(short).sample(TINY, 0.0)  # type: ignore[arg-type]


@pytest.mark.parametrize("writers", [0, 2])
def test_a_search_beside_writers_finds_the_newest(writers: int, tmp_path: Path) -> None:
    catalog = KeeperCatalog(tmp_path)
    try:
        sampler = BusySearchSampler(catalog, writers=writers)
        assert len(sampler.sample(TINY, 60.0)) == 3
        catalog.store.delete_session(name_of(40))
        with pytest.raises(WorkNotDone):
            sampler.sample(TINY, 0.0)
    finally:
        catalog.close()


@pytest.mark.parametrize(("kept", "done"), [(1_000, True), (999, False)])
def test_a_long_session_must_come_back_whole(
    kept: int,
    done: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    trial = LongLoadTrial(Counting(kept=kept), expected=1_000)  # type: ignore[arg-type]
    if done:
        assert run_round(trial, 2, 60.0, 10).operations == 10
    else:
        with pytest.raises(WorkNotDone, match="999"):
            run_round(trial, 2, 60.0, 10)
