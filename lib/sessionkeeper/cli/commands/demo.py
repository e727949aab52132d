"""`sessionkeeper demo`."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Annotated

import typer

from sessionkeeper.cli.drill.crashing import crash_part
from sessionkeeper.cli.drill.killing import kill_part
from sessionkeeper.cli.drill.part import Plan
from sessionkeeper.cli.drill.report import COLUMNS, Report, report_as_json, row_of, verdict
from sessionkeeper.cli.failures import FAILED
from sessionkeeper.cli.logs import silenced
from sessionkeeper.cli.options import JsonOption
from sessionkeeper.cli.output import print_json, print_line, print_table, print_tree
from sessionkeeper.cli.places import path_given
from sessionkeeper.cli.progress import progress_bar
from sessionkeeper.cli.text import count_of


def demo(
    context: typer.Context,
    *,
    threads: Annotated[
        int,
        typer.Option(min=1, max=256, metavar="N", help="How many threads write."),
    ] = 8,
    crashes: Annotated[
        int,
        typer.Option(min=1, max=10, metavar="N", help="How often the actor is crashed."),
    ] = 5,
    seconds: Annotated[
        float,
        typer.Option(min=0.1, max=3600, metavar="S", help="How long each part writes."),
    ] = 4.0,
    tree: Annotated[
        bool,
        typer.Option("--tree", help="Show the supervision tree too, as the crashes left it."),
    ] = False,
    as_json: JsonOption = False,
    path: Annotated[
        str | None,
        typer.Option(
            "--path",
            metavar="FOLDER",
            help="An empty or new folder, which is kept; else a temporary one.",
        ),
    ] = None,
) -> None:
    """Crash the store, kill it, and count what is left.

    Part 1: threads save and append; the actor that owns the files is crashed again and again.
    Part 2: a process does the same and is killed with SIGKILL; its folder is opened again.
    Then every message that was acknowledged is looked for in the files. The exit status is 0
    only if none is lost, doubled or out of order. The supervisor waits longer before each
    restart of an actor that crashes often; the time to ready contains that.

    Examples:
      sessionkeeper demo
      sessionkeeper demo --tree
      sessionkeeper demo --threads 32 --crashes 8 --seconds 10 --json
    """
    plan = Plan(threads, crashes, seconds)
    kept = path_given(context, path)
    with _demo_folder(kept) as folder:
        report = _drill(folder, plan)
    if as_json:
        print_json(report_as_json(report))
    else:
        if tree:
            print_tree(report.parts[0].processes)
        _print(report, kept)
    if not report.passed:
        raise typer.Exit(FAILED)


@contextmanager
def _demo_folder(path: Path | None) -> Iterator[Path]:
    if path is None:
        with tempfile.TemporaryDirectory(prefix="sessionkeeper-demo-") as temporary:
            yield Path(temporary)
        return
    folder = path.expanduser()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise typer.BadParameter(f"the demo needs an empty or new folder, unlike {folder}")
    yield folder


def _drill(folder: Path, plan: Plan) -> Report:
    started = perf_counter()
    # Crashes are the point; the library would log each with its traceback.
    with silenced(), progress_bar() as advance:

        def crashing(share: float, total: int) -> None:
            advance(share / 2, 1, f"crashing the actor: {count_of(total, 'message')} acknowledged")

        def killing(share: float, total: int) -> None:
            advance(0.5 + share / 2, 1, f"killing: {count_of(total, 'message')} acknowledged")

        parts = (
            crash_part(folder / "crashed", plan, crashing),
            kill_part(folder / "killed", plan, killing),
        )
    return Report(parts, perf_counter() - started)


def _print(report: Report, kept: Path | None) -> None:
    print_table(COLUMNS, (row_of(part) for part in report.parts))
    print_line(verdict(report))
    if kept is not None:
        print_line(f"Have a look: sessionkeeper --path {kept / 'killed'} list --limit 10")
