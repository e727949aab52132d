"""The tables name tests that exist, for every number and every setting."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

import pytest
from breakages import breakages, drawn, times
from page import PAGE, page
from tables import all_numbers, entries, settings, why_not

from sessionkeeper import Config

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tables import Entry

ENTRIES = entries()


def test_every_number_has_an_entry_in_order() -> None:
    assert list(ENTRIES) == all_numbers()


def test_an_entry_names_tests_that_run_or_says_why_not() -> None:
    problems = [
        f"{entry.number}: {reason}"
        for entry in ENTRIES.values()
        for reason in [*map(why_not, entry.tests), *_faults(entry)]
        if reason
    ]
    assert problems == []


def _faults(entry: Entry) -> Iterator[str]:
    if not entry.says:
        yield "it does not say what is asked for"
    if not (entry.tests or entry.exception or entry.gap):
        yield "nothing shows it"
    if len(set(entry.tests)) < len(entry.tests):
        yield "a test is named twice"


def test_the_page_is_as_the_table() -> None:
    assert PAGE.read_text() == page(ENTRIES.values()), "run tests/requirements/page.py"


def test_every_setting_has_tests() -> None:
    assert list(settings()) == [field.name for field in fields(Config) if field.name != "path"]
    for tests in settings().values():
        assert tests
        assert [reason for reason in map(why_not, tests) if reason] == []


def test_there_is_a_breakage_for_each_number_drawn() -> None:
    assert list(breakages()) == drawn()


def test_a_breakage_can_be_applied_and_names_tests_of_its_number() -> None:
    for breakage in breakages().values():
        assert times(breakage) == 1, breakage.number
        assert breakage.new != breakage.old
        assert breakage.file.startswith("lib/")
        assert breakage.tests
        assert set(breakage.tests) <= set(ENTRIES[breakage.number].tests), breakage.number


@pytest.mark.parametrize(
    "node",
    [
        "tests/nowhere.py::test_x",
        "tests/requirements/tables.py::why_not",
        "tests/requirements/test_requirements.py::test_that_is_not_here",
        "tests/requirements/test_requirements.py::ENTRIES",
        "tests/faults/test_rot.py::test_no_bit_that_flips_in_a_backup_is_believed",
    ],
)
def test_what_is_no_test_is_not_taken_for_one(node: str) -> None:
    assert why_not(node)
