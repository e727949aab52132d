"""Why a server ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, Self

Kind = Literal["normal", "shutdown", "crash", "fenced"]


@dataclass(frozen=True, slots=True)
class ExitReason:
    """Why one incarnation of a server ended (OTP's exit reasons).

    Attributes:
        kind: ``normal`` and ``shutdown`` are orderly; ``crash`` and ``fenced`` are not.
        detail: what happened, for people.
        exception: what the server died of, or the last crash before a supervisor gave up.
    """

    kind: Kind
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

    @classmethod
    def fenced(cls, detail: str, exception: BaseException | None = None) -> Self:
        """Return the end of a server that overslept its shutdown and was shut out."""
        return cls("fenced", detail, exception)

    @property
    def is_crash(self) -> bool:
        """Whether a transient child is restarted for it."""
        return self.kind in {"crash", "fenced"}

    def __str__(self) -> str:
        return f"{self.kind} ({self.detail})" if self.detail else self.kind


ExitReason.NORMAL = ExitReason("normal")
ExitReason.SHUTDOWN = ExitReason("shutdown")
