"""The actor that owns the sessions: every change goes through its mailbox, one turn at a time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Final

from sessionkeeper.engine.apply import Transaction
from sessionkeeper.engine.commands import (
    CheckpointFiles,
    Configure,
    EnablePersistence,
    EraseSession,
    PreparedSave,
    UndeleteSession,
)
from sessionkeeper.errors import (
    CorruptDocument,
    IndexBehind,
    InvalidConfig,
    NotExecuted,
    OutcomeUnknown,
    PathBlocked,
    SessionKeeperError,
    StorageFailed,
)
from sessionkeeper.events import Event, EventBus, logger
from sessionkeeper.fixed import fixed
from sessionkeeper.keys import key_of
from sessionkeeper.otp import GenServer
from sessionkeeper.processes.checkpointer import Arrived, Fence, Prepared, Publish, Settled
from sessionkeeper.processes.checkpoints import CheckpointDue
from sessionkeeper.processes.erasures import Erasures, Scrubbed
from sessionkeeper.storage.backend import SETTLE, CommitUncertain, Put, Reconciled, Trash
from sessionkeeper.storage.database import IndexFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sessionkeeper.answers import Removal
    from sessionkeeper.clock import Clock, SteadyClock
    from sessionkeeper.config import Config
    from sessionkeeper.engine import commands
    from sessionkeeper.engine.backlog import Backlog
    from sessionkeeper.engine.view import View
    from sessionkeeper.otp import Envelope, ServerRef, Timer
    from sessionkeeper.processes.checkpoints import Checkpoints
    from sessionkeeper.processes.persistence import Persistence
    from sessionkeeper.processes.settings import StoreSettings
    from sessionkeeper.storage.backend import Backend, Body, RecoveryReport

# A command that was in flight in so many crashes is taken to be their cause.
MAX_CRASHES = 3

# How many sessions one turn of the timer's cleanup removes, so that callers are not kept waiting.
CLEANUP_CHUNK = 256
# A clock that goes further ahead than this was set, or the machine slept.
CLOCK_TOLERANCE = timedelta(minutes=1)

# How long a change may be lost at the durability level `os`, in seconds.
SYNC_INTERVAL = 1.0


NO_ANSWER: Final = object()


@fixed
class _Refused:
    """The answer to a command that changes nothing because of what there is."""

    error: SessionKeeperError


@dataclass(slots=True)
class Submission:
    """A command on its way.

    Attributes:
        request_id: By which its effect is recognised after a crash.
        command: What to do.
        crashes: In how many crashes it was in flight; only the actor counts.
        answer: What it would have been answered, had its turn not crashed.
    """

    request_id: str
    command: commands.Prepared[Any]
    crashes: int = 0
    answer: object = NO_ANSWER


class SettingsDue:
    """The timer's word for: look whether somebody has changed the settings in the folder."""


@dataclass(frozen=True, slots=True)
class Suspects:
    """Files that may have been changed by hand."""

    names: tuple[str, ...]


class CleanupDue:
    """The timer's word for: apply the retention settings."""


class TrimDue:
    """The indexer's word for: let go of sessions that the index has."""


class Relearn:
    """To the actor: what memory has no room for cannot be looked up any more."""


class Relearning(Exception):
    """Why an incarnation ends that cannot look up what memory has no room for."""

    def __init__(self) -> None:
        super().__init__(
            "all sessions are looked at anew, and held in memory until they are indexed"
        )


class SyncDue:
    """The timer's word for: make durable what was committed since the last time."""


