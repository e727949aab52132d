"""Abstract replay: a workload's log of operations, and the real recovery on states it may leave."""

from __future__ import annotations

import random
import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from oracle import Answered, Kind, Lost, Observed, Sent, State, allowed, at, check, observe
from recorder import RecordingFileSystem
from simdisk import Disk, Mark, SyncFile, SyncFolder, disk_of

from sessionkeeper import (
    AppendMessages,
    DeleteSession,
    OutcomeUnknown,
    SaveSession,
    SessionStore,
    StoreClosed,
    UndeleteSession,
)
from sessionkeeper.keys import key_of
from sessionkeeper.storage import checkpoints, commits, journal
from sessionkeeper.storage.documents import decode_document
from sessionkeeper.testing import Injected, crash_actor

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest
    from oracle import Allowed
    from simdisk import Choice, Operation

    from sessionkeeper import Receipt, SessionInfo

Model = Literal["weak", "ordered"]
Durability = Literal["journal", "file"]

KINDS: tuple[Kind, ...] = get_args(Kind)
# Some ids are there twice: a session is named by its namespace, too.
SESSIONS = (*(f"s{number}" for number in range(4)), "team/s0", "team/s1")
# Folders that do not exist yet above the store's own.
STORE = Path("apps") / "agent" / "store"


