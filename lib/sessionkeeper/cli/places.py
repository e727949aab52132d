"""Which store a command works on, and how it is opened."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import typer

from sessionkeeper.layout import Layout
from sessionkeeper.store import SessionStore

if TYPE_CHECKING:
    from sessionkeeper.layout import LayoutName

ENVIRONMENT: Final = "SESSIONKEEPER_PATH"


@dataclass(frozen=True, slots=True)
class Globals:
    """What was said before the command.

    Attributes:
        path: The value of `--path`, or None.
    """

    path: str | None


def path_given(context: typer.Context, option: str | None) -> Path | None:
    """The folder named by `--path`, before or after the command.

    Raises:
        typer.BadParameter: It is empty.
    """
    before = context.obj.path if isinstance(context.obj, Globals) else None
    named = option if option is not None else before
    if named == "":
        raise typer.BadParameter("--path is empty", ctx=context)
    return None if named is None else Path(named)


def store_path(context: typer.Context, option: str | None) -> Path:
    """The folder named by `--path`, or else by the environment.

    Raises:
        typer.BadParameter: By neither.
    """
    path = path_given(context, option)
    if path is not None:
        return path
    named = os.environ.get(ENVIRONMENT)
    if not named:
        raise typer.BadParameter(
            f"no store named; give --path FOLDER or set {ENVIRONMENT}",
            ctx=context,
        )
    return Path(named)


def layout_name(path: Path) -> LayoutName:
    """The layout of the store in a folder; `flat` if there is none yet."""
    return Layout.found_in(path.expanduser()) or "flat"


def open_for_reading(path: Path) -> SessionStore:
    """Open a store that exists; takes no lock and changes nothing.

    Raises:
        StoreNotFound: There is none.
    """
    return SessionStore.open(path, read_only=True, layout=layout_name(path))


def open_for_writing(path: Path) -> SessionStore:
    """Open a store as its owner; creates it unless it is there.

    Raises:
        StoreLocked: Somebody else owns it.
    """
    # A command is over before a change by hand would be noticed.
    return SessionStore.open(path, layout=layout_name(path), watch=False, call_timeout=60.0)
