"""The watcher: files added, edited or removed by hand are brought before the actor."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from sessionkeeper.events import logger
from sessionkeeper.keys import SEPARATOR
from sessionkeeper.otp import GenServer
from sessionkeeper.processes.actor import Suspects
from sessionkeeper.processes.notices import MANY, KernelNotices, NoNotices, WatchdogNotices
from sessionkeeper.storage import inotify

if TYPE_CHECKING:
    from pathlib import Path

    from sessionkeeper.layout import Layout
    from sessionkeeper.otp import ExitReason, ServerRef
    from sessionkeeper.processes.notices import Collected, Notices
    from sessionkeeper.storage.backend import Backend

# Seconds in which names are collected: a burst of own publishes wakes the watcher once, and a
# save by an editor is several notifications.
COLLECT = 0.05

# So many folders of namespaces are watched. What happens in others is found when the whole folder
# is compared.
MAX_WATCHED = 32


class Look:
    """A word to the watcher itself: look at the names collected."""


class Compare:
    """A word to the watcher itself: compare the whole folder."""


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
        self._notices: Notices = NoNotices()
        self._watched: set[str] = set()

    def init(self) -> None:
        """Begin to watch."""
        make = KernelNotices if inotify.AVAILABLE else WatchdogNotices
        try:
            self._notices = make(lambda: self.send_after(COLLECT, Look()))
            self._notices.watch(self._folder, "")
        except OSError as error:  # the system allows no more, or the folder is gone
            self._warn(self._folder, error)
        self._watch_known()

    def handle_continue(self) -> None:
        """Look at what changed while nobody watched."""
        self.send_interval(self._interval, Compare())

    def handle_info(self, message: Any) -> None:
        """Pass on what has changed."""
        match message:
            case Look():
                self._look(self._notices.take())
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
        if collected.unsure or len(names) > MANY:
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
            self._notices.watch(folder, namespace + SEPARATOR)
        except OSError as error:  # gone again, or the system allows no more
            self._warn(folder, error)
        else:
            self._watched.add(namespace)

    def _warn(self, folder: Path, error: OSError) -> None:
        logger.warning("%s is looked at each %g s only: %s", folder, self._interval, error)

    def _unwatch(self, namespace: str) -> None:
        self._watched.discard(namespace)
        self._notices.unwatch(namespace + SEPARATOR)

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
        """Stop watching, and wait for the threads that did."""
        del reason
        self._notices.stop()
