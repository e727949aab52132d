"""How long an event loop stands still while a large session is saved or loaded beside it."""

from __future__ import annotations

import asyncio
import os
from time import perf_counter
from typing import TYPE_CHECKING, Any, Protocol

import orjson

from bench import payloads
from bench.measure import TIMEOUT, WorkNotDone
from sessionkeeper import AsyncSessionStore, SessionStore

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from bench.measure import Plan
    from bench.payloads import Message

# How often the loop should come round, in seconds.
TICK = 0.001

MESSAGE_BYTES = 64 * 1024

# So many messages are made; making them all would take longer than the rounds.
_DIFFERENT = 16


class LoopPeer(Protocol):
    """A way to keep a session from a coroutine."""

    async def save(self, messages: list[Message]) -> None:
        """Keep a session, in place of an older version."""
        ...

    async def load(self) -> list[Message]:
        """The messages saved last, or as many objects."""
        ...

    def close(self) -> None:
        """Let go of everything."""
        ...


class StallSampler:
    """Each delay is by how much a tick of the loop came late while a session was on its way.

    Args:
        peer: Who keeps the session.
        loading: Whether it is loaded, instead of saved.
    """

    def __init__(self, peer: LoopPeer, *, loading: bool) -> None:
        self._peer = peer
        self._loading = loading
        self._messages: list[Message] = []

    def sample(self, plan: Plan, seconds: float) -> list[float]:
        """See `Sampler.sample`."""
        return asyncio.run(self._sample(plan, seconds))

    async def _sample(self, plan: Plan, seconds: float) -> list[float]:
        if not self._messages:
            self._messages = long_session(plan.session_bytes)
            await self._peer.save(self._messages)
        delays: list[float] = []
        deadline = perf_counter() + seconds
        for _ in range(plan.max_operations):
            delays += await (self._load() if self._loading else self._save())
            if perf_counter() >= deadline:
                break
        return delays

    async def _save(self) -> list[float]:
        delays, _ = await watched(lambda: self._peer.save(self._messages))
        return delays

    async def _load(self) -> list[float]:
        delays, loaded = await watched(self._peer.load)
        if len(loaded) != len(self._messages):
            raise WorkNotDone("a session came back with another number of messages")
        # Only now is it let go of: how long that takes is not the store's business.
        return delays


async def watched(work: Callable[[], Awaitable[Any]]) -> tuple[list[float], Any]:
    """Do something beside a ticking loop.

    Args:
        work: What to do.

    Returns:
        By how many seconds each tick came late, and what `work` gave.
    """
    delays: list[float] = []
    over = False

    async def tick() -> None:
        while not over:
            due = perf_counter() + TICK
            await asyncio.sleep(TICK)
            delays.append(perf_counter() - due)

    ticking = asyncio.ensure_future(tick())
    await asyncio.sleep(0)
    try:
        done = await work()
    finally:
        over = True
        await ticking
    return delays, done


def long_session(size: int) -> list[Message]:
    """Messages of almost `MESSAGE_BYTES` that make up so many bytes."""
    made = [payloads.message(number, MESSAGE_BYTES - 64) for number in range(_DIFFERENT)]
    count = max(1, size // MESSAGE_BYTES)
    return [{**made[number % _DIFFERENT], "number": number} for number in range(count)]


# --- peers --------------------------------------------------------------------------------


class KeeperLoop:
    """This library with its own settings, except that no load is answered from memory."""

    def __init__(self, folder: Path) -> None:
        self._store = AsyncSessionStore(
            SessionStore.open(folder, call_timeout=TIMEOUT, cache_bytes=1),
        )

    async def save(self, messages: list[Message]) -> None:
        """See `LoopPeer.save`."""
        await self._store.save_session("s", messages)

    async def load(self) -> list[Message]:
        """See `LoopPeer.load`."""
        return (await self._store.load_session("s")).messages

    def close(self) -> None:
        """Close the store."""
        asyncio.run(self._store.close(TIMEOUT))


class WholeFile:
    """What people do: a thread for the file, and orjson for the whole of it; durable."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "s.json"

    async def save(self, messages: list[Message]) -> None:
        """See `LoopPeer.save`."""
        await asyncio.to_thread(self._write, messages)

    def _write(self, messages: list[Message]) -> None:
        temporary = self._path.with_suffix(".tmp")
        with temporary.open("wb", buffering=0) as file:
            file.write(orjson.dumps(messages))
            os.fsync(file.fileno())
        temporary.replace(self._path)

    async def load(self) -> list[Message]:
        """See `LoopPeer.load`."""
        return await asyncio.to_thread(self._read)

    def _read(self) -> list[Message]:
        messages: list[Message] = orjson.loads(self._path.read_bytes())
        return messages

    def close(self) -> None:
        """Nothing is held."""


class IdleLoop:
    """Nobody: what the machine itself does to a loop."""

    _SECONDS = 0.05

    def __init__(self, folder: Path) -> None:
        del folder
        self._messages: list[Message] = []

    async def save(self, messages: list[Message]) -> None:
        """See `LoopPeer.save`."""
        self._messages = messages
        await asyncio.sleep(self._SECONDS)

    async def load(self) -> list[Message]:
        """See `LoopPeer.load`."""
        await asyncio.sleep(self._SECONDS)
        return self._messages

    def close(self) -> None:
        """Nothing is held."""
