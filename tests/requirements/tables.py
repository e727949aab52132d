"""What the tables beside this file say, and which tests there are."""

from __future__ import annotations

import ast
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
HERE: Final = ROOT / "tests" / "requirements"
REQUIREMENTS: Final = HERE / "requirements.toml"
SETTINGS: Final = HERE / "settings.toml"
BREAKAGES: Final = ROOT / "tests" / "breakages.toml"

# How many numbers there are: requirements, conflicts between them, bad inputs.
NUMBERS: Final = {"R": 200, "C": 18, "B": 93}


@dataclass(frozen=True, slots=True)
class Entry:
    """One number of the table.

    Attributes:
        number: Its letter and number.
        says: What is asked for.
        tests: The node ids of the tests that show it, without parameters.
        exception: Why it is not, or not literally, shown; what holds instead.
        gap: What is missing.
    """

    number: str
    says: str
    tests: tuple[str, ...] = ()
    exception: str = ""
    gap: str = ""


def all_numbers() -> list[str]:
    """Every number that must have an entry, in order."""
    return [f"{letter}{n}" for letter, last in NUMBERS.items() for n in range(1, last + 1)]


def entries(path: Path = REQUIREMENTS) -> dict[str, Entry]:
    """The entries of the table by their numbers."""
    found = tomllib.loads(path.read_text())
    return {
        number: Entry(number, **{**fields, "tests": tuple(fields.get("tests", ()))})
        for number, fields in found.items()
    }


def settings() -> dict[str, list[str]]:
    """For each setting the tests that hear it."""
    heard: dict[str, list[str]] = tomllib.loads(SETTINGS.read_text())["heard"]
    return heard


def why_not(node: str) -> str | None:
    """Why a node id is no test that every run runs; None if it is one."""
    file, _, name = node.partition("::")
    path = ROOT / file
    if not path.is_file() or not path.name.startswith("test_"):
        return f"there is no file {file}"
    body = _statements(path)
    marks = [mark for statement in body for mark in _marks_of_module(statement)]
    for statement in body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            if statement.name == name:
                marks += [ast.unparse(decorator) for decorator in statement.decorator_list]
                return _never_runs(marks)
        elif isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == name:
            return _never_runs(marks) if name.startswith("Test") else f"{name} is no test"
    return f"{file} has no {name}"


@cache
def _statements(path: Path) -> list[ast.stmt]:
    return ast.parse(path.read_text()).body


def _marks_of_module(statement: ast.stmt) -> list[str]:
    if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "pytestmark":
        return [ast.unparse(statement.value)]
    return []


def _never_runs(marks: list[str]) -> str | None:
    for mark in marks:
        for always in ("mark.skip(", "mark.xfail", "mark.campaign"):
            if always in f"{mark}(":
                return f"it is marked {mark}"
    return None
