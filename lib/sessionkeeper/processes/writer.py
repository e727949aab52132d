"""What the processes have in common that write into the databases that queries read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Final

from sessionkeeper.events import Event, logger
from sessionkeeper.otp import GenServer
from sessionkeeper.storage.database import IndexFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sessionkeeper.engine.backlog import Backlog
    from sessionkeeper.storage.database import Database

# Seconds in which changes are collected, unless somebody waits for them: a session that changes
# again and again is written once.
COLLECT = 0.05

# Seconds that closing spends at most on what is not written yet; it is found again.
FINISH = 5.0

# Seconds until a database that cannot be written is tried again.
RETRY = 30.0

ENDED: Final = object()


class Look:
    """To a writer: somebody waits, or there is much to write."""


class LookSoon:
    """To a writer: there is something to write, and nobody waits for it."""


class GoOn:
    """A word of a writer to itself: there is more to do."""


class Writing(ABC):
    """What a writer does, piece by piece; belongs to the root, so that closing can end it.

    Args:
        backlog: What is to be written.
        database: Where.
        tell: Where events go.
    """

    NAME: ClassVar[str]

    def __init__(
        self,
        backlog: Backlog,
        database: Database,
        tell: Callable[[Event], None],
    ) -> None:
        self._backlog = backlog
        self._database = database
        self._tell = tell
        self._comparison: Iterator[None] = iter(())
        self._failures = 0

    def step(self) -> bool:
        """Do one piece of work.

        Returns:
            Whether there is more to do now.

        Raises:
            IndexFailed: The database cannot be used; it is to be tried again after a while.
        """
        with self._backlog.writing:
            if self._backlog.paused:
                self._comparison = iter(())
                return False
            return self._tried()

    def _tried(self) -> bool:
        try:
            return self._step()
        except Exception as error:
            # Whatever it is: an index that cannot be written must not bring the store down.
            self._backlog.give_up()
            self._comparison = iter(())
            self._failures += 1
            if not isinstance(error, IndexFailed):
                logger.exception("%s was given up", self.NAME)
            elif error.passing:
                raise
            detail = f"{self.NAME} is made anew: {error}"
            self._tell(Event("damaged", None, detail, self._database.path))
            self._lost()
            self._database.discard()
            if self._failures > 1:
                raise IndexFailed(f"it failed again: {error}") from error
            return True

    @abstractmethod
    def _lost(self) -> None:
        """What the database held is of no use any more."""

    @abstractmethod
    def _step(self) -> bool:
        """See `step`."""


class Writer(GenServer):
    """Writes in a thread of its own what was published.

    It keeps nothing that could be lost: what another incarnation had taken and not written is
    found by comparing the database with the view, with which each begins.

    Args:
        writing: What it does.
        backlog: Wakes it.
    """

    def __init__(self, writing: Writing, backlog: Backlog) -> None:
        super().__init__()
        self._writing = writing
        self._backlog = backlog
        self._going_on = False

    def handle_continue(self) -> None:
        """Compare the database with what there is, as soon as that is known."""
        ref = self.ref
        self._backlog.attend(lambda urgent: ref.post(Look() if urgent else LookSoon()))
        self._go()

    def handle_info(self, message: Any) -> None:
        """Take the backlog's word, or its own."""
        match message:
            case LookSoon():
                self.send_after(COLLECT, Look())
            case Look():
                if not self._going_on:
                    self._go()
            case GoOn():
                self._go()
            case _:
                super().handle_info(message)

    def _go(self) -> None:
        self._going_on = False
        try:
            self._going_on = self._writing.step()
        except IndexFailed as error:
            logger.warning("%s cannot be written now: %s", self._writing.NAME, error)
            self.send_after(RETRY, Look())
        if self._going_on:
            self.ref.post(GoOn())
