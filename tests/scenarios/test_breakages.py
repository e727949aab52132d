"""The table of breakages can be tried: what it changes is there, and so are the tests it names."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
TABLE = tomllib.loads(Path(__file__).with_name("breakages.toml").read_text())["breakage"]


def test_each_can_be_applied() -> None:
    for breakage in TABLE:
        text = (ROOT / breakage["file"]).read_text()
        assert text.count(breakage["old"]) == 1, breakage["number"]
        assert breakage["new"] != breakage["old"], breakage["number"]


def test_each_names_tests_of_a_scenario() -> None:
    for breakage in TABLE:
        for node in breakage["tests"]:
            path, _, name = node.partition("::")
            assert path.startswith("tests/scenarios/"), node
            assert f"def {name}(" in (ROOT / path).read_text(), node


def test_each_scenario_has_some() -> None:
    kinds = {breakage["number"].partition(":")[0] for breakage in TABLE}
    assert kinds == {"capture", "agent", "history", "bot", "recorder"}
