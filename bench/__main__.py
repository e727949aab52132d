"""The command line: `python -m bench --quick`."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from bench import report
from bench.machine import describe
from bench.measure import Plan
from bench.runner import run, run_delays
from bench.workloads import delays, workloads

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.results import DelayRow, Row

_MIB = 2**20

# Bounded in operations too, so that a fast peer does not fill the disk.
_FULL = {
    "disk": Plan(rounds=9, seconds=1.0, max_operations=6000, warm_up=0.2),
    "memory": Plan(rounds=9, seconds=0.5, max_operations=1_000_000, warm_up=0.1),
    "loop": Plan(rounds=9, seconds=0.5, max_operations=100, warm_up=0.1, session_bytes=64 * _MIB),
}
_QUICK = {
    "disk": Plan(rounds=5, seconds=0.2, max_operations=4000, warm_up=0.05),
    "memory": Plan(rounds=5, seconds=0.04, max_operations=1_000_000, warm_up=0.02),
    "loop": Plan(rounds=5, seconds=0.04, max_operations=100, warm_up=0.02, session_bytes=8 * _MIB),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what the command line asks for.

    Returns:
        0, 1 if a peer failed at its work, or 130 after Ctrl-C.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    options = _parser().parse_args(given)
    plans = {
        name: replace(
            plan,
            rounds=options.rounds or plan.rounds,
            seconds=options.seconds or plan.seconds,
        )
        for name, plan in (_QUICK if options.quick else _FULL).items()
    }
    rows: list[Row] = []
    delay_rows: list[DelayRow] = []
    options.path.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".bench-", dir=options.path))
    try:
        machine = describe(" ".join(["python -m bench", *given]), folder)
        report.print_machine(machine, plans)
        for workload in workloads():
            if options.only and workload.name not in options.only:
                continue
            plan = plans[workload.plan]
            own = [
                row for threads in options.threads for row in run(workload, threads, plan, folder)
            ]
            report.print_workload(workload, own)
            rows += own
        for delay in delays():
            if options.only and delay.name not in options.only:
                continue
            own_delays = run_delays(delay, plans[delay.plan], folder)
            report.print_delays(delay, own_delays)
            delay_rows += own_delays
        report.print_targets(rows, delay_rows)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    finally:
        shutil.rmtree(folder)
    if options.json is not None:
        report.write_json(options.json, machine, plans, rows, delay_rows)
    failures = [row.failure for row in rows] + [row.failure for row in delay_rows]
    return int(any(failure is not None for failure in failures))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measure the store beside the ways people keep sessions without it.",
    )
    parser.add_argument("--quick", action="store_true", help="shorter and fewer rounds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there too")
    parser.add_argument(
        "--path",
        type=Path,
        default=Path(),
        metavar="DIR",
        help="work in a temporary folder in there (default: the current directory)",
    )
    parser.add_argument(
        "--only",
        type=_names,
        default=[],
        metavar="save,append",
        help="only these kinds of work: " + ", ".join(_known()),
    )
    parser.add_argument(
        "--threads",
        type=_numbers,
        default=[1, 8, 64],
        metavar="1,8,64",
        help="how many threads work together",
    )
    parser.add_argument("--rounds", type=_whole, help="how many rounds count")
    parser.add_argument("--seconds", type=_seconds, help="how long a round takes")
    return parser


def _known() -> list[str]:
    return [workload.name for workload in workloads()] + [delay.name for delay in delays()]


def _names(text: str) -> list[str]:
    known = _known()
    names = text.split(",")
    for name in names:
        if name not in known:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
    return names


def _numbers(text: str) -> list[int]:
    return [_whole(part) for part in text.split(",")]


def _whole(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return number


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.0 < seconds < 3600.0:  # noqa: PLR2004 - an hour
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")
    return seconds


if __name__ == "__main__":
    sys.exit(main())
