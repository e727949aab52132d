"""Options that several commands share."""

from datetime import date, datetime
from typing import Annotated

import typer

from sessionkeeper.cli.completion import session_ids
from sessionkeeper.pages import SessionOrder

# A str: as a Path, the empty text of an unset variable would be the current folder.
PathOption = Annotated[
    str | None,
    typer.Option(
        "--path",
        metavar="FOLDER",
        help="The store's folder; else the environment variable SESSIONKEEPER_PATH.",
    ),
]
IdArgument = Annotated[
    str,
    typer.Argument(metavar="ID", help="The session.", autocompletion=session_ids),
]
IdsArgument = Annotated[
    list[str],
    typer.Argument(metavar="ID", help="The sessions.", autocompletion=session_ids),
]
NamespaceOption = Annotated[
    str,
    typer.Option(
        "--namespace",
        metavar="NAME",
        help="The sessions of this namespace; else those of the default one.",
    ),
]
JsonOption = Annotated[
    bool,
    typer.Option("--json", help="Print JSON, one object a line (JSON Lines)."),
]
LimitOption = Annotated[
    int | None,
    typer.Option("--limit", min=0, metavar="N", help="At most so many; all if left out."),
]
CursorOption = Annotated[
    str | None,
    typer.Option("--cursor", metavar="CURSOR", help="Continue where the page before ended."),
]
SortOption = Annotated[
    SessionOrder,
    typer.Option(
        "--sort",
        metavar="ORDER",
        help="By changed, created, updated, title, cost, messages or id;"
        " with a - in front, the highest first.",
    ),
]
IntervalOption = Annotated[
    float,
    typer.Option("--interval", min=0.01, max=3600, metavar="S", help="Seconds between two looks."),
]


def parse_when(text: str) -> date | datetime:
    """A date (midnight UTC), or an ISO 8601 time with its zone.

    Raises:
        typer.BadParameter: It is neither.
    """
    try:
        return date.fromisoformat(text)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(
            f"{text!r} is neither a date (2025-01-31) nor an ISO 8601 time",
        ) from error
    if moment.tzinfo is None:
        raise typer.BadParameter(f"{text!r} has no time zone; add Z for UTC")
    return moment
