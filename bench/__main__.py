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
from bench.conversations import UnreadableInput, conversations
from bench.disk import choose
from bench.gauges import gauges
from bench.growing import run_growth
from bench.machine import describe
from bench.plans import FULL, QUICK
from bench.plots import PlotsMissing, library, write_plots
from bench.replays import REPLAY, replay
from bench.results import Findings
from bench.runner import run, run_gauge
from bench.workloads import workloads

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.disk import Disk
    from bench.kinds import Workload
    from bench.measure import Plan

_GROWTH = "growth"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what the command line asks for.

    Returns:
        0, 1 if a peer failed at its work, or 130 after Ctrl-C.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    parser = _parser()
    options = parser.parse_args(given)
    scale = QUICK if options.quick else FULL
    if options.plots is not None:
        try:
            library()
        except PlotsMissing as error:
            parser.error(str(error))
    plans = {
        name: replace(
            plan,
            rounds=options.rounds or plan.rounds,
            seconds=options.seconds or plan.seconds,
        )
        for name, plan in scale.plans.items()
    }
    known = _workloads(parser, options)
    wanted = [work for work in known if not options.only or work.name in options.only]
    options.path.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".bench-", dir=options.path))
    findings = Findings()
    try:
        disk = choose(folder, scale.disk_bytes, here=options.here)
        machine = describe(" ".join(["python -m bench", *given]), disk.description)
        report.print_machine(machine, plans)
        _rates(findings, wanted, options.threads or scale.threads, plans, disk)
        _others(findings, options.only, plans, disk)
        if not options.only or _GROWTH in options.only:
            for at_one_size in run_growth(scale.sizes, plans[_GROWTH], disk):
                report.print_growth(at_one_size)
                findings.growths.extend(at_one_size)
        report.print_targets(findings.rows, findings.gauges, findings.growths)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    finally:
        shutil.rmtree(folder)
    if options.json is not None:
        report.write_json(options.json, machine, plans, findings)
    if options.plots is not None:
        write_plots(options.plots, findings.rows, findings.growths)
    return int(findings.failed)


def _workloads(
    parser: argparse.ArgumentParser,
    options: argparse.Namespace,
) -> tuple[Workload, ...]:
    if options.input is None:
        if REPLAY in options.only:
            parser.error(f"{REPLAY} needs --input")
        return workloads()
    try:
        return (*workloads(), replay(conversations(options.input, options.messages)))
    except (OSError, UnreadableInput) as error:
        parser.error(str(error))


def _rates(
    findings: Findings,
    wanted: Sequence[Workload],
    all_threads: Sequence[int],
    plans: Mapping[str, Plan],
    disk: Disk,
) -> None:
    for workload in wanted:
        own = [
            row
            for threads in all_threads
            if workload.threads in (None, threads)
            for row in run(workload, threads, plans[workload.plan], disk)
        ]
        if own:
            report.print_workload(workload, own)
        findings.rows.extend(own)


def _others(
    findings: Findings,
    only: Sequence[str],
    plans: Mapping[str, Plan],
    disk: Disk,
) -> None:
    for gauge in gauges():
        if only and gauge.name not in only:
            continue
        own = run_gauge(gauge, plans[gauge.plan], disk)
        report.print_gauge(gauge, own)
        findings.gauges.extend(own)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measure the store beside the ways people keep sessions without it.",
    )
    parser.add_argument("--quick", action="store_true", help="shorter and fewer rounds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there too")
    parser.add_argument("--plots", type=Path, metavar="DIR", help="draw figures there, as SVG")
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
    parser.add_argument(
        "--input",
        type=Path,
        metavar="FILE",
        help="replay the conversations in there: JSON or JSON lines, .gz too",
    )
    parser.add_argument(
        "--messages",
        type=_keys,
        default=("traj", "messages"),
        metavar="KEY",
        help="where the messages of each of them stand (default: traj,messages, the first found)",
    )
    parser.add_argument("--rounds", type=_whole, help="how many rounds count")
    parser.add_argument("--seconds", type=_seconds, help="how long a round takes")
    return parser


def _known() -> list[str]:
    return [
        *(each.name for each in workloads()),
        *(each.name for each in gauges()),
        _GROWTH,
        REPLAY,
    ]


def _names(text: str) -> list[str]:
    known = _known()
    names = text.split(",")
    for name in names:
        if name not in known:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
    return names


def _keys(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


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
