"""The files in use: what was last published, or taken, under each name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sessionkeeper.storage.examine import Known

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sessionkeeper.storage.index import Entry
    from sessionkeeper.storage.shelf import Shelf

_UNKNOWN: Final = object()


class KnownFiles:
    """The file of each session in use, by stem.

    One thread changes it, any thread asks. Those that memory has no room for are looked up on a
    shelf; None in the table then stands for what is known not to be.

    Attributes:
        shelf: Where files are looked up that are not in memory; None: all are.
    """

    def __init__(self) -> None:
        self.shelf: Shelf | None = None
        self._files: dict[str, Known | None] = {}

    def get(self, stem: str) -> Known | None:
        """What is known of the file of that stem; None if nothing is.

        Raises:
            IndexFailed: The shelf cannot be read.
        """
        known = self._files.get(stem, _UNKNOWN)
        if known is None or isinstance(known, Known):
            return known
        if self.shelf is None:
            return None
        return known_of(self.shelf.of_stems([stem]).get(stem))

    def in_memory(self, stem: str) -> Known | None:
        """What is known of it without looking it up."""
        return self._files.get(stem)

    def knows(self, stem: str) -> bool:
        """Whether a shelf need not be asked for that file."""
        return self.shelf is None or stem in self._files

    def __contains__(self, stem: str) -> bool:
        return self.get(stem) is not None

    def __setitem__(self, stem: str, known: Known) -> None:
        self._files[stem] = known

    def pop(self, stem: str) -> Known | None:
        """Forget a file; returns what was known of it.

        Raises:
            IndexFailed: See `get`.
        """
        known = self.get(stem)
        if self.shelf is None:
            self._files.pop(stem, None)
        else:
            self._files[stem] = None
        return known

    def drop(self, stem: str) -> None:
        """Let go of what the shelf says as well."""
        self._files.pop(stem, None)

    def all_in_memory(self) -> Iterator[tuple[str, Known]]:
        """Those that need not be looked up."""
        for stem, known in list(self._files.items()):
            if known is not None:
                yield stem, known


def known_of(entry: Entry | None) -> Known | None:
    """What an entry of the index says of a file; None if it says nothing of one."""
    if entry is None or entry.stem is None or entry.signature is None:
        return None
    return Known(entry.record, entry.signature)
