"""Changes bytes as media, editors and ill will do."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator, Sequence

# Seconds for each target; the gate and the long form give more.
SECONDS: Final = float(os.environ.get("FUZZ_SECONDS", "1.5"))
# No input of a few kilobytes may keep anybody busy for longer.
LONGEST: Final = 5.0

_TOKENS: Final = (
    b"null",
    b"true",
    b"{}",
    b"[]",
    b"-0",
    b"1e999",
    b"NaN",
    b'"\\ud800"',
    b"[" * 2000,
    b'{"a":' * 500,
    b"99999999999999999999999999",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\0",
    b",\n",
    b'"session_id":"../../x"',
    b'"generation":-1',
)


def mangled(rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    """One of the seeds with one to six things done to it."""
    data = bytearray(rng.choice(seeds))
    for _ in range(rng.randint(1, 6)):
        rng.choice(_WAYS)(rng, data, seeds)
    return bytes(data)


def _flip(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    if data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _set(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    if data:
        data[rng.randrange(len(data))] = rng.choice(b'"{}[]:,\\0-9eE.\n\0\xff')


def _cut(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    start = rng.randint(0, len(data))
    del data[start : start + rng.choice([1, 2, 7, 64, len(data)])]


def _insert(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    at = rng.randint(0, len(data))
    data[at:at] = rng.choice(_TOKENS)


def _repeat(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    start = rng.randint(0, len(data))
    data[start:start] = data[start : start + rng.choice([1, 16, 200])] * rng.randint(1, 3)


def _splice(rng: random.Random, data: bytearray, seeds: Sequence[bytes]) -> None:
    other = rng.choice(seeds)
    at, start = rng.randint(0, len(data)), rng.randint(0, len(other))
    data[at : at + rng.choice([0, 8, 100])] = other[start : start + rng.choice([8, 100, 1000])]


_WAYS: Final[tuple[Callable[[random.Random, bytearray, Sequence[bytes]], None], ...]] = (
    _flip,
    _set,
    _cut,
    _insert,
    _repeat,
    _splice,
)


def rounds() -> Iterator[int]:
    """Numbers, until the time is over; complains if one round took too long."""
    end = time.monotonic() + SECONDS
    number = 0
    begun = time.monotonic()
    while begun < end:
        yield number
        number += 1
        now = time.monotonic()
        assert now - begun < LONGEST, f"round {number} took {now - begun:.1f} s"
        begun = now
