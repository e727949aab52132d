"""The actor crashes at any point: no acknowledged write is lost, none is applied twice."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sessionkeeper import (
    CountSessions,
    NotExecuted,
    SaveSession,
    SessionNotFound,
    SessionStore,
    StoreClosed,
)
from sessionkeeper.testing import (
    CrashCommand,
    EventLog,
    FakeClock,
    Fault,
    FaultyBackend,
    FaultyFileSystem,
    Injected,
    InjectedCrash,
    crash_actor,
    wait_until,
)

if TYPE_CHECKING:
    from sessionkeeper.storage.backend import Backend

THREADS = 8
ROUNDS = 5


class Worker(threading.Thread):
    """Appends, saves and deletes; notes what was acknowledged."""

    def __init__(self, store: SessionStore, number: int) -> None:
        super().__init__(name=f"worker-{number}")
        self.store = store
        self.number = number
        self.acknowledged: list[str] = []
        self.deleted: list[str] = []
        self.errors: list[BaseException] = []

    def run(self) -> None:
        for turn in range(ROUNDS):
            text = f"{self.number}.{turn}"
            try:
                self.store.append("shared", [text])
                self.store.append(f"own-{self.number}", [text])
                self.acknowledged.append(text)
                self.store.save_session(f"brief-{text}", [text])
                assert self.store.delete_session(f"brief-{text}") is True
                self.deleted.append(f"brief-{text}")
            except BaseException as error:  # noqa: BLE001 - the test looks at it
                self.errors.append(error)


POINTS = {
    "file": ["write_new", "sync", "replace", "replace", "sync_folder", "make_folder"],
    "journal": ["write_new", "write_at", "sync_data", "sync_files", "replace", "sync_folder"],
}


def plan(seed: int, durability: str, fs: FaultyFileSystem, backends: list[FaultyBackend]) -> str:
    """A crash somewhere in the way of a save, and for every third seed one in the recovery."""
    rng = random.Random(seed)
    point = rng.choice([*POINTS[durability], "commit", "commit"])
    crash = Fault(point, InjectedCrash(f"seed {seed}"), rng.randrange(25), after=rng.random() < 0.5)
    if point in ("commit", "sync_data", "write_at"):
        crash.skip %= 8  # one of each for a whole turn
    elif point in ("sync_files", "sync_folder") and durability == "journal":
        crash.skip %= 3  # one for each checkpoint
    (backends[0] if point == "commit" else fs).fail(crash)
    if seed % 3 == 0:
        again = Fault("recover", InjectedCrash("in recovery"), after=rng.random() < 0.5)
        backends[0].fail(again)
    return f"{point} {'after' if crash.after else 'before'}"


@pytest.mark.parametrize("durability", ["journal", "file"])
@pytest.mark.parametrize("block", range(10))
def test_no_acknowledged_write_is_lost_at_any_crash_point(
    block: int,
    durability: str,
    tmp_path: Path,
) -> None:
    crashes = 0
    for seed in range(block * 10, block * 10 + 10):
        crashes += _crash_once(seed, durability, tmp_path / str(seed))
    assert crashes >= 5, "most of the planned crashes must have happened"


def _crash_once(seed: int, durability: str, folder: Path) -> int:
    fs = FaultyFileSystem()
    backends: list[FaultyBackend] = []

    def wrap(backend: Backend) -> Backend:
        backends.append(FaultyBackend(backend))
        return backends[-1]

    inject = Injected(fs=fs, wrap_backend=wrap)
    with SessionStore.open(
        folder,
        watch=False,
        durability=durability,
        # Checkpoints in the midst of it, so that they crash too.
        checkpoint_bytes=20_000,
        inject=inject,
        call_timeout=20.0,
    ) as store:
        point = plan(seed, durability, fs, backends)
        workers = [Worker(store, number) for number in range(THREADS)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(30)
            assert not worker.is_alive(), f"seed {seed} ({point}): a caller was never answered"
        where = f"seed {seed} ({point})"
        assert [error for worker in workers for error in worker.errors] == [], where
        fs.heal()  # what was not due yet would hit the closing
        check(store, workers, where)
        restarts = store.info().restarts
    with SessionStore.open(folder, watch=False) as again:
        assert again.last_recovery.problems == []
        check(again, workers, f"{where}, reopened")
    return min(restarts, 1)


def check(store: SessionStore, workers: list[Worker], where: str) -> None:
    shared = store.load_session("shared").messages
    assert max(Counter(shared).values()) == 1, f"{where}: an append was applied twice"
    for worker in workers:
        own = store.load_session(f"own-{worker.number}")
        assert own.messages == worker.acknowledged, where
        assert own.generation == len(worker.acknowledged), where
        assert [m for m in shared if m.startswith(f"{worker.number}.")] == own.messages, where
        for session_id in worker.deleted:
            assert session_id not in store, where


# --- the actor's own behaviour ------------------------------------------------------------


def test_what_stood_before_a_crash_is_committed_and_what_stood_behind_is_not_lost(
    store: SessionStore,
) -> None:
    busy, go = threading.Event(), threading.Event()

    def hold(event: Any) -> None:
        if event.session_id == "held":
            busy.set()
            go.wait(5)

    unsubscribe = store.subscribe(hold)
    held = store.tell(SaveSession("held", []))
    assert busy.wait(5)
    before = store.tell(SaveSession("before", [1]))
    culprit = store.tell(CrashCommand(InjectedCrash("culprit")))
    behind = store.tell(SaveSession("behind", [2]))
    go.set()
    unsubscribe()
    assert held.result(5).generation == 1
    assert before.result(5).generation == 1
    assert isinstance(culprit.exception(5), InjectedCrash)
    assert behind.result(5).generation == 1
    assert store.info().restarts == 1
    assert store.load_session("before").messages == [1]
    assert store.load_session("behind").messages == [2]


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt(), GeneratorExit()])
def test_no_exception_of_any_kind_ends_more_than_the_incarnation(
    error: BaseException,
    store: SessionStore,
) -> None:
    store.save_session("s1", [1])
    crash_actor(store, error)
    store.append("s1", [2])
    assert store.load_session("s1").messages == [1, 2]
    assert store.info().restarts == 1


def test_a_refused_command_does_not_crash_the_actor(store: SessionStore) -> None:
    with pytest.raises(SessionNotFound):
        store.undelete_session("absent")
    assert store.info().restarts == 0
    assert store.info().epoch == 1


def test_a_command_that_crashes_every_commit_is_given_up_and_takes_nobody_with_it(
    folder: Path,
) -> None:
    class Poisonous(FaultyBackend):
        def commit(self, batch: Any) -> None:
            if any(change.document.record.session_id == "poison" for change in batch):
                raise InjectedCrash("poison")
            super().commit(batch)

    with SessionStore.open(folder, watch=False, inject=Injected(wrap_backend=Poisonous)) as store:
        receipts = [store.tell(SaveSession(name, [name])) for name in ("a", "poison", "b")]
        assert isinstance(receipts[1].exception(10), NotExecuted)
        assert receipts[0].result(10).generation == 1
        assert receipts[2].result(10).generation == 1
        assert store.info().restarts == 3
        assert store.load_session("b").messages == ["b"]


def test_a_stalled_incarnation_that_was_shut_out_does_not_write_when_it_wakes(
    folder: Path,
    clock: FakeClock,
) -> None:
    backends: list[FaultyBackend] = []

    def wrap(backend: Backend) -> Backend:
        backends.append(FaultyBackend(backend))
        return backends[-1]

    inject = Injected(clock=clock, wrap_backend=wrap)
    with SessionStore.open(folder, watch=False, inject=inject) as store:
        store.flush()
        stalled, go = threading.Event(), threading.Event()
        now = clock.now()

        def stall() -> Any:
            if threading.current_thread().name == "sessionkeeper.store-1":
                stalled.set()
                go.wait(10)
            return now

        clock.now = stall  # type: ignore[method-assign]
        receipt = store.tell(SaveSession("s1", [1]))
        assert stalled.wait(5)
        tree = store._tree
        assert tree is not None
        before = len(backends[0].calls)
        tree.actor.fence("the test shut it out")
        go.set()
        assert receipt.result(5).generation == 1
        calls = [call for call in backends[0].calls[before:] if call in ("commit", "recover")]
        assert calls == ["recover", "commit"], "the one shut out committed"


def test_a_crash_leaves_no_file_open(folder: Path) -> None:
    fs = FaultyFileSystem()
    with SessionStore.open(folder, watch=False, inject=Injected(fs=fs)) as store:
        store.save_session("s0", [0])
        store.flush()
        catalog = store._view._catalog
        assert catalog is not None
        wait_until(lambda: catalog.after("", 1) is not None)  # the index has its own
        before = len(list(Path("/proc/self/fd").iterdir()))
        for operation in ("write_new", "write_at", "replace"):
            fs.fail(Fault(operation, InjectedCrash("here"), skip=1))
            receipts = [store.tell(SaveSession(f"s{number}", [1])) for number in range(5)]
            assert all(receipt.result(10) for receipt in receipts)
        store.flush()
        assert store.info().restarts == 3
        wait_until(lambda: len(list(Path("/proc/self/fd").iterdir())) == before)


def test_the_last_crash_of_all_still_tells_everybody_what_happened(folder: Path) -> None:
    """No incarnation follows: what stood before is done and answered, the rest never began."""
    with SessionStore.open(folder, watch=False, max_restarts=0) as store:
        busy, go = threading.Event(), threading.Event()

        def hold(event: Any) -> None:
            if event.session_id == "held":
                busy.set()
                go.wait(5)

        store.subscribe(hold)
        store.tell(SaveSession("held", []))
        assert busy.wait(5)
        before = store.tell(SaveSession("before", [1]))
        culprit = store.tell(CrashCommand(InjectedCrash("culprit")))
        behind = store.tell(SaveSession("behind", [2]))
        go.set()
        assert before.result(5).generation == 1
        assert isinstance(culprit.exception(5), InjectedCrash)
        assert isinstance(behind.exception(5), StoreClosed)
    with SessionStore.open(folder, watch=False) as again:
        assert "before" in again
        assert "behind" not in again


def test_too_many_crashes_close_the_store_and_everybody_is_told(folder: Path) -> None:
    store = SessionStore.open(folder, watch=False, max_restarts=2, max_seconds=60.0)
    with EventLog(store) as log:
        store.save_session("s1", [1])
        for _ in range(3):
            crash_actor(store)
        log.wait_for("stopped")
    with pytest.raises(StoreClosed):
        store.save_session("s1", [2])
    with pytest.raises(StoreClosed):
        store.load_session("s1")
    with pytest.raises(StoreClosed):
        store.tell(CountSessions())
    assert store.info().state == "closed"
    store.close()
    with SessionStore.open(folder, watch=False) as again:
        assert again.load_session("s1").messages == [1]


def test_the_restart_budget_is_the_one_set(folder: Path) -> None:
    with SessionStore.open(folder, watch=False, max_restarts=12, max_seconds=60.0) as store:
        for _ in range(12):
            crash_actor(store)
        # Also now it is back before a caller's patience ends: within call_timeout.
        store.save_session("s1", [1])
        assert store.info().restarts == 12


# --- reading meanwhile --------------------------------------------------------------------


class GatedBackend(FaultyBackend):
    """Its recovery waits for a gate."""

    def __init__(self, inner: Backend) -> None:
        super().__init__(inner)
        self.entered = threading.Event()
        self.gate = threading.Event()
        self.gate.set()

    def recover(self) -> Any:
        self.entered.set()
        assert self.gate.wait(10)
        return super().recover()


def test_reads_go_on_while_the_actor_is_down_and_wait_only_for_the_recovery(folder: Path) -> None:
    backends: list[GatedBackend] = []

    def wrap(backend: Backend) -> Backend:
        backends.append(GatedBackend(backend))
        return backends[-1]

    with SessionStore.open(folder, watch=False, inject=Injected(wrap_backend=wrap)) as store:
        store.save_session("s1", [1])
        backend = backends[0]
        backend.gate.clear()
        backend.entered.clear()
        while_down: list[Any] = []
        # The event comes from the dying actor, before its supervisor can restart it.
        unsubscribe = store.subscribe(
            lambda event: (
                while_down.append(store.load_session("s1").messages)
                if event.kind == "crashed"
                else None
            ),
        )
        crash_actor(store)
        assert backend.entered.wait(5)
        unsubscribe()
        assert while_down == [[1]]

        answers: list[Any] = []
        reader = threading.Thread(target=lambda: answers.append(store.load_session("s1").messages))
        writer = threading.Thread(target=lambda: answers.append(store.append("s1", [2]).generation))
        reader.start()
        reader.join(0.1)
        assert reader.is_alive(), "a read during recovery waits"
        assert answers == []
        writer.start()
        backend.gate.set()
        reader.join(5)
        writer.join(5)
        assert answers[0] in ([1], 2)
        assert sorted(map(str, answers)) in (["2", "[1, 2]"], ["2", "[1]"])


def test_a_read_that_waits_too_long_for_a_recovery_says_so(folder: Path) -> None:
    backends: list[GatedBackend] = []

    def wrap(backend: Backend) -> Backend:
        backends.append(GatedBackend(backend))
        return backends[-1]

    inject = Injected(wrap_backend=wrap)
    with SessionStore.open(folder, watch=False, inject=inject, call_timeout=0.2) as store:
        store.save_session("s1", [1])
        backends[0].gate.clear()
        backends[0].entered.clear()
        crash_actor(store)
        assert backends[0].entered.wait(5)
        with pytest.raises(NotExecuted):
            store.load_session("s1")
        with pytest.raises(NotExecuted):
            store.append("s1", [2])
        backends[0].gate.set()
        store.flush(timeout=5)
        assert store.load_session("s1").messages == [1], "what was withdrawn never happened"


# --- death of the whole process -----------------------------------------------------------

KILLED = """
import os, signal, sys
from sessionkeeper import SessionStore
from sessionkeeper.storage.platform import FileSystem
from sessionkeeper.testing import Injected

