"""The façade: opens and closes a store, and is stable over restarts of what is behind it."""

from __future__ import annotations

import atexit
import contextlib
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypeVar

from sessionkeeper import presets
from sessionkeeper.describing import Describing
from sessionkeeper.engine.cache import SessionCache
from sessionkeeper.engine.commands import (
    Cleanup,
    Configure,
    CountSessions,
    EnablePersistence,
    ExplainCleanup,
    without_persistence,
)
from sessionkeeper.engine.validation import check_validators
from sessionkeeper.engine.values import Values
from sessionkeeper.engine.view import View
from sessionkeeper.errors import (
    StoreClosed,
    StoreNotFound,
    StoreReadOnly,
)
from sessionkeeper.events import EventBus, logger
from sessionkeeper.layout import Layout, check_namespace
from sessionkeeper.opening import check_layout, is_left_open, layers_of, path_for_app
from sessionkeeper.processes.tree import Injected, StoreTree, SystemTime
from sessionkeeper.receipts import Unread
from sessionkeeper.scope import SessionScope
from sessionkeeper.sending import Sending
from sessionkeeper.storage.platform import FileSystem
from sessionkeeper.storage.reader import FolderReader
from sessionkeeper.storage.singlereader import SingleFileReader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from os import PathLike
    from pathlib import Path
    from types import TracebackType

    from sessionkeeper.answers import Decision, Removal
    from sessionkeeper.changing import Timeout
    from sessionkeeper.clock import Clock
    from sessionkeeper.config import Config
    from sessionkeeper.engine.validation import Validator
    from sessionkeeper.engine.values import CodecName
    from sessionkeeper.presets import PresetName

T = TypeVar("T")

# Values are taken as they are.
PLAIN: Final = Values()

# How long an interpreter that exits waits for stores that were left open, in seconds.
EXIT_TIMEOUT = 10.0


