"""Has each setting not heard, one at a time, and wants one of its tests to turn red.

    python tests/requirements/unheard.py [setting ...]

settings.toml says which tests; they must be green when all settings are heard.
"""

from __future__ import annotations

import sys

from one_unheard import VARIABLE
from pytests import Run, all_red, run
from tables import settings


def deaf_to(name: str) -> Run:
    """Run the tests of one setting with that setting not heard."""
    return run(settings()[name], "-p", "one_unheard", environment={VARIABLE: name})


def main(names: list[str]) -> int:
    """Return 0 if each was noticed."""
    chosen = names or list(settings())
    tests = [test for name in chosen for test in settings()[name]]
    heard = run(tests, "-n", "2")
    if heard.outcome != "green":
        # What fails on a machine that is busy with something else has a second try.
        print(heard.output)
        heard = run(tests)
    if heard.outcome != "green":
        print(heard.output)
        print(f"with every setting heard: {heard.outcome}")
        return 1
    return 0 if all_red(chosen, deaf_to) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
