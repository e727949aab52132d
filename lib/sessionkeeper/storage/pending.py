"""What the journal holds of a session and its file does not, yet."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sessionkeeper.storage.lines import weight

if TYPE_CHECKING:
    from sessionkeeper.storage.backend import Append
    from sessionkeeper.storage.documents import Document, Record


@dataclass(slots=True)
class Pending:
    """The unpublished changes of one session.

    The actor's thread adds to it; readers take a copy of `appends` and skip what the file they
    read holds already. It is never shortened: a shorter one takes its place.

    Attributes:
        base: A whole version that could not be published; None: the file is the base.
        appends: What was added to it since, oldest first.
    """

    base: Document | None = None
    appends: list[Append] = field(default_factory=list)

    @property
    def record(self) -> Record | None:
        """The newest version; None if there is nothing."""
        if self.appends:
            return self.appends[-1].record
        return None if self.base is None else self.base.record

    def begins_after(self, lsn: int) -> bool:
        """Whether it is a session that was made after the change of that number."""
        return self.base is not None and self.base.record.lsn > lsn

    @property
    def size(self) -> int:
        """Bytes of the messages added."""
        return sum(weight(append.chunks) for append in self.appends)

    def upon(self, document: Document) -> Document:
        """The newest version, given the base or a later one."""
        later = [a for a in list(self.appends) if a.record.lsn > document.record.lsn]
        if not later:
            return document
        more = [chunk for append in later for chunk in append.chunks]
        return document.with_appended(more, later[-1].record)

    def after(self, lsn: int) -> Pending | None:
        """What is left when a version of that number is published; None if nothing is."""
        appends = [append for append in self.appends if append.record.lsn > lsn]
        return Pending(None, appends) if appends else None
