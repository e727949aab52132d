"""`sessionkeeper config`."""

import difflib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from sessionkeeper import presets
from sessionkeeper.cli.failures import complain
from sessionkeeper.cli.options import JsonOption
from sessionkeeper.cli.output import Column, print_json, print_rows
from sessionkeeper.cli.places import Place, on_any_store, require_store, say_who_owns
from sessionkeeper.config import Config
from sessionkeeper.errors import InvalidConfig
from sessionkeeper.layout import Layout
from sessionkeeper.opening import layers_of
from sessionkeeper.settings import LIVE, PREFIX, Layers, from_environment, from_text, known
from sessionkeeper.storage.configfile import ConfigFile
from sessionkeeper.storage.lock import owner_of
from sessionkeeper.storage.platform import FileSystem

_COLUMNS = (
    Column("setting", styles={"": "cyan"}),
    Column("value"),
    Column("from", styles={"": "green", "default": "dim"}),
    Column("takes effect"),
)


@on_any_store
def config(
    place: Place | None,
    *,
    assign: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Store a setting; repeatable."),
    ] = None,
    unset: Annotated[
        list[str] | None,
        typer.Option("--unset", metavar="NAME", help="Store it no more; repeatable."),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            "--preset",
            metavar="|".join(presets.NAMES),
            help="Show what it makes of them; needs no store.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show the settings and where they come from, or store some.

    Columns: setting, value (as JSON), from (environment, config.json, preset, default, or folder
    for the layout that is there), takes effect (at once, or at opening).

    --set and --unset change the store's config.json and show only what they changed. A program
    that has the store open takes what takes effect at once within reconcile_interval seconds.
    What a program is given in its code goes before all of this and is not known here.

    Examples:
      sessionkeeper --path var/agent config
      sessionkeeper --path var/agent config --set retention_days=30 --set max_sessions=none
      sessionkeeper --path var/agent config --unset retention_days
      sessionkeeper config --preset agent --json
    """
    changes, dropped = _parsed(assign or ()), [_known(name) for name in unset or ()]
    if place is None and (changes or dropped or preset is None):
        raise typer.BadParameter(
            f"no store named; give --path FOLDER or set {PREFIX}PATH",
        )
    layers = _layers(place, preset)
    if place is not None and (changes or dropped):
        layers = _store(place, layers, changes, dropped)
    elif place is not None:
        say_who_owns(place)
    shown = {*changes, *dropped} or set(known())
    _print((row for row in _rows(place, layers) if row.setting in shown), as_json=as_json)


@dataclass(frozen=True, slots=True)
class _Row:
    """One setting as it would be for a program that opened the store now."""

    setting: str
    value: Any
    source: str


def _layers(place: Place | None, preset: str | None) -> Layers:
    try:
        chosen = None if preset is None else presets.get(preset)
    except InvalidConfig as error:
        raise typer.BadParameter(str(error.args[0])) from error
    if place is None:
        given = from_environment(os.environ)
        return Layers(Path(), {}, given, {} if chosen is None else dict(chosen.settings))
    return layers_of(place.path, {}, FileSystem(), chosen)


def _store(
    place: Place,
    layers: Layers,
    changes: dict[str, Any],
    dropped: Sequence[str],
) -> Layers:
    require_store(place)
    laid_out = changes.get("layout", place.layout_name)
    if laid_out != place.layout_name:
        raise typer.BadParameter(f"the store is laid out {place.layout_name!r}, not {laid_out!r}")
    stored = {name: value for name, value in layers.stored.items() if name not in dropped}
    changed = replace(layers, stored={**stored, **changes})
    try:
        Config.of(place.root, changed.stored)
    except InvalidConfig as error:
        raise typer.BadParameter(str(error.args[0])) from error
    ConfigFile(FileSystem(), place.layout).write(changed.stored)
    _say_when(place, changed, [*changes, *dropped])
    return changed


def _say_when(place: Place, layers: Layers, names: Sequence[str]) -> None:
    """Say of what was stored what keeps it from being in force."""
    for name in names:
        if name in layers.given:
            complain(f"{name}: {PREFIX}{name.upper()} goes before what is stored")
    owner = owner_of(place.layout)
    if owner:
        seconds = layers.config().reconcile_interval
        complain(
            f"process {owner['pid']} on {owner['host']} has the store open: what takes effect at "
            f"once does so within {seconds:g} s, all else when the store is opened again",
        )


def _rows(place: Place | None, layers: Layers) -> Iterable[_Row]:
    config = layers.config()
    origins = {"environment": layers.given, "config.json": layers.stored, "preset": layers.preset}
    for setting in known():
        found = (origin for origin, settings in origins.items() if setting in settings)
        value, source = getattr(config, setting), next(found, "default")
        if setting == "layout" and source != "environment" and place is not None:
            laid_out = Layout.found_in(place.root)
            value, source = (value, source) if laid_out is None else (laid_out, "folder")
        yield _Row(setting, value, source)


def _print(rows: Iterable[_Row], *, as_json: bool) -> None:
    defaults = {field.name: field.default for field in fields(Config)}
    if as_json:
        for row in rows:
            print_json(
                {
                    "setting": row.setting,
                    "value": row.value,
                    "source": row.source,
                    "default": defaults[row.setting],
                    "live": row.setting in LIVE,
                },
            )
        return
    print_rows(_COLUMNS, map(_cells, rows))


def _cells(row: _Row) -> tuple[str, ...]:
    effect = "at once" if row.setting in LIVE else "at opening"
    return (row.setting, json.dumps(row.value), row.source, effect)


def _parsed(assignments: Iterable[str]) -> dict[str, Any]:
    changes = {}
    for assignment in assignments:
        name, separator, text = assignment.partition("=")
        if not separator:
            raise typer.BadParameter(f"--set {assignment!r} is not NAME=VALUE")
        try:
            changes[name] = from_text(_known(name), text, name)
        except InvalidConfig as error:
            raise typer.BadParameter(str(error.args[0])) from error
    return changes


def _known(name: str) -> str:
    if name not in known():
        close = difflib.get_close_matches(name, known(), 1)
        meant = f"; did you mean {close[0]}?" if close else ""
        raise typer.BadParameter(f"there is no setting {name!r}{meant}")
    return name
