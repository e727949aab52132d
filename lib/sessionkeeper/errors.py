"""Every error the store raises, each with a hint that says what to do.

All of them derive from `SessionKeeperError`. Where a builtin says the same thing, the error
derives from it too, so that `except LookupError` and `except ValueError` work as expected.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sessionkeeper.keys import split_key

if TYPE_CHECKING:
    from pathlib import Path


class SessionKeeperError(Exception):
    """Base of all errors of the store.

    Attributes:
        session_id: The id of the session concerned, or None.
        namespace: Its namespace; empty for the default one, and if no session is concerned.
        path: The file or folder concerned, or None.
        hint: What the caller can do about it.
    """

    default_hint = "See the error reference in the documentation."

    def __init__(
        self,
        message: str,
        *,
        session_id: str | None = None,
        path: Path | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message)
        # Given is the session's key, as the store names it.
        self.namespace, self.session_id = "", session_id
        if session_id is not None:
            self.namespace, self.session_id = split_key(session_id)
        self.path = path
        self.hint = hint or self.default_hint

    def __str__(self) -> str:
        return f"{self.args[0]} ({self.hint})"


# --- Bad input: refused before anything changes -------------------------------------------


class InvalidSessionId(SessionKeeperError, ValueError):
    """The id cannot name a session; nothing was touched."""

    default_hint = (
        "Use letters, digits, '.', '_' and '-'; other printable characters are encoded. "
        "Separators, control characters, leading or trailing dots and spaces, and names that "
        "an operating system reserves are refused."
    )

    def __init__(self, message: str, *, session_id: str) -> None:
        super().__init__(message)
        self.session_id = session_id  # no key: it may hold anything


class InvalidNamespace(SessionKeeperError, ValueError):
    """The name cannot be that of a namespace; nothing was touched.

    Attributes:
        namespace: The name.
    """

    default_hint = (
        "Use 1 to 64 letters, digits, '_' and '-', not beginning with '-'. Names that an "
        "operating system reserves, and a second name that differs in capitals only, are refused."
    )

    def __init__(self, message: str, *, namespace: str) -> None:
        super().__init__(message)
        self.namespace = namespace


class InvalidValue(SessionKeeperError, ValueError):
    """A value that JSON would not give back equal; the text names the path to it."""

    default_hint = "Convert it to plain JSON values (str, int, float, bool, None, list, dict)."


class ValidationFailed(SessionKeeperError, ValueError):
    """A validator of the store refused what the session would become; nothing was written.

    Attributes:
        issues: All that is wrong.
    """

    default_hint = "Correct what the issues name and repeat the call."

    def __init__(self, message: str, *, session_id: str, issues: list[str]) -> None:
        super().__init__(message, session_id=session_id)
        self.issues = issues


class InvalidConfig(SessionKeeperError, ValueError):
    """A setting outside its range."""

    default_hint = "See the table of settings in the documentation."


class InvalidQuery(SessionKeeperError, ValueError):
    """A search argument that cannot be understood."""

    default_hint = "Dates are `date` or aware `datetime`, limits are 0 or more, cursors are ours."


class SessionTooLarge(SessionKeeperError, ValueError):
    """The change would make a session larger than `max_session_size`; nothing was written."""

    default_hint = "Begin another session, fork a part of it, or raise max_session_size."


# --- The session is not as the caller assumed ---------------------------------------------


class SessionNotFound(SessionKeeperError, LookupError):
    """No session of that id."""

    default_hint = "list_sessions() shows what there is; list_trash() what can be undeleted."


class Conflict(SessionKeeperError):
    """The session has another generation than the caller expected; nothing was written.

    Attributes:
        expected: The generation the caller named.
        actual: The generation the session has; 0 if it is absent.
    """

    default_hint = "Load the session again and repeat the change, or use update()."

    def __init__(self, message: str, *, session_id: str, expected: int, actual: int) -> None:
        super().__init__(message, session_id=session_id)
        self.expected = expected
        self.actual = actual


class SessionExists(Conflict):
    """create_session() found a session of that id."""

    default_hint = "Choose another id, or use save_session() to replace it."


class NoBackup(SessionKeeperError, LookupError):
    """No version of that session was replaced and kept, or not that one."""

    default_hint = "backups() shows what there is; max_backups says how many are kept."


class NotResumable(SessionKeeperError):
    """Only a session that is active, paused or interrupted can be resumed."""

    default_hint = "save_session(id, status='active') makes it active whatever it was."


class NoCurrentSession(SessionKeeperError, LookupError):
    """A `SessionManager` has no session at the moment."""

    default_hint = "start_session() begins one, recover_session() goes on with one."


class SessionRunning(SessionKeeperError):
    """A `SessionManager` has a session already; it has one at a time."""

    default_hint = "Call stop_session() first, or use another manager."


# --- What lies on the disk ----------------------------------------------------------------


class CorruptDocument(SessionKeeperError):
    """A session file that is damaged or is no session document.

    Attributes:
        offset: The byte where the damage shows, if known.
    """

    default_hint = "The file is kept; look into .sessionkeeper/quarantine."

    def __init__(
        self,
        message: str,
        *,
        session_id: str | None = None,
        path: Path | None = None,
        offset: int | None = None,
    ) -> None:
        super().__init__(message, session_id=session_id, path=path)
        self.offset = offset


class IdMismatch(CorruptDocument):
    """The id inside a file does not belong to the file's name; neither is trusted."""

    default_hint = "Rename the file to match the session_id inside it, or correct the id."