@dataclass(frozen=True, slots=True)
class ActorParts:
    """What outlives an incarnation of the actor and is handed to the next.

    Attributes:
        settings: The settings in force.
        configured: Called when they have changed, with what they are now.
        persistence: Where sessions are kept, now.
        view: What callers see.
        clock: The clocks.
        steady: The clock by which sessions grow old.
        events: Where events go.
        checkpoints: Makes the actor's part in checkpoints, given what to call with the names of
            files that are not as published; None without a journal.
        discard_body: Removes the staged messages of a version that will not be made.
        checkpointer: Does the slow parts of checkpoints; None without a journal.
        backlogs: The ways into the index and the text index; none without these.
        trim: Lets go of sessions that the index has; whether there is more to let go of.
        sync: Makes durable what was committed, at an interval; None if each commit does.
    """

    settings: StoreSettings
    configured: Callable[[Config], object]
    persistence: Persistence
    view: View
    clock: Clock
    steady: SteadyClock
    events: EventBus
    checkpoints: Callable[[Callable[[Sequence[str]], object]], Checkpoints] | None = None
    checkpointer: ServerRef | None = None
    backlogs: tuple[Backlog, ...] = ()
    trim: Callable[[], bool] = lambda: False
    sync: Callable[[], None] | None = None
    discard_body: Callable[[Body], None] = lambda _: None

    @property
    def backend(self) -> Backend:
        """Where sessions are kept; it knows what it published."""
        return self.persistence.backend


