"""Results on standard output: tables for people, tab-separated lines or JSON for programs."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from sessionkeeper.cli.text import as_json, escaped, iso

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from sessionkeeper.processes.tree import ProcessInfo


# Wide enough for a report's table on one line each, where no terminal says how wide it is.
REPORT_WIDTH = 120


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table.

    Attributes:
        title: What stands above it.
        justify: Where its texts stand.
        whole: Whether its texts are never folded, however narrow the terminal is.
        styles: The style of a text, as rich names it; that of "" is for all others.
    """

    title: str
    justify: Literal["left", "right"] = "left"
    whole: bool = False
    styles: Mapping[str, str] = field(default_factory=dict)

    def cell(self, text: str) -> Text:
        """A text of this column; its style shows on a terminal only, and not if NO_COLOR is set."""
        style = self.styles.get(text, self.styles.get("", ""))
        return Text(escaped(text), style=style)


def is_terminal() -> bool:
    """Whether a person looks at standard output."""
    return sys.stdout.isatty()


def shown_time(moment: datetime) -> str:
    """An instant in UTC: to the minute for people, whole for programs."""
    return f"{moment:%Y-%m-%d %H:%M}" if is_terminal() else iso(moment)


def console(width: int | None = None) -> Console:
    """Standard output for rich, which takes no text of ours for markup."""
    return Console(markup=False, highlight=False, emoji=False, width=width)


def print_json(value: Any) -> None:
    """Print one value on one line of JSON."""
    sys.stdout.write(as_json(value) + "\n")


def print_line(text: str) -> None:
    """Print one line, escaped."""
    sys.stdout.write(escaped(text) + "\n")


def print_tabbed(cells: Iterable[str]) -> None:
    """Print one line of cells; tabs and line breaks in them are escaped."""
    sys.stdout.write("\t".join(escaped(cell) for cell in cells) + "\n")


def print_table(columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> None:
    """Print a table for people, also where it ends up in a log: a report, not data."""
    wide = None if is_terminal() else REPORT_WIDTH
    console(width=wide).print(table_of(columns, rows))


def print_tree(processes: Sequence[ProcessInfo]) -> None:
    """Print a supervision tree: the supervisor, and its children below it."""
    if processes:
        root, *children = processes
        tree = Tree(Text(_process_line(root)))
        for child in children:
            tree.add(Text(_process_line(child)))
        console(width=None if is_terminal() else REPORT_WIDTH).print(tree)


def _process_line(process: ProcessInfo) -> str:
    line = f"{process.name}: {process.state}, epoch {process.epoch}, {process.restarts} restarts"
    line += f", {process.queued} queued, up {process.uptime:.1f} s"
    return line if process.last_exit is None else f"{line}, last exit: {escaped(process.last_exit)}"


def print_rows(columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> None:
    """Print a table on a terminal, tab-separated lines without a header elsewhere."""
    if is_terminal():
        console().print(table_of(columns, rows))
    else:
        for row in rows:
            print_tabbed(row)


def print_styled(cells: Iterable[tuple[Column, str]]) -> None:
    """Print one line of cells for people, for what comes in bit by bit and fits no table."""
    line = Text("  ").join(column.cell(text) for column, text in cells if text)
    console().print(line, soft_wrap=True)


def flush() -> None:
    """Hand on what was printed: whoever follows wants it now, also through a pipe."""
    sys.stdout.flush()


def print_pairs(pairs: Iterable[tuple[str, str]]) -> None:
    """Print names and values: aligned on a terminal, separated by a tab elsewhere."""
    if not is_terminal():
        for pair in pairs:
            print_tabbed(pair)
        return
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold")
    grid.add_column(overflow="fold")
    for name, value in pairs:
        grid.add_row(Text(escaped(name)), Text(escaped(value)))
    console().print(grid)


def table_of(columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> Table:
    """A table for a terminal; long cells are folded, so that ids can be copied whole.

    A column without any text takes no room.
    """
    lines = list(rows)
    used = [
        number
        for number, _ in enumerate(columns)
        if not lines or any(line[number] for line in lines)
    ]
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in (columns[number] for number in used):
        table.add_column(
            Text(column.title),
            justify=column.justify,
            overflow="fold",
            no_wrap=column.whole,
        )
    for line in lines:
        table.add_row(*(columns[number].cell(line[number]) for number in used))
    return table
