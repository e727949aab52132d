"""Opening: where a store lies, what its settings are, and whether it was closed."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from platformdirs import user_data_path

from sessionkeeper.errors import InvalidConfig, InvalidSessionId
from sessionkeeper.layout import Layout, check_session_id
from sessionkeeper.presets import path_of
from sessionkeeper.settings import PATH_VARIABLE, Layers, from_environment, known
from sessionkeeper.storage.configfile import ConfigFile

if TYPE_CHECKING:
    from os import PathLike

    from sessionkeeper.config import Config
    from sessionkeeper.presets import Preset
    from sessionkeeper.storage.platform import FileSystem


_APP_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._ -]{0,99}")

# An application may keep other things in its folder.
_APP_FOLDER: Final = "sessions"


def path_for_app(name: object) -> Path:
    """Where an application's store lies: as the environment says, or in its data folder.

    Raises:
        TypeError: The name is not a str.
        InvalidConfig: It cannot be the name of a folder on every system.
    """
    if not isinstance(name, str):
        raise TypeError(f"the name of an application must be a str, not {type(name).__name__}")
    text = "".join(str.__iter__(name))
    try:
        # The same dangers: reserved names, dots and spaces at its ends.
        safe = _APP_NAME.fullmatch(check_session_id(text)) is not None
    except InvalidSessionId:
        safe = False
    if not safe:
        raise InvalidConfig(
            f"{text[:80]!r} cannot be the name of an application",
            hint="Use up to 100 letters, digits, spaces, '.', '_' and '-', with a letter, a digit "
            "or '_' first and no dot or space at the end.",
        )
    named = os.environ.get(PATH_VARIABLE)
    return Path(named) if named else user_data_path(text, appauthor=False) / _APP_FOLDER


def layers_of(
    path: str | PathLike[str] | None,
    settings: dict[str, Any],
    fs: FileSystem,
    preset: Preset | None = None,
) -> Layers:
    """The settings of a store, from everywhere."""
    given = path if path is not None else path_of(preset, os.environ)
    if not given:
        raise InvalidConfig("the path is empty", hint="Name a folder, or leave it out.")
    unknown = sorted(settings.keys() - set(known()))
    if unknown:
        raise TypeError(f"unknown setting {unknown[0]!r}; known are {', '.join(known())}")
    root = _resolved(given)
    # Where it lies depends on no setting, only on what the path names.
    stored = ConfigFile(fs, Layout.of(root, Layout.found_in(root) or "flat")).read()
    chosen = {} if preset is None else dict(preset.settings)
    return Layers(root, stored, {**from_environment(os.environ), **settings}, chosen)


def check_layout(config: Config) -> None:
    """Refuse a folder that is laid out in another way.

    Raises:
        InvalidConfig: It is; the error says how.
    """
    if config.in_memory:
        return
    layout = Layout.of(config.path, config.layout)
    # The path of a single file may be that of a store, or be inside one.
    found = Layout.found_in(config.path) or (layout.file and Layout.found_in(layout.root))
    there = Layout.single_file_of(layout.root)
    if found == config.layout == "single" and layout.file != there:
        raise InvalidConfig(
            f"the store in {layout.root} keeps its sessions in another file",
            path=layout.file,
            hint=f"Open it as {there}.",
        )
    if found not in (None, config.layout):
        raise InvalidConfig(
            f"the store at {config.path} is laid out {found!r}, not {config.layout!r}",
            path=config.path,
            hint=f"Open it with layout={found!r}.",
        )


def is_left_open(config: Config) -> bool:
    """Whether whoever had the store last did not come to give it up."""
    return not config.in_memory and Layout.of(config.path, config.layout).holder.exists()


def _resolved(path: str | PathLike[str]) -> Path:
    text = Path(path)
    if "\0" in str(text):
        raise InvalidConfig("the path holds a NUL character")
    try:
        return text.expanduser().resolve()
    except RuntimeError as error:
        raise InvalidConfig(f"the home folder in {str(text)!r} is unknown") from error
