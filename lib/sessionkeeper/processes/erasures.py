"""The actor's part in erasing: what has to be over before the caller is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sessionkeeper.processes.checkpointer import Fence

if TYPE_CHECKING:
    from collections.abc import Callable

    from sessionkeeper.engine.catalog import Catalog
    from sessionkeeper.otp import Envelope, ServerRef
    from sessionkeeper.session import Erased


@dataclass(frozen=True, slots=True)
class Scrubbed:
    """To the actor: the index holds nothing of it any more."""

    number: int


class Erasures:
    """Answers whoever asked for an erasure when nobody holds a byte of the session any more.

    The checkpointer may be writing a file of it, which is removed when it is ready; the index
    is cleaned by the indexer. Lives and dies with an incarnation of the actor.

    Args:
        actor: Who is told.
        checkpointer: Who may still be writing; None without a journal.
        catalog: The way into the index; None without one.
    """

    def __init__(
        self,
        actor: Callable[[], ServerRef],
        checkpointer: ServerRef | None,
        catalog: Catalog | None,
    ) -> None:
        self._actor = actor
        self._checkpointer = checkpointer
        self._catalog = catalog
        self._number = 0
        self._waiting: dict[int, tuple[Envelope, Erased]] = {}

    def finish(self, envelope: Envelope, erased: Erased) -> None:
        """Answer this envelope when all is gone."""
        self._number += 1
        self._waiting[self._number] = envelope, erased
        if self._checkpointer is None:
            self.fenced(self._number)
        else:
            self._checkpointer.post(Fence(self._number))

    def checkpointer_is_new(self) -> None:
        """The one before, who was asked, writes nothing any more and answers nothing."""
        for number in list(self._waiting):
            self.fenced(number)

    def fenced(self, number: int) -> None:
        """Nobody writes a file of it any more."""
        if number not in self._waiting:
            return
        _, erased = self._waiting[number]
        if self._catalog is None:
            self.scrubbed(number)
            return
        actor = self._actor()
        self._catalog.scrub(erased.key, lambda: actor.post(Scrubbed(number)))

    def scrubbed(self, number: int) -> None:
        """The index holds nothing of it any more."""
        waiting = self._waiting.pop(number, None)
        if waiting is not None:
            envelope, erased = waiting
            envelope.reply(erased)
