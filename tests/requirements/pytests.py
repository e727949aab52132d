"""Runs some tests in a process of their own and says how they came out."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tables import HERE, ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

# What pytest's exit status means.
_OUTCOMES: Final = {0: "green", 1: "red"}


@dataclass(frozen=True, slots=True)
class Run:
    """How some tests came out.

    Attributes:
        outcome: `green`, all passed; `red`, one failed; else that they could not be run.
        output: What pytest said.
    """

    outcome: str
    output: str


def run(
    tests: Sequence[str],
    *options: str,
    lib: Path = ROOT / "lib",
    environment: Mapping[str, str] | None = None,
) -> Run:
    """Run tests, up to the first that fails.

    Args:
        tests: Node ids.
        options: More of pytest's.
        lib: Where the library is imported from.
        environment: Variables to add.
    """
    quiet = ("-q", "-x", "-p", "no:cacheprovider", "-p", "no:randomly", "--timeout", "60")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *quiet, *options, *tests],
        cwd=ROOT,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(lib), str(HERE)]),
            "PYTHONDONTWRITEBYTECODE": "1",
            **(environment or {}),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    outcome = _OUTCOMES.get(done.returncode, f"not run: {done.stderr[-500:] or done.stdout[-500:]}")
    return Run(outcome, done.stdout)


def all_red(cases: Iterable[str], run_case: Callable[[str], Run]) -> bool:
    """Run cases side by side, print how each came out, and say whether all were red."""
    names = list(cases)
    # A test that turns red has often waited in vain: more of them than processors fit.
    with ThreadPoolExecutor(2 + (os.cpu_count() or 1)) as pool:
        outcomes = list(pool.map(run_case, names))
    for name, found in zip(names, outcomes, strict=True):
        print(f"{name:24} {found.outcome}")
    weak = [name for name, found in zip(names, outcomes, strict=True) if found.outcome != "red"]
    print(f"{len(names) - len(weak)} of {len(names)} turned red")
    for name in weak:
        print(f"not noticed: {name}")
    return not weak