def make_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small bounds, so that a short log rolls segments, stages documents and carries appends."""
    monkeypatch.setattr(journal, "SMALLEST", 32 * 1024)
    monkeypatch.setattr(journal, "LARGEST", 64 * 1024)
    monkeypatch.setattr(commits, "INLINE_BYTES", 2048)
    monkeypatch.setattr(checkpoints, "REWRITE_BYTES", 6000)


def scratch() -> tempfile.TemporaryDirectory[str]:
    """A folder in memory where there is one."""
    memory = Path("/dev/shm")  # noqa: S108 - a folder of our own is made in it
    return tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None)


@dataclass
class Trace:
    """What a run did to the disk, and what was allowed before it.

    Attributes:
        disk: The disk before the run.
        log: What the run did, with marks of what was sent, answered and seen.
        before: What each session might be before the run.
    """

    disk: Disk
    log: list[Operation]
    before: Allowed = field(default_factory=dict)

    def allowed(self, length: int) -> Allowed:
        """What each session may be after so much of the log."""
        marks = (entry.what for entry in self.log[:length] if isinstance(entry, Mark))
        return allowed(self.before, marks)


class Driver:
    """Sends random changes to a store whose file system records, and notes the answers.

    Args:
        fs: Where sent and answered are marked.
        rng: What decides.
        first: The number of the first change; messages carry it, so no two are equal.
    """

    def __init__(self, fs: RecordingFileSystem, rng: random.Random, first: int = 0) -> None:
        self._fs = fs
        self._rng = rng
        self._number = first

    def burst(self, store: SessionStore, size: int) -> list[Receipt[Any]]:
        """Send so many changes at once and wait for all of them."""
        receipts = [self.send(store) for _ in range(size)]
        for receipt in receipts:
            receipt.exception(30)
        return receipts

    def send(
        self,
        store: SessionStore,
        kind: Kind | None = None,
        session_id: str | None = None,
    ) -> Receipt[Any]:
        """Send one change."""
        rng = self._rng
        self._number += 1
        kind = kind or rng.choices(KINDS, [60, 25, 10, 5])[0]
        session_id = session_id or rng.choice(SESSIONS)
        size = rng.choice([1, 1, 1, 200, 3000, 9000])
        texts = tuple(
            f"{session_id}.{self._number}.{part}:".ljust(size, "x")
            for part in range(rng.choice([1, 1, 3]))
        )
        sent = Sent(self._number, kind, session_id, texts if kind in ("append", "save") else ())
        self._fs.mark(sent)
        view, name = at(store, session_id)
        receipt: Receipt[Any]
        match kind:
            case "append":
                receipt = view.tell(AppendMessages(name, list(texts)))
            case "save":
                receipt = view.tell(SaveSession(name, list(texts)))
            case "delete":
                receipt = view.tell(DeleteSession(name))
            case "undelete":
                receipt = view.tell(UndeleteSession(name))
        receipt.add_done_callback(lambda done: self._answered(sent.number, done))
        return receipt

    def _answered(self, number: int, receipt: Receipt[Any]) -> None:
        error = receipt.exception(0)
        if error is None:
            nothing = receipt.result(0) is False
            self._fs.mark(Answered(number, "nothing" if nothing else "done"))
        elif isinstance(error, OutcomeUnknown):
            self._fs.mark(Answered(number, "unknown"))
        else:
            self._fs.mark(Answered(number, "refused"))


@contextmanager
def opened(
    folder: Path,
    fs: RecordingFileSystem | None = None,
    durability: Durability = "journal",
    **settings: Any,
) -> Iterator[SessionStore]:
    """A store in a folder of a recorded disk."""
    store = SessionStore.open(
        folder / STORE,
        watch=False,
        durability=durability,
        checkpoint_bytes=settings.pop("checkpoint_bytes", 60_000),
        max_restarts=1000,
        call_timeout=30.0,
        inject=Injected(fs=fs),
        **settings,
    )
    try:
        yield store
    finally:
        store.close()


def record(seed: int, durability: Durability, *, rounds: int = 12) -> Trace:
    """Run a random workload, crashes of the actor and orderly restarts included."""
    rng = random.Random(seed)
    with scratch() as name:
        fs = RecordingFileSystem(Path(name))
        before = fs.disk.clone()
        driver = Driver(fs, rng)
        for opening in range(2):
            with opened(fs.top, fs, durability) as store:
                for _ in range(rounds if opening == 0 else rounds // 3):
                    driver.burst(store, rng.choice([1, 2, 6]))
                    if rng.random() < 0.15:
                        store.checkpoint()
                    if rng.random() < 0.05:
                        crash_actor(store)
        return Trace(before, fs.log)


def recover(
    state: Path,
    disk: Disk,
    expected: Allowed,
    where: str,
    durability: Durability = "journal",
    *,
    seed: int | None = None,
) -> Trace | None:
    """Open the store in a state, compare it with what is allowed, and close it.

    Args:
        state: The folder as the crash left it.
        disk: The disk that shows it.
        expected: What each session may be.
        where: Said by a failure.
        durability: Of the store.
        seed: If given, the recovery is recorded and goes on with a few changes.

    Returns:
        What the recovery did, given a seed.

    Raises:
        Lost: Something acknowledged is not there, or something else is.
    """
    torn = _unreadable(state / STORE)
    fs = None if seed is None else RecordingFileSystem(state, disk)
    before = None if fs is None else disk.clone()
    try:
        with opened(state, fs, durability) as store:
            found = observe(store, SESSIONS)
            check(found, expected, f"{where}, {store.last_recovery}")
            _check_problems(store, where)
            extra = {key_of(info.namespace, info.session_id) for info in _all(store)} - {*SESSIONS}
            if extra:
                raise Lost(f"{where}: nobody made {extra}")
            if fs is not None and seed is not None:
                fs.mark(Observed(tuple(found.items())))
                driver = Driver(fs, random.Random(seed), first=(seed + 1) * 1_000_000)
                driver.burst(store, 3)
                store.checkpoint()
                driver.burst(store, 2)
                found = observe(store, SESSIONS)
    except StoreClosed as error:
        raise Lost(f"{where}: the store does not come up: {error}") from error
    if _unreadable(state / STORE):
        raise Lost(f"{where}: a torn file is visible after recovery")
    kept = {path.read_bytes() for path in _everywhere(state / STORE)}
    for content in torn:
        if content and content not in kept:
            raise Lost(f"{where}: bytes that could not be read were overwritten")
    with opened(state, None, durability) as store:
        again = observe(store, SESSIONS)
        if again != found:
            check(again, {i: frozenset({s}) for i, s in found.items()}, f"{where}, opened again")
    return None if fs is None or before is None else Trace(before, fs.log, expected)


def _all(store: SessionStore) -> Iterator[SessionInfo]:
    yield from store.list_sessions()
    for namespace in store.namespaces():
        yield from store.scope(namespace).list_sessions()


def _check_problems(store: SessionStore, where: str) -> None:
    # A crash is no rot: whatever the journal calls damaged was acknowledged once.
    problems = [p for p in store.last_recovery.problems if p.kind not in ("corrupt", "rot")]
    if problems:
        raise Lost(f"{where}: {problems[0].kind}: {problems[0].detail}")


def _unreadable(folder: Path) -> list[bytes]:
    if not folder.is_dir():
        return []
    paths = (*folder.glob("*.json"), *folder.glob("team/*.json"))
    contents = [path.read_bytes() for path in paths]
    return [content for content in contents if decode_document([content]) is None]


def _everywhere(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


@dataclass
class Explorer:
    """Takes crash points and states of a trace, and recovers from each.

    Args:
        rng: What decides.
        model: Which states are legal.
        durability: Of the store.
    """

    rng: random.Random
    model: Model
    durability: Durability = "journal"
    states: int = 0

    def explore(self, trace: Trace, points: int | None, per_point: int, depth: int = 0) -> None:
        """Recover from states after prefixes of the log.

        Args:
            trace: What happened.
            points: How many prefixes are drawn; None takes every one.
            per_point: How many states of each.
            depth: How often a recovery is crashed in its turn.

        Raises:
            Lost: A state from which the store does not recover.
        """
        places = [n for n, entry in enumerate(trace.log, 1) if not isinstance(entry, Mark)]
        if points is not None and points < len(places):
            places = sorted(self.rng.sample(places, points))
        disk, done = trace.disk.clone(), 0
        for place in places:
            while done < place:
                disk.apply(trace.log[done])
                done += 1
            expected = trace.allowed(place)
            for choice in self._choices(disk, per_point):
                self._recover(trace, place, disk, choice, expected, depth)

    def unsynced_lost(self, trace: Trace) -> None:
        """Recover from the states before and after each sync, with all that is unsynced lost.

        Raises:
            Lost: A state from which the store does not recover.
        """
        disk = trace.disk.clone()
        nothing = disk.weak_choices(self.rng, 1)[0]
        for place, operation in enumerate(trace.log):
            syncs = isinstance(operation, SyncFile | SyncFolder)
            if syncs:
                self._recover(trace, place, disk, nothing, trace.allowed(place), 0)
            disk.apply(operation)
            if syncs:
                self._recover(trace, place + 1, disk, nothing, trace.allowed(place + 1), 0)

    def killed(self, trace: Trace, points: int, per_point: int) -> None:
        """Kill the process at drawn points, recover, go on, and then cut the power.

        What the killed process left in the page cache is visible and not durable.

        Raises:
            Lost: A state from which the store does not recover.
        """
        places = [n for n, entry in enumerate(trace.log, 1) if not isinstance(entry, Mark)]
        for place in sorted(self.rng.sample(places, min(points, len(places)))):
            disk = trace.disk.clone()
            for operation in trace.log[:place]:
                disk.apply(operation)
            self._recover(
                trace,
                place,
                disk,
                disk.everything(),
                trace.allowed(place),
                1,
                per_point=per_point,
                keeps_cache=True,
            )

    def _choices(self, disk: Disk, count: int) -> list[Choice]:
        if self.model == "weak":
            return disk.weak_choices(self.rng, count)
        return disk.ordered_choices(self.rng, count)

    def _recover(
        self,
        trace: Trace,
        place: int,
        disk: Disk,
        choice: Choice,
        expected: Allowed,
        depth: int,
        *,
        per_point: int = 2,
        keeps_cache: bool = False,
    ) -> None:
        self.states += 1
        where = f"{self.model} model, after operation {place} ({trace.log[place - 1]}), {choice}"
        name = tempfile.mkdtemp(dir=Path(_scratch_root()))
        try:
            state = Path(name)
            disk.materialise(choice, state)
            seed = self.rng.randrange(10**6) if depth else None
            shown = disk.clone() if keeps_cache else disk_of(state)
            inner = recover(state, shown, expected, where, self.durability, seed=seed)
        finally:
            shutil.rmtree(name)
        if inner is not None:
            self.explore(inner, 4 * per_point, per_point, depth - 1)


def _scratch_root() -> str:
    memory = Path("/dev/shm")  # noqa: S108 - folders of our own are made in it
    return str(memory) if memory.is_dir() else tempfile.gettempdir()


def state_of(messages: list[str]) -> State:
    """A session that is there and was never deleted."""
    return State(tuple(messages))
