"""Cases 6, 7, 8 and 19: the log of a workload, and the recovery from every state it may leave.

States are legal ones of a power cut (see `simdisk`). After each recovery nothing acknowledged may
be missing, nothing may be there twice, and no file may be torn.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, get_args

import pytest
from mutants import FOUND_BY_REPLAY
from oracle import Lost
from replays import Durability, Explorer, Model, record

if TYPE_CHECKING:
    from collections.abc import Callable

    Covered = Callable[[str, int, str], None]

pytestmark = pytest.mark.usefixtures("small")

LEVELS: tuple[Durability, ...] = get_args(Durability)
CASE_OF: dict[Model, str] = {"weak": "6", "ordered": "7"}


@pytest.mark.parametrize("durability", LEVELS)
@pytest.mark.parametrize("model", ["weak", "ordered"])
@pytest.mark.parametrize("seed", [1, 2])
def test_recovers_from_states_after_any_operation(
    seed: int,
    model: Model,
    durability: Durability,
    covered: Covered,
) -> None:
    explorer = Explorer(random.Random(seed), model, durability)
    explorer.explore(record(seed, durability), 50, 3)
    covered(CASE_OF[model], explorer.states, f"states, {model} model, level {durability}")


@pytest.mark.parametrize("durability", LEVELS)
def test_recovers_when_all_that_is_unsynced_is_lost(
    durability: Durability,
    covered: Covered,
) -> None:
    explorer = Explorer(random.Random(3), "weak", durability)
    explorer.unsynced_lost(record(3, durability))
    covered("8", explorer.states, f"syncs without what was behind them, level {durability}")


@pytest.mark.parametrize("durability", LEVELS)
def test_recovers_when_recoveries_crash_again_and_again(
    durability: Durability,
    covered: Covered,
) -> None:
    explorer = Explorer(random.Random(4), "weak", durability)
    explorer.explore(record(4, durability), 2, 1, depth=2)
    covered("19", explorer.states, f"states with crashed recoveries, level {durability}")


@pytest.mark.parametrize("durability", LEVELS)
def test_recovers_when_the_power_fails_after_a_killed_process_was_followed_by_another(
    durability: Durability,
    covered: Covered,
) -> None:
    """What the first left in the page cache was seen by the second, and never synced."""
    explorer = Explorer(random.Random(5), "weak", durability)
    explorer.killed(record(5, durability), 8, 2)
    covered("1, 19", explorer.states, f"states after a kill and a power cut, level {durability}")


@pytest.mark.parametrize("name", FOUND_BY_REPLAY)
def test_notices_a_store_without_its_precaution(
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    covered: Covered,
) -> None:
    mutate, durability = FOUND_BY_REPLAY[name]
    mutate(monkeypatch)
    explorer = Explorer(random.Random(6), "weak", durability)

    def search() -> None:
        for seed in range(6, 12):
            trace = record(seed, durability)
            explorer.unsynced_lost(trace)
            explorer.explore(trace, 100, 4)

    with pytest.raises(Lost):
        search()
    covered("mutant", explorer.states, f"states until {name!r} was noticed")


# --- the long form ------------------------------------------------------------------------


@pytest.mark.campaign
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("durability", LEVELS)
@pytest.mark.parametrize("model", ["weak", "ordered"])
@pytest.mark.parametrize("block", range(10))
def test_recovers_from_states_after_every_operation(
    block: int,
    model: Model,
    durability: Durability,
    covered: Covered,
) -> None:
    explorer = Explorer(random.Random(block), model, durability)
    for seed in range(100 + block * 2, 102 + block * 2):
        explorer.explore(record(seed, durability, rounds=20), None, 6)
    covered(CASE_OF[model], explorer.states, f"states, {model} model, level {durability}")


@pytest.mark.campaign
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("durability", LEVELS)
@pytest.mark.parametrize("block", range(5))
def test_recovers_from_crashed_recoveries_of_many_runs(
    block: int,
    durability: Durability,
    covered: Covered,
) -> None:
    explorer = Explorer(random.Random(block), "weak", durability)
    for seed in range(200 + block * 8, 208 + block * 8):
        trace = record(seed, durability)
        explorer.unsynced_lost(trace)
        explorer.explore(trace, 10, 2, depth=2)
        explorer.killed(trace, 10, 3)
    covered("8, 19", explorer.states, f"states with crashed recoveries, level {durability}")
