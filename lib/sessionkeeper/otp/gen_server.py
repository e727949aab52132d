"""A server process in the manner of OTP's gen_server, on a Pykka actor.

This is the only module that touches what Pykka reserves for new actor types
(``_create_actor_inbox``, ``_actor_loop``, ``_actor_ref``, ``messages._ActorStop``); everything
else here speaks to `ServerRef` and `Mailbox`.
"""

from __future__ import annotations

import inspect
import logging
import traceback
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from threading import Thread
from typing import TYPE_CHECKING, Any, ClassVar, Final

import pykka
from pykka.messages import ProxyCall, ProxyGetAttr, ProxySetAttr, _ActorStop

from sessionkeeper.otp.errors import ExitReason, Fenced, OtpError, OutcomeUnknown, ServerDown
from sessionkeeper.otp.runtime import HERE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pykka._envelope import Envelope as PykkaEnvelope

    from sessionkeeper.otp.future import Reply
    from sessionkeeper.otp.mailbox import Envelope
    from sessionkeeper.otp.server_ref import ServerRef
    from sessionkeeper.otp.timer import Timer


log = logging.getLogger("sessionkeeper.otp")

_SUSPENDABLE: Final = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


NO_REPLY: Final = object()
"""Returned by ``handle_call``: `GenServer.envelope` will be answered later (OTP's noreply)."""


@dataclass(slots=True, eq=False)
class _Tick:
    """What a timer posts; a periodic one does not post again while its last tick waits."""

    epoch: int
    message: Any
    waiting: bool = False


