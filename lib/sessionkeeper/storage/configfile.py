"""The store's config.json: settings that stay with the folder."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import orjson

from sessionkeeper.errors import StorageFailed
from sessionkeeper.settings import from_json
from sessionkeeper.storage.platform import Signature

if TYPE_CHECKING:
    from sessionkeeper.layout import Layout
    from sessionkeeper.settings import Settings
    from sessionkeeper.storage.platform import FileSystem


class ConfigFile:
    """Reads and replaces the config.json of one store.

    Args:
        fs: The file system.
        layout: The folders.
    """

    def __init__(self, fs: FileSystem, layout: Layout) -> None:
        self._fs = fs
        self._layout = layout
        self._seen: Signature | None = None

    def read(self) -> Settings:
        """What it holds; nothing if there is none.

        Raises:
            InvalidConfig: It holds anything but known settings.
            OSError: It cannot be read.
        """
        path = self._layout.config
        try:
            pieces, self._seen = self._fs.read(path)
        except (FileNotFoundError, NotADirectoryError):
            self._seen = None
            return {}
        return from_json(b"".join(pieces), path)

    def has_changed(self) -> bool:
        """Whether it is not as it was last read or written."""
        status = self._fs.status(self._layout.config)
        return self._seen != (None if status is None else Signature.of(status))

    def write(self, settings: Settings) -> None:
        """Replace it, durably.

        Raises:
            StorageFailed: The medium refused; the one before stands.
        """
        path = self._layout.config
        temporary = self._layout.temporaries / f"config-{secrets.token_hex(6)}.tmp"
        content = orjson.dumps(settings, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
        try:
            signature = self._fs.write_new(temporary, [content])
            self._fs.replace(temporary, path)
            self._fs.sync_folder(path.parent)
        except OSError as error:
            raise StorageFailed(f"the settings were not stored: {error}", path=path) from error
        self._seen = signature
