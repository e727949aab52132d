"""What the store answers: to changes, to cleanups, and about what it keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Self

from sessionkeeper.keys import key_of, split_key

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

Reason = Literal["age", "count", "pinned", "unfinished", "promised", "young", "newest", "unlimited"]
"""What the age of a session counts from."""


@dataclass(frozen=True, slots=True)
class Saved:
    """The answer to a change; when it arrives, the change is as durable as the store promises.

    Attributes:
        session_id: The session changed.
        generation: Its generation with this change; 1 means it was created.
        message_count: How many messages it has with this change.
        namespace: The namespace of the session; empty for the default one.
    """

    session_id: str
    generation: int
    message_count: int
    namespace: str = ""

    @classmethod
    def of(cls, key: str, generation: int, message_count: int) -> Self:
        """The answer to a change of the session of that key."""
        namespace, session_id = split_key(key)
        return cls(session_id, generation, message_count, namespace)


@dataclass(frozen=True, slots=True)
class Trashed:
    """One session that lies in the trash, and can be brought back.

    Attributes:
        session_id: The session.
        removed_at: When it was removed, aware, in UTC; its grace counts from then.
        reason: Why, in words.
        namespace: The namespace of the session; empty for the default one.
    """

    session_id: str
    removed_at: datetime
    reason: str
    namespace: str = ""

    @classmethod
    def of(cls, key: str, removed_at: datetime, reason: str) -> Self:
        """The removal of the session of that key."""
        namespace, session_id = split_key(key)
        return cls(session_id, removed_at, reason, namespace)


@dataclass(frozen=True, slots=True)
class Removal:
    """One session that a cleanup removed, or would remove.

    Attributes:
        session_id: The session.
        reason: `age` or `count`.
        detail: The reason in words.
        namespace: The namespace of the session; empty for the default one.
    """

    session_id: str
    reason: Literal["age", "count"]
    detail: str
    namespace: str = ""

    @classmethod
    def of(cls, key: str, reason: Literal["age", "count"], detail: str) -> Self:
        """The removal of the session of that key."""
        namespace, session_id = split_key(key)
        return cls(session_id, reason, detail, namespace)

    @property
    def key(self) -> str:
        """The key of the session."""
        return key_of(self.namespace, self.session_id)


@dataclass(frozen=True, slots=True)
class Decision:
    """What a cleanup does with one session, and why.

    Attributes:
        session_id: The session.
        removed: Whether it goes to the trash.
        reason: It goes because of its `age` or the `count` of sessions. It stays because it is
            `pinned`, `unfinished`, `promised` to be kept for longer, `young`, among the `newest`,
            or because retention is `unlimited`. The first of these that applies is given.
        detail: The reason in words.
        namespace: The namespace of the session; empty for the default one.
    """

    session_id: str
    removed: bool
    reason: Reason
    detail: str
    namespace: str = ""

    @classmethod
    def of(cls, key: str, removed: bool, reason: Reason, detail: str) -> Self:  # noqa: FBT001
        """The decision about the session of that key."""
        namespace, session_id = split_key(key)
        return cls(session_id, removed, reason, detail, namespace)

    @property
    def key(self) -> str:
        """The key of the session."""
        return key_of(self.namespace, self.session_id)


@dataclass(frozen=True, slots=True)
class BackupInfo:
    """A version of a session that was replaced, and is kept.

    Attributes:
        session_id: The session.
        generation: Which version it is.
        updated_at: When that version was made (aware, UTC).
        size: Bytes of its file.
        path: Where it lies.
        namespace: The namespace of the session; empty for the default one.
    """

    session_id: str
    generation: int
    updated_at: datetime
    size: int
    path: Path
    namespace: str = ""

    @classmethod
    def of(cls, key: str, generation: int, updated_at: datetime, size: int, path: Path) -> Self:
        """A version of the session of that key."""
        namespace, session_id = split_key(key)
        return cls(session_id, generation, updated_at, size, path, namespace)


@dataclass(frozen=True, slots=True)
class StorageStats:
    """What a store takes on the disk; sizes are bytes.

    Attributes:
        session_count: Session files. Sessions whose file is still to be made are not in it.
        session_size: Their bytes.
        backup_count: Replaced versions that are kept.
        backup_size: Their bytes.
        trash_size: Deleted sessions whose grace is not over.
        quarantine_size: What could not be read and was set aside.
        journal_size: The journal, with the room it keeps.
        total_size: All of these and the index.
    """

    session_count: int
    session_size: int
    backup_count: int
    backup_size: int
    trash_size: int
    quarantine_size: int
    journal_size: int
    total_size: int


@dataclass(frozen=True, slots=True)
class Erased:
    """What was taken away for good.

    Attributes:
        session_id: The session.
        files: How many files there were of it: its own, backups, removals, what was set aside.
        size: Their bytes.
        namespace: The namespace of the session; empty for the default one.
    """

    session_id: str
    files: int
    size: int
    namespace: str = ""

    @classmethod
    def of(cls, key: str, files: int, size: int) -> Self:
        """What was taken away of the session of that key."""
        namespace, session_id = split_key(key)
        return cls(session_id, files, size, namespace)

    @property
    def key(self) -> str:
        """The key of the session."""
        return key_of(self.namespace, self.session_id)
