"""Settings that go together: a name for each way in which programs keep their sessions.

A preset replaces defaults and nothing else. Whatever is said anywhere, by an argument, a variable
or the store's config.json, goes before it; nothing of it is written into the store, so whoever
opens the store names it again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal

from sessionkeeper.errors import InvalidConfig
from sessionkeeper.settings import PATH_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sessionkeeper.settings import Layers

PresetName = Literal["capture", "agent", "history", "bot", "recorder"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """One way in which a program keeps its sessions.

    Attributes:
        name: What it is called.
        purpose: What it is for.
        settings: What it puts in the place of defaults.
        asked: Settings that it has no value for and without which it opens no store.
        path: Where the store lies if nobody says so, below the folder the program runs in; None:
            somebody must say so.
        variables: Environment variables that name the path; the first that says something counts.
        calls: What of the API its kind of program is built on.
    """

    name: PresetName
    purpose: str
    settings: Mapping[str, Any]
    calls: tuple[str, ...]
    asked: tuple[str, ...] = ()
    path: str | None = None
    variables: tuple[str, ...] = field(default=(PATH_VARIABLE,))


CAPTURE: Final = Preset(
    name="capture",
    purpose="a program that listens, and stores what it heard without waiting for the disk",
    settings=MappingProxyType({"retention_basis": "completed"}),
    asked=("retention_days",),
    path="docs/sessions",
    calls=(
        "AsyncSessionStore.tell",
        "AsyncReceipt.exception",
        "AsyncSessionStore.load_all",
        "AsyncSessionStore.delete_session",
        "AsyncSessionStore.configure",
        "AsyncSessionStore.enable_persistence",
    ),
)

AGENT: Final = Preset(
    name="agent",
    purpose="conversations with tags and costs that are searched and resumed, for 30 days",
    # A conversation that was completed may be gone on with: its age is that of its last change.
    settings=MappingProxyType({"retention_days": 30, "retention_basis": "updated"}),
    calls=(
        "SessionStore.save_session",
        "SessionStore.append",
        "SessionStore.load_session",
        "SessionStore.search",
        "SessionStore.interrupted_sessions",
        "SessionStore.resume",
        "SessionStore.cleanup",
        "extract_session_id",
        "calculate_cost",
        "count_turns",
    ),
)

HISTORY: Final = Preset(
    name="history",
    purpose="what was done last, listed beside what is under way: 3 days, 100 sessions",
    settings=MappingProxyType(
        {
            "retention_days": 3,
            "max_sessions": 100,
            "cleanup_interval": 3600.0,
            "index_json": True,
        },
    ),
    calls=(
        "SessionStore.save_session",
        "SessionStore.get_recent",
        "SessionStore.merge_recent",
        "SessionStore.cleanup",
        "SessionStore.configure",
        "SessionStore.enable_persistence",
    ),
)

BOT: Final = Preset(
    name="bot",
    purpose="a service that keeps all its sessions in one file and goes on while they are saved",
    settings=MappingProxyType({"layout": "single"}),
    path=".sessions.json",
    variables=("SESSION_STORE_PATH", PATH_VARIABLE),
    calls=(
        "SessionStore.tell",
        "SaveSession",
        "AppendMessages",
        "DeleteSession",
        "SessionStore.clear",
        "SessionStore.flush",
        "SessionStore.close",
    ),
)

RECORDER: Final = Preset(
    name="recorder",
    purpose="one long session at a time, with backups beside it, that outlives its program",
    settings=MappingProxyType({"layout": "rooted", "max_backups": 5, "retention_days": 30}),
    calls=(
        "SessionManager.start_session",
        "SessionManager.annotate",
        "SessionManager.check_auto_save",
        "SessionManager.force_save",
        "SessionManager.recover_session",
        "SessionManager.stop_session",
        "SessionStore.backups",
        "SessionStore.restore",
        "SessionStore.validate_session",
        "SessionStore.stats",
        "transfer.export_session",
        "transfer.import_session",
    ),
)

ALL: Final = (CAPTURE, AGENT, HISTORY, BOT, RECORDER)

NAMES: Final = tuple(preset.name for preset in ALL)


def get(name: str) -> Preset:
    """The preset of that name.

    Raises:
        InvalidConfig: There is none; the error names those there are.
    """
    for preset in ALL:
        if preset.name == name:
            return preset
    raise InvalidConfig(f"there is no preset {name!r}; there are {', '.join(NAMES)}")


def settings(name: str) -> dict[str, Any]:
    """What a preset puts in the place of defaults; `SessionStore.open` takes it as arguments.

    Raises:
        InvalidConfig: There is no preset of that name.
    """
    return dict(get(name).settings)


def path_of(preset: Preset | None, environ: Mapping[str, str]) -> str:
    """Where the store lies if no argument says so.

    Raises:
        InvalidConfig: Nothing says so.
    """
    variables = (PATH_VARIABLE,) if preset is None else preset.variables
    named = next((text for text in map(environ.get, variables) if text), None)
    found = named or (preset and preset.path)
    if not found:
        raise InvalidConfig(
            "no folder was given",
            hint=f"Name it as the first argument, or set {' or '.join(variables)}.",
        )
    return found


def require_asked(preset: Preset, layers: Layers) -> None:
    """Refuse to open a store without the settings that the preset asks for.

    Raises:
        InvalidConfig: One was given nowhere.
    """
    config = layers.config()
    for name in preset.asked:
        if getattr(config, name) is None:
            raise InvalidConfig(
                f"the preset {preset.name!r} wants {name}",
                path=layers.path,
                hint=f"Give it as an argument, or set SESSIONKEEPER_{name.upper()}.",
            )
