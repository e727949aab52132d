"""What pages say of the code is what the code says, and nothing of it is left out."""

from __future__ import annotations

import re
from inspect import isclass

import pages
import pytest
import typer
from recording import masked

import sessionkeeper
from sessionkeeper import errors
from sessionkeeper.cli import failures
from sessionkeeper.cli.main import app
from sessionkeeper.errors import SessionKeeperError

DOCS = pages.DOCS


@pytest.mark.parametrize("page", pages.GENERATED)
def test_a_page_is_as_the_code_has_it(page: str) -> None:
    told = f"run `python tests/docs/pages.py {page}`"
    assert pages.written(page)[1] == pages.GENERATED[page](), told


def test_every_error_has_its_meaning_and_its_hint_in_the_reference() -> None:
    page = (DOCS / "errors.md").read_text()
    known = [
        error
        for error in vars(errors).values()
        if isclass(error) and issubclass(error, SessionKeeperError)
    ]
    assert len(known) > 30
    for error in known:
        entry = page.partition(f"\n### {error.__name__}\n")[2].partition("\n### ")[0]
        assert (error.__doc__ or "?").split(".")[0].split("\n")[0] in entry, error.__name__
        assert f"*Hint:* {error.default_hint}" in entry, error.__name__
        assert error is SessionKeeperError or error.default_hint, error.__name__


def test_every_command_and_option_is_in_the_reference() -> None:
    page = (DOCS / "cli.md").read_text()
    for name, command in typer.main.get_group(app).commands.items():
        entry = page.partition(f"\n### {name}\n")[2].partition("\n### ")[0]
        assert entry, name
        for parameter in command.params:
            if parameter.param_type_name == "option" and "--path" not in parameter.opts:
                assert f"`{parameter.opts[0]}`" in entry, f"{name} {parameter.opts}"


def test_every_exit_status_is_in_the_reference() -> None:
    table = (DOCS / "cli.md").read_text().partition("## Exit status")[2].partition("\n## ")[0]
    listed = {int(number) for number in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)}
    known = {failures.FAILED, failures.USAGE, failures.TRY_LATER, failures.INTERRUPTED}
    assert listed == {0, *known}


def test_everything_public_is_in_the_reference_of_the_api() -> None:
    text = "".join(page.read_text() for page in (DOCS / "api").glob("*.md"))
    listed = set(re.findall(r"^\.\. auto\w+:: sessionkeeper\.(\w+)(?:\(\))?$", text, re.MULTILINE))
    listed |= set(re.findall(r"^### (\w+)$", (DOCS / "errors.md").read_text(), re.MULTILINE))
    assert set(sessionkeeper.__all__) - listed == set()


def test_every_page_is_in_the_table_of_contents() -> None:
    for folder in (DOCS, DOCS / "api"):
        listed = set(re.findall(r"^([\w/-]+)$", (folder / "index.md").read_text(), re.MULTILINE))
        there = {page.stem for page in folder.glob("*.md")} - {"index"}
        assert there <= listed, there - listed


def test_what_differs_each_time_is_masked() -> None:
    line = "saved 2025-01-31T01:02:03.456789Z by process 17 on box in 12.34 s"
    assert masked(line) == "saved 2026-11-21T12:00:00.000000Z by process 4711 on host in 0.05 s"
