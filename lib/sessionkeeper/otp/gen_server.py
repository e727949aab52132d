"""A server process in the manner of OTP's gen_server, on a Pykka actor.

This is the only module that touches what Pykka reserves for new actor types
(``_create_actor_inbox``, ``_start_actor_loop``, ``_actor_loop``, ``_actor_ref``,
``messages._ActorStop``); everything else here speaks to `ServerRef` and `Mailbox`.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import traceback
from collections import deque
from threading import Thread
from typing import TYPE_CHECKING, Any, ClassVar, Final

import pykka
from pykka.messages import ProxyCall, ProxyGetAttr, ProxySetAttr, _ActorStop

from sessionkeeper.otp.errors import Fenced, ForkedError, OtpError, OutcomeUnknown, ServerDown
from sessionkeeper.otp.exit_reason import ExitReason
from sessionkeeper.otp.incarnation import HERE
from sessionkeeper.otp.mailbox import Envelope, Tick

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pykka._envelope import Envelope as PykkaEnvelope

    from sessionkeeper.otp.future import Reply
    from sessionkeeper.otp.incarnation import Incarnation
    from sessionkeeper.otp.server_ref import ServerRef
    from sessionkeeper.otp.timer import Timer

log = logging.getLogger("sessionkeeper.otp")


_SUSPENDABLE: Final = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


class _NoReply:
    def __repr__(self) -> str:
        return "NO_REPLY"


NO_REPLY: Final = _NoReply()
"""Returned by ``handle_call``: `GenServer.envelope` will be answered later (OTP's noreply)."""


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

    incarnation: Incarnation
    """What this server shares with its handle; set before ``__init__`` runs."""

    _envelope: Envelope | None = None

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
            if envelope.reply_to is not None:
                unknown = OutcomeUnknown(f"{self.ref.name} ended while it was at it: {reason}")
                unknown.__cause__ = reason.exception
                envelope.fail(unknown)
            else:
                envelope.reply()
                self.ref.undelivered(envelope.message, reason)

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
            self._envelope = envelope
            try:
                if envelope.reply_to is None:
                    self.handle_cast(envelope.message)
                    envelope.reply()
                else:
                    value = self.handle_call(envelope.message)
                    if value is not NO_REPLY:
                        envelope.reply(value)
            except BaseException as error:
                if self._is_domain_error(error):
                    if envelope.reply_to is None:
                        log.warning("%s failed a cast: %s", self.ref.name, error, exc_info=error)
                    envelope.fail(error)
                    continue
                if envelope.reply_to is not None:
                    envelope.fail(error)
                self.requeue(turn[position + 1 :])
                raise

    def terminate(self, reason: ExitReason) -> None:
        """Clean up; called when the incarnation ends, but not guaranteed to be."""

    # -- for use in callbacks

    @property
    def ref(self) -> ServerRef:
        """The handle of this server."""
        return self.incarnation.ref

    @property
    def epoch(self) -> int:
        """1 for the first incarnation, one more for each further start."""
        return self.incarnation.epoch

    @property
    def envelope(self) -> Envelope | None:
        """The envelope being handled, to answer it later; see `NO_REPLY`."""
        return self._envelope

    @property
    def fenced(self) -> bool:
        """Whether this incarnation was shut out and must not write any more."""
        return self.incarnation.fenced

    def check_fence(self) -> None:
        """Refuse to go on if this incarnation was shut out: call it before each write.

        Raises:
            Fenced: it was.
        """
        self.incarnation.check_fence()

    def requeue(self, envelopes: Sequence[Envelope]) -> None:
        """Put envelopes of this turn back in front of the mailbox, in their order."""
        self.ref.mailbox.requeue(envelopes)

    def stop(self, reason: ExitReason = ExitReason.NORMAL) -> None:
        """End after the current turn (OTP's ``{stop, Reason, State}``)."""
        self.ref.mailbox.request_stop(self.epoch, reason)

    def send_after(self, seconds: float, message: Any) -> Timer:
        """Deliver `message` to `handle_info` once, `seconds` from now.

        It is dropped if this incarnation has ended by then (Pekko's timers).
        """
        tick = Tick(self.epoch, message)
        timer = self.ref.timers.after(seconds, lambda: self.ref.post(tick))
        self.incarnation.own(timer)
        return timer

    def send_interval(self, seconds: float, message: Any) -> Timer:
        """Deliver `message` to `handle_info` each `seconds`, until cancelled or ended.

        A tick is left out while the previous one still waits in the mailbox.
        """
        tick = Tick(self.epoch, message)

        def fire() -> None:
            if not tick.waiting:
                tick.waiting = True
                self.ref.post(tick)

        timer = self.ref.timers.every(seconds, fire)
        self.incarnation.own(timer)
        return timer

    # -- the thread

    def _actor_loop(self) -> None:
        incarnation = self.incarnation
        HERE.incarnation = incarnation
        try:
            failure = self._begin()
            if failure is None and incarnation.acknowledge():
                reason = self._live()
                try:
                    reason = self._end(reason)
                finally:
                    # Whatever fails before, be it the logging of the host: one exit notice.
                    incarnation.finish(reason)
            else:
                try:
                    self._unregister()
                finally:
                    incarnation.abandon(failure)
        except BaseException:  # nothing that is raised in this thread may leave it
            log.exception("the last act of %s failed", incarnation.ref.name)
        finally:
            # The traceback of a crash refers to this frame; see _forget_locals.
            del self

    def _begin(self) -> BaseException | None:
        try:
            self.init()
        except BaseException as error:  # noqa: BLE001 - the starter gets it
            return error
        return None

    def _end(self, reason: ExitReason) -> ExitReason:
        error = reason.exception
        try:
            if error is not None:
                log.error("%s crashed in incarnation %d", self.ref.name, self.epoch, exc_info=error)
            self.terminate(reason)
        except BaseException as failure:
            reason = reason if reason.is_crash else ExitReason.crash(failure)
            log.exception("%s failed to clean up", self.ref.name)
        finally:
            self._unregister()
        if reason.exception is not None:
            _forget_locals(reason.exception)
        return reason

    def _live(self) -> ExitReason:
        mailbox = self.ref.mailbox
        try:
            self.handle_continue()
            interrupted = mailbox.interrupted()
            if interrupted:
                self.handle_interrupted(interrupted)
            self.incarnation.phase = "ready"
            while True:
                turn = mailbox.take(self.epoch, self.turn_limit)
                if isinstance(turn, ExitReason):
                    return turn
                if turn[0].is_info:
                    self._handle_info(turn[0])
                else:
                    self.handle_turn(turn)
        except BaseException as error:  # noqa: BLE001 - it is what the incarnation dies of
            return ExitReason.crash(error)

    def _handle_info(self, envelope: Envelope) -> None:
        message = envelope.message
        envelope.reply()
        try:
            self.handle_info(message.message if type(message) is Tick else message)
        except BaseException as error:
            if not self._is_domain_error(error):
                raise
            log.warning("%s failed a message: %s", self.ref.name, error, exc_info=error)

    def _is_domain_error(self, error: BaseException) -> bool:
        return isinstance(error, self.domain_errors) and not isinstance(error, Fenced)

    # -- Pykka

    @classmethod
    def spawn(cls, incarnation: Incarnation, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Construct the actor and start its thread; for `ServerRef.start`."""
        server = cls.__new__(cls)
        # The constructor of a subclass may want its handle already.
        server.incarnation = incarnation
        server.__init__(*args, **kwargs)  # type: ignore[misc]
        server.launch()

    def launch(self) -> None:
        """Register with Pykka and start the thread; for `spawn`."""
        if not hasattr(self, "_actor_ref"):
            raise OtpError(
                f"{type(self).__name__} has no mailbox",
                hint="its __init__ must call super().__init__()",
            )
        pykka.ActorRegistry.register(self.actor_ref)
        try:
            self._start_actor_loop()
        except BaseException:
            self._unregister()
            raise

    @classmethod
    def start(cls, *_args: Any, **_kwargs: Any) -> Any:
        """Refuse Pykka's way to start an actor: a server needs a handle.

        Raises:
            OtpError: always.
        """
        raise _no_handle(cls)

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        if not hasattr(self, "incarnation"):
            raise _no_handle(type(self))
        super().__init__()

    def _create_actor_inbox(self) -> _ForeignInbox:  # type: ignore[override]
        return _ForeignInbox(self.ref)

    def _start_actor_loop(self) -> None:
        name = f"{self.ref.name}-{self.epoch}"
        thread = Thread(target=self._actor_loop, name=name, daemon=self.use_daemon_thread)
        self.incarnation.thread = thread
        try:
            thread.start()
        except BaseException:
            self.incarnation.thread = None
            raise

    def _unregister(self) -> None:
        pykka.ActorRegistry.unregister(self.actor_ref)
        self.actor_stopped.set()
        inbox = self.actor_inbox
        if isinstance(inbox, _ForeignInbox):
            inbox.settle_stops()


def _no_handle(cls: type[GenServer]) -> OtpError:
    hint = f"use ServerRef(name).start({cls.__name__})"
    return OtpError(f"{cls.__name__} was not started", hint=hint)


class _ForeignInbox:
    """What other users of Pykka see: the actor's inbox.

    Pykka's stop is an orderly end of the whole tree that the server belongs to, because
    that is what the host asks for with ``ActorRegistry.stop_all()``. A tell arrives in
    ``handle_info``, an ask in ``handle_call``.
    """

    def __init__(self, ref: ServerRef) -> None:
        self._ref = ref
        self._stops: deque[Any] = deque()
        self._over = False

    def put(self, envelope: PykkaEnvelope[Any], /) -> None:
        ref = self._ref
        future = envelope.reply_to
        if isinstance(envelope.message, _ActorStop):
            self._stop(future)
            return
        try:
            if isinstance(envelope.message, ProxyCall | ProxyGetAttr | ProxySetAttr):
                _fail(future, OtpError(f"{ref.name} has no proxy", hint="use its ServerRef"))
            elif future is None:
                ref.send_info(envelope.message)
            else:
                ref.send_request(envelope.message).add_done_callback(_Relay(future))
        except (ServerDown, ForkedError) as error:
            dead = pykka.ActorDeadError(f"{ref.name} not found")
            dead.__cause__ = error
            _fail(future, dead)

    def get(self) -> PykkaEnvelope[Any]:
        raise OtpError("the inbox of a server is not for reading")

    def empty(self) -> bool:
        return self._ref.info().queued == 0

    def _stop(self, future: Any) -> None:
        self._stops.append(future)
        root = self._ref
        while root.supervisor is not None:
            root = root.supervisor
        root.request_drain()
        if self._over or self._ref.mailbox.foreign:
            self.settle_stops()

    def settle_stops(self) -> None:
        """Tell those who asked for the end that it has come."""
        self._over = True
        with contextlib.suppress(IndexError):  # empty, perhaps thanks to another thread
            while True:
                future = self._stops.pop()
                if future is not None:
                    _settle(future, None)


class _Relay:
    """Passes a reply on to a Pykka future."""

    def __init__(self, future: Any) -> None:
        self._future = future

    def __call__(self, reply: Reply[Any]) -> None:
        error = reply.exception(0)
        if error is None:
            _settle(self._future, reply.result(0))
        else:
            _fail(self._future, error)


def _settle(future: Any, value: object) -> None:
    try:
        future.set(value)
    except Exception as error:  # noqa: BLE001 - its owner may have settled it already
        log.debug("a Pykka future was settled by somebody else: %r", error)


def _fail(future: Any, error: BaseException) -> None:
    if future is None:
        raise error
    try:
        future.set_exception((type(error), error, error.__traceback__))
    except Exception as again:  # noqa: BLE001 - as above
        log.debug("a Pykka future was settled by somebody else: %r", again)


def _forget_locals(error: BaseException) -> None:
    """Free what the frames of a crash hold: the exit reason outlives the incarnation.

    Frames of generators and coroutines are spared: clearing one that is suspended ends it.
    """
    pending: list[BaseException | None] = [error]
    seen: set[int] = set()
    while pending:
        current = pending.pop()
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        pending += (current.__cause__, current.__context__)
        for frame, _ in traceback.walk_tb(current.__traceback__):
            if not frame.f_code.co_flags & _SUSPENDABLE:
                # The caller of this server may be raising the same exception right now.
                with contextlib.suppress(RuntimeError):
                    frame.clear()
