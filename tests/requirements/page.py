"""Writes docs/requirements.md from requirements.toml; run it after each change of the table."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Final

from tables import ROOT, entries

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tables import Entry

PAGE: Final = ROOT / "docs" / "requirements.md"

BEGINNING: Final = (
    "# Requirements\n\n"
    "What is asked of the store, where wishes contradict each other, and what it may be given; "
    "each with the tests that show what it does. A test checks that every number has an entry "
    "and that every test named here exists and runs. Where something else holds than was asked "
    "for, that is said, with its tests.\n\n"
    "Written by `python tests/requirements/page.py` from `tests/requirements/requirements.toml`.\n"
)

PARTS: Final = {
    "R": "Requirements",
    "C": "Where requirements contradict each other",
    "B": "Bad inputs and events",
}


def page(found: Iterable[Entry]) -> str:
    """The whole page."""
    parts = [BEGINNING]
    for letter, group in groupby(found, key=lambda entry: entry.number[0]):
        parts.append(f"\n## {PARTS[letter]}\n\n| number | what | shown by |\n|---|---|---|\n")
        parts += [f"| {entry.number} | {entry.says} | {_shown(entry)} |\n" for entry in group]
    return "".join(parts)


def _shown(entry: Entry) -> str:
    missing = f"Missing: {entry.gap}" if entry.gap else ""
    files = [
        f"{file.removeprefix('tests/')}: " + ", ".join(f"`{node.split('::')[1]}`" for node in nodes)
        for file, nodes in groupby(entry.tests, key=lambda node: node.split("::")[0])
    ]
    return "<br>".join(part for part in (entry.exception, missing, *files) if part)


if __name__ == "__main__":
    PAGE.write_text(page(entries().values()))
