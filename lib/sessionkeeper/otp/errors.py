"""Errors of the supervision floor: each says what to do about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from sessionkeeper.otp.exit_reason import ExitReason


class OtpError(Exception):
    """Base of every error raised here.

    Args:
        message: what happened.
        hint: what to do about it; each class has a default.
    """

    default_hint: ClassVar[str] = "see the log of sessionkeeper.otp for what led to it"

    def __init__(self, message: str = "", *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = self.default_hint if hint is None else hint

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.message else self.hint


class Busy(OtpError):
    """The mailbox stayed full for the whole wait; nothing was queued."""

    default_hint = "nothing was queued: slow down, wait longer or raise max_messages/max_bytes"


class CallTimeout(OtpError, TimeoutError):
    """No reply came in time.

    Attributes:
        executed: False if the request was withdrawn before execution (safe to retry),
            None if it was executing and may or may not take effect.
    """

    default_hint = "retry if .executed is False; otherwise find out first what happened"

    def __init__(
        self, message: str = "", *, executed: bool | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.executed = executed


class ServerDown(OtpError):
    """The server has ended for good.

    Attributes:
        executed: False if the request was never executed, None if that is not known.
        reason: why the server ended, if known.
    """

    default_hint = "it will not come back by itself: start a new one"

    def __init__(
        self,
        message: str = "",
        *,
        executed: bool | None = False,
        reason: ExitReason | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.executed = executed
        self.reason = reason


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
