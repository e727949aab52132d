"""The actor's part in erasing: what has to be over before the caller is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sessionkeeper.processes.checkpointer import Fence

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sessionkeeper.answers import Erased
    from sessionkeeper.engine.backlog import Backlog
    from sessionkeeper.otp import Envelope, ServerRef


@dataclass(frozen=True, slots=True)
class Scrubbed:
    """To the actor: an index holds nothing of it any more."""

    number: int


class Erasures:
    """Answers whoever asked for an erasure when nobody holds a byte of the session any more.

    The checkpointer may be writing a file of it, which is removed when it is ready; the indices
    are cleaned by their writers. Lives and dies with an incarnation of the actor.

    Args:
        actor: Who is told.
        checkpointer: Who may still be writing; None without a journal.
        backlogs: The ways into the index and the text index; none without these.
    """

    def __init__(
        self,
        actor: Callable[[], ServerRef],
        checkpointer: ServerRef | None,
        backlogs: Sequence[Backlog],
    ) -> None:
        self._actor = actor
        self._checkpointer = checkpointer
        self._backlogs = backlogs
        self._number = 0
        self._waiting: dict[int, tuple[Envelope, Erased]] = {}
        # How many indices hold something of it still.
        self._unclean: dict[int, int] = {}

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
        if number in self._unclean:
            return
        self._unclean[number] = len(self._backlogs)
        if not self._backlogs:
            self._answer(number)
        actor = self._actor()
        for backlog in self._backlogs:
            backlog.scrub(erased.key, lambda: actor.post(Scrubbed(number)))

    def scrubbed(self, number: int) -> None:
        """One index holds nothing of it any more."""
        if number in self._unclean:
            self._unclean[number] -= 1
            if not self._unclean[number]:
                self._answer(number)

    def _answer(self, number: int) -> None:
        del self._unclean[number]
        waiting = self._waiting.pop(number, None)
        if waiting is not None:
            envelope, erased = waiting
            envelope.reply(erased)
