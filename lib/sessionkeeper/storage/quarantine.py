"""The quarantine: what could not be read, out of the way, each with a note that says why."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final

import orjson

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sessionkeeper.clock import Clock
    from sessionkeeper.layout import Layout
    from sessionkeeper.session import Chunk
    from sessionkeeper.storage.platform import FileSystem


# Beside each file stands a note that says why it is here.
NOTE_SUFFIX: Final = ".why.json"


class Quarantine:
    """Files set aside; nothing in here is ever used or removed by the store."""

    def __init__(self, fs: FileSystem, layout: Layout, clock: Clock) -> None:
        self._fs = fs
        self._layout = layout
        self._folder = layout.quarantine
        self._clock = clock

    def take(self, path: Path, kind: str, detail: str) -> Path:
        """Move a file here, durably.

        Returns:
            Where it is now.

        Raises:
            OSError: As the system said; FileNotFoundError if it is gone already.
        """
        aside = self._note(path, kind, detail)
        self._fs.replace(path, aside)
        self._fs.sync_folder(self._folder)
        return aside

    def keep(self, path: Path, kind: str, detail: str) -> Path:
        """Give a file a second name here, durably; one that has it already gets no other.

        Returns:
            Where it is now, too. On a medium without second names it is moved.

        Raises:
            OSError: As the system said; FileNotFoundError if it is gone already.
        """
        inode = path.lstat().st_ino
        for entry in self._fs.entries(self._folder):
            if entry.inode() == inode:
                return self._folder / entry.name
        aside = self._note(path, kind, detail)
        try:
            self._fs.link(path, aside)
        except FileNotFoundError:
            raise
        except OSError:
            self._fs.replace(path, aside)
        self._fs.sync_folder(self._folder)
        return aside

    def copy(self, path: Path, kind: str, detail: str, data: Sequence[Chunk]) -> Path:
        """Keep bytes of a file that itself will be written over.

        Returns:
            Where they are.

        Raises:
            OSError: As the system said.
        """
        aside = self._note(path, kind, detail)
        self._fs.write_new(aside, data)
        self._fs.sync_folder(self._folder)
        return aside

    def _note(self, path: Path, kind: str, detail: str) -> Path:
        now = self._clock.now()
        # Two stores, one after the other, may set two versions of one file aside in a second.
        stamp = f"{now:%Y%m%dT%H%M%S}-{secrets.token_hex(4)}"
        aside = self._folder / f"{path.stem}.{stamp}{path.suffix}"
        inside = path.is_relative_to(self._layout.sessions)
        file = self._layout.name_at(path) if inside else path.name
        note = {"file": file, "kind": kind, "detail": detail, "at": now.isoformat()}
        self._fs.write_new(aside.with_suffix(NOTE_SUFFIX), [orjson.dumps(note)])
        return aside
