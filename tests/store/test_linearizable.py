"""Concurrent histories with crashes and restarts: each call seems to happen at one instant.

The checker is Wing and Gong's, with Lowe's memory of what was tried: it looks for an order of all
calls that agrees with real time and in which each answer is the one a plain variable would give.
"""

from __future__ import annotations

import errno
import itertools
import math
import os
import random
import threading
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import pytest

from sessionkeeper import (
    NotExecuted,
    OutcomeUnknown,
    SessionNotFound,
    SessionStore,
    StorageFailed,
)
from sessionkeeper.engine.view import View
from sessionkeeper.testing import (
    Fault,
    FaultyBackend,
    FaultyFileSystem,
    Injected,
    InjectedCrash,
    crash_actor,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from sessionkeeper.storage.backend import Backend
    from sessionkeeper.storage.documents import Document

# --- the checker --------------------------------------------------------------------------

State = tuple[str, ...] | None
"""The messages of a session; None if there is none."""

NEVER = math.inf

UNDECIDED = 300_000


@dataclass(frozen=True)
class Call:
    """One call of one thread.

    Attributes:
        kind: What was called.
        given: The messages saved, or added.
        answer: What came back: the number of messages, the messages themselves, or whether there
            was something to delete.
        begun: When it was called.
        ended: When it was answered; NEVER: nobody knows whether it happened, or will.
    """

    kind: Literal["save", "append", "load", "delete"]
    given: tuple[str, ...]
    answer: Any
    begun: float
    ended: float

    def upon(self, state: State) -> tuple[bool, State]:
        """Whether the answer is right for that state, and the state afterwards."""
        known = self.ended is not NEVER
        match self.kind:
            case "save":
                return not known or self.answer == len(self.given), self.given
            case "append":
                after = (*(state or ()), *self.given)
                return not known or self.answer == len(after), after
            case "delete":
                return not known or self.answer == (state is not None), None
            case "load":
                return self.answer == state, state


def is_linearizable(calls: Iterable[Call], state: State = None) -> bool:
    """Whether one order of the calls explains all answers."""
    history = sorted(calls, key=lambda call: call.begun)
    answered = sum(1 << n for n, call in enumerate(history) if call.ended is not NEVER)
    tried: set[tuple[int, State]] = set()
    open_ends = [(0, state)]
    while open_ends:
        done, state = open_ends.pop()
        assert len(tried) < UNDECIDED, "too much of the history is unknown"
        if done & answered == answered:
            return True
        for position in _next_of(history, done):
            right, after = history[position].upon(state)
            end = (done | 1 << position, after)
            if right and end not in tried:
                tried.add(end)
                open_ends.append(end)
    return False


def _next_of(history: Sequence[Call], done: int) -> list[int]:
    """The calls that may come next: those begun before any other one was answered."""
    first = (~done & (done + 1)).bit_length() - 1
    limit, candidates = NEVER, []
    for position in range(first, len(history)):
        call = history[position]
        if call.begun > limit:
            break
        if not done >> position & 1:
            limit = min(limit, call.ended)
            candidates.append(position)
    # The last is tried first: who was answered early happened early, who was not maybe never.
    candidates.sort(key=lambda position: -history[position].ended)
    return [position for position in candidates if history[position].begun <= limit]


def test_the_checker_takes_what_is_right() -> None:
    assert is_linearizable([])
    assert is_linearizable(
        [
            Call("save", ("a",), 1, 0, 10),
            Call("append", ("b",), 2, 1, 9),
            Call("load", (), ("a",), 2, 3),
            Call("load", (), None, 0, 8),
            Call("delete", (), answer=True, begun=11, ended=12),
            Call("append", ("c",), 1, 13, 14),
        ],
    )
    lost = Call("append", ("b",), None, 1, NEVER)
    for seen in (("a",), ("a", "b")):
        assert is_linearizable([Call("save", ("a",), 1, 0, 1), lost, Call("load", (), seen, 5, 6)])


@pytest.mark.parametrize(
    "wrong",
    [
        [Call("load", (), ("a",), 2, 3)],  # older than what was acknowledged before
        [Call("load", (), None, 2, 3)],
        [Call("load", (), ("a", "b", "b"), 2, 3)],  # applied twice
        [Call("append", ("c",), 2, 2, 3)],  # upon an older version
        [Call("delete", (), answer=False, begun=2, ended=3)],
        [Call("load", (), ("a", "b", "x"), 2, 9), Call("append", ("x",), 3, 10, 11)],  # too early
        [Call("delete", (), None, 2, NEVER), Call("load", (), ("a",), 3, 4)],  # half undone
    ],
)
def test_the_checker_refuses_what_is_wrong(wrong: list[Call]) -> None:
    right = [Call("save", ("a",), 1, 0, 0.5), Call("append", ("b",), 2, 0.6, 1)]
    assert is_linearizable(right)
    assert not is_linearizable(right + wrong)


# --- histories ----------------------------------------------------------------------------

SESSIONS = ("a", "B", "c:d")
ONLY_APPENDS = "log"
THREADS = 4
ROUNDS = 30
CRASHES = 4


class Recorder:
    """Calls a store from several threads and writes down what was answered, and when."""

    def __init__(self) -> None:
        self.histories: dict[str, list[Call]] = {name: [] for name in (*SESSIONS, ONLY_APPENDS)}
        self.ticks = itertools.count()
        self.tokens = itertools.count()
        self.unknown = 0

    def run(self, store: SessionStore, seed: int, disturb: Callable[[int], object]) -> None:
        threads = [
            threading.Thread(target=self._work, args=(store, random.Random(f"{seed}-{number}")))
            for number in range(THREADS)
        ]
        for thread in threads:
            thread.start()
        turn = 0
        while any(thread.is_alive() for thread in threads):
            disturb(turn)
            turn += 1
            threads[0].join(0.005)
            threads[-1].join(0.005)
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()

    def _work(self, store: SessionStore, rng: random.Random) -> None:
        for _ in range(ROUNDS):
            name = rng.choice((*SESSIONS, ONLY_APPENDS))
            kinds = ["save", "append", "append", "append", "load", "load", "load", "delete"]
            kind = rng.choice(["append", "load"] if name == ONLY_APPENDS else kinds)
            self.call(store, name, kind, [f"m{next(self.tokens)}"] * (kind in ("save", "append")))

    def call(self, store: SessionStore, name: str, kind: Any, given: list[str]) -> None:
        call = Call(kind, tuple(given), None, next(self.ticks), NEVER)
        try:
            answer = _answer_of(store, name, call)
        except (NotExecuted, StorageFailed):
            return  # it has not happened, and will not
        except OutcomeUnknown:
            self.unknown += 1
        else:
            call = replace(call, answer=answer, ended=next(self.ticks))
        self.histories[name].append(call)

    def look(self, store: SessionStore) -> None:
        """Load all sessions, when nobody else does anything."""
        for name in self.histories:
            self.call(store, name, "load", [])

    def check(self) -> None:
        """Look for an order of each session's calls, and count each message."""
        for name, calls in self.histories.items():
            assert is_linearizable(calls), f"session {name}: {calls}"
            for call in calls:
                if call.kind == "load" and call.answer:
                    assert max(Counter(call.answer).values()) == 1, f"{name}: applied twice"
        appends = [call for call in self.histories[ONLY_APPENDS] if call.kind == "append"]
        final = self.histories[ONLY_APPENDS][-1].answer or ()
        acknowledged = {call.given[0] for call in appends if call.ended is not NEVER}
        unknown = {call.given[0] for call in appends} - acknowledged
        assert acknowledged <= set(final), "an acknowledged append was lost"
        assert set(final) <= acknowledged | unknown, "a refused append was applied"


def _answer_of(store: SessionStore, name: str, call: Call) -> Any:
    match call.kind:
        case "save":
            return store.save_session(name, list(call.given)).message_count
        case "append":
            return store.append(name, list(call.given)).message_count
        case "delete":
            return store.delete_session(name)
        case "load":
            try:
                return tuple(store.load_session(name).messages)
            except SessionNotFound:
                return None


def _crash_points(seed: int, fs: FaultyFileSystem, backend: FaultyBackend) -> Callable[[int], None]:
    rng = random.Random(seed)
    operations = ["write_new", "write_at", "sync_data", "replace", "link", "sync_files", "commit"]

    def disturb(turn: int) -> None:
        # Not too many: after each crash in a row the supervisor waits longer.
        if turn % 4 == 1 and turn < 4 * CRASHES:
            crash = InjectedCrash(f"turn {turn}")
            fault = Fault(rng.choice(operations), crash, rng.randrange(4), after=rng.random() < 0.5)
            (backend if fault.operation == "commit" else fs).fail(fault)

    return disturb


@pytest.mark.parametrize("durability", ["journal", "os", "file"])
@pytest.mark.parametrize("seed", range(2))
def test_histories_with_crashes_and_restarts_are_linearizable(
    seed: int,
    durability: str,
    folder: Path,
) -> None:
    recorder = Recorder()
    restarts = 0
    for phase in range(2):
        fs = FaultyFileSystem()
        backends: list[FaultyBackend] = []

        def wrap(backend: Backend, backends: list[FaultyBackend] = backends) -> FaultyBackend:
            backends.append(FaultyBackend(backend))
            return backends[-1]

        with SessionStore.open(
            folder,
            watch=False,
            durability=durability,
            max_restarts=1000,
            call_timeout=30.0,
            # So small that most loads read files and journal, and that checkpoints come often.
            cache_bytes=600 if seed % 2 else 64 * 1024,
            # Where it is one, the others are looked up in the index, and fetched to be changed.
            max_records=1 if seed % 2 else 20_000,
            checkpoint_bytes=30_000,
            inject=Injected(fs=fs, wrap_backend=wrap),
        ) as store:
            recorder.look(store)
            recorder.run(store, seed * 10 + phase, _crash_points(seed, fs, backends[0]))
            fs.heal()
            backends[0].heal()
            crash_actor(store)
            recorder.look(store)
            restarts += store.info().restarts
    with SessionStore.open(folder, watch=False) as store:
        assert store.last_recovery.problems == []
        recorder.look(store)
    assert restarts >= 2
    recorder.check()


@pytest.mark.parametrize("seed", range(3))
def test_histories_on_a_medium_that_fails_are_linearizable(seed: int, folder: Path) -> None:
    """Some calls are refused and some end with nobody knowing; the rest is as it should be."""
    recorder = Recorder()
    fs = FaultyFileSystem()
    rng = random.Random(seed)

    def disturb(turn: int) -> None:
        if turn % 3 == 2 and turn < 15:  # what is unknown makes the search long
            operation = rng.choice(["sync_data", "sync_data", "write_new", "replace", "sync_files"])
            number = errno.ENOSPC if operation == "write_new" else errno.EIO
            # Two in a row: the second segment is refused as well.
            fs.fail(Fault(operation, OSError(number, os.strerror(number)), times=2))

    for phase in range(2):
        with SessionStore.open(
            folder,
            watch=False,
            cache_bytes=600,
            max_records=1 if seed % 2 else 20_000,
            checkpoint_bytes=30_000,
            max_restarts=1000,
            call_timeout=30.0,
            inject=Injected(fs=fs),
        ) as store:
            recorder.look(store)
            recorder.run(store, seed * 10 + phase, disturb)
            # Whatever the history was, one of these is refused by the journal.
            fs.heal()
            fs.fail(Fault("sync_data", OSError(errno.EIO, "Input/output error"), times=10**6))
            recorder.call(store, ONLY_APPENDS, "append", [f"m{next(recorder.tokens)}"])
            fs.heal()
            recorder.look(store)
    with SessionStore.open(folder, watch=False) as store:
        recorder.look(store)
    assert recorder.unknown >= 2
    recorder.check()


# --- what the checker is for --------------------------------------------------------------


def test_a_planted_stale_read_is_caught(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a cache would give that is filled without looking at the number of the version."""
    recorder = Recorder()
    older: dict[str, Document | None] = {}
    plain = View.load
    turns = itertools.count()

    def stale(view: View, session_id: str) -> Document | None:
        found = plain(view, session_id)
        if next(turns) % 5 == 0:
            return older.get(session_id, found)
        older[session_id] = found
        return found

    monkeypatch.setattr(View, "load", stale)
    with SessionStore.open(folder, watch=False) as store:
        recorder.run(store, 1, lambda _: None)
    with pytest.raises(AssertionError, match="session"):
        recorder.check()


def test_a_planted_loss_and_a_planted_double_are_caught(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = SessionStore.append
    for times in (0, 2):
        recorder = Recorder()
        turns = itertools.count()

        def append(
            store: SessionStore,
            session_id: str,
            messages: Any,
            times: int = times,
            turns: itertools.count[int] = turns,
        ) -> Any:
            if session_id != ONLY_APPENDS or next(turns) % 3 != 2:
                return plain(store, session_id, messages)
            saved = plain(store, session_id, [])
            for _ in range(times):
                saved = plain(store, session_id, messages)
            return replace(saved, message_count=saved.message_count + 1 - times)

        monkeypatch.setattr(SessionStore, "append", append)
        with SessionStore.open(folder / str(times), watch=False) as store:
            recorder.run(store, times, lambda _: None)
            recorder.look(store)
        with pytest.raises(AssertionError):
            recorder.check()
