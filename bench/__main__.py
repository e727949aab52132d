"""The command line: `python -m bench --quick`."""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from bench import report
from bench.disk import GIB, choose
from bench.machine import describe
from bench.measure import Plan
from bench.runner import run, run_gauge
from bench.workloads import gauges, workloads

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.results import GaugeRow, Row

_MIB = 2**20

# Bounded in operations too, so that a fast peer does not fill the disk.
_FULL = {
    "memory": Plan(rounds=9, seconds=0.4, max_operations=1_000_000, warm_up=0.1),
    "append": Plan(rounds=7, seconds=1.0, max_operations=30_000, warm_up=0.2),
    "save": Plan(rounds=7, seconds=1.0, max_operations=6_000, warm_up=0.2),
    "sustained": Plan(rounds=3, seconds=60.0, max_operations=600_000, warm_up=1.0),
    "length": Plan(rounds=9, seconds=0.5, max_operations=2_000, warm_up=0.1),
    "open": Plan(
        rounds=3,
        seconds=0.0,
        max_operations=1,
        warm_up=0.0,
        session_bytes=60 * _MIB,
        sessions=100_000,
    ),
    "loop": Plan(rounds=9, seconds=0.5, max_operations=100, warm_up=0.1, session_bytes=64 * _MIB),
}
_QUICK = {
    "memory": Plan(rounds=3, seconds=0.03, max_operations=1_000_000, warm_up=0.01),
    "append": Plan(rounds=3, seconds=0.1, max_operations=4_000, warm_up=0.02),
    "save": Plan(rounds=3, seconds=0.1, max_operations=2_000, warm_up=0.02),
    "sustained": Plan(rounds=2, seconds=1.5, max_operations=30_000, warm_up=0.1),
    "length": Plan(rounds=5, seconds=0.1, max_operations=500, warm_up=0.02),
    "open": Plan(
        rounds=3,
        seconds=0.0,
        max_operations=1,
        warm_up=0.0,
        session_bytes=16 * _MIB,
        sessions=10_000,
    ),
    "loop": Plan(rounds=5, seconds=0.04, max_operations=100, warm_up=0.02, session_bytes=8 * _MIB),
}
_FULL_THREADS = (1, 8, 64)
_QUICK_THREADS = (1, 64)
# What they write at most, as long as it lasts.
_FULL_DISK = 32 * GIB
_QUICK_DISK = 8 * GIB


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
    all_threads = options.threads or (_QUICK_THREADS if options.quick else _FULL_THREADS)
    rows: list[Row] = []
    gauge_rows: list[GaugeRow] = []
    options.path.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".bench-", dir=options.path))
    try:
        disk = choose(folder, _QUICK_DISK if options.quick else _FULL_DISK, here=options.here)
        machine = describe(" ".join(["python -m bench", *given]), disk.description)
        report.print_machine(machine, plans)
        for workload in workloads():
            if options.only and workload.name not in options.only:
                continue
            plan = plans[workload.plan]
            own = [
                row
                for threads in all_threads
                if workload.threads in (None, threads)
                for row in run(workload, threads, plan, disk)
            ]
            if own:
                report.print_workload(workload, own)
            rows += own
        for gauge in gauges():
            if options.only and gauge.name not in options.only:
                continue
            own_figures = run_gauge(gauge, plans[gauge.plan], disk)
            report.print_gauge(gauge, own_figures)
            gauge_rows += own_figures
        report.print_targets(rows, gauge_rows)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    finally:
        shutil.rmtree(folder)
    if options.json is not None:
        report.write_json(options.json, machine, plans, rows, gauge_rows)
    failures = [row.failure for row in rows] + [row.failure for row in gauge_rows]
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
        "--here",
        action="store_true",
        help="on the file system of that folder, also where an image could be mounted",
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
        metavar="1,8,64",
        help="how many threads work together (default: these; quick: 1,64)",
    )
    parser.add_argument("--rounds", type=_whole, help="how many rounds count")
    parser.add_argument("--seconds", type=_seconds, help="how long a round takes")
    return parser


def _known() -> list[str]:
    return [workload.name for workload in workloads()] + [gauge.name for gauge in gauges()]


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
    # Whoever ends us this way wants nothing left mounted either.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
