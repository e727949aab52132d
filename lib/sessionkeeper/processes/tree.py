"""The supervision tree of one open store, and what its root owns.

The folder's lock, the cache, the view and the mailbox belong to the root, not to an incarnation
of the actor: they survive its crashes.
"""

from __future__ import annotations

import itertools
import secrets
import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from sessionkeeper.clock import Clock, SteadyClock, SystemClock
from sessionkeeper.engine.cache import SessionCache
from sessionkeeper.engine.catalog import Catalog
from sessionkeeper.engine.commands import PreparedSave
from sessionkeeper.engine.texts import Texts
from sessionkeeper.engine.view import View
from sessionkeeper.errors import StoreClosed, StoreDamaged
from sessionkeeper.events import Event, EventBus, logger
from sessionkeeper.layout import Layout, is_file_name
from sessionkeeper.otp import (
    Backoff,
    ChildSpec,
    ServerRef,
    TimerService,
    start_supervisor,
)
from sessionkeeper.otp.timer import default_timers
from sessionkeeper.processes.actor import (
    ActorParts,
    Relearn,
    SessionStoreActor,
    Submission,
    Suspects,
    TrimDue,
)
from sessionkeeper.processes.checkpointer import Checkpointer
from sessionkeeper.processes.checkpoints import Checkpoints
from sessionkeeper.processes.indexer import Indexer, Indexing
from sessionkeeper.processes.persistence import Persistence
from sessionkeeper.processes.settings import StoreSettings
from sessionkeeper.processes.texts import TextIndexing
from sessionkeeper.processes.watcher import FolderWatcher
from sessionkeeper.processes.writer import Writer
from sessionkeeper.storage.check import check
from sessionkeeper.storage.configfile import ConfigFile
from sessionkeeper.storage.database import IndexFailed
from sessionkeeper.storage.file import FileBackend
from sessionkeeper.storage.folder import SessionFolder, prepare_folders
from sessionkeeper.storage.fulltext import FullText
from sessionkeeper.storage.index import Index
from sessionkeeper.storage.indexjson import MAX_SESSIONS, IndexJson
from sessionkeeper.storage.journaled import JournaledBackend
from sessionkeeper.storage.lock import FolderLock
from sessionkeeper.storage.memory import MemoryBackend
from sessionkeeper.storage.platform import FileSystem, Signature
from sessionkeeper.storage.reader import FolderReader
from sessionkeeper.storage.room import Room
from sessionkeeper.storage.shelf import Shelf
from sessionkeeper.storage.shelving import ShelvedFolder
from sessionkeeper.storage.single import SingleFileBackend
from sessionkeeper.storage.singlereader import SingleFileReader
from sessionkeeper.storage.singlewriter import read_published

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from sessionkeeper.config import Config
    from sessionkeeper.engine.backlog import Backlog
    from sessionkeeper.engine.commands import Prepared
    from sessionkeeper.otp import ExitReason, SupervisorRef
    from sessionkeeper.otp.timer import Timer
    from sessionkeeper.settings import Layers
    from sessionkeeper.storage.backend import Backend, Body


# Callers wait through a restart: the longest pause before one must be far below call_timeout.
MAX_PAUSE = 0.5
MIN_CONSECUTIVE = 10


class StoreClock(Clock, TimerService, Protocol):
    """The clocks and the timers of a store, as one object: `testing.FakeClock` is another."""


class SystemTime(SystemClock):
    """The clocks and timers of this machine."""

    def after(self, seconds: float, callback: Callable[[], object]) -> Timer:
        """Call `callback` once, `seconds` from now."""
        return default_timers().after(seconds, callback)

    def every(self, seconds: float, callback: Callable[[], object]) -> Timer:
        """Call `callback` each `seconds`."""
        return default_timers().every(seconds, callback)


