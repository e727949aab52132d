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
