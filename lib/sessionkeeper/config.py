"""All settings of a store, validated once and handed to every part."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, get_args

from sessionkeeper.errors import InvalidConfig
from sessionkeeper.layout import LayoutName
from sessionkeeper.session import Basis

if TYPE_CHECKING:
    from pathlib import Path

Durability = Literal["journal", "file", "os", "memory"]
Recovery = Literal["fallback", "strict", "report"]
MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The settings of one store. Times are seconds unless the name says days.

    Attributes:
        path: The store's folder, or its single file, absolute.
        layout: `flat`; `rooted` for sessions/ and backups/ side by side; or `single` for all
            sessions in one file, up to 10,000 of them and 64 MiB, for each change writes it anew.
            Its backups are the files replaced last, and `path` may name the file itself.
        durability: `journal`: a change is answered when it is durable in the journal. `file`:
            after its own file's fsync, rename and directory fsync. `os`: when the system has it;
            the journal is synced every second. `memory`: nothing touches the disk. The layout
            `single` has no journal: there the first three all mean `file`.
        persistence: False is `durability="memory"`, as a switch.
        recovery: `fallback`: what is damaged is set aside, and the newest valid version brought
            back. `strict`: a store of which anything is damaged is not opened, nor changed.
            `report`: what is damaged stays where it is and is refused, the rest is served.
        retention_days: Sessions older than this are trashed by the cleanup; None keeps for ever.
        retention_basis: What the age counts from: `completed`, the completion, or the last change
            while there is none; `updated`, the last change; `created`, the first save.
        max_sessions: Sessions beyond this number are trashed, oldest change first; None: no limit.
        max_session_size: Bytes of messages and state that one session may have; None: no limit.
        cleanup_interval: How often the actor's timer runs the cleanup.
        trash_days: The grace of a deleted session before it is purged.
        cache_ttl: How long a session stays in the cache after it was last written or read in.
        cache_bytes: The bound of the cache; larger sessions bypass it.
        max_records: So many sessions' metadata stay in memory, and of those that are changing;
            the others are looked up in the index. With `full_text=True` all do.
        call_timeout: How long a call waits for its answer.
        max_pending: How many changes may wait in the mailbox.
        max_pending_bytes: How many encoded bytes may wait in the mailbox.
        max_restarts: How many crashes within `max_seconds` are survived.
        max_seconds: The window of `max_restarts`.
        max_backups: How many replaced versions of each session are kept; 0 for none.
        checkpoint_interval: How often session files that are behind are brought up to date.
        checkpoint_bytes: How much live journal does so earlier; at twice as much writers wait.
        watch: Whether files changed by hand are noticed while the store is open.
        reconcile_interval: How often the folder is compared with what is known, because lost
            notifications leave no trace.
        index_json: Whether `.sessionkeeper/index.json` lists the sessions for other programs. The
            store never goes by it; above 10,000 sessions there is none.
        full_text: Whether the text of messages can be searched. It is kept in an index of its
            own, `.sessionkeeper/text.db`; switched off, that is removed.
    """

    path: Path
    layout: LayoutName = "flat"
    durability: Durability = "journal"
    persistence: bool = True
    recovery: Recovery = "fallback"
    retention_days: float | None = None
    retention_basis: Basis = "completed"
    max_sessions: int | None = None
    max_session_size: int | None = None
    cleanup_interval: float = 3600.0
    trash_days: float = 7.0
    cache_ttl: float = 300.0
    cache_bytes: int = 64 * MIB
    max_records: int = 20_000
    call_timeout: float = 5.0
    max_pending: int = 10_000
    max_pending_bytes: int = 64 * MIB
    max_restarts: int = 5
    max_seconds: float = 30.0
    max_backups: int = 5
    checkpoint_interval: float = 30.0
    checkpoint_bytes: int = 64 * MIB
    watch: bool = True
    reconcile_interval: float = 60.0
    index_json: bool = False
    full_text: bool = False

    def __post_init__(self) -> None:
        for name in ("retention_days", "max_sessions", "max_session_size"):
            if getattr(self, name) is not None:
                _positive(name, getattr(self, name), whole=name != "retention_days")
        for name in (
            "cleanup_interval",
            "trash_days",
            "cache_ttl",
            "call_timeout",
            "max_seconds",
            "reconcile_interval",
            "checkpoint_interval",
        ):
            _positive(name, getattr(self, name), whole=False)
        for name in (
            "cache_bytes",
            "max_records",
            "max_pending",
            "max_pending_bytes",
            "checkpoint_bytes",
        ):
            _positive(name, getattr(self, name), whole=True)
        for name in ("max_restarts", "max_backups"):
            value = getattr(self, name)
            if type(value) is not int or value < 0:
                raise InvalidConfig(f"{name} must be 0 or more, not {value!r}")
        for name in ("persistence", "watch", "index_json", "full_text"):
            if type(getattr(self, name)) is not bool:
                raise InvalidConfig(f"{name} must be True or False, not {getattr(self, name)!r}")
        _one_of("layout", self.layout, get_args(LayoutName))
        _one_of("durability", self.durability, get_args(Durability))
        _one_of("retention_basis", self.retention_basis, get_args(Basis))
        _one_of("recovery", self.recovery, get_args(Recovery))

    @property
    def in_memory(self) -> bool:
        """Whether nothing touches the disk."""
        return self.durability == "memory" or not self.persistence

    @classmethod
    def of(cls, path: Path, settings: dict[str, Any]) -> Config:
        """A config from keyword arguments; an unknown one is a TypeError that names the known."""
        known = [f.name for f in fields(cls) if f.name != "path"]
        unknown = sorted(set(settings) - set(known))
        if unknown:
            raise TypeError(f"unknown setting {unknown[0]!r}; known are {', '.join(known)}")
        return cls(path=path, **settings)


def _positive(name: str, value: object, *, whole: bool) -> None:
    kind = "whole number" if whole else "number"
    allowed: tuple[type, ...] = (int,) if whole else (int, float)
    if type(value) not in allowed:
        raise InvalidConfig(f"{name} must be a {kind} above 0, not {value!r}")
    if not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
        raise InvalidConfig(f"{name} must be a finite {kind} above 0, not {value!r}")


def _one_of(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InvalidConfig(f"{name} must be one of {', '.join(choices)}, not {value!r}")
