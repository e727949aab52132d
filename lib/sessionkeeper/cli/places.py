"""Which store a command works on, and how it is opened.

All options that say so are here: a command takes them as one `Place`.
"""

from __future__ import annotations

import functools
import inspect
import os
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from sessionkeeper.cli.failures import complain
from sessionkeeper.cli.options import NamespaceOption, PathOption
from sessionkeeper.errors import StoreLocked, StoreNotFound
from sessionkeeper.layout import Layout, check_namespace
from sessionkeeper.settings import PATH_VARIABLE
from sessionkeeper.storage.lock import owner_of
from sessionkeeper.store import SessionStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sessionkeeper.changing import Changing
    from sessionkeeper.layout import LayoutName


@dataclass(frozen=True, slots=True)
class Globals:
    """What was said before the command.

    Attributes:
        path: The value of `--path`, or None.
    """

    path: str | None


@dataclass(frozen=True, slots=True)
class Place:
    """The store that a command works on.

    Attributes:
        path: Its folder, as it was named.
        namespace: The namespace that it works on; empty for the default one.
    """

    path: Path
    namespace: str = ""

    @property
    def root(self) -> Path:
        """Its folder, absolute."""
        return self.path.expanduser().resolve()

    @property
    def layout_name(self) -> LayoutName:
        """How it is laid out; `flat` if there is none yet."""
        return Layout.found_in(self.root) or "flat"

    @property
    def layout(self) -> Layout:
        """Where everything of it lies."""
        return Layout.of(self.root, self.layout_name)


def on_store(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that say which store it works on.

    Args:
        command: Gets what they say as its first argument, a `Place`.
    """
    return _with_place(command, lambda context, path: Place(store_path(context, path)))


def on_sessions(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that say which sessions of which store it works on.

    Args:
        command: Gets what they say as its first argument, a `Place`.
    """
    option = inspect.Parameter(
        "namespace",
        inspect.Parameter.KEYWORD_ONLY,
        default="",
        annotation=NamespaceOption,
    )
    return _with_place(
        command,
        lambda context, path: Place(store_path(context, path)),
        option,
    )


def on_any_store(command: Callable[..., None]) -> Callable[..., None]:
    """The same for a command that can do without one.

    Args:
        command: Gets None instead of a `Place` if no store was named.
    """

    def place_of(context: typer.Context, path: str | None) -> Place | None:
        found = path_given(context, path) or os.environ.get(PATH_VARIABLE)
        return Place(Path(found)) if found else None

    return _with_place(command, place_of)


def _with_place(
    command: Callable[..., None],
    place_of: Callable[[typer.Context, str | None], Place | None],
    *more: inspect.Parameter,
) -> Callable[..., None]:
    _, *own = inspect.signature(command).parameters.values()
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [
        inspect.Parameter("context", keyword, annotation=typer.Context),
        *(parameter.replace(kind=keyword) for parameter in own),
        *more,
        inspect.Parameter("path", keyword, default=None, annotation=PathOption),
    ]

    @functools.wraps(command)
    def run(
        *,
        context: typer.Context,
        path: str | None,
        namespace: str = "",
        **rest: Any,
    ) -> None:
        place = place_of(context, path)
        if place is not None and namespace:
            place = replace(place, namespace=check_namespace(namespace))
        command(place, **rest)

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


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
    named = os.environ.get(PATH_VARIABLE)
    if not named:
        raise typer.BadParameter(
            f"no store named; give --path FOLDER or set {PATH_VARIABLE}",
            ctx=context,
        )
    return Path(named)


def require_store(place: Place) -> None:
    """Refuse a place without a store.

    Raises:
        StoreNotFound: There is none.
    """
    if Layout.found_in(place.root) is None:
        raise StoreNotFound(f"there is no store at {place.root}", path=place.root)


def require_no_owner(place: Place) -> None:
    """Refuse a store that somebody else owns now, before anybody is asked anything.

    Raises:
        StoreLocked: Somebody does.
    """
    owner = owner_of(place.layout)
    if owner:
        who = f"process {owner['pid']} on {owner['host']}"
        raise StoreLocked(f"the store is owned by {who}", path=place.root, holder=owner)


def say_who_owns(place: Place) -> None:
    """Say on standard error that another process has the store open, if one has."""
    owner = owner_of(place.layout)
    if owner:
        who = f"process {owner['pid']} on {owner['host']}"
        complain(f"{who} has the store open; it is only read")


def open_for_reading(place: Place) -> SessionStore:
    """Open a store that exists; takes no lock and changes nothing.

    Raises:
        StoreNotFound: There is none.
    """
    store = SessionStore.open(place.path, read_only=True, layout=place.layout_name)
    say_who_owns(place)
    return store


def open_for_writing(place: Place) -> SessionStore:
    """Open a store as its owner; creates it unless it is there.

    Raises:
        StoreLocked: Somebody else owns it.
    """
    # A command is over before a change by hand would be noticed.
    return SessionStore.open(
        place.path,
        layout=place.layout_name,
        watch=False,
        call_timeout=60.0,
    )


@contextmanager
def within(place: Place, store: SessionStore) -> Iterator[Changing]:
    """The sessions of the place, in a store that is open, and closed afterwards."""
    with store:
        yield store.scope(place.namespace) if place.namespace else store


def open_for_changing(place: Place) -> SessionStore:
    """Open a store that exists as its owner, for a change that was asked for and no other.

    Raises:
        StoreNotFound: There is none.
        StoreLocked: Somebody else owns it.
    """
    require_store(place)
    return SessionStore.open(
        place.path,
        layout=place.layout_name,
        watch=False,
        call_timeout=60.0,
        # The owner's timer begins with a cleanup; it would run ahead of a pin.
        retention_days=None,
        max_sessions=None,
    )