class SessionStoreActor(GenServer):
    """Applies commands in turns: apply, commit once, publish, reply to all.

    A refused command is answered with its error and the actor lives on. Anything else that goes
    wrong is a crash: what stood before the culprit is committed and answered, the culprit gets
    its error, the rest waits for the next incarnation. A crash inside a commit leaves the turn
    in flight; the next incarnation's recovery scan tells what of it happened.
    """

    turn_limit: ClassVar[int] = 256
    domain_errors: ClassVar[tuple[type[Exception], ...]] = (SessionKeeperError,)

    def __init__(self, parts: ActorParts) -> None:
        super().__init__()
        self._parts = parts
        self._report: RecoveryReport | None = None
        self._ahead = timedelta()
        self._timers: list[Timer] = []
        self._erasures = Erasures(lambda: self.ref, parts.checkpointer, parts.backlogs)
        self._checkpoints = parts.checkpoints and parts.checkpoints(self._suspect)

    # --- life -------------------------------------------------------------------------------

    def handle_continue(self) -> None:
        """Run the recovery scan; then sessions can be read again."""
        parts = self._parts
        parts.view.begin_recovery()
        self.check_fence()
        report = parts.backend.recover()
        self._report = report
        try:
            parts.view.recovered(report)
        except IndexFailed:
            parts.view.lose()
            raise
        parts.events.publish(Event("recovered", detail=str(report)))
        self._set_timers()
        self.ref.post(CleanupDue())
        if self._checkpoints is not None:
            self.ref.post(CheckpointDue())
        if parts.sync is not None:
            self.send_interval(SYNC_INTERVAL, SyncDue())

    def _set_timers(self) -> None:
        """Those whose pace is a setting."""
        for timer in self._timers:
            timer.cancel()
        config = self._parts.settings.config
        self._timers = [
            self.send_interval(config.cleanup_interval, CleanupDue()),
            self.send_interval(config.reconcile_interval, SettingsDue()),
        ]
        if self._checkpoints is not None:
            due = self.send_interval(config.checkpoint_interval, CheckpointDue())
            self._timers.append(due)

    def handle_interrupted(self, envelopes: Sequence[Envelope]) -> None:
        """Answer what did happen before the crash; do again, once, what did not."""
        again: list[Envelope] = []
        overtaken = self._overtaken(envelopes)
        for envelope in envelopes:
            submission: Submission = envelope.message
            submission.crashes += 1
            answer = self._answer(submission)
            if answer is not None:
                self._answered(submission.command)
                envelope.reply(answer)
            elif submission.request_id in overtaken:
                self._reply(envelope, submission.answer)
            elif submission.crashes < MAX_CRASHES:
                again.append(envelope)
            else:
                error = NotExecuted(
                    f"the store crashed {submission.crashes} times over this command",
                    session_id=submission.command.concerns(),
                    hint="Look into the log: repeating it will crash the store again.",
                )
                envelope.fail(error)
        self.requeue(again)

    def _overtaken(self, envelopes: Sequence[Envelope]) -> set[str]:
        """Requests that changed nothing, and after which a change of that session happened.

        Doing them again now would do them in another order than they were sent in.
        """
        found: set[str] = set()
        changed: set[str] = set()
        for envelope in reversed(envelopes):
            submission: Submission = envelope.message
            session_id = submission.command.concerns()
            if session_id is None:
                continue
            if self._answer(submission) is not None:
                changed.add(session_id)
            elif session_id in changed and submission.answer is not NO_ANSWER:
                found.add(submission.request_id)
        return found

    def _answer(self, submission: Submission) -> object:
        session_id = submission.command.concerns()
        if session_id is None or self._report is None:
            return None
        return self._report.answer(session_id, submission.request_id)

    # --- turns ------------------------------------------------------------------------------

    def handle_turn(self, turn: Sequence[Envelope]) -> None:
        """Apply what has arrived, commit it together, publish it, answer everybody."""
        self._hold(turn)
        start = 0
        for position, envelope in enumerate(turn):
            # What was in flight at a crash goes alone, so that a culprit takes nobody with it.
            # An erasure too: what comes after it must find it done.
            submission: Submission = envelope.message
            if submission.crashes or isinstance(submission.command, EraseSession):
                self._commit_together(turn[start:position], turn[position:])
                self._commit_together([envelope], turn[position + 1 :])
                start = position + 1
        self._commit_together(turn[start:], ())

    def _hold(self, turn: Sequence[Envelope]) -> None:
        """Have in memory what is about to be changed, as its files are."""
        concerned = [envelope.message.command.concerns() for envelope in turn]
        try:
            suspects = self._parts.view.hold(each for each in concerned if each is not None)
        except IndexFailed:
            self.requeue(turn)
            self._parts.view.lose()
            raise
        if suspects:
            self._reconcile(suspects)

    def _commit_together(self, group: Sequence[Envelope], rest: Sequence[Envelope]) -> None:
        """Commit a group as one; if that crashes, what was not begun goes back to the mailbox."""
        transaction = self._transaction()
        answered: list[tuple[Envelope, object]] = []
        behind = rest
        try:
            for position, envelope in enumerate(group):
                submission: Submission = envelope.message
                try:
                    answer = transaction.run(submission.command, submission.request_id)
                except SessionKeeperError as error:
                    # Because of a change before it, perhaps: that has to be visible first.
                    answer = _Refused(error)
                except BaseException as error:
                    behind = [*group[position + 1 :], *rest]
                    self._commit(transaction, answered)
                    envelope.fail(error)
                    raise
                submission.answer = answer
                answered.append((envelope, answer))
            self._commit(transaction, answered)
        except BaseException:
            self.requeue(behind)
            raise

    def _transaction(self) -> Transaction:
        parts = self._parts
        return Transaction(
            parts.view,
            parts.view.lsn,
            parts.clock,
            parts.settings.retention,
            parts.settings.config.max_session_size,
        )

    def _refuse(self, envelope: Envelope, error: SessionKeeperError) -> None:
        command = envelope.message.command
        if isinstance(command, PreparedSave) and command.body is not None:
            self._parts.discard_body(command.body)
        if isinstance(error, CorruptDocument) and error.session_id is not None:
            key = key_of(error.namespace, error.session_id)
            self.ref.post(Suspects((self._parts.backend.file_name(key),)))
        envelope.fail(error)

    def _commit(
        self,
        transaction: Transaction,
        answered: Sequence[tuple[Envelope, object]],
    ) -> None:
        try:
            self._write(transaction)
        except CommitUncertain:
            raise
        except OutcomeUnknown as error:
            for envelope, answer in answered:
                if isinstance(answer, _Refused):
                    self._refuse(envelope, answer.error)
                else:
                    envelope.fail(error)
            return
        except SessionKeeperError as error:
            self._commit_singly(answered, error)
            return
        for envelope, answer in answered:
            self._reply(envelope, answer)
        self._report_changes(transaction)

    def _reply(self, envelope: Envelope, answer: object) -> None:
        command = envelope.message.command
        if isinstance(answer, _Refused):
            self._refuse(envelope, answer.error)
        elif isinstance(command, EraseSession):
            self._erase(envelope, command.session_id)
        elif isinstance(command, Configure):
            self._configure(envelope, command.changes)
        elif isinstance(command, EnablePersistence):
            self._enable_persistence(envelope, enabled=command.enabled)
        elif self._checkpoints is not None and isinstance(command, CheckpointFiles):
            self._checkpoints.wait(envelope)
        else:
            self._answered(command)
            envelope.reply(answer)

    def _answered(self, command: commands.Prepared[Any]) -> None:
        """Do what belongs to a command that is done, and is no part of its commit."""
        if isinstance(command, UndeleteSession):
            self._parts.backend.undeleted(command.session_id)

    def _configure(self, envelope: Envelope, changes: Mapping[str, Any]) -> None:
        try:
            self._parts.settings.configure(changes)
        except SessionKeeperError as error:
            envelope.fail(error)
            return
        self._apply_settings()
        envelope.reply(None)

    def _enable_persistence(self, envelope: Envelope, *, enabled: bool) -> None:
        persistence, view = self._parts.persistence, self._parts.view
        if self._parts.settings.config.in_memory:
            error = InvalidConfig(
                "the store was opened without a place on the disk",
                hint="Close it and open it without persistence=False, or durability='memory'.",
            )
            if enabled:
                envelope.fail(error)
            else:
                envelope.reply(None)
            return
        self.check_fence()
        try:
            if enabled and not persistence.enabled:
                persistence.enable(view)
                self._resume_writing()
            elif not enabled and persistence.enabled:
                if view.is_shelved:
                    # All is to be in memory: the command is done by an incarnation that has it.
                    view.lose()
                    raise Relearning
                self._pause_writing()
                persistence.disable(view)
        except CommitUncertain:
            raise
        except SessionKeeperError as error:
            envelope.fail(error)
        else:
            envelope.reply(None)

    def _pause_writing(self) -> None:
        if self._checkpoints is not None:
            self._checkpoints.pause()
        if self._parts.sync is not None:
            self._parts.sync()

    def _resume_writing(self) -> None:
        if self._checkpoints is not None:
            self._checkpoints.resume()
        # Nobody has looked meanwhile.
        self._suspect(self._parts.backend.suspects())
        self.ref.post(CleanupDue())

    def _reload_settings(self) -> None:
        try:
            if self._parts.settings.reload():
                self._apply_settings()
        except (SessionKeeperError, OSError) as error:
            logger.warning("the settings in force stay: %s", error)

    def _apply_settings(self) -> None:
        config = self._parts.settings.config
        self._parts.configured(config)
        if self._checkpoints is not None:
            self._checkpoints.limit_to(config.checkpoint_bytes)
        self._set_timers()
        self.ref.post(CleanupDue())

    def _erase(self, envelope: Envelope, session_id: str) -> None:
        parts = self._parts
        self.check_fence()
        if self._checkpoints is not None:
            self._checkpoints.overtake()
        lsn = parts.view.lsn + 1
        try:
            erased = parts.backend.erase(session_id, lsn)
        except CommitUncertain:
            raise
        except SessionKeeperError as error:
            envelope.fail(error)
            return
        parts.view.reconciled(Reconciled(vanished=[session_id], lsn=lsn))
        parts.events.publish(Event.of("erased", session_id, f"{erased.files} files"))
        self._erasures.finish(envelope, erased)
        if self._checkpoints is not None:
            self._checkpoints.begin()  # whoever waited for the one that was overtaken

    def _write(self, transaction: Transaction) -> None:
        if transaction.changes:
            self.check_fence()
            self._parts.backend.commit(transaction.changes)
            self._parts.view.publish(transaction.changes, transaction.lsn)
            self._parts.view.make_room()
            if not self._parts.persistence.enabled:
                self._discard_bodies(transaction)
            for body in transaction.superseded:
                self._parts.discard_body(body)
            if self._checkpoints is not None:
                self._checkpoints.after_commit()

    def _sync(self) -> None:
        if self._parts.sync is not None and self._parts.persistence.enabled:
            self._parts.sync()

    def _discard_bodies(self, transaction: Transaction) -> None:
        """What was staged before persistence was switched off is written anew, if it is."""
        for change in transaction.changes:
            if isinstance(change, Put) and change.body is not None:
                self._parts.discard_body(change.body)

    def _commit_singly(
        self,
        answered: Sequence[tuple[Envelope, object]],
        error: SessionKeeperError,
    ) -> None:
        """The medium refused the group and nothing was written: find out whom it refuses."""
        if len(answered) == 1:
            answered[0][0].fail(error)
            return
        for envelope, _ in answered:
            submission: Submission = envelope.message
            transaction = self._transaction()
            try:
                answer = transaction.run(submission.command, submission.request_id)
                self._write(transaction)
            except CommitUncertain:
                raise
            except SessionKeeperError as own_error:
                envelope.fail(own_error)
            else:
                self._reply(envelope, answer)
                self._report_changes(transaction)

    def _report_changes(self, transaction: Transaction) -> None:
        events = self._parts.events
        quiet = not events.wants("saved")
        for change in transaction.changes:
            record = change.record
            if isinstance(change, Trash):
                events.publish(Event.of("trashed", record.session_id, change.reason))
            elif not quiet:
                detail = f"generation {record.generation}"
                events.publish(Event.of("saved", record.session_id, detail))
        limit = self._parts.settings.config.max_sessions
        if limit is not None and transaction.changes and self._parts.view.count() > limit:
            self._clean_up()

    # --- timers and hand-made changes -------------------------------------------------------

    def handle_info(self, message: Any) -> None:  # noqa: C901 - one case for each message
        """Take the timer's ticks and the watcher's findings."""
        match message:
            case CleanupDue():
                self._clean_up()
                self._purge()
            case SettingsDue():
                self._reload_settings()
            case TrimDue() | Relearn():
                self._fit(message)
            case Suspects(names):
                self._reconcile(names)
            case SyncDue():
                self._sync()
            case Fence(number):
                self._erasures.fenced(number)
            case Scrubbed(number):
                self._erasures.scrubbed(number)
            case CheckpointDue() | Arrived() | Publish() | Prepared() | Settled():
                if self._checkpoints is not None:
                    self._checkpoints.handle(message)
                if isinstance(message, Arrived):
                    self._erasures.checkpointer_is_new()
            case _:
                super().handle_info(message)

    def _fit(self, message: TrimDue | Relearn) -> None:
        if isinstance(message, Relearn):
            raise Relearning  # the next incarnation looks at the whole folder
        if self._parts.trim():
            self.ref.post(message)

    def _suspect(self, names: Sequence[str]) -> None:
        self.ref.post(Suspects(tuple(names)))

    def _clean_up(self) -> None:
        parts = self._parts
        ahead = parts.steady.ahead()
        if ahead > self._ahead + CLOCK_TOLERANCE:
            self._ahead = ahead
            logger.warning("the clock went ahead by %s; nothing grows older by that", ahead)
        transaction = Transaction(
            parts.view, parts.view.lsn, parts.steady, parts.settings.retention
        )
        try:
            removals = transaction.expired()
            suspects = parts.view.hold(removal.key for removal in removals[:CLEANUP_CHUNK])
        except (IndexBehind, IndexFailed) as error:
            logger.warning("the cleanup looked at nothing: %s", error)
            return
        if suspects:
            # What a person has changed is looked at first; the next cleanup sees what it is now.
            self._reconcile(suspects)
            removals = [each for each in removals if self._file_of(each) not in suspects]
        for number, removal in enumerate(removals[:CLEANUP_CHUNK]):
            request_id = f"cleanup-{self.epoch}-{transaction.lsn}-{number}"
            transaction.trash(removal.key, removal.detail, request_id)
        try:
            self._write(transaction)
        except (StorageFailed, PathBlocked) as error:
            logger.warning("the cleanup removed nothing: %s", error)
            return
        for removal in removals[:CLEANUP_CHUNK]:
            self._parts.events.publish(Event.of("trashed", removal.key, removal.detail))
        if len(removals) > CLEANUP_CHUNK:
            self.ref.post(CleanupDue())

    def _file_of(self, removal: Removal) -> str:
        return self._parts.backend.file_name(removal.key)

    def _purge(self) -> None:
        config = self._parts.settings.config
        before = self._parts.steady.now() - timedelta(days=config.trash_days)
        for session_id in self._parts.backend.purge(before):
            detail = f"{config.trash_days:g} days in the trash are over"
            self._parts.events.publish(Event.of("purged", session_id, detail))

    def _reconcile(self, names: Sequence[str]) -> None:
        self.check_fence()
        found = self._parts.backend.reconcile(names, self._parts.view.lsn)
        self._parts.view.reconciled(found)
        if found.unsettled:
            self.send_after(SETTLE, Suspects(tuple(found.unsettled)))
