"""Errors as exit statuses and one message on standard error, never a traceback."""

from __future__ import annotations

import errno
import sys
from typing import Any, Final

import typer
from typer.core import TyperGroup

from sessionkeeper.cli.text import escaped
from sessionkeeper.errors import (
    NoBackup,
    SessionExists,
    SessionKeeperError,
    SessionNotFound,
    StoreLocked,
    StoreNotFound,
)

FAILED: Final = 1
USAGE: Final = 2
INTERRUPTED: Final = 130
"""As a shell says of a command that Ctrl-C has ended."""
TRY_LATER: Final = 75
"""EX_TEMPFAIL of sysexits.h: the folder has another owner now."""


class ReportingGroup(TyperGroup):
    """Runs a command and turns what it raises into a message and an exit status."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command.

        Raises:
            typer.Exit: It failed, and has been reported.
        """
        try:
            result = super().invoke(ctx)
            # Here a closed pipe can still be met in silence; at the interpreter's exit it cannot.
            sys.stdout.flush()
        except SessionKeeperError as error:
            report(error)
            raise typer.Exit(status_of(error)) from error
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise
            complain(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}")
            raise typer.Exit(FAILED) from error
        except KeyboardInterrupt as error:
            raise typer.Exit(INTERRUPTED) from error
        return result


def status_of(error: SessionKeeperError) -> int:
    """The exit status that tells a script what kind of failure it was."""
    match error:
        case StoreLocked():
            return TRY_LATER
        case StoreNotFound():
            return USAGE
        case _:
            return FAILED


def report(error: SessionKeeperError) -> None:
    """Say on standard error what went wrong and what can be done."""
    complain(str(error.args[0]))
    if isinstance(error, StoreLocked) and error.holder:
        holder = ", ".join(f"{name} {value}" for name, value in error.holder.items())
        complain(f"owner: {holder}")
    complain(f"hint: {_hint_of(error)}")


def _hint_of(error: SessionKeeperError) -> str:
    """What to do, in words of the command line where the library's are about Python."""
    match error:
        case StoreNotFound():
            return "Check --path; `sessionkeeper import` creates a store."
        case StoreLocked():
            return "Try again when it has ended; commands that only read work beside it."
        case SessionNotFound():
            return "`sessionkeeper list` shows the sessions there are."
        case NoBackup():
            return "`sessionkeeper backups` shows the versions that are kept."
        case SessionExists():
            return "Delete that one first, or leave it."
        case _:
            return error.hint


def complain(text: str) -> None:
    """Write one escaped line to standard error."""
    sys.stderr.write(f"sessionkeeper: {escaped(text)}\n")
