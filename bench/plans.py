"""How much is measured: in full, and quickly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.disk import GIB
from bench.measure import Plan

if TYPE_CHECKING:
    from collections.abc import Mapping

_MIB = 2**20


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured.

    Attributes:
        plans: By kind of work. They are bounded in operations too, so that a fast peer does not
            fill the disk.
        threads: How many work together.
        sizes: How many sessions there are where lists and searches are measured.
        disk_bytes: What all of them write at most, as long as it lasts.
    """

    plans: Mapping[str, Plan]
    threads: tuple[int, ...]
    sizes: tuple[int, ...]
    disk_bytes: int


FULL = Scale(
    plans={
        "memory": Plan(rounds=7, seconds=0.4, max_operations=1_000_000, warm_up=0.1),
        "append": Plan(rounds=5, seconds=1.0, max_operations=30_000, warm_up=0.2),
        "save": Plan(rounds=5, seconds=1.0, max_operations=6_000, warm_up=0.2),
        "sustained": Plan(rounds=2, seconds=60.0, max_operations=600_000, warm_up=1.0),
        "length": Plan(rounds=9, seconds=0.5, max_operations=2_000, warm_up=0.1),
        "open": Plan(
            rounds=3,
            seconds=0.0,
            max_operations=1,
            warm_up=0.0,
            session_bytes=60 * _MIB,
            sessions=100_000,
        ),
        "loop": Plan(
            rounds=9,
            seconds=0.5,
            max_operations=100,
            warm_up=0.1,
            session_bytes=64 * _MIB,
        ),
        "busy": Plan(
            rounds=5,
            seconds=2.0,
            max_operations=200_000,
            warm_up=0.5,
            sessions=10_000,
        ),
        "growth": Plan(rounds=3, seconds=0.3, max_operations=10_000, warm_up=0.1),
        "replay": Plan(rounds=5, seconds=2.0, max_operations=30_000, warm_up=0.5),
    },
    threads=(1, 8, 64),
    sizes=(1_000, 10_000, 100_000, 1_000_000),
    disk_bytes=32 * GIB,
)

QUICK = Scale(
    plans={
        "memory": Plan(rounds=3, seconds=0.03, max_operations=1_000_000, warm_up=0.01),
        "append": Plan(rounds=2, seconds=0.1, max_operations=4_000, warm_up=0.02),
        "save": Plan(rounds=2, seconds=0.1, max_operations=2_000, warm_up=0.02),
        "sustained": Plan(rounds=1, seconds=1.5, max_operations=30_000, warm_up=0.1),
        "length": Plan(rounds=5, seconds=0.1, max_operations=500, warm_up=0.02),
        "open": Plan(
            rounds=3,
            seconds=0.0,
            max_operations=1,
            warm_up=0.0,
            session_bytes=16 * _MIB,
            sessions=2_000,
        ),
        "loop": Plan(
            rounds=5,
            seconds=0.04,
            max_operations=100,
            warm_up=0.02,
            session_bytes=8 * _MIB,
        ),
        "busy": Plan(
            rounds=2,
            seconds=0.2,
            max_operations=20_000,
            warm_up=0.05,
            sessions=1_000,
        ),
        "growth": Plan(rounds=2, seconds=0.03, max_operations=10_000, warm_up=0.01),
        "replay": Plan(rounds=2, seconds=0.2, max_operations=4_000, warm_up=0.05),
    },
    threads=(1, 64),
    sizes=(1_000, 10_000),
    disk_bytes=8 * GIB,
)
