"""Notices of changed files, as the system gives them: inotify on Linux, else watchdog."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer

from sessionkeeper.layout import SUFFIX, is_namespace
from sessionkeeper.storage.inotify import Inotify

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from watchdog.observers.api import ObservedWatch


# Above this many changed names between two looks the whole folder is compared instead.
MANY: Final = 1000


@dataclass(slots=True)
class Collected:
    """What has changed since the last look.

    Attributes:
        names: Files, by their names below the sessions folder.
        folders: Folders in there that have come, or gone.
        unsure: Whether there may be more: one of these has gone, with whatever was in it, or
            notices were lost.
    """

    names: set[str] = field(default_factory=set)
    folders: set[str] = field(default_factory=set)
    unsure: bool = False


class Notices(Protocol):
    """Where notices of folders come from; used by one thread."""

    def watch(self, folder: Path, prefix: str) -> None:
        """Collect notices of a folder, not of what lies below its folders.

        Args:
            folder: It may be gone already.
            prefix: What the names of its files are given.

        Raises:
            OSError: It is gone, or the system allows no more.
        """

    def unwatch(self, prefix: str) -> None:
        """Collect no more of the folder with that prefix, if it is watched."""

    def take(self) -> Collected:
        """What was collected since the last time."""
        ...

    def stop(self) -> None:
        """Collect nothing more, and end the threads that did."""


class NoNotices:
    """What there is where the system gives none: the folder is compared at an interval only."""

    def watch(self, folder: Path, prefix: str) -> None:
        """See `Notices.watch`."""

    def unwatch(self, prefix: str) -> None:
        """See `Notices.unwatch`."""

    def take(self) -> Collected:
        """See `Notices.take`."""
        return Collected()

    def stop(self) -> None:
        """See `Notices.stop`."""


class KernelNotices:
    """Notices that lie in the kernel until they are taken, all in one go.

    Args:
        wake: Called, from a thread, when there is something to take: once until it is taken.
    """

    def __init__(self, wake: Callable[[], object]) -> None:
        self._wake = wake
        self._inotify = Inotify()
        self._prefixes: dict[int, str] = {}
        self._thread = threading.Thread(
            target=self._wait,
            name="sessionkeeper.notices",
            daemon=True,
        )
        self._thread.start()

    def _wait(self) -> None:
        while self._inotify.wait():
            self._wake()

    def watch(self, folder: Path, prefix: str) -> None:
        """See `Notices.watch`."""
        self._prefixes[self._inotify.watch(folder)] = prefix

    def unwatch(self, prefix: str) -> None:
        """See `Notices.unwatch`."""
        for watch in [watch for watch, other in self._prefixes.items() if other == prefix]:
            del self._prefixes[watch]
            self._inotify.unwatch(watch)

    def take(self) -> Collected:
        """See `Notices.take`."""
        notices, lost = self._inotify.read()
        collected = Collected(unsure=lost)
        for notice in notices:
            prefix = self._prefixes.get(notice.watch)
            if prefix is None:
                continue  # not watched any more
            if not notice.is_folder:
                if notice.name.endswith(SUFFIX):
                    collected.names.add(prefix + notice.name)
            elif not prefix and is_namespace(notice.name):
                collected.folders.add(notice.name)
                collected.unsure = collected.unsure or notice.went
        return collected

    def stop(self) -> None:
        """See `Notices.stop`."""
        self._inotify.stop()
        self._thread.join()
        self._inotify.close()


class WatchdogNotices(FileSystemEventHandler):
    """Notices that watchdog's threads bring, one by one.

    Args:
        wake: Called, from one of them, when there is something to take: once until it is taken.
    """

    def __init__(self, wake: Callable[[], object]) -> None:
        logging.getLogger("watchdog.observers.inotify").addFilter(_not_about_stopping)
        self._wake = wake
        self._lock = threading.Lock()
        self._collected = Collected()
        self._watched: dict[str, ObservedWatch] = {}
        # By what paths in it begin with, and the prefix that its files are given.
        self._folders: dict[str, str] = {}
        self._observer = Observer()
        self._observer.start()

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Collect what watchdog's thread brings."""
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
            first = not (collected.names or collected.folders or collected.unsure)
            collected.names |= names
            collected.folders |= folders
            collected.unsure |= bool(folders) and event.event_type != "created"
            if len(collected.names) > MANY:  # the names are not asked for then
                collected.names.clear()
                collected.unsure = True
        if first:
            self._wake()

    def _below(self, path: bytes | str) -> str:
        text = path.decode("utf-8", "surrogateescape") if isinstance(path, bytes) else path
        folder, _, name = text.rpartition("/")
        prefix = self._folders.get(folder)
        return "" if prefix is None else prefix + name

    def watch(self, folder: Path, prefix: str) -> None:
        """See `Notices.watch`."""
        self._folders[str(folder)] = prefix
        self._watched[prefix] = self._observer.schedule(self, str(folder), recursive=False)

    def unwatch(self, prefix: str) -> None:
        """See `Notices.unwatch`."""
        watch = self._watched.pop(prefix, None)
        if watch is not None:
            self._observer.unschedule(watch)

    def take(self) -> Collected:
        """See `Notices.take`."""
        with self._lock:
            collected, self._collected = self._collected, Collected()
        return collected

    def stop(self) -> None:
        """See `Notices.stop`."""
        self._observer.stop()
        self._observer.join()


def _not_about_stopping(record: logging.LogRecord) -> bool:
    """Watchdog logs an error when a notification comes while it is being stopped: it is none."""
    return "called when the thread is inactive" not in record.getMessage()
