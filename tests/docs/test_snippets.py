"""Every Python snippet of the README and the docs runs, in order, as a reader would run it.

The shell's snippets run between them, but on pages that name files which are not there.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sybil.document import Document
from sybil.parsers.myst import CodeBlockParser, PythonCodeBlockParser

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sybil import Example, Region

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]


# They run the tests, measure for long, or read what the reader has and we have not.
NOT_FOR_US = {"README.md", "durability.md", "supervision.md", "testing.md", "transfer.md"}
NOT_FOR_US |= {"performance.md"}  # tests/bench looks at its commands


def run_in_a_shell(example: Example) -> None:
    subprocess.run(["bash", "-euo", "pipefail", "-c", example.parsed], check=True, timeout=60)  # noqa: S607


@pytest.fixture
def _command_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    command = folder / "sessionkeeper"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m sessionkeeper.cli "$@"\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("SESSIONKEEPER_PATH", raising=False)


@pytest.mark.usefixtures("_command_on_the_path")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_snippets(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    parsers: list[Callable[[Document], Iterable[Region]]] = [PythonCodeBlockParser()]
    if page.name not in NOT_FOR_US:
        parsers.append(CodeBlockParser("sh", run_in_a_shell))
    for example in Document.parse(str(page), *parsers).examples():
        example.evaluate()


def test_what_the_page_on_retention_shows_is_what_is_printed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "retention.md").read_text()
    found = re.search(
        r"```python\n(.*?)```.*?```sh\n(.*?)```\n\n```text\n(.*?)```", text, re.DOTALL
    )
    assert found is not None
    exec(compile(found[1], "retention.md", "exec"), {})  # noqa: S102 - our own page
    words = found[2].split()
    assert words[0] == "sessionkeeper"
    subprocess.run([sys.executable, "-m", "sessionkeeper.cli", *words[1:]], check=True)
    assert capfd.readouterr().out == found[3]


def test_the_example_of_the_readme_prints_what_it_says(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "README.md").read_text()
    found = re.search(r"```python\n(.*?)```\n\n```text\n(.*?)```", text, re.DOTALL)
    assert found is not None
    exec(compile(found[1], "README.md", "exec"), {})  # noqa: S102 - our own README
    assert capsys.readouterr().out == found[2]


def test_the_first_two_shell_blocks_are_one_line_each() -> None:
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert "sessionkeeper demo" in blocks[0]
    assert "pytest" in blocks[1]
    assert [block.count("\n") for block in blocks[:2]] == [1, 1]


def test_every_setting_is_in_the_readme() -> None:
    from dataclasses import fields

    from sessionkeeper import Config

    table = (ROOT / "README.md").read_text().split("## Settings")[1]
    for field in fields(Config):
        if field.name != "path":
            assert f"`{field.name}`" in table or f"{field.name}=" in table, field.name


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_floors_of_the_docs_are_those_of_the_code() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    package = ROOT / "lib" / "sessionkeeper"
    for module in package.glob("*.py"):
        if module.name != "__init__.py":
            assert f"`{module.name}`" in page, module.name
    for folder in ("engine", "storage", "processes"):
        for module in (package / folder).glob("*.py"):
            if module.name != "__init__.py":
                assert f"`{module.name}`" in page, f"{folder}/{module.name}"
