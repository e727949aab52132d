"""Where settings come from: arguments, the environment, config.json, a preset, the defaults.

Each of these goes before the next. What is not known or out of range is refused by name, so
that no setting is passed over in silence.
"""

from __future__ import annotations

import types
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Union, get_args, get_origin, get_type_hints

import orjson

from sessionkeeper.config import Config
from sessionkeeper.errors import InvalidConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

PREFIX: Final = "SESSIONKEEPER_"
PATH_VARIABLE: Final = f"{PREFIX}PATH"

# What can be changed while the store is open; all else decides how it is put together.
LIVE: Final = frozenset(
    {
        "retention_days",
        "retention_basis",
        "max_sessions",
        "max_session_size",
        "trash_days",
        "cleanup_interval",
        "cache_ttl",
        "cache_bytes",
        "max_records",
        "call_timeout",
        "max_backups",
        "checkpoint_interval",
        "checkpoint_bytes",
        "full_text",
    }
)

_BOOLEANS: Final = {
    "1": True,
    "true": True,
    "yes": True,
    "on": True,
    "0": False,
    "false": False,
    "no": False,
    "off": False,
}

Settings = dict[str, Any]


def known() -> list[str]:
    """The names of all settings."""
    return [f.name for f in fields(Config) if f.name != "path"]


def from_environment(environ: Mapping[str, str]) -> Settings:
    """The settings that variables like `SESSIONKEEPER_RETENTION_DAYS` name.

    Raises:
        InvalidConfig: A variable of that prefix that names no setting, or a value of another
            kind than the setting's.
    """
    found: Settings = {}
    for variable, text in sorted(environ.items()):
        if not variable.startswith(PREFIX) or variable == PATH_VARIABLE:
            continue
        name = variable.removeprefix(PREFIX).lower()
        if name not in known():
            raise InvalidConfig(f"{variable} names no setting; known are {', '.join(known())}")
        found[name] = from_text(name, text, variable)
    return found


def from_text(name: str, text: str, where: str) -> Any:
    """The value that a text gives to a setting, of the kind that the setting has.

    Args:
        name: The setting.
        text: As in an environment variable; `none` where there may be none.
        where: What errors call it.

    Raises:
        InvalidConfig: The text is of another kind.
    """
    return _parsed(where, text, get_type_hints(Config, localns={"Path": Path})[name])


def from_json(content: bytes, path: Path) -> Settings:
    """The settings that a config.json holds.

    Raises:
        InvalidConfig: It is no JSON object of known settings; the error names the file.
    """
    try:
        found = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise InvalidConfig(f"{path.name} is not JSON: {error}", path=path) from error
    if not isinstance(found, dict):
        raise InvalidConfig(f"{path.name} holds no object", path=path)
    unknown = sorted(found.keys() - set(known()))
    if unknown:
        raise InvalidConfig(f"{path.name} names {unknown[0]!r}, which is no setting", path=path)
    return found


@dataclass(slots=True)
class Layers:
    """The settings of one store, each from where it was given.

    Attributes:
        path: The store's folder.
        stored: From its config.json.
        given: From the environment and the arguments, which go before it.
        preset: From a preset, which comes behind both.
    """

    path: Path
    stored: Settings = field(default_factory=dict)
    given: Settings = field(default_factory=dict)
    preset: Settings = field(default_factory=dict)

    def config(self) -> Config:
        """All of them together, checked.

        Raises:
            InvalidConfig: A value outside its range.
        """
        return Config(path=self.path, **{**self.preset, **self.stored, **self.given})

    def with_stored(self, stored: Settings) -> Layers:
        """The same with another config.json; what only counts at the opening stays as it is.

        Raises:
            InvalidConfig: A value outside its range.
        """
        kept = {name: value for name, value in self.stored.items() if name not in LIVE}
        live = {name: value for name, value in stored.items() if name in LIVE}
        changed = replace(self, stored={**kept, **live})
        changed.config()
        return changed

    def configured(self, changes: Settings) -> Layers:
        """The same with settings that were changed on purpose, in the file and over it.

        Raises:
            TypeError: An unknown setting.
            InvalidConfig: A value outside its range, or a setting that counts at the opening.
        """
        for name in changes:
            if name not in known():
                raise TypeError(f"unknown setting {name!r}; known are {', '.join(known())}")
            if name not in LIVE:
                raise InvalidConfig(
                    f"{name} cannot be changed while the store is open",
                    path=self.path,
                    hint="Close the store and open it with that setting.",
                )
        given = {name: value for name, value in self.given.items() if name not in changes}
        changed = replace(self, stored={**self.stored, **changes}, given=given)
        changed.config()
        return changed


def _parsed(variable: str, text: str, kind: Any) -> Any:
    """A value of the kind that the setting has."""
    options = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
    if type(None) in options and text.strip().lower() == "none":
        return None
    for option in options:
        if get_origin(option) is Literal:
            return text
        if option is bool:
            value = _BOOLEANS.get(text.strip().lower())
            if value is None:
                raise InvalidConfig(f"{variable} must be true or false, not {text!r}")
            return value
        if option in (int, float):
            try:
                return option(text)
            except ValueError:
                what = "a whole number" if option is int else "a number"
                raise InvalidConfig(f"{variable} must be {what}, not {text!r}") from None
    raise AssertionError(f"no way to read {kind} from the environment")
