"""The actor's part in checkpoints: when one begins, what it renames, who waits for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sessionkeeper.errors import PersistenceOff, SessionKeeperError, StorageFailed
from sessionkeeper.events import Event, logger
from sessionkeeper.processes.checkpointer import (
    Arrived,
    Prepare,
    Prepared,
    Publish,
    Settle,
    Settled,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sessionkeeper.otp import Envelope, ServerRef
    from sessionkeeper.storage.checkpoints import Checkpoint
    from sessionkeeper.storage.folder import Staged
    from sessionkeeper.storage.journaled import JournaledBackend


class CheckpointDue:
    """The timer's word for: begin a checkpoint unless one is under way."""


CheckpointMessage = CheckpointDue | Arrived | Publish | Prepared | Settled

# Above so many times `checkpoint_bytes` writers wait until the journal is shorter.
HARD_BOUND = 2


class Checkpoints:
    """Drives one checkpoint at a time; lives and dies with an incarnation of the actor.

    Args:
        backend: Whose journal is to be freed.
        checkpointer: Who does the slow parts.
        limit: Bytes of live journal that begin a checkpoint.
        publish_event: Where events go.
        suspect: Called with names of files that are not as last published.
        paused: Whether none is to be begun until `resume`.
    """

    def __init__(
        self,
        backend: JournaledBackend,
        checkpointer: ServerRef,
        limit: int,
        publish_event: Callable[[Event], None],
        suspect: Callable[[Sequence[str]], object],
        *,
        paused: bool = False,
    ) -> None:
        self._backend = backend
        self._checkpointer = checkpointer
        self._limit = limit
        self._publish_event = publish_event
        self._suspect = suspect
        self._current: Checkpoint | None = None
        # Those whom the current one serves, and those who came when it had begun.
        self._served: list[Envelope] = []
        self._waiting: list[Envelope] = []
        self._paused = paused

    def pause(self) -> None:
        """Bring all files up to date, if the medium takes it, and begin none from now on."""
        self._paused = True
        self.overtake()
        try:
            done = self._backend.checkpoint(full=True)
        except SessionKeeperError as error:
            logger.warning("a checkpoint failed, the journal keeps everything: %s", error)
            done = False
        waiting, self._waiting = self._waiting, []
        for envelope in waiting:
            if done:
                envelope.reply(None)
            else:
                envelope.fail(StorageFailed("the medium refused a checkpoint"))

    def resume(self) -> None:
        """Go on as before; the journal may have become long at once."""
        self._paused = False
        self.after_commit()

    def wait(self, envelope: Envelope) -> None:
        """Answer this envelope when all files are current and durable."""
        if self._paused:
            envelope.fail(PersistenceOff("files cannot be brought up to date now"))
            return
        self._waiting.append(envelope)
        self.begin()

    def begin(self) -> None:
        """Begin a checkpoint unless one is under way, or none is to be."""
        if self._current is not None or self._paused:
            return
        self._served, self._waiting = self._waiting, []
        checkpoint = self._backend.begin_checkpoint(full=bool(self._served))
        if checkpoint is None:
            self._answer(None)
            return
        self._current = checkpoint
        self._checkpointer.post(Prepare(checkpoint))

    def overtake(self) -> None:
        """Forget the checkpoint under way; whoever waits for it waits for the next."""
        self._current = None
        self._waiting = [*self._served, *self._waiting]
        self._served = []

    def limit_to(self, live_bytes: int) -> None:
        """From now on so many bytes of live journal begin a checkpoint."""
        self._limit = live_bytes

    def after_commit(self) -> None:
        """Keep the live journal within its bounds."""
        if self._paused:
            return
        live = self._backend.live_bytes
        if live > HARD_BOUND * self._limit:
            # Here and now: whoever wants to write has to wait.
            self._current = None
            try:
                done = self._backend.checkpoint(full=True)
            except SessionKeeperError as error:
                logger.warning("the journal could not be freed: %s", error)
            else:
                self._ended(None if done else StorageFailed("the medium refused a checkpoint"))
        elif live > self._limit:
            self.begin()

    def handle(self, message: CheckpointMessage) -> None:
        """Take the timer's or the checkpointer's word."""
        match message:
            case CheckpointDue():
                self.begin()
            case Arrived():
                # What the one before was at will never be done.
                self.overtake()
                self.begin()
            case Publish(checkpoint, prepared):
                self._publish(checkpoint, prepared)
            case Prepared(checkpoint):
                self._carry(checkpoint)
            case Settled(checkpoint, error):
                self._finish(checkpoint, error)

    def _publish(self, checkpoint: Checkpoint, prepared: Sequence[Staged]) -> None:
        if checkpoint is not self._current:
            self._backend.discard(prepared)
            return
        suspects = self._backend.publish(prepared)
        if suspects:
            self._suspect(suspects)

    def _carry(self, checkpoint: Checkpoint) -> None:
        if checkpoint is not self._current:
            return
        try:
            self._backend.carry(checkpoint)
        except SessionKeeperError as error:
            self._current = None
            self._ended(error)
        else:
            self._checkpointer.post(Settle(checkpoint))

    def _finish(self, checkpoint: Checkpoint, error: OSError | None) -> None:
        if checkpoint is not self._current:
            return
        self._current = None
        try:
            self._backend.finish(checkpoint, settled=error is None)
        except SessionKeeperError as failure:
            self._ended(failure)
            return
        refusal = f"the medium refused a checkpoint: {error}"
        self._ended(None if error is None else StorageFailed(refusal))

    def _ended(self, error: SessionKeeperError | None) -> None:
        if error is None:
            self._publish_event(Event("checkpointed", None, "all files are current and durable"))
        else:
            logger.warning("a checkpoint failed, the journal keeps everything: %s", error)
        self._answer(error)
        if self._waiting:
            self.begin()

    def _answer(self, error: SessionKeeperError | None) -> None:
        served, self._served = self._served, []
        for envelope in served:
            if error is None:
                envelope.reply(None)
            else:
                envelope.fail(error)
