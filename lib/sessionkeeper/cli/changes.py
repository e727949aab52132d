"""One change made to several sessions, each for itself, and what is said of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer

from sessionkeeper.cli.failures import FAILED, report
from sessionkeeper.cli.output import is_terminal, print_json, print_line, print_tabbed
from sessionkeeper.cli.places import open_for_changing, within
from sessionkeeper.cli.text import as_json as to_json
from sessionkeeper.errors import SessionKeeperError, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sessionkeeper.changing import Changing
    from sessionkeeper.cli.places import Place


@dataclass(frozen=True, slots=True)
class Done:
    """What was done to a session.

    Attributes:
        words: In words, for people.
        fields: For programs; their values are also the cells of a line.
    """

    words: str
    fields: dict[str, Any]


def change_each(
    place: Place,
    session_ids: Iterable[str],
    change: Callable[[Changing, str], Done],
    *,
    as_json: bool,
) -> None:
    """Change sessions one after the other; one that cannot be changed keeps no other from it.

    Raises:
        StoreNotFound: There is no store.
        StoreLocked: Somebody else owns it.
        StoreError: It can take no change.
        typer.Exit: One could not be changed, and that has been reported.
    """
    all_done = True
    with within(place, open_for_changing(place)) as store:
        for session_id in dict.fromkeys(session_ids):
            try:
                print_done(session_id, change(store, session_id), as_json=as_json)
            except StoreError:
                raise
            except SessionKeeperError as error:
                report(error)
                all_done = False
    if not all_done:
        raise typer.Exit(FAILED)


def print_done(session_id: str, done: Done, *, as_json: bool) -> None:
    """Print what was done to one session."""
    if as_json:
        print_json({"session_id": session_id, **done.fields})
    elif is_terminal():
        print_line(f"{session_id}: {done.words}")
    else:
        print_tabbed((session_id, *map(_cell, done.fields.values())))


def _cell(value: object) -> str:
    match value:
        case str():
            return value
        case list():
            return ",".join(map(str, value))
        case _:
            return to_json(value)