@dataclass(frozen=True, slots=True, kw_only=True)
class Injected:
    """What a test puts in the place of the real thing.

    Attributes:
        clock: The clocks and timers.
        fs: The file system.
        wrap_backend: Receives the backend and returns the one to be used.
    """

    clock: StoreClock | None = None
    fs: FileSystem | None = None
    wrap_backend: Callable[[Backend], Backend] | None = None


@dataclass(frozen=True, slots=True)
class ProcessInfo:
    """One process of the supervision tree.

    Attributes:
        name: Its id in the tree; the supervisor's own is `supervisor`.
        state: `ready`, `continuing` (recovering), `starting`, `fenced`, `stopped` or `closed`.
        epoch: The number of its incarnation; 1 for the first.
        restarts: How often it was restarted.
        queued: Messages in its mailbox.
        last_exit: Why its last incarnation ended, or None.
        uptime: Seconds since its current incarnation came up.
    """

    name: str
    state: str
    epoch: int
    restarts: int
    queued: int
    last_exit: str | None
    uptime: float

    @classmethod
    def of(cls, name: str, server: ServerRef) -> ProcessInfo:
        """What a server is up to."""
        info = server.info()
        return cls(
            name=name,
            state=info.state,
            epoch=info.epoch,
            restarts=info.restarts,
            queued=info.queued,
            last_exit=None if info.last_exit is None else str(info.last_exit),
            uptime=info.uptime,
        )


