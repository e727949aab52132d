"""How a supervisor starts, restarts and stops one child."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias, get_args

from sessionkeeper.otp.errors import InvalidChildSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sessionkeeper.otp.gen_server import GenServer
    from sessionkeeper.otp.server_ref import ServerRef

Restart = Literal["permanent", "transient", "temporary"]
ChildType = Literal["worker", "supervisor"]
# ChildSpec has a field called type, which hides the builtin from its annotations.
ServerClass: TypeAlias = "type[GenServer]"


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """The specification of a child (OTP's ``child_spec``).

    Attributes:
        id: unique within the supervisor.
        start: starts an incarnation and returns its handle once ``init`` is done, or None
            to be left out (OTP's ``ignore``); raises if it could not.
        restart: ``permanent`` is always restarted, ``transient`` only after a crash,
            ``temporary`` never.
        shutdown: seconds that it may take to stop before it is fenced; None waits for ever
            (right for supervisors), 0 does not wait at all.
        type: what `count_children` counts it as.

    Raises:
        InvalidChildSpec: it makes no sense.
    """

    id: str
    start: Callable[[], ServerRef | None]
    restart: Restart = "permanent"
    shutdown: float | None = 5.0
    type: ChildType = "worker"

    def __post_init__(self) -> None:
        if not _is_name(self.id):
            raise InvalidChildSpec(f"a child's id must be a string that is not empty: {self.id!r}")
        if not callable(self.start):
            raise InvalidChildSpec(f"start of child {self.id!r} cannot be called: {self.start!r}")
        if self.restart not in get_args(Restart):
            raise InvalidChildSpec(f"unknown restart of child {self.id!r}: {self.restart!r}")
        if self.type not in get_args(ChildType):
            raise InvalidChildSpec(f"unknown type of child {self.id!r}: {self.type!r}")
        if self.shutdown is not None and not _is_duration(self.shutdown):
            raise InvalidChildSpec(
                f"shutdown of child {self.id!r} must be seconds or None: {self.shutdown!r}"
            )

    @classmethod
    def server(
        cls,
        id: str,  # noqa: A002 - OTP's name, and that of the field
        ref: ServerRef,
        server_class: ServerClass,
        /,
        *args: Any,
        restart: Restart = "permanent",
        shutdown: float | None = 5.0,
        **kwargs: Any,
    ) -> Self:
        """Return the specification of a server that always has the same handle.

        Args:
            id: unique within the supervisor.
            ref: the handle.
            server_class: what to run.
            args: for its constructor.
            restart: see `ChildSpec`.
            shutdown: see `ChildSpec`.
            kwargs: for its constructor.
        """

        def start() -> ServerRef:
            ref.start(server_class, *args, **kwargs)
            return ref

        return cls(id, start, restart, shutdown)


def _is_name(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _is_duration(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0


def check_children(children: Iterable[ChildSpec]) -> tuple[ChildSpec, ...]:
    """Return the specifications as a tuple (OTP's ``check_childspecs``).

    Raises:
        InvalidChildSpec: one is none at all, or an id occurs twice.
    """
    checked = tuple(children)
    seen: set[str] = set()
    for spec in checked:
        if not isinstance(spec, ChildSpec):
            raise InvalidChildSpec(f"not a child specification: {spec!r}")
        if spec.id in seen:
            raise InvalidChildSpec(f"two children are called {spec.id!r}")
        seen.add(spec.id)
    return checked
