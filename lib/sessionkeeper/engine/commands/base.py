"""What a command is: checked and encoded in the caller's thread, applied by the actor."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast

from sessionkeeper.keys import key_of

if TYPE_CHECKING:
    from sessionkeeper.engine.apply import Transaction
    from sessionkeeper.engine.values import Values

R_co = TypeVar("R_co", covariant=True)

# A prepared command costs the mailbox this much beside its payload.
BASE_SIZE: Final = 256

# The fields of prepared commands that name sessions.
_NAMES: Final = frozenset({"session_id", "new_id"})

ABSENT: Final = 0
"""As `expected_generation`: the session must not exist yet."""


class Command(ABC, Generic[R_co]):
    """Something the store can be asked to do; `R_co` is the type of the answer."""

    def converted(self, values: Values) -> Command[R_co]:
        """The command with the application's values made ready for encoding."""
        del values
        return self

    @abstractmethod
    def prepare(self) -> Prepared[R_co]:
        """Check and encode, in the caller's thread.

        Raises:
            TypeError: An argument of the wrong type.
            InvalidSessionId: The id cannot name a session.
            InvalidValue: A value that JSON would not give back equal.
        """


class Prepared(ABC, Generic[R_co]):
    """A command with everything encoded, ready for the mailbox.

    What it names sessions by are keys, see `keys`.
    """

    def size(self) -> int:
        """What it weighs in the mailbox, in bytes."""
        return BASE_SIZE

    def concerns(self) -> str | None:
        """The one session it changes, or None."""
        return None

    def within(self, namespace: str) -> Prepared[R_co]:
        """The same to the sessions of another namespace than the default one."""
        whole = cast("Any", self)  # all of them are dataclasses
        named = [field.name for field in fields(whole) if field.name in _NAMES]
        keys = {name: key_of(namespace, getattr(self, name)) for name in named}
        moved: Prepared[R_co] = replace(whole, **keys)
        return moved

    def idempotency_key(self) -> str | None:
        """The key its caller gave it, or None."""
        return None

    @abstractmethod
    def apply(self, transaction: Transaction, request_id: str) -> R_co:
        """Enter the changes into the transaction and return the answer; nothing is written yet.

        Raises:
            SessionKeeperError: The command is refused; the transaction is as before.
        """


@dataclass(frozen=True)
class Within(Command[R_co]):
    """A command for the sessions of a namespace.

    Attributes:
        namespace: Which; not the default one.
        command: What is to be done there.
    """

    namespace: str
    command: Command[R_co]

    def converted(self, values: Values) -> Within[R_co]:
        """See `Command.converted`."""
        return Within(self.namespace, self.command.converted(values))

    def prepare(self) -> Prepared[R_co]:
        """See `Command.prepare`."""
        return self.command.prepare().within(self.namespace)
