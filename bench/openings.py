"""How long it takes until a store is ready: empty, after a clean close, and after a crash."""

from __future__ import annotations

import shutil
from contextlib import closing
from time import perf_counter
from typing import TYPE_CHECKING

from bench import payloads
from bench.measure import TIMEOUT, WorkNotDone
from bench.steps import told
from sessionkeeper import AppendMessages, SaveSession, SessionStore

if TYPE_CHECKING:
    from pathlib import Path

    from bench.measure import Plan

MIB = 2**20

# Sessions of this many messages are in the journal.
_APPENDS = 25

# No checkpoint frees the journal of the store that is to crash.
_NEVER = 1e6

_SMALL_MESSAGE = 400


class OpeningSampler:
    """Each delay is the time from the call of `open` until sessions can be read and written.

    The folder's pages are in memory.

    Args:
        folder: Of the store.
        filled: Whether there are sessions in it, as many as the plan says.
    """

    def __init__(self, folder: Path, *, filled: bool) -> None:
        self._folder = folder
        self._filled = filled
        self._sessions: int | None = None

    def sample(self, plan: Plan, seconds: float) -> list[float]:
        """See `Sampler.sample`."""
        if self._sessions is None:
            self._sessions = plan.sessions if self._filled else 0
            _fill(self._folder, self._sessions)
        delays: list[float] = []
        deadline = perf_counter() + seconds
        while True:
            delays.append(opening(self._folder, self._sessions))
            if perf_counter() >= deadline:
                return delays

    def close(self) -> None:
        """Nothing is held."""


class KilledSampler:
    """Each delay is that of opening a store whose process was killed while it wrote.

    Args:
        folder: Of the store; the plan says how many sessions are in it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._filled = False

    def sample(self, plan: Plan, seconds: float) -> list[float]:
        """See `Sampler.sample`."""
        del seconds
        if not self._filled:
            told(self._folder, plan.sessions, "create", "close")
            self._filled = True
        told(self._folder, plan.sessions, "write")
        return [opening(self._folder, plan.sessions)]

    def close(self) -> None:
        """Nothing is held."""


class MemorySampler:
    """Each figure is the memory of a process that has a store open, above a bare interpreter's.

    It has listed and searched, and loaded nothing. In MB.

    Args:
        folder: Of the store.
        filled: Whether there are sessions in it, as many as the plan says.
    """

    def __init__(self, folder: Path, *, filled: bool) -> None:
        self._folder = folder
        self._filled = filled
        self._sessions: int | None = None

    def sample(self, plan: Plan, seconds: float) -> list[float]:
        """See `Sampler.sample`."""
        del seconds
        if self._sessions is None:
            self._sessions = plan.sessions if self._filled else 0
            told(self._folder, self._sessions, "create", "close")
        found = told(self._folder, self._sessions, "open", "list", "search")
        if found["search"].sessions != self._sessions:
            raise WorkNotDone(f"{found['search'].sessions} sessions are there")
        return [(found["search"].resident - found["bare"].resident) / 1e6]

    def close(self) -> None:
        """Nothing is held."""


class ReplaySampler:
    """Each rate is that of reading back a journal that a crash has left, in MB/s.

    A store that is open is copied: that is what a crash leaves. The time of opening an empty
    store is taken off.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._empty = folder / "empty"
        self._crashed = folder / "crashed"
        self._sessions = 0

    def sample(self, plan: Plan, seconds: float) -> list[float]:
        """See `Sampler.sample`."""
        del seconds
        if not self._sessions:
            _fill(self._empty, 0)
            self._sessions = self._crash(plan.session_bytes)
        copy = self._folder / "copy"
        shutil.copytree(self._crashed, copy)
        base = opening(self._empty, 0)
        messages = self._sessions * _APPENDS
        taken = opening(copy, self._sessions, messages)
        shutil.rmtree(copy)
        size = messages * payloads.MESSAGE_BYTES
        return [size / 1e6 / max(taken - base, 1e-9)]

    def _crash(self, size: int) -> int:
        """Leave a journal of so many bytes of messages; returns in how many sessions."""
        message = payloads.message(0)
        count = max(1, size // (_APPENDS * payloads.MESSAGE_BYTES))
        alive = self._folder / "alive"
        with SessionStore.open(
            alive,
            call_timeout=TIMEOUT,
            checkpoint_interval=_NEVER,
            checkpoint_bytes=4 * size,
        ) as store:
            # The others follow when there are files: it is the journal that is to be measured.
            for number in range(count):
                store.tell(SaveSession(_name(number), []))
            store.flush(TIMEOUT)
            for number in range(count * _APPENDS):
                store.tell(AppendMessages(_name(number % count), [message]))
            store.flush(TIMEOUT)
            shutil.copytree(alive, self._crashed)
        shutil.rmtree(alive)
        return count

    def close(self) -> None:
        """Nothing is held."""


def opening(folder: Path, sessions: int, messages: int | None = None) -> float:
    """How many seconds it takes to open a store.

    Args:
        folder: Of the store.
        sessions: How many must be there then.
        messages: How many must be in them, if that is to be looked at.

    Raises:
        WorkNotDone: They are not.
    """
    started = perf_counter()
    store = SessionStore.open(folder, call_timeout=TIMEOUT)
    taken = perf_counter() - started
    with closing(store):
        found = store.info().sessions
        if found != sessions:
            raise WorkNotDone(f"{found} sessions are there, not {sessions}")
        if messages is not None:
            found = sum(info.message_count for info in store.iter_sessions())
            if found != messages:
                raise WorkNotDone(f"{found} messages are there, not {messages}")
    return taken


def _fill(folder: Path, sessions: int) -> None:
    messages = [payloads.message(0, _SMALL_MESSAGE)]
    with SessionStore.open(folder, call_timeout=TIMEOUT) as store:
        for number in range(sessions):
            store.tell(SaveSession(_name(number), messages))
        store.flush(TIMEOUT)
        store.checkpoint(None)


def _name(number: int) -> str:
    return f"s{number:08d}"
