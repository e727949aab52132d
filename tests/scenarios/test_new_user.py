"""What the first page tells a new user to do, done: a program, a kill, and the command line."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from running import LIBRARY

if TYPE_CHECKING:
    from collections.abc import Callable

PAGE = Path(__file__).parents[2] / "docs" / "getting-started.md"
SECTION = "## Kill it, and find everything again\n"
# A reader waits for two seconds; here it is until so much was done, however long that takes.
PAUSE, UNTIL = "sleep 2", "until grep -q '^300$' told.txt; do sleep 0.02; done"


@pytest.fixture(scope="module")
def blocks() -> list[str]:
    """The program, how it is run and killed, and what is done then."""
    section = PAGE.read_text().partition(SECTION)[2].partition("\n## ")[0]
    return re.findall(r"```(?:py|bash)\n(.*?)```", section, re.DOTALL)


@pytest.fixture
def shell(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Run lines as a user does who has installed the library and is in the project's folder."""
    commands = tmp_path_factory.mktemp("bin")
    for name, call in (("python", ""), ("sessionkeeper", "-m sessionkeeper.cli")):
        (commands / name).write_text(f'#!/bin/sh\nexec {sys.executable} {call} "$@"\n')
        (commands / name).chmod(0o700)
    path = f"{commands}{os.pathsep}{os.environ['PATH']}"

    def run(lines: str) -> str:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", lines],  # noqa: S607 - as on any system
            cwd=project,
            env={**os.environ, "PATH": path, "PYTHONPATH": str(LIBRARY)},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_a_new_user_finds_everything_again(
    blocks: list[str],
    project: Path,
    shell: Callable[[str], str],
) -> None:
    program, run_and_kill, commands = blocks
    assert len([line for line in program.splitlines() if line]) <= 10
    (project / "talks.py").write_text(program)
    assert run_and_kill.count(PAUSE) == 1
    told = int(shell(run_and_kill.replace(PAUSE, UNTIL)))
    assert told >= 300

    printed = {line.split()[3]: shell(line) for line in commands.splitlines()}
    assert printed.keys() == {"list", "show", "search", "doctor", "export"}
    assert all(f"talk-{number}" in printed["list"] for number in range(10))
    assert f"message {told - (told - 7) % 10}" in printed["show"]
    assert [n for n in range(10) if f"talk-{n}" in printed["search"]] == [1, 2, 3]

    lines = shell("sessionkeeper --path var/talks list --json").splitlines()
    assert sum(json.loads(line)["message_count"] for line in lines) in (told, told + 1)
    exported = json.loads((project / "talk-7.json").read_bytes())["messages"]
    numbers = [int(message["content"].split()[1]) for message in exported]
    assert numbers == [*range(7, 10 * len(numbers), 10)]
    with tarfile.open(project / "talks.tar.gz") as bundle:
        assert len([name for name in bundle.getnames() if name.startswith("sessions/")]) == 10