countdown = int(sys.argv[2])

class Deadly(FileSystem):
    pass

def deadly(name):
    plain = getattr(FileSystem, name)
    def operation(self, *arguments):
        global countdown
        countdown -= 1
        if countdown == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return plain(self, *arguments)
    setattr(Deadly, name, operation)

for name in ("write_new", "replace", "link", "unlink", "sync_folder", "read", "make_folder"):
    deadly(name)

with SessionStore.open(sys.argv[1], watch=False, inject=Injected(fs=Deadly())) as store:
    print("open", flush=True)
"""


def test_kills_during_recovery_lose_nothing(folder: Path) -> None:
    """Each recovery is killed one step later; the folder holds work of every kind."""
    with SessionStore.open(folder, watch=False) as store:
        for number in range(3):
            store.save_session(f"s{number}", [number])
        store.save_session("gone", ["gone"])
        store.delete_session("gone")
    edited = json.loads((folder / "s1.json").read_bytes())
    edited["messages"].append("by hand")
    (folder / "s1.json").write_text(json.dumps(edited))
    (folder / "bad.json").write_bytes(b"{")
    (folder / ".sessionkeeper" / "tmp" / "1-1.tmp").write_bytes(b"half")
    kills = 0
    for step in range(1, 60):
        done = subprocess.run(
            [sys.executable, "-c", KILLED, str(folder), str(step)],
            capture_output=True,
            check=False,
            timeout=60,
        )
        if done.returncode == 0:
            break
        assert done.returncode == -9, done.stderr.decode()
        kills += 1
    assert kills >= 8
    with SessionStore.open(folder, watch=False) as store:
        assert store.load_session("s0").messages == [0]
        assert store.load_session("s1").messages == [1, "by hand"]
        assert store.load_session("s2").messages == [2]
        assert "gone" not in store
        assert store.undelete_session("gone").message_count == 1
    quarantine = folder / ".sessionkeeper" / "quarantine"
    kept = [p.read_bytes() for p in quarantine.iterdir() if not p.name.endswith(".why.json")]
    assert kept == [b"{"]
