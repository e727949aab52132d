"""Why servers end, and the errors of the supervision floor: each says what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, Self


@dataclass(frozen=True, slots=True)
class ExitReason:
    """Why one incarnation of a server ended (OTP's exit reasons).

    Attributes:
        kind: ``normal`` and ``shutdown`` are orderly; ``crash`` and ``fenced`` are not.
        detail: what happened, for people.
        exception: what the server died of, or the last crash before a supervisor gave up.
    """

    kind: Literal["normal", "shutdown", "crash", "fenced"]
    detail: str = ""
    exception: BaseException | None = None

    NORMAL: ClassVar[ExitReason]
    SHUTDOWN: ClassVar[ExitReason]

    @classmethod
    def shutdown(cls, detail: str, exception: BaseException | None = None) -> Self:
        """Return an orderly end with an explanation (OTP's ``{shutdown, Term}``)."""
        return cls("shutdown", detail, exception)

    @classmethod
    def crash(cls, exception: BaseException) -> Self:
        """Return the end of a server that died of `exception`."""
        return cls("crash", f"{type(exception).__name__}: {exception}", exception)

    @property
    def is_crash(self) -> bool:
        """Whether a transient child is restarted for it."""
        return self.kind in {"crash", "fenced"}

    def __str__(self) -> str:
        return f"{self.kind} ({self.detail})" if self.detail else self.kind


ExitReason.NORMAL = ExitReason("normal")
ExitReason.SHUTDOWN = ExitReason("shutdown")


class OtpError(Exception):
    """Base of every error raised here.

    Args:
        message: what happened.
        hint: what to do about it; each class has a default.
        executed: see the attribute.
        reason: see the attribute.

    Attributes:
        executed: False if the request was surely never executed and is safe to retry, None if
            it may or may not take effect.
        reason: why the server ended, if it has and that is known.
    """

    default_hint: ClassVar[str] = "see the log of sessionkeeper.otp for what led to it"

    def __init__(
        self,
        message: str = "",
        *,
        hint: str | None = None,
        executed: bool | None = None,
        reason: ExitReason | None = None,
    ) -> None:
        super().__init__(message)
        self.hint = self.default_hint if hint is None else hint
        self.executed = executed
        self.reason = reason

    def __str__(self) -> str:
        return "; ".join(filter(None, (super().__str__(), self.hint)))


class Busy(OtpError):
    """The mailbox stayed full for the whole wait; nothing was queued."""

    default_hint = "nothing was queued: slow down, wait longer or raise max_messages/max_bytes"


class CallTimeout(OtpError, TimeoutError):
    """No reply came in time; `executed` tells whether it was withdrawn before execution."""

    default_hint = "retry if .executed is False; otherwise find out first what happened"


class ServerDown(OtpError):
    """The server has ended for good."""

    default_hint = "it will not come back by itself: start a new one"


class OutcomeUnknown(OtpError):
    """The request was executing when its server crashed; it may or may not have taken effect."""

    default_hint = "find out what happened before sending it again"


class StartError(OtpError):
    """The server did not start; the cause is chained."""

    default_hint = "the cause is chained; nothing was left running"


class InvalidChildSpec(OtpError, ValueError):
    """A child specification, or an option of a supervisor, makes no sense."""

    default_hint = "correct the specification"


class Fenced(OtpError):
    """This incarnation was shut out after it overslept its shutdown; it must not write."""

    default_hint = "return at once: a successor may own what you are about to touch"


class ForkedError(OtpError):
    """A handle of the parent process was used in a forked child, where its threads are gone."""

    default_hint = "open a new one in the child, or start processes with spawn"


class SelfCall(OtpError):
    """A server called itself and would have waited for itself for ever."""

    default_hint = "call the method directly, or use cast or send_info"
