"""Cases 23 to 25: people, other processes, readers and clocks; and what must not overtake what."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from mutants import cached_unchecked, published_unchecked

import sessionkeeper
from sessionkeeper import SessionKeeperError, SessionStore, StoreLocked
from sessionkeeper.storage.documents import decode_document
from sessionkeeper.testing import (
    FakeClock,
    FaultyBackend,
    FaultyFileSystem,
    Injected,
    crash_actor,
    wait_until,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from sessionkeeper.storage.backend import Backend
    from sessionkeeper.storage.documents import Document

    Covered = Callable[[str, int, str], None]

LIBRARY = Path(sessionkeeper.__file__).parents[1]


def edit(path: Path, messages: list[Any]) -> bytes:
    """Change a session's file as a person with an editor would."""
    fields = json.loads(path.read_bytes())
    fields["messages"] = messages
    data = json.dumps(fields, indent=1).encode()
    path.write_bytes(data)
    return data


def crashed_copy(folder: Path) -> Path:
    """The folder as a killed process would leave it."""
    copy = folder.with_name("crashed")
    shutil.copytree(folder, copy)
    return copy


# --- 23: hand edits ----------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["open", "after a crash of the actor", "after a kill"])
@pytest.mark.parametrize("unapplied", [0, 3])
def test_a_valid_edit_is_taken_and_no_append_is_lost(
    unapplied: int,
    when: str,
    folder: Path,
    covered: Covered,
) -> None:
    more = [f"more {number}" for number in range(unapplied)]
    store = SessionStore.open(folder, watch=False)
    try:
        store.save_session("s1", ["first"])
        store.checkpoint()
        for message in more:
            store.append("s1", [message])
        edit(folder / "s1.json", ["edited"])
        place = crashed_copy(folder)
        if when == "after a crash of the actor":
            crash_actor(store)
            store.flush()
            assert store.load_session("s1").messages == ["edited", *more]
        elif when == "open":
            store.append("s1", ["last"])
            store.checkpoint()
            wait_until(lambda: "edited" in _everything(folder))
            found = store.load_session("s1").messages
            assert [m for m in found if m.startswith(("more", "last"))] == [*more, "last"]
    finally:
        store.close()
    if when == "after a kill":
        with SessionStore.open(place, watch=False) as again:
            assert again.load_session("s1").messages == ["edited", *more]
    covered("23", 1, "valid edit")


def _everything(folder: Path) -> str:
    return "".join(path.read_text() for path in folder.rglob("*.json"))


def test_an_invalid_edit_is_kept_and_the_session_too(folder: Path, covered: Covered) -> None:
    store = SessionStore.open(folder, watch=False)
    try:
        store.checkpoint()  # the one that an opened store begins with
        store.save_session("s1", ["first"])
        store.append("s1", ["second"])
        (folder / "s1.json").write_bytes(b'{"half": ')
        place = crashed_copy(folder)
    finally:
        store.close()
    for _ in range(2):
        with SessionStore.open(place, watch=False) as again:
            assert again.load_session("s1").messages == ["first", "second"]
            assert '{"half": ' in [
                path.read_text() for path in (place / ".sessionkeeper/quarantine").iterdir()
            ]
    covered("23", 2, "recoveries from an invalid edit over unapplied appends")


def test_an_edit_during_a_checkpoint_is_not_overwritten(folder: Path, covered: Covered) -> None:
    """It comes when the new file is written and not yet renamed."""
    edits: list[bytes] = []

    class Editing(FaultyFileSystem):
        def sync_files(self, below: Path, paths: Any) -> None:
            super().sync_files(below, paths)
            if not edits and any(path.suffix == ".tmp" for path in paths):
                edits.append(edit(folder / "s1.json", ["edited"]))

    inject = Injected(fs=Editing())
    with SessionStore.open(folder, watch=False, inject=inject) as store:
        store.save_session("s1", ["first"])
        store.checkpoint()
        store.append("s1", ["second"])
        store.checkpoint()
        assert edits
        wait_until(lambda: store.load_session("s1").messages == ["edited", "second"])
        store.checkpoint()
    assert json.loads((folder / "s1.json").read_bytes())["messages"] == ["edited", "second"]
    covered("23", 1, "edit in the middle of a checkpoint")


