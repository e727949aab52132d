"""A million sessions: what each step takes, and how much memory the process holds after it.

`python -m bench.million --sessions 1000000` creates them, lists, searches, expires a tenth,
appends until the process is killed, opens the store again, closes it and opens it once more.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.disk import GIB, choose
from bench.machine import describe
from bench.steps import Child

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.steps import Step

SESSIONS = 1_000_000

# A file takes a block and an inode, a removed one another block for its manifest.
_BYTES_EACH = 20_000

# One process after the other; a process that writes is killed at it.
_LIVES = (
    ("create", "list", "search", "sort", "expire", "list", "search", "write"),
    ("open", "list", "search", "close"),
    ("open", "list", "search", "close"),
)
_TOLD = {
    "bare": "a bare interpreter",
    "create": "sessions created, {tenth:,} of them long ago",
    "list": "a page listed (median)",
    "search": "a page of a tag searched (median)",
    "sort": "a page in the slowest of all orders (median)",
    "expire": "what is from long ago removed",
    "write": "200 appends, then killed at more of them",
    "open": "opened until ready",
    "close": "closed",
}


@dataclass(frozen=True, slots=True)
class Line:
    """One step of one process.

    Attributes:
        life: Which process, from 1.
        step: What it told.
        above: Bytes of memory above what it held before it did anything.
    """

    life: int
    step: Step
    above: int


def run(folder: Path, sessions: int) -> Iterator[Line]:
    """Do everything.

    Args:
        folder: For the store; it exists and is empty.
        sessions: How many.

    Yields:
        Each step when it is done.

    Raises:
        subprocess.CalledProcessError: A process ended on its own account, with an error.
    """
    for number, steps in enumerate(_LIVES, start=1):
        with Child(folder, sessions, *steps) as child:
            bare = 0
            for step in child:
                bare = bare or step.resident
                yield Line(number, step, step.resident - bare)
                if step.name == "write":
                    break


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a line for each step; returns 0, or 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m bench.million", description=__doc__)
    parser.add_argument("--sessions", type=_sessions, default=SESSIONS, help="how many")
    parser.add_argument("--path", type=Path, default=Path(), help="work in a folder in there")
    parser.add_argument("--here", action="store_true", help="not on a file system of its own")
    options = parser.parse_args(arguments)
    options.path.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".bench-", dir=options.path) as made:
        wanted = max(2 * GIB, 2 * options.sessions * _BYTES_EACH)
        disk = choose(Path(made), wanted, here=options.here)
        machine = describe(f"python -m bench.million --sessions {options.sessions}", "")
        print(f"{machine.date}  {machine.command}, load {machine.load:.1f}")
        print(f"{machine.system}, {machine.cpus} CPUs ({machine.cpu}), {machine.python}")
        print(f"file system: {disk.description}")
        print(f"\n{'seconds':>12}{'MB above':>10}{'sessions':>12}  step")
        try:
            with disk.fresh(large=True) as folder:
                for line in run(folder, options.sessions):
                    _print(line, options.sessions)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return 130
    return 0


def _print(line: Line, sessions: int) -> None:
    step, what = line.step, _TOLD[line.step.name].format(tenth=sessions // 10)
    if step.name == "bare":
        what = f"process {line.life}: {what}, {step.resident / 1e6:.1f} MB"
    print(
        f"{step.seconds:12.6f}{line.above / 1e6:10.1f}{step.sessions:12,}  {what}",
        flush=True,
    )


def _sessions(text: str) -> int:
    # A tenth of them is expired, and half of them are written to.
    least = 10
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < least:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from {least} on")
    return number


if __name__ == "__main__":
    # Whoever ends us this way wants nothing left mounted either.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
