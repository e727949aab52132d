"""Breaks a copy of the library, one breakage at a time, and wants a test to turn red.

    python tests/requirements/broken.py [table.toml] [number ...]

Without a table it is tests/breakages.toml, with a breakage for each number drawn (breakages.py).
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from breakages import breakages, times
from pytests import Run, all_red, run
from tables import BREAKAGES, ROOT

if TYPE_CHECKING:
    from breakages import Breakage

WHERE = "import sessionkeeper; print(sessionkeeper.__file__)"


def without(breakage: Breakage) -> Run:
    """Run its tests on a copy of the library that has it."""
    if times(breakage) != 1:
        return Run(f"not run: {breakage.file} has its text {times(breakage)} times", "")
    with tempfile.TemporaryDirectory() as folder:
        lib = Path(folder, "lib")
        shutil.copytree(ROOT / "lib", lib, ignore=shutil.ignore_patterns("__pycache__"))
        file = Path(folder, breakage.file)
        file.write_text(file.read_text().replace(breakage.old, breakage.new))
        return run(breakage.tests, lib=lib)


def copies_are_imported() -> bool:
    """Whether it is really the copy that tests see."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(ROOT / "lib", Path(folder, "lib"))
        found = subprocess.run(
            [sys.executable, "-c", WHERE],
            env={"PYTHONPATH": str(Path(folder, "lib"))},
            capture_output=True,
            text=True,
            check=True,
        )
        return found.stdout.startswith(folder)


def main(arguments: list[str]) -> int:
    """Return 0 if each was noticed."""
    tables = [Path(argument) for argument in arguments if argument.endswith(".toml")]
    table = breakages(tables[0] if tables else BREAKAGES)
    chosen = [argument for argument in arguments if argument in table] or list(table)
    whole = run([test for number in chosen for test in table[number].tests], "-n", "2")
    if whole.outcome != "green":
        print(whole.output)
        print(f"with nothing broken: {whole.outcome}")
        return 1
    if not copies_are_imported():
        print("the library is imported from elsewhere, whatever PYTHONPATH says")
        return 1
    return 0 if all_red(chosen, lambda number: without(table[number])) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