class GenServer(pykka.ThreadingActor):
    """A process with a mailbox: subclass it and start it with `ServerRef.start`.

    Errors follow "let it crash": an exception that is not among `domain_errors` ends the
    incarnation, after the caller has been told, and a supervisor decides what comes next.
    Nothing that a callback raises, SystemExit and CancelledError included, leaves the thread.

    The callbacks are those of OTP's gen_server, one for one; `handle_turn` and
    `handle_interrupted` are added for servers that commit a group of requests at once.
    """

    use_daemon_thread = True

    turn_limit: ClassVar[int] = 1
    """How many calls and casts one turn may take from the mailbox."""

    domain_errors: ClassVar[tuple[type[Exception], ...]] = ()
    """Errors that are answered to the caller (or logged, for casts) without dying."""

    ref: ServerRef
    """The handle of this server; set before ``__init__`` runs, as is `epoch`."""

    epoch: int
    """1 for the first incarnation, one more for each further start."""

    envelope: Envelope | None = None
    """The envelope being handled, to answer it later; see `NO_REPLY`."""

    # -- callbacks

    def init(self) -> None:
        """Prepare, in the server's own thread; ``start`` returns only after it.

        What it raises becomes a `StartError` of ``start``.
        """

    def handle_continue(self) -> None:
        """Go on preparing after ``start`` has returned, before the first message.

        What it raises is a crash.
        """

    def handle_interrupted(self, envelopes: Sequence[Envelope]) -> None:
        """Settle what the previous incarnation had in flight when it ended.

        Runs after `handle_continue`, before the first turn, if there is any. By default
        calls get `OutcomeUnknown` and casts go to ``on_undelivered``. Override it to answer
        from a journal, or to `requeue` what can be done again. Calls that are left alone
        stay in flight; casts that are left alone count as done.

        Args:
            envelopes: in the order in which they were taken.
        """
        reason = self.ref.last_exit or ExitReason.SHUTDOWN
        for envelope in envelopes:
            if envelope.kind == "cast":
                self.ref.undelivered(envelope.message, reason)
            unknown = OutcomeUnknown(f"{self.ref.name} ended while it was at it: {reason}")
            unknown.__cause__ = reason.exception
            envelope.fail(unknown)

    def handle_call(self, request: Any) -> Any:
        """Answer a request.

        Returns:
            The reply, or `NO_REPLY` if `envelope` will be answered later.
        """
        raise NotImplementedError(
            f"{type(self).__name__} does not answer a {type(request).__name__}"
        )

    def handle_cast(self, request: Any) -> None:
        """Do what nobody waits for."""
        raise NotImplementedError(f"{type(self).__name__} does not do a {type(request).__name__}")

    def handle_info(self, message: Any) -> None:
        """Take any other message: timers, and what foreign code tells the Pykka actor."""
        log.warning("%s does not know what a %s means", self.ref.name, type(message).__name__)

    def handle_turn(self, turn: Sequence[Envelope]) -> None:
        """Do one turn of calls and casts; by default one after the other.

        An override may settle many envelopes after one commit. If it raises, what it has
        neither settled nor requeued goes to the next incarnation's `handle_interrupted`.

        Args:
            turn: up to `turn_limit` envelopes.
        """
        for position, envelope in enumerate(turn):
            self.envelope, kind = envelope, envelope.kind
            handle: Callable[[Any], Any] = self.handle_call
            if kind != "call":
                handle = self.handle_cast if kind == "cast" else self._handle_info
            try:
                value = handle(envelope.message)
                if value is not NO_REPLY:
                    envelope.reply(value)
            except BaseException as error:
                tolerated = isinstance(error, self.domain_errors) and not isinstance(error, Fenced)
                if tolerated or kind != "cast":
                    envelope.fail(error)
                if not tolerated:
                    self.requeue(turn[position + 1 :])
                    raise
                if kind != "call":
                    log.warning("%s: %s failed: %s", self.ref.name, kind, error, exc_info=error)

    def terminate(self, reason: ExitReason) -> None:
        """Clean up; called when the incarnation ends, but not guaranteed to be."""

    # -- for use in callbacks

    @property
    def fenced(self) -> bool:
        """Whether this incarnation was shut out and must not write any more."""
        return self.ref.mailbox.fenced or self.ref.epoch != self.epoch

    def check_fence(self) -> None:
        """Refuse to go on if this incarnation was shut out: call it before each write.

        Raises:
            Fenced: it was.
        """
        if self.fenced:
            raise Fenced(f"incarnation {self.epoch} of {self.ref.name} was shut out")

    def requeue(self, envelopes: Sequence[Envelope]) -> None:
        """Put envelopes of this turn back in front of the mailbox, in their order.

        Those that are settled already are left out.
        """
        self.ref.mailbox.requeue(envelopes)

    def stop(self, reason: ExitReason = ExitReason.NORMAL) -> None:
        """End after the current turn (OTP's ``{stop, Reason, State}``)."""
        if self.epoch == self.ref.epoch:
            self.ref.mailbox.request_stop(reason)

    def send_after(self, seconds: float, message: Any) -> Timer:
        """Deliver `message` to `handle_info` once, `seconds` from now.

        It is dropped if this incarnation has ended by then (Pekko's timers).
        """
        post = partial(self.ref.post, _Tick(self.epoch, message))
        return self.ref.own(self.epoch, self.ref.timers.after(seconds, post))

    def send_interval(self, seconds: float, message: Any) -> Timer:
        """Deliver `message` to `handle_info` each `seconds`, until cancelled or ended.

        A tick is left out while the previous one still waits in the mailbox.
        """
        ref, tick = self.ref, _Tick(self.epoch, message)

        def fire() -> None:
            if not tick.waiting:
                tick.waiting = True
                ref.post(tick)

        return ref.own(self.epoch, ref.timers.every(seconds, fire))

    # -- the thread

    def _actor_loop(self) -> None:
        HERE.ref = self.ref
        try:
            self._end(self._live())
        except BaseException:  # nothing that is raised in this thread may leave it
            log.exception("the last act of %s failed", self.ref.name)
        finally:
            # The traceback of a crash refers to this frame; see _forget_locals.
            del self

    def _live(self) -> ExitReason:
        mailbox = self.ref.mailbox
        try:
            pykka.ActorRegistry.register(self.actor_ref)
            self.init()
            if not self.ref.acknowledge():
                return ExitReason("fenced", "nobody waits for its start any more")
            self.handle_continue()
            interrupted = mailbox.in_flight()
            if interrupted:
                self.handle_interrupted(interrupted)
            self.ref.phase = "ready"
            while not isinstance(turn := mailbox.take(self.turn_limit), ExitReason):
                if turn[0].kind == "info":
                    GenServer.handle_turn(self, turn)
                else:
                    self.handle_turn(turn)
        except BaseException as error:  # noqa: BLE001 - it is what the incarnation dies of
            return ExitReason.crash(error)
        return turn

    def _handle_info(self, message: Any) -> None:
        if type(message) is _Tick:
            message.waiting = False
            if message.epoch != self.epoch:
                return
            message = message.message
        self.handle_info(message)

    def _end(self, reason: ExitReason) -> None:
        name, error = self.ref.name, reason.exception
        try:
            if self.ref.is_up:
                if error is not None:
                    log.error("%s crashed in incarnation %d", name, self.epoch, exc_info=error)
                self.terminate(reason)
        except BaseException as failure:
            reason = reason if reason.is_crash else ExitReason.crash(failure)
            log.exception("%s failed to clean up", name)
        finally:
            # Whatever has failed before, be it the logging of the host: one exit notice.
            pykka.ActorRegistry.unregister(self.actor_ref)
            self.actor_stopped.set()
            _forget_locals(reason.exception)
            self.ref.incarnation_ended(reason)

    # -- Pykka

    @classmethod
    def spawn(cls, ref: ServerRef, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Construct the actor and start its thread; for `ServerRef.start`."""
        server = cls.__new__(cls)
        # The constructor of a subclass may want its handle already.
        server.ref, server.epoch = ref, ref.epoch
        server.__init__(*args, **kwargs)  # type: ignore[misc]  # as type.__call__ does it
        if not hasattr(server, "_actor_ref"):
            hint = "its __init__ must call super().__init__()"
            raise OtpError(f"{cls.__name__} has no mailbox", hint=hint)
        name = f"{ref.name}-{ref.epoch}"
        ref.thread = Thread(target=server._actor_loop, name=name, daemon=cls.use_daemon_thread)  # noqa: SLF001 - its own
        try:
            ref.thread.start()
        except Exception:  # not an interrupt, which comes when it has been started
            ref.thread = None
            raise

    @classmethod
    def start(cls, *_args: Any, **_kwargs: Any) -> Any:
        """Refuse Pykka's way to start an actor: a server needs a handle.

        Raises:
            OtpError: always.
        """
        hint = f"use ServerRef(name).start({cls.__name__})"
        raise OtpError(f"{cls.__name__} was not started", hint=hint)

    def _create_actor_inbox(self) -> _ForeignInbox:  # type: ignore[override]  # only we read it
        if not hasattr(self, "ref"):
            self.start()
        return _ForeignInbox(self.ref)


class _ForeignInbox:
    """What other users of Pykka see: the actor's inbox.

    Pykka's stop is an orderly end of the whole tree that the server belongs to, because
    that is what the host asks for with ``ActorRegistry.stop_all()``. A tell arrives in
    ``handle_info``, an ask in ``handle_call``.
    """

    def __init__(self, ref: ServerRef) -> None:
        self._ref = ref

    def put(self, envelope: PykkaEnvelope[Any], /) -> None:
        ref, message, future = self._ref, envelope.message, envelope.reply_to
        reply: Reply[Any] | None = None
        try:
            if isinstance(message, _ActorStop):
                root = ref
                while root.supervisor is not None:
                    root = root.supervisor
                root.request_drain()
            elif isinstance(message, ProxyCall | ProxyGetAttr | ProxySetAttr):
                raise OtpError(f"{ref.name} has no proxy", hint="use its ServerRef")
            elif future is None:
                ref.send_info(message)
            else:
                reply = ref.send_request(message)
        except ServerDown as error:
            raise pykka.ActorDeadError(f"{ref.name} not found") from error

        def get(timeout: float | None) -> Any:
            if not (ref.join(timeout) if reply is None else reply.wait(timeout)):
                raise pykka.Timeout(f"{timeout} seconds")
            return None if reply is None else reply.result(0)

        if future is not None:
            future.set_get_hook(get)


def _forget_locals(error: BaseException | None) -> None:
    """Free what the frames of a crash hold: the exit reason outlives the incarnation.

    Frames of generators and coroutines are spared: clearing one that is suspended ends it.
    """
    chain = [error] if error else []
    for link in chain:
        chain += [e for e in (link.__cause__, link.__context__) if e and e not in chain]
        for frame, _ in traceback.walk_tb(link.__traceback__):
            if not frame.f_code.co_flags & _SUSPENDABLE:
                # The caller of this server may be raising the same exception right now.
                with suppress(RuntimeError):
                    frame.clear()