class SessionStore(Describing, Sending):
    """A durable store of sessions in one folder.

    Its methods for sessions work on those of the default namespace; `scope` gives those of another.
    Open it with `SessionStore.open`, best as a context manager. All methods may be called from
    any thread. A method that changes something returns when the change is as durable as the
    store promises (`durability="file"`: on the disk, name and all), or raises.
    """

    def __init__(
        self,
        path: Path,
        clock: Clock,
        events: EventBus,
        view: View,
        tree: StoreTree | None,
        *,
        validators: tuple[Validator, ...] = (),
        values: Values = PLAIN,
    ) -> None:
        self._namespace = ""
        self._path = path
        self._clock = clock
        # The last change that a process made which did not close the store; None: it did.
        self._left_open_at: int | None = None
        self._validators = validators
        self._values = values
        self._converts = values != PLAIN
        self._events = events
        self._view = view
        self._tree = tree
        self._unread = Unread()
        self._closed = False
        _open_stores.add(self)

    # --- opening and closing ----------------------------------------------------------------

    @classmethod
    def open(
        cls,
        path: str | PathLike[str] | None = None,
        *,
        preset: PresetName | None = None,
        read_only: bool = False,
        inject: Injected | None = None,
        validators: Iterable[Validator | str] = (),
        on_write: Iterable[Callable[[Any], Any]] = (),
        to_json: Callable[[Any], Any] | Literal["auto"] | None = None,
        codec: CodecName = "json",
        **settings: Any,
    ) -> Self:
        """Open the store in a folder; creates it unless it is there.

        Args:
            path: The folder. `~` is expanded; a relative path is resolved now, once. None takes
                what the environment variable SESSIONKEEPER_PATH says, or the preset.
            preset: A set of defaults for one kind of program: `capture`, `agent`, `history`,
                `bot` or `recorder`; see `sessionkeeper.presets`.
            read_only: Take no lock and change nothing: works beside a live owner, and shows
                what the folder held when it was opened, each session as it is when loaded.
            inject: Replacements of clock and file system, for tests.
            validators: What every change is checked with before it is sent: functions that get
                the session as it would be and return a list of issues, or raise; or the names
                of built-in checks: `description`, `times`, `counts`, `ids`.
            on_write: Functions that each message goes through before it is encoded, in the
                caller's thread, for redaction say. They get a copy and return what is stored.
            to_json: Makes messages, states and data of events JSON that are not; `auto` knows
                dataclasses and pydantic models.
            codec: `tagged` also takes datetimes, UUIDs, Decimals and bytes, and gives them back
                as what they were.
            settings: See `Config`; an unknown one is a TypeError. What is not given here is
                taken from variables like SESSIONKEEPER_RETENTION_DAYS, else from the config.json
                of the store, from the preset, else it is the default.

        Raises:
            StoreLocked: Another owner is alive; the error names it.
            StoreDamaged: `recovery="strict"`, and part of it is damaged.
            StoreNotFound: `read_only`, and there is no store.
            InvalidConfig: A setting outside its range, or one missing that the preset asks for.
            StoreClosed: The recovery failed again and again.
            OSError: The folder cannot be created.
        """
        injected = inject or Injected()
        chosen = None if preset is None else presets.get(preset)
        layers = layers_of(path, settings, injected.fs or FileSystem(), chosen)
        config = layers.config()
        checks, values = check_validators(validators), Values.of(on_write, to_json, codec)
        check_layout(config)
        if read_only:
            return cls._open_read_only(config, injected, checks, values)
        if chosen is not None:
            presets.require_asked(chosen, layers)
        left_open = is_left_open(config)
        tree = StoreTree(layers, injected)
        store = cls(
            config.path,
            tree.clock,
            tree.events,
            tree.view,
            tree,
            validators=checks,
            values=values,
        )
        try:
            tree.wait_ready()
        except BaseException:
            tree.close(EXIT_TIMEOUT)
            _open_stores.discard(store)
            raise
        if left_open:
            store._left_open_at = store.last_recovery.lsn
        return store

    @classmethod
    def for_app(cls, name: str, **options: Any) -> Self:
        """Open the store of an application, where the platform keeps data of applications.

        On Linux that is `$XDG_DATA_HOME/{name}/sessions`, or `~/.local/share/{name}/sessions`. The
        environment variable SESSIONKEEPER_PATH goes before it.

        Args:
            name: The application; the name of its folder.
            options: All that `open` takes but the path.

        Raises:
            InvalidConfig: The name cannot be that of a folder on every system.
            SessionKeeperError: See `open`.
        """
        return cls.open(path_for_app(name), **options)

    @classmethod
    def _open_read_only(
        cls,
        config: Config,
        injected: Injected,
        validators: tuple[Validator, ...],
        values: Values,
    ) -> Self:
        layout = Layout.of(config.path, config.layout)
        if config.in_memory or not layout.private.is_dir():
            raise StoreNotFound(f"there is no store at {config.path}", path=config.path)
        clock = injected.clock or SystemTime()
        kind = FolderReader if layout.file is None else SingleFileReader
        reader = kind(layout, injected.fs or FileSystem(), clock)
        # The owner replaces files without telling us: nothing may be served from a cache.
        cache = SessionCache(1, config.cache_ttl, clock)

        def look_again(session_id: str) -> None:
            view.reconciled(reader.reconcile([reader.file_name(session_id)], view.lsn))

        view = View(reader, cache, config.call_timeout, look_again, reads_texts=True)
        report = reader.recover()
        for problem in report.problems:
            logger.warning("%s: %s: %s", problem.kind, problem.path, problem.detail)
        view.recovered(report)
        return cls(
            config.path,
            clock,
            EventBus(),
            view,
            None,
            validators=validators,
            values=values,
        )

    def close(self, timeout: float | None = 30.0) -> None:
        """Have everything done that was sent, stop, and give the folder up.

        A second call does nothing.

        Args:
            timeout: Seconds to wait for what was sent; None for as long as it takes.

        Raises:
            UnreadFailures: A command sent with `tell` failed and nobody looked at its receipt.
            NotExecuted: Something was not done within the timeout.
        """
        if self._closed:
            return
        self._closed = True
        _open_stores.discard(self)
        if self._tree is None:
            self._view.close()
            return
        try:
            with contextlib.suppress(StoreClosed):  # it gave up before: said so already
                self.ask(CountSessions(), timeout=timeout)
        finally:
            self._tree.close(timeout)
        self._unread.raise_if_any()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.close()
        except Exception as close_error:
            if error is None:
                raise
            error.add_note(f"closing the store failed too: {close_error!r}")

    def cleanup(self, *, dry_run: bool = False) -> list[Removal]:
        """Apply the retention settings now, instead of when the timer does.

        They hold for the sessions of all namespaces together, and so does this.

        Args:
            dry_run: Only say what would be removed.

        Returns:
            What was removed and why.
        """
        return self.ask(Cleanup(dry_run))

    def explain_cleanup(self) -> list[Decision]:
        """Say what a cleanup would do with each session now, and why.

        Returns:
            One decision for each session of the store, the one changed last first; also for those
            that stay.
        """
        return self.ask(ExplainCleanup())

    @property
    def config(self) -> Config:
        """The settings in force."""
        if self._tree is None:
            raise StoreReadOnly("a store opened read-only goes by its owner's settings")
        return self._tree.config

    def configure(self, **settings: Any) -> None:
        """Change settings of the open store, and in its config.json, at once for everybody.

        They hold for the next opening too, unless that is given others. The owner of a store
        takes changes that others make in the file within `reconcile_interval` seconds.

        Args:
            settings: Retention, cache, timeouts, backups and checkpoints can be changed; what
                decides how the store is put together cannot. `persistence` is not put into the
                file: see `enable_persistence`.

        Raises:
            TypeError: An unknown setting.
            InvalidConfig: A value outside its range, or a setting that counts at the opening.
            StorageFailed: They could not be stored; nothing is changed.
        """
        rest, persistence = without_persistence(settings)
        if rest or persistence is None:
            self.ask(Configure(rest))
        if persistence is not None:
            self.enable_persistence(persistence)

    def enable_persistence(
        self,
        enabled: bool = True,  # noqa: FBT001, FBT002 - the only thing to say
        *,
        timeout: Timeout = None,
    ) -> None:
        """Switch persistence on, or off, while the store is open.

        While it is off, changes stay in memory and nothing of them touches the disk; what is
        stored stays as it was and can be read. When it is switched on again, all that was changed
        meanwhile is written before the call returns: the newest version of each session, and what
        was deleted. If the process ends before, or the store is closed, that is lost:
        `info().unsaved` says how much it is, and an event `dropped` how much it was. A crash of
        the actor loses nothing. Sessions cannot be erased meanwhile, and files changed by hand
        are looked at later.

        Args:
            enabled: Whether changes are stored.
            timeout: Seconds; None for as long as it takes.

        Raises:
            InvalidConfig: The store was opened in memory: it has no place on the disk.
            StorageFailed: Not all could be written; persistence stays off, nothing is lost.
        """
        self.ask(EnablePersistence(enabled), timeout=timeout)

    # --- namespaces -------------------------------------------------------------------------

    def scope(self, namespace: str) -> SessionScope:
        """The sessions of a namespace: the same methods, and none of the other sessions.

        Nothing is made by that: a namespace is there as soon as a session is saved in it, and one
        id can be that of a session in each.

        Args:
            namespace: Up to 64 letters, digits, `_` and `-`; the name of its folder.

        Raises:
            InvalidNamespace: It cannot name one.
        """
        return SessionScope(
            self,
            check_namespace(namespace),
            view=self._view,
            events=self._events,
            values=self._values,
            validators=self._validators,
            left_open_at=self._left_open_at,
        )

    def namespaces(self) -> list[str]:
        """The names of the namespaces that hold sessions, but for the default one, sorted."""
        self._view.wait_readable()
        return [namespace for namespace in self._view.namespaces() if namespace]


# Strong references: a store that was dropped without being closed still has work to finish.
_open_stores: set[SessionStore] = set()


def _close_at_exit() -> None:
    for store in list(_open_stores):
        try:
            store.close(EXIT_TIMEOUT)
        except Exception:  # noqa: BLE001 - the other stores must be closed all the same
            logger.exception("the store at %s was not closed in order", store.path)


atexit.register(_close_at_exit)