class BackupsDamaged(CorruptDocument):
    """There are backups of that session, and none of them can be read."""

    default_hint = "They are kept as they are, in the backups of the store."


class NewerVersion(SessionKeeperError):
    """A document written by a newer version; it is never touched."""

    default_hint = "Upgrade sessionkeeper to read it."


class PathBlocked(SessionKeeperError):
    """Something that is no readable session file stands where the session's file belongs."""

    default_hint = "Move it out of the way, or use another session id."


# --- The store ----------------------------------------------------------------------------


class StoreError(SessionKeeperError):
    """The store as a whole cannot do what was asked."""


class StoreNotFound(StoreError, LookupError):
    """There is no store in that folder."""

    default_hint = "Check the path; SessionStore.open() without read_only creates a store."


class StoreLocked(StoreError):
    """Another process, or another store object of this one, owns the folder.

    Attributes:
        holder: What the owner wrote about itself (pid, host, since, command).
    """

    default_hint = "Close the owner first, or open with read_only=True."

    def __init__(self, message: str, *, path: Path, holder: dict[str, object]) -> None:
        super().__init__(message, path=path)
        self.holder = holder


class StoreReadOnly(StoreError):
    """The store was opened read-only."""

    default_hint = "Open it without read_only=True to change sessions."


class StoreClosed(StoreError):
    """The store is closed, or gave up after too many crashes; nothing was executed."""

    default_hint = "Open the store again; info().last_exit tells why it stopped."


class StoreGone(StoreError):
    """The folder has been removed or replaced while the store was open."""

    default_hint = "Restore the folder (or mount) and open the store again."


class StoreDamaged(StoreError):
    """The store was opened with `recovery="strict"` and part of it is damaged; nothing was changed.

    Attributes:
        problems: What is damaged, one line for each.
    """

    default_hint = (
        "`sessionkeeper doctor` shows it again; recovery='fallback' sets it aside and brings back "
        "the newest valid versions."
    )

    def __init__(self, message: str, *, path: Path, problems: list[str]) -> None:
        super().__init__(message, path=path)
        self.problems = problems


class StorageFailed(StoreError):
    """The medium refused the change; nothing of it was written, the old version stands."""

    default_hint = "Free space or repair the medium, then repeat the call."


class StoreFull(StoreError):
    """The single file would hold more than it may; nothing was written."""

    default_hint = (
        "Delete sessions, or move to a store of layout='flat', which has no such bound: export "
        "this one, and import it there."
    )


class PersistenceOff(StoreError):
    """What was asked for concerns the disk, and the persistence of the store is switched off."""

    default_hint = "enable_persistence() writes what was changed meanwhile, and goes on."


class StoreBusy(StoreError):
    """The mailbox stayed full for the whole timeout; nothing was queued."""

    default_hint = "Slow the writers down, or raise max_pending / max_pending_bytes."


class NotExecuted(StoreError, TimeoutError):
    """The call timed out before the store began with it: it has not happened and will not."""

    default_hint = "Repeat the call; it is safe."


class OutcomeUnknown(StoreError, TimeoutError):
    """The call was being executed when the caller stopped waiting, or the store went down.

    It may have happened or may still happen.
    """

    default_hint = "Load the session and look before repeating the call."


class IndexBehind(StoreError, TimeoutError):
    """The index did not reach in time what was saved before the query began."""

    default_hint = "Repeat the query; if it goes on, the medium is too slow for the writers."


class UnreadFailures(StoreError):
    """Commands sent with tell() failed and nobody looked at their receipts.

    Attributes:
        failures: The errors, oldest first.
    """

    default_hint = "Keep the receipts of tell() and call result() on them."

    def __init__(self, message: str, *, failures: list[BaseException]) -> None:
        super().__init__(message)
        self.failures = failures


# --- Import -------------------------------------------------------------------------------


class ImportRefused(SessionKeeperError, ValueError):
    """A file to be imported is not acceptable; nothing of it was taken."""

    default_hint = "Correct the file or the mapping; an import takes a whole file or nothing."