# --- 24: other processes -----------------------------------------------------------------------

HOLD = """
import sys
from sessionkeeper import SessionStore
store = SessionStore.open(sys.argv[1], watch=False)
store.append("s1", ["theirs"])
print("ready", flush=True)
sys.stdin.read()
"""


def test_a_second_process_is_refused_and_a_dead_one_leaves_no_lock(
    folder: Path,
    covered: Covered,
) -> None:
    rounds = 3
    for number in range(rounds):
        with subprocess.Popen(
            [sys.executable, "-c", HOLD, str(folder)],
            env={**os.environ, "PYTHONPATH": str(LIBRARY)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            with pytest.raises(StoreLocked) as refused:
                SessionStore.open(folder, watch=False)
            assert refused.value.holder["pid"] == process.pid
            process.send_signal(signal.SIGKILL)
        assert (folder / ".sessionkeeper" / "holder").exists(), "what it said of itself stays"
        with SessionStore.open(folder, watch=False) as store:
            assert store.load_session("s1").messages == ["theirs"] * (number + 1)
    covered("24", rounds, "owners killed with the lock in hand")


# --- 25: clocks --------------------------------------------------------------------------------


def test_a_clock_that_goes_backwards_expires_and_reorders_nothing(
    folder: Path,
    clock: FakeClock,
    covered: Covered,
) -> None:
    start = clock.now()
    jumps = [timedelta(days=-400), timedelta(hours=-1), timedelta(days=3), timedelta(days=-10)]
    settings: dict[str, Any] = {"watch": False, "retention_days": 30}
    expected = ["0"]
    store = SessionStore.open(folder, inject=Injected(clock=clock), **settings)
    try:
        store.save_session("s1", ["0"])
        for number, jump in enumerate(jumps, 1):
            clock.set_wall_clock(start + jump)
            store.append("s1", [str(number)])
            expected.append(str(number))
            assert store.load_session("s1").updated_at >= start
            place = crashed_copy(folder)
            with SessionStore.open(place, inject=Injected(clock=clock), **settings) as again:
                again.flush()
                assert again.load_session("s1").messages == expected
                assert again.load_session("s1").generation == len(expected)
            shutil.rmtree(place)
    finally:
        store.close()
    covered("25", len(jumps), "jumps of the clock, each with a crash")


def test_expiry_and_delete_then_recreate_across_a_crash(
    folder: Path,
    clock: FakeClock,
    covered: Covered,
) -> None:
    settings: dict[str, Any] = {"watch": False, "retention_days": 30}
    store = SessionStore.open(folder, inject=Injected(clock=clock), **settings)
    try:
        store.save_session("old", ["old"])
        store.save_session("again", ["before"])
        clock.advance(days=31)
        wait_until(lambda: "old" not in store and "again" not in store)
        store.save_session("again", ["after"])
        store.delete_session("again")
        store.append("again", ["once more"])
        place = crashed_copy(folder)
    finally:
        store.close()
    for _ in range(2):
        with SessionStore.open(place, inject=Injected(clock=clock), **settings) as again:
            assert "old" not in again
            assert again.load_session("again").messages == ["once more"]
            assert again.load_session("again").generation == 1
    with SessionStore.open(place, inject=Injected(clock=clock), **settings) as again:
        again.undelete_session("old")
        assert again.load_session("old").messages == ["old"]
        again.delete_session("again")
        again.undelete_session("again")
        assert again.load_session("again").messages == ["once more"]
    covered("25", 3, "recoveries after expiry, delete and recreation")


# --- readers -----------------------------------------------------------------------------------


def read_while_written(folder: Path, reads: int) -> int:  # noqa: C901 - readers and a writer
    """Read the files themselves, and the store, while both change all the time."""
    done = threading.Event()
    torn: list[str] = []
    counts = [0, 0]

    def files() -> None:
        while counts[0] < reads and not torn:
            try:
                data = (folder / "s1.json").read_bytes()
            except FileNotFoundError:
                continue
            if decode_document([data]) is None:
                torn.append(f"a torn file of {len(data)} bytes")
            counts[0] += 1

    def sessions() -> None:
        last = -1
        while counts[1] < reads and not torn:
            session = store.load_session("s1")
            if session.generation < last or len(session.messages) != session.messages[0]:
                torn.append(f"generation {session.generation} after {last}")
            last = session.generation
            counts[1] += 1

    with SessionStore.open(folder, watch=False, checkpoint_bytes=200_000) as store:
        store.save_session("s1", [1])
        readers = [threading.Thread(target=files), threading.Thread(target=sessions)]
        for reader in readers:
            reader.start()
        length = 1
        while any(reader.is_alive() for reader in readers):
            length = length % 400 + 1
            store.save_session("s1", [length] + ["x"] * (length - 1))
        for reader in readers:
            reader.join()
        done.set()
    assert torn == []
    return sum(counts)


def test_no_reader_ever_sees_a_torn_file(folder: Path, covered: Covered) -> None:
    covered("1", read_while_written(folder, 3_000), "reads beside a writer, none torn")


@pytest.mark.campaign
@pytest.mark.timeout(1800)
def test_of_a_million_reads_none_sees_a_torn_file(folder: Path, covered: Covered) -> None:
    covered("1", read_while_written(folder, 500_000), "reads beside a writer, none torn")


# --- what must not overtake what ---------------------------------------------------------------


def overtaken_checkpoint(folder: Path) -> tuple[list[Any], list[Any]]:
    """A file is prepared; before it is renamed a newer version is saved. What is there then?"""
    store = SessionStore.open(folder, watch=False)
    try:
        store.save_session("s1", ["first"])
        store.append("s1", ["second"])
        tree = store._tree
        assert tree is not None
        backend = tree.journaled
        assert backend is not None
        checkpoint = backend.begin_checkpoint(full=True)
        assert checkpoint is not None
        prepared = backend.prepare(checkpoint, checkpoint.sessions)
        store.save_session("s1", ["newest"])
        backend.publish(prepared)
        backend.carry(checkpoint)
        backend.settle(checkpoint)
        backend.finish(checkpoint, settled=True)
        store.checkpoint()
        seen = list(store.load_session("s1").messages)
        place = crashed_copy(folder)
    finally:
        store.close()
    filed = json.loads((place / "s1.json").read_bytes())["messages"]
    return seen, filed


def test_a_prepared_file_that_is_behind_is_not_published(folder: Path, covered: Covered) -> None:
    assert overtaken_checkpoint(folder) == (["newest"], ["newest"])
    covered("23", 1, "checkpoint that was overtaken")


def test_a_file_published_without_the_lsn_check_is_noticed(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    covered: Covered,
) -> None:
    published_unchecked(monkeypatch)
    assert overtaken_checkpoint(folder)[1] != ["newest"]
    covered("mutant", 1, "rig that noticed 'published without the LSN check'")


def overtaken_reader(folder: Path) -> list[Any]:
    """A reader has read a version; before it goes on, a newer one is saved. What is seen then?"""
    read, go = threading.Event(), threading.Event()
    slow: list[threading.Thread] = []

    class Slow(FaultyBackend):
        def read(self, session_id: str) -> Document | None:
            found = super().read(session_id)
            if threading.current_thread() in slow:
                read.set()
                assert go.wait(10)
            return found

    def wrap(backend: Backend) -> Backend:
        return Slow(backend)

    with SessionStore.open(folder, watch=False) as before:
        before.save_session("s1", ["first"])
    with SessionStore.open(folder, watch=False, inject=Injected(wrap_backend=wrap)) as store:

        def load() -> None:
            with contextlib.suppress(SessionKeeperError):  # what it read was overtaken
                store.load_session("s1")

        slow.append(threading.Thread(target=load))
        slow[0].start()
        assert read.wait(10)
        store.append("s1", ["newest"])
        go.set()
        slow[0].join()
        return list(store.load_session("s1").messages)


def test_a_reader_that_is_behind_fills_no_cache(folder: Path, covered: Covered) -> None:
    assert overtaken_reader(folder) == ["first", "newest"]
    covered("23", 1, "reader that was overtaken")


def test_a_cache_filled_without_the_lsn_check_is_noticed(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    covered: Covered,
) -> None:
    cached_unchecked(monkeypatch)
    assert overtaken_reader(folder) == ["first"]
    covered("mutant", 1, "rig that noticed 'a cache filled without the LSN check'")
