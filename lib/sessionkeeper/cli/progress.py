"""Progress bars on standard error, for people only."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from sessionkeeper.cli.text import escaped

if TYPE_CHECKING:
    from collections.abc import Iterator


class Advance(Protocol):
    """Says how far the work is: how much is done, of how much, and in words what."""

    def __call__(self, done: float, total: float, label: str, /) -> None:
        """Show it."""
        ...


@contextmanager
def progress_bar() -> Iterator[Advance]:
    """Show a bar while the body runs; nothing if standard error is no terminal, or a dumb one.

    Yields:
        The function that moves it.
    """
    console = Console(stderr=True, markup=False, highlight=False, emoji=False)
    if not sys.stderr.isatty() or console.is_dumb_terminal:
        yield lambda _done, _total, _label: None
        return
    bar = Progress(
        TextColumn("{task.fields[label]}", markup=False),
        BarColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    )
    with bar:
        task = bar.add_task("", total=None, label="starting")

        def advance(done: float, total: float, label: str) -> None:
            bar.update(task, completed=done, total=total, label=escaped(label))

        yield advance
