"""What the tables of breakages say, and which numbers were drawn for one."""

from __future__ import annotations

import random
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tables import BREAKAGES, ROOT, all_numbers, entries

if TYPE_CHECKING:
    from pathlib import Path

SEED: Final = 1000
DRAWN: Final = 60


@dataclass(frozen=True, slots=True)
class Breakage:
    """A change of a few words that takes something away from the library.

    Attributes:
        number: What it takes away: a number of the requirements, or a word.
        file: The file to change, from the folder of the project.
        old: A text that stands there once.
        new: What is put in its place.
        tests: The node ids of tests, one of which must turn red.
    """

    number: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


def breakages(path: Path = BREAKAGES) -> dict[str, Breakage]:
    """The breakages of a table by their numbers."""
    found = tomllib.loads(path.read_text())["breakage"]
    listed = [Breakage(**{**fields, "tests": tuple(fields["tests"])}) for fields in found]
    return {breakage.number: breakage for breakage in listed}


def drawn() -> list[str]:
    """The numbers that were drawn among those with tests; the same each time."""
    order = all_numbers()
    random.Random(SEED).shuffle(order)
    tested = {number for number, entry in entries().items() if entry.tests}
    return [number for number in order if number in tested][:DRAWN]


def times(breakage: Breakage) -> int:
    """How often its old text stands in its file; it must be once."""
    return (ROOT / breakage.file).read_text().count(breakage.old)
