"""The status of sessions, and what is left of them by a process that did not close the store."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from sessionkeeper import NotResumable, SessionNotFound, SessionStore
from sessionkeeper.testing import FakeClock, Injected, crash_actor

if TYPE_CHECKING:
    from pathlib import Path


def fill(store: SessionStore) -> None:
    store.save_session("paused", [1], status="paused")
    store.save_session("done", [2], status="completed")
    store.save_session("own word", [3], status="escalated")
    store.save_session("none", [4])
    store.save_session("active", [5], status="active")


@pytest.fixture
def left(folder: Path, tmp_path: Path) -> Path:
    """The folder of a store that nobody closed."""
    with SessionStore.open(folder, watch=False) as store:
        fill(store)
        shutil.copytree(folder, tmp_path / "left")
    return tmp_path / "left"


def listed(store: SessionStore) -> list[str]:
    return [info.session_id for info in store.interrupted_sessions()]


def test_what_is_left_of_a_store_that_was_not_closed(left: Path) -> None:
    files = {path: path.read_bytes() for path in left.glob("*.json")}
    with SessionStore.open(left, watch=False) as store:
        assert listed(store) == ["active", "paused"]
        assert store.load_session("paused").status == "paused"
        assert files == {path: path.read_bytes() for path in left.glob("*.json")}, "as they were"
        resumed = store.resume("paused")
        assert (resumed.status, resumed.messages, resumed.generation) == ("active", [1], 2)
        assert listed(store) == ["active"]
        assert store.resume("active").generation == 2
        assert listed(store) == []


def test_a_session_that_is_changed_is_not_left_behind_any_more(left: Path) -> None:
    with SessionStore.open(left, watch=False) as store:
        store.append("active", [6])
        store.save_session("new", status="active")
        assert listed(store) == ["paused"]
        crash_actor(store)
        assert listed(store) == ["paused"], "whoever works on the others is still there"


def test_nothing_is_interrupted_by_a_close(folder: Path) -> None:
    with SessionStore.open(folder, watch=False) as store:
        fill(store)
        assert listed(store) == []
    with SessionStore.open(folder, watch=False) as store:
        assert listed(store) == []


def test_a_kill_interrupts(folder: Path) -> None:
    script = (
        "import os, signal, sys\n"
        "from sessionkeeper import SessionStore\n"
        "store = SessionStore.open(sys.argv[1], watch=False)\n"
        "store.save_session('s1', [1], status='active')\n"
        "store.append('s1', [2])\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(folder)], check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    with SessionStore.open(folder, watch=False) as store:
        assert listed(store) == ["s1"]
        assert store.resume("s1").messages == [1, 2]


def test_the_word_interrupted_is_listed_however_the_store_was_closed(folder: Path) -> None:
    with SessionStore.open(folder, watch=False) as store:
        store.save_session("s1", [1], status="interrupted")
    with SessionStore.open(folder, watch=False) as store:
        assert listed(store) == ["s1"]
        assert store.resume("s1").status == "active"
        assert listed(store) == []


def test_what_cannot_be_resumed(store: SessionStore) -> None:
    fill(store)
    for session_id in ("done", "own word", "none"):
        with pytest.raises(NotResumable, match="status"):
            store.resume(session_id)
        assert store.load_session(session_id).generation == 1
    with pytest.raises(SessionNotFound):
        store.resume("absent")


def test_reading_beside_an_owner_interrupts_nothing(left: Path) -> None:
    with SessionStore.open(left, read_only=True) as store:
        assert listed(store) == []


def test_a_store_in_memory_interrupts_nothing(folder: Path) -> None:
    with SessionStore.open(folder, durability="memory") as store:
        fill(store)
        assert listed(store) == []
        assert store.resume("paused").status == "active"


def test_completed_sets_the_time_and_other_words_take_it_away(folder: Path) -> None:
    clock = FakeClock()
    with SessionStore.open(folder, watch=False, inject=Injected(clock=clock)) as store:
        store.save_session("s1", status="active")
        clock.advance(10)
        store.save_session("s1", status="completed")
        done = store.load_session("s1").completed_at
        assert done == clock.now()
        clock.advance(10)
        store.save_session("s1", title="Title")
        store.save_session("s1", status="completed")
        assert store.load_session("s1").completed_at == done
        store.save_session("s1", status="interrupted")
        assert store.resume("s1").completed_at is None
