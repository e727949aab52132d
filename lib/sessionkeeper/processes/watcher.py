"""The watcher: files added, edited or removed by hand are brought before the actor."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer

from sessionkeeper.layout import SUFFIX
from sessionkeeper.otp import GenServer
from sessionkeeper.processes.actor import Suspects

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sessionkeeper.otp import ExitReason, ServerRef
    from sessionkeeper.storage.backend import Backend

# Seconds in which names are collected: a burst of own publishes wakes the watcher once, and a
# save by an editor is several notifications.
COLLECT = 0.05

# Above this many changed names between two looks the whole folder is compared instead.
MANY = 1000


def _not_about_stopping(record: logging.LogRecord) -> bool:
    """Watchdog logs an error when a notification comes while it is being stopped: it is none."""
    return "called when the thread is inactive" not in record.getMessage()


class Look:
    """A word to the watcher itself: look at the names collected."""


class Compare:
    """A word to the watcher itself: compare the whole folder."""


class _Collector(FileSystemEventHandler):
    """Collects names in watchdog's thread; wakes the watcher once for each batch."""

    def __init__(self, wake: Callable[[], object]) -> None:
        self._wake = wake
        self._lock = threading.Lock()
        self._names: set[str] = set()

    def on_any_event(self, event: FileSystemEvent) -> None:
        if event.event_type in ("opened", "closed_no_write"):
            return
        names = {_base(event.src_path), _base(event.dest_path)}
        # Also hidden ones: the single file of a store may be one.
        names = {name for name in names if name.endswith(SUFFIX)}
        if not names:
            return
        with self._lock:
            first = not self._names
            self._names |= names
        if first:
            self._wake()

    def take(self) -> set[str]:
        with self._lock:
            names, self._names = self._names, set()
            return names


def _base(path: bytes | str) -> str:
    text = path.decode("utf-8", "surrogateescape") if isinstance(path, bytes) else path
    return text.rsplit("/", 1)[-1]


class FolderWatcher(GenServer):
    """Watches the sessions folder and tells the actor which files to look at.

    Notifications can be lost without a trace, so the folder is also compared with what is known
    at an interval. Files that are as the store published them are passed over in here: the
    actor only hears of others.

    Args:
        folder: The sessions folder.
        backend: Asked, from this thread, which files are not as published.
        actor: Whom to tell.
        interval: Seconds between two comparisons.
    """

    def __init__(self, folder: Path, backend: Backend, actor: ServerRef, interval: float) -> None:
        super().__init__()
        self._folder = folder
        self._backend = backend
        self._actor = actor
        self._interval = interval
        self._collector = _Collector(lambda: self.send_after(COLLECT, Look()))
        self._observer = Observer()

    def init(self) -> None:
        """Begin to watch."""
        logging.getLogger("watchdog.observers.inotify").addFilter(_not_about_stopping)
        self._observer.schedule(self._collector, str(self._folder), recursive=False)
        self._observer.start()

    def handle_continue(self) -> None:
        """Look at what changed while nobody watched."""
        self.send_interval(self._interval, Compare())

    def handle_info(self, message: Any) -> None:
        """Pass on what has changed."""
        match message:
            case Look():
                names = self._collector.take()
                if len(names) > MANY:
                    self._compare()
                elif suspects := self._backend.changed(names):
                    self._actor.post(Suspects(tuple(suspects)))
            case Compare():
                self._compare()
            case _:
                super().handle_info(message)

    def _compare(self) -> None:
        suspects = self._backend.suspects()
        if suspects:
            self._actor.post(Suspects(tuple(suspects)))

    def terminate(self, reason: ExitReason) -> None:
        """Stop watchdog's threads and wait for them."""
        del reason
        self._observer.stop()
        self._observer.join()
