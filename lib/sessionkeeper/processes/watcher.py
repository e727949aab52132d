"""The watcher: files added, edited or removed by hand are brought before the actor."""

from __future__ import annotations

import contextlib
import logging
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer

from sessionkeeper.events import logger
from sessionkeeper.layout import SUFFIX, is_namespace
from sessionkeeper.otp import GenServer
from sessionkeeper.processes.actor import Suspects

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from watchdog.observers.api import ObservedWatch

    from sessionkeeper.layout import Layout
    from sessionkeeper.otp import ExitReason, ServerRef
    from sessionkeeper.storage.backend import Backend

# Seconds in which names are collected: a burst of own publishes wakes the watcher once, and a
# save by an editor is several notifications.
COLLECT = 0.05

# So many folders of namespaces are watched, each by a thread of watchdog's. What happens in others
# is found when the whole folder is compared.
MAX_WATCHED = 32

# Above this many changed names between two looks the whole folder is compared instead.
MANY = 1000


def _not_about_stopping(record: logging.LogRecord) -> bool:
    """Watchdog logs an error when a notification comes while it is being stopped: it is none."""
    return "called when the thread is inactive" not in record.getMessage()


class Look:
    """A word to the watcher itself: look at the names collected."""


class Compare:
    """A word to the watcher itself: compare the whole folder."""


@dataclass(slots=True)
class Collected:
    """What has changed since the last look.

    Attributes:
        names: Files, by their names below the sessions folder.
        folders: Folders in there that have come, or gone.
        gone: Whether one of these has gone, with whatever was in it.
    """

    names: set[str] = field(default_factory=set)
    folders: set[str] = field(default_factory=set)
    gone: bool = False


class _Collector(FileSystemEventHandler):
    """Collects names in watchdog's thread; wakes the watcher once for each batch."""

    def __init__(self, folder: Path, wake: Callable[[], object]) -> None:
        self._prefix = f"{folder}/"
        self._wake = wake
        self._lock = threading.Lock()
        self._collected = Collected()

    def on_any_event(self, event: FileSystemEvent) -> None:
        if event.event_type in ("opened", "closed_no_write"):
            return
        below = {self._below(event.src_path), self._below(event.dest_path)}
        # Also hidden ones: the single file of a store may be one.
        names = {name for name in below if name.endswith(SUFFIX)}
        folders: set[str] = set()
        if event.is_directory and event.event_type != "modified":
            folders = set(filter(is_namespace, below))
        if not names and not folders:
            return
        with self._lock:
            collected = self._collected
            first = not collected.names and not collected.folders
            collected.names |= names
            collected.folders |= folders
            collected.gone |= bool(folders) and event.event_type != "created"
        if first:
            self._wake()

    def take(self) -> Collected:
        with self._lock:
            collected, self._collected = self._collected, Collected()
        return collected

    def _below(self, path: bytes | str) -> str:
        text = path.decode("utf-8", "surrogateescape") if isinstance(path, bytes) else path
        return text.removeprefix(self._prefix) if text.startswith(self._prefix) else ""


class FolderWatcher(GenServer):
    """Watches the sessions folder and tells the actor which files to look at.

    The folders of namespaces are watched each for itself: watching all that lies below the
    sessions folder would report every write into the journal.

    Notifications can be lost without a trace, so the folder is also compared with what is known
    at an interval. Files that are as the store published them are passed over in here: the
    actor only hears of others.

    Args:
        layout: The folders of the store.
        backend: Asked, from this thread, which files are not as published.
        actor: Whom to tell.
        interval: Seconds between two comparisons.
    """

    def __init__(
        self,
        layout: Layout,
        backend: Backend,
        actor: ServerRef,
        interval: float,
    ) -> None:
        super().__init__()
        self._layout = layout
        self._folder = layout.sessions
        self._backend = backend
        self._actor = actor
        self._interval = interval
        self._collector = _Collector(self._folder, lambda: self.send_after(COLLECT, Look()))
        self._observer = Observer()
        self._watched: dict[str, ObservedWatch] = {}

    def init(self) -> None:
        """Begin to watch."""
        logging.getLogger("watchdog.observers.inotify").addFilter(_not_about_stopping)
        self._observer.schedule(self._collector, str(self._folder), recursive=False)
        self._observer.start()
        self._watch_known()

    def handle_continue(self) -> None:
        """Look at what changed while nobody watched."""
        self.send_interval(self._interval, Compare())

    def handle_info(self, message: Any) -> None:
        """Pass on what has changed."""
        match message:
            case Look():
                self._look(self._collector.take())
            case Compare():
                self._watch_known()
                self._compare()
            case _:
                super().handle_info(message)

    def _look(self, collected: Collected) -> None:
        names = collected.names
        if self._layout.file is None:  # else a folder beside the file is nothing of the store's
            for namespace in sorted(collected.folders):
                self._unwatch(namespace)
                self._watch(namespace)
                # It may have been filled before it was watched.
                names |= self._names_in(namespace)
        if collected.gone or len(names) > MANY:
            self._compare()
        elif suspects := self._backend.changed(names):
            self._actor.post(Suspects(tuple(suspects)))

    def _watch_known(self) -> None:
        """Watch the folders that the store has made, or taken something from."""
        with contextlib.suppress(FileNotFoundError):
            for mark in sorted(self._layout.namespaces.iterdir()):
                if mark.name not in self._watched:
                    self._watch(mark.name)

    def _watch(self, namespace: str) -> None:
        folder = self._layout.folder_of(namespace)
        if len(self._watched) >= MAX_WATCHED or folder.is_symlink() or not folder.is_dir():
            return
        try:
            watch = self._observer.schedule(self._collector, str(folder), recursive=False)
        except OSError as error:  # gone again, or the system allows no more
            logger.warning("%s is looked at each %g s only: %s", folder, self._interval, error)
        else:
            self._watched[namespace] = watch

    def _unwatch(self, namespace: str) -> None:
        watch = self._watched.pop(namespace, None)
        if watch is not None:
            self._observer.unschedule(watch)

    def _names_in(self, namespace: str) -> set[str]:
        folder = self._layout.folder_of(namespace)
        if folder.is_symlink():
            return set()
        try:
            return {self._layout.name_at(path) for path in folder.iterdir()}
        except (FileNotFoundError, NotADirectoryError):
            return set()

    def _compare(self) -> None:
        suspects = self._backend.suspects()
        if suspects:
            self._actor.post(Suspects(tuple(suspects)))

    def terminate(self, reason: ExitReason) -> None:
        """Stop watchdog's threads and wait for them."""
        del reason
        self._observer.stop()
        self._observer.join()
