"""The checkpointer: prepares and syncs files beside the actor, which alone renames them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sessionkeeper.otp import GenServer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sessionkeeper.otp import ServerRef
    from sessionkeeper.storage.checkpoints import Checkpoint
    from sessionkeeper.storage.folder import Staged
    from sessionkeeper.storage.journaled import JournaledBackend


class Arrived:
    """To the actor: a new checkpointer is there, and knows of no checkpoint."""


@dataclass(frozen=True, slots=True)
class Prepare:
    """To the checkpointer: write new files for the sessions that are behind."""

    checkpoint: Checkpoint


@dataclass(frozen=True, slots=True)
class Publish:
    """To the actor: these files are ready to be renamed."""

    checkpoint: Checkpoint
    prepared: Sequence[Staged]


@dataclass(frozen=True, slots=True)
class Prepared:
    """To the actor: there are no more."""

    checkpoint: Checkpoint


@dataclass(frozen=True, slots=True)
class Settle:
    """To the checkpointer: make files and names durable."""

    checkpoint: Checkpoint


@dataclass(frozen=True, slots=True)
class Settled:
    """To the actor: that is done, or the medium refused it."""

    checkpoint: Checkpoint
    error: OSError | None


@dataclass(frozen=True, slots=True)
class Fence:
    """To the checkpointer, and back: all that was ordered before this is done."""

    number: int


class Checkpointer(GenServer):
    """Does the slow parts of a checkpoint in a thread of its own.

    It keeps nothing between two messages, so a crash of it, or of the actor, loses no more than
    the checkpoint under way.

    Args:
        backend: Whose files they are.
        actor: Who renames them.
    """

    def __init__(self, backend: JournaledBackend, actor: ServerRef) -> None:
        super().__init__()
        self._backend = backend
        self._actor = actor

    def handle_continue(self) -> None:
        """Tell the actor, who may be waiting for the one before."""
        self._actor.post(Arrived())

    def handle_info(self, message: Any) -> None:
        """Take the actor's orders."""
        match message:
            case Prepare(checkpoint):
                self._prepare(checkpoint)
            case Settle(checkpoint):
                self._settle(checkpoint)
            case Fence():
                self._actor.post(message)
            case _:
                super().handle_info(message)

    def _prepare(self, checkpoint: Checkpoint) -> None:
        try:
            for group in checkpoint.groups():
                prepared = self._backend.prepare(checkpoint, group)
                self._actor.post(Publish(checkpoint, prepared))
        except OSError as error:
            self._actor.post(Settled(checkpoint, error))
        else:
            self._actor.post(Prepared(checkpoint))

    def _settle(self, checkpoint: Checkpoint) -> None:
        failure: OSError | None = None
        try:
            self._backend.settle(checkpoint)
        except OSError as error:
            failure = error
        self._actor.post(Settled(checkpoint, failure))
