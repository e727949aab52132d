"""Every Python snippet of the README and the docs runs, in order, as a reader would run it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from sybil.document import Document
from sybil.parsers.myst import PythonCodeBlockParser

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_snippets(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for example in Document.parse(str(page), PythonCodeBlockParser()).examples():
        example.evaluate()


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
