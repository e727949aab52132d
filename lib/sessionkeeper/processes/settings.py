"""The settings of an open store, as they are now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sessionkeeper.retention import Retention

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sessionkeeper.settings import Layers
    from sessionkeeper.storage.configfile import ConfigFile


class StoreSettings:
    """What is in force; the actor changes it, between two turns, and any thread reads it.

    Args:
        layers: What was given where.
        file: The store's config.json; None if nothing touches the disk.

    Attributes:
        config: The settings in force.
        retention: What they say of how long sessions are kept.
    """

    def __init__(self, layers: Layers, file: ConfigFile | None) -> None:
        self._file = file
        self._adopt(layers)

    def _adopt(self, layers: Layers) -> None:
        self._layers = layers
        self.config = config = layers.config()
        self.retention = Retention(
            config.retention_days,
            config.max_sessions,
            config.retention_basis,
        )

    def configure(self, changes: Mapping[str, Any]) -> None:
        """Change settings, in the file and from now on.

        Raises:
            InvalidConfig: A value outside its range, or a setting that counts at the opening.
            StorageFailed: They could not be stored; nothing is changed.
        """
        layers = self._layers.configured(dict(changes))
        if self._file is not None:
            self._file.write(layers.stored)
        self._adopt(layers)

    def reload(self) -> bool:
        """Take what somebody else has written into the file.

        Returns:
            Whether anything may have changed.

        Raises:
            InvalidConfig: It does not hold settings; those in force stay.
            OSError: It cannot be read.
        """
        if self._file is None or not self._file.has_changed():
            return False
        self._adopt(self._layers.with_stored(self._file.read()))
        return True
