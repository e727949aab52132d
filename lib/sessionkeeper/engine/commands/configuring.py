"""Changing the settings of an open store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sessionkeeper.engine.commands.base import Command, Prepared
from sessionkeeper.settings import known

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sessionkeeper.engine.apply import Transaction


@dataclass(frozen=True)
class Configure(Command[None], Prepared[None]):
    """Change settings, behind the commands sent before and ahead of those sent after.

    Attributes:
        changes: The new values, by name.
    """

    changes: Mapping[str, Any]

    def prepare(self) -> Configure:
        """See `Command.prepare`."""
        for name in self.changes:
            if name not in known():
                raise TypeError(f"unknown setting {name!r}; known are {', '.join(known())}")
        return Configure(dict(self.changes))

    def apply(self, transaction: Transaction, request_id: str) -> None:
        """See `Prepared.apply`; the actor changes them."""
        del transaction, request_id


@dataclass(frozen=True)
class EnablePersistence(Command[None], Prepared[None]):
    """Switch persistence on or off, between the commands sent before and those sent after.

    Attributes:
        enabled: Whether changes are stored from now on.
    """

    enabled: bool = True

    def prepare(self) -> EnablePersistence:
        """See `Command.prepare`."""
        if type(self.enabled) is not bool:
            raise TypeError(f"enabled must be True or False, not {self.enabled!r}")
        return self

    def apply(self, transaction: Transaction, request_id: str) -> None:
        """See `Prepared.apply`; the actor switches."""
        del transaction, request_id


def without_persistence(settings: Mapping[str, Any]) -> tuple[dict[str, Any], bool | None]:
    """The settings that `Configure` takes, and whether persistence is to be on; None: unsaid."""
    rest = dict(settings)
    return rest, rest.pop("persistence", None)