class StoreTree:
    """One open store: its children, and what survives them.

    Args:
        layers: The settings, and where each was given.
        injected: Replacements, for tests.

    Raises:
        StoreLocked: Another owner is alive.
        StoreDamaged: Part of it is damaged, and the recovery is to be strict.
        OSError: The folder cannot be created or locked.
    """

    def __init__(self, layers: Layers, injected: Injected) -> None:
        self.config = config = layers.config()
        self.clock: StoreClock = injected.clock or SystemTime()
        self.steady = SteadyClock(self.clock)
        self.events = EventBus()
        self.layout = Layout.of(config.path, config.layout)
        self.exit_reason: ExitReason | None = None
        self._lock: FolderLock | None = None
        # Set if there is a journal; checkpoints are none of a backend's general business.
        self.journaled: JournaledBackend | None = None
        self._checkpointer = ServerRef("sessionkeeper.checkpointer", timers=self.clock)
        self._catalog: Catalog | None = None
        self._indexing: Indexing | None = None
        self._indexer = ServerRef("sessionkeeper.indexer", timers=self.clock)
        self._texts: Texts | None = None
        self._text_indexing: TextIndexing | None = None
        self._text_indexer = ServerRef("sessionkeeper.texts", timers=self.clock)
        self._room: Room | None = None
        self._terminal = threading.Event()
        self._nonce = secrets.token_hex(6)
        self._numbers = itertools.count(1)
        fs = injected.fs or FileSystem()
        if not config.in_memory:
            prepare_folders(fs, self.layout)
            self._lock = FolderLock(self.layout)
            self._lock.acquire(self.clock)
        file = None if config.in_memory else ConfigFile(fs, self.layout)
        try:
            if file is not None:
                file.read()  # again: what it is now is what a later change is told from
            self.settings = StoreSettings(layers, file)
            if config.recovery == "strict" and not config.in_memory:
                self._refuse_damage(fs)
            self._own = backend = self._backend(fs)
            self.backend = injected.wrap_backend(backend) if injected.wrap_backend else backend
            self.actor = ServerRef(
                "sessionkeeper.store",
                max_messages=config.max_pending,
                max_bytes=config.max_pending_bytes,
                busy_wait=config.call_timeout,
                timers=self.clock,
            )
            self.view = View(
                self.backend,
                SessionCache(config.cache_bytes, config.cache_ttl, self.clock),
                config.call_timeout,
                self._suspect,
                self._catalog,
                texts=self._texts,
                reads_texts=config.full_text,
                shelved=backend if isinstance(backend, ShelvedFolder) else None,
                lose=self._lose,
            )
            self.persistence = Persistence(self.backend, self._backlogs(), self.events.publish)
            self._indexing = self._indexing_of(backend, fs)
            self._text_indexing = self._text_indexing_of()
            self.supervisor = self._start()
        except BaseException:
            self._release()
            raise

    def _refuse_damage(self, fs: FileSystem) -> None:
        root = self.layout.root
        known = Index(self.layout.index).recall().files

        def is_edited(path: Path) -> bool:
            """Whether a file in which bytes were changed has another signature too, or none."""
            status = fs.status(path)
            if path == self.layout.file:
                published = read_published(fs, self.layout)
                return status is None or published != Signature.of(status)
            inside = path.is_relative_to(self.layout.sessions)
            if not inside or not is_file_name(self.layout.name_at(path)):
                return False
            before = known.get(self.layout.stem_at(path))
            return status is None or before is None or before.signature != Signature.of(status)

        damage = [
            finding
            for finding in check(self.layout, fs, self.clock)
            if finding.severity == "damage"
            and not (finding.kind == "changed" and is_edited(finding.path))
        ]
        if damage:
            raise StoreDamaged(
                f"{len(damage)} things in the store at {root} are damaged",
                path=root,
                problems=[f"{f.kind}: {f.path.relative_to(root)}: {f.detail}" for f in damage],
            )

    def _backend(self, fs: FileSystem) -> Backend:
        if self.config.in_memory:
            return MemoryBackend()
        index = Index(self.layout.index)
        self._catalog = Catalog(index, self.config.call_timeout)
        self._texts = Texts(
            FullText(self.layout.text_index),
            self.config.call_timeout,
            on=self.config.full_text,
        )
        self._room = Room(Shelf(index), self._bound, self._open_index)
        tell, backups = self.events.publish, self.config.max_backups
        repairs = self.config.recovery == "fallback"
        if self.layout.file is not None:
            return SingleFileBackend(
                self.layout,
                self.clock,
                fs=fs,
                max_backups=backups,
                repairs=repairs,
                on_event=tell,
                recall=index.recall,
            )
        if self.config.durability == "file":
            return FileBackend(
                self.layout,
                self.clock,
                fs=fs,
                max_backups=backups,
                repairs=repairs,
                on_event=tell,
                recall=index.recall,
                room=self._room,
            )
        self.journaled = JournaledBackend(
            self.layout,
            self.clock,
            fs=fs,
            max_backups=backups,
            repairs=repairs,
            sync=self.config.durability == "journal",
            on_event=tell,
            recall=index.recall,
            room=self._room,
            on_filed=self._catalog.file,
        )
        self._catalog.mark = self.journaled.mark
        return self.journaled

    def _bound(self) -> int | None:
        """How many sessions may be in memory; None if all are to be."""
        # The text index is compared with all of them; while persistence is off they are all there
        # is to go by; and where they are listed for others memory has room for those.
        if self.config.full_text or not self.persistence.enabled:
            return None
        least = MAX_SESSIONS if self.config.index_json else 0
        return max(self.config.max_records, least)

    def _open_index(self) -> bool:
        """Open the index for reading; False if there is none."""
        catalog = self._catalog
        if catalog is None or not catalog.index.path.is_file():
            return False
        with catalog.writing:
            catalog.index.open()
        return True

    def _lose(self) -> None:
        """The actor is to look at the whole folder."""
        if self._room is not None and not self._room.is_lost:
            self._room.is_lost = True
            self.actor.post(Relearn())

    def _trim_if_due(self) -> None:
        bound = self._bound()
        if bound is not None and self.view.held > bound and isinstance(self._own, ShelvedFolder):
            self.actor.post(TrimDue())

    def _trim(self) -> bool:
        bound = self._bound()
        if bound is None or self._catalog is None:
            return False
        return self.view.trim(bound, self._catalog.written_lsn)

    def _configured(self, config: Config) -> None:
        """Have all that is there go by other settings."""
        self.config = config
        self.view.cache.resize(config.cache_bytes, config.cache_ttl)
        self.view.wait_at_most(config.call_timeout)
        self.view.reads_texts = config.full_text
        if self._texts is not None:
            self._texts.switch(on=config.full_text)
        if isinstance(self._own, SessionFolder | SingleFileBackend):
            self._own.keep_backups(config.max_backups)

    def _indexing_of(self, backend: Backend, fs: FileSystem) -> Indexing | None:
        if self._catalog is None or not isinstance(backend, FolderReader | SingleFileReader):
            return None
        listing = IndexJson(fs, self.layout, self.events.publish)
        if not self.config.index_json:
            listing.remove()
        return Indexing(
            self._catalog,
            self.view,
            backend.published,
            self.events.publish,
            listing if self.config.index_json else None,
            shelved=backend if isinstance(backend, ShelvedFolder) else None,
            suspect=lambda names: self.actor.post(Suspects(tuple(names))),
            wrote=self._trim_if_due,
        )

    def _backlogs(self) -> tuple[Backlog, ...]:
        return tuple(each for each in (self._catalog, self._texts) if each is not None)

    def _text_indexing_of(self) -> TextIndexing | None:
        if self._texts is None:
            return None
        return TextIndexing(self._texts, self.view, self.events.publish)

    def _start(self) -> SupervisorRef:
        self.actor.monitor(self._actor_ended)
        return start_supervisor(
            "sessionkeeper",
            self._children(),
            # The watcher speaks to the actor through its handle, which outlives a restart.
            strategy="one_for_one",
            max_restarts=self.config.max_restarts,
            max_seconds=self.config.max_seconds,
            # Crashes in a row are bounded by the window: the pauses are too short to outlast it.
            max_consecutive=max(MIN_CONSECUTIVE, self.config.max_restarts),
            backoff=Backoff(maximum=MAX_PAUSE),
            on_terminal=self._ended,
        )

    def _children(self) -> list[ChildSpec]:
        """The supervision tree, whole."""
        config = self.config
        parts = ActorParts(
            settings=self.settings,
            configured=self._configured,
            persistence=self.persistence,
            view=self.view,
            clock=self.clock,
            steady=self.steady,
            events=self.events,
            checkpoints=self._checkpoints if self.journaled is not None else None,
            checkpointer=self._checkpointer if self.journaled is not None else None,
            backlogs=self._backlogs(),
            trim=self._trim,
            sync=self.journaled.sync if self.journaled and config.durability == "os" else None,
            discard_body=self.discard_body,
        )
        # Transient: drained by close(), it ends in order and must not come back.
        children = [
            ChildSpec.server("store", self.actor, SessionStoreActor, parts, restart="transient"),
        ]
        if self.journaled is not None:
            children.append(
                ChildSpec.server(
                    "checkpointer",
                    self._checkpointer,
                    Checkpointer,
                    self.journaled,
                    self.actor,
                ),
            )
        if self._catalog is not None and self._indexing is not None:
            children.append(
                ChildSpec.server(
                    "indexer",
                    self._indexer,
                    Indexer,
                    self._indexing,
                    self._catalog,
                ),
            )
        if self._texts is not None and self._text_indexing is not None:
            children.append(
                ChildSpec.server(
                    "texts",
                    self._text_indexer,
                    Writer,
                    self._text_indexing,
                    self._texts,
                ),
            )
        if config.watch and not config.in_memory:
            watcher = ServerRef("sessionkeeper.watcher", timers=self.clock)
            children.append(
                ChildSpec.server(
                    "watcher",
                    watcher,
                    FolderWatcher,
                    self.layout,
                    self.backend,
                    self.actor,
                    config.reconcile_interval,
                ),
            )
        return children

    def _checkpoints(self, suspect: Callable[[Sequence[str]], object]) -> Checkpoints:
        journaled = self.journaled
        if journaled is None:
            raise AssertionError("a store without a journal has no checkpoints")
        return Checkpoints(
            journaled,
            self._checkpointer,
            self.config.checkpoint_bytes,
            self.events.publish,
            suspect,
            paused=not self.persistence.enabled,
        )

    # --- use --------------------------------------------------------------------------------

    def submission(self, command: Prepared[Any]) -> Submission:
        """A command with a request id that no other command of any process has.

        What is large is brought to the medium now, in the caller's thread.

        Raises:
            StorageFailed: The medium refused it.
        """
        journaled = self.journaled if self.persistence.enabled else None
        if isinstance(command, PreparedSave) and journaled is not None:
            large = command.large_messages()
            if large is not None:
                body = journaled.stage_body(command.session_id, large)
                command = replace(command, body=body)
        return Submission(f"{self._nonce}-{next(self._numbers):x}", command)

    @property
    def is_persistent(self) -> bool:
        """Whether changes are stored."""
        return not self.config.in_memory and self.persistence.enabled

    def discard(self, submission: Submission) -> None:
        """Let go of what a submission brought to the medium, if it was certainly not done."""
        command = submission.command
        if isinstance(command, PreparedSave) and command.body is not None:
            self.discard_body(command.body)

    def discard_body(self, body: Body) -> None:
        """Remove staged messages that no version will use."""
        if self.journaled is not None:
            self.journaled.discard_body(body)

    def wait_ready(self) -> None:
        """Wait until the first recovery scan is done, however long it takes.

        Raises:
            StoreClosed: It failed again and again; the cause is chained.
        """
        self.view.wait_recovered()
        reason = self.exit_reason
        if reason is not None:
            raise StoreClosed(
                f"the store at {self.layout.root} did not come up: {reason}",
                path=self.layout.root,
            ) from reason.exception

    def processes(self) -> list[ProcessInfo]:
        """The supervisor and its children, in the order in which they are started."""
        children = self.supervisor.which_children()
        return [
            ProcessInfo.of("supervisor", self.supervisor),
            *(ProcessInfo.of(child.id, child.ref) for child in children if child.ref is not None),
        ]

    def _suspect(self, session_id: str) -> None:
        self.actor.post(Suspects((self.backend.file_name(session_id),)))

    def _actor_ended(self, reason: ExitReason) -> None:
        if reason.is_crash:
            self.events.publish(Event("crashed", detail=str(reason)))

    def _ended(self, reason: ExitReason) -> None:
        """The supervisor has stopped all children, by request or because it gave up."""
        if not reason.is_crash:
            self._finish_index()  # while there are records to compare it with
        self.exit_reason = reason
        self.view.close()
        self.events.publish(Event("stopped", detail=str(reason)))
        self._terminal.set()

    # --- the end ----------------------------------------------------------------------------

    def close(self, timeout: float | None) -> bool:
        """Have the backlog done, stop all children in reverse order, give the folder up.

        The folder stays locked if the actor does not end in time: a second writer beside a
        living first would be worse than a folder that stays locked until this process ends.

        Returns:
            Whether all was done and has ended within the timeout.
        """
        done = self.actor.drain(timeout)
        self.persistence.drop()
        if self._text_indexing is not None:
            self._text_indexing.hurry()
        ended = self.supervisor.stop(timeout)
        self.view.close()
        if not ended:
            logger.error("the store at %s did not stop in time", self.layout.root)
            return False
        if self.journaled is not None:
            self.journaled.finish_files()
        self._finish_index()
        self._close_index()
        self.backend.close()
        self._release()
        return done

    def _finish_index(self) -> None:
        """Do what the indexer left undone, once its thread has ended."""
        if self._indexing is not None and self._indexer.join(0):
            self._indexing.finish()
        if self._text_indexing is not None and self._text_indexer.join(0):
            self._text_indexing.finish()

    def _close_index(self) -> None:
        for backlog in (self._catalog, self._texts):
            try:
                if backlog is not None:
                    backlog.index.close()
            except IndexFailed as error:
                logger.warning("the index at %s: %s", backlog and backlog.index.path, error)

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.release()
