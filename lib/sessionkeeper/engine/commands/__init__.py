"""One typed command for each operation on the store.

A `Command` is what applications build and send with `ask` and `tell`. `prepare` checks and
encodes it in the caller's thread; the actor only moves the bytes of what comes out.
"""

from sessionkeeper.engine.commands.asking import CheckpointFiles, CountSessions
from sessionkeeper.engine.commands.base import ABSENT, Command, Prepared, Within
from sessionkeeper.engine.commands.configuring import (
    Configure,
    EnablePersistence,
    without_persistence,
)
from sessionkeeper.engine.commands.erasing import EraseSession
from sessionkeeper.engine.commands.history import (
    ForkSession,
    RenameSession,
    RewindSession,
    rewinding,
)
from sessionkeeper.engine.commands.living import ResumeSession
from sessionkeeper.engine.commands.marking import AddTags, PinSession, RemoveTags, UnpinSession
from sessionkeeper.engine.commands.notes import AddAnnotation, AddEvent
from sessionkeeper.engine.commands.removing import (
    Cleanup,
    DeleteSession,
    ExplainCleanup,
    UndeleteSession,
)
from sessionkeeper.engine.commands.restoring import RestoreBackup
from sessionkeeper.engine.commands.saving import (
    AdvanceSession,
    AppendMessages,
    Fields,
    PreparedAppend,
    PreparedSave,
    SaveSession,
)

__all__ = [
    "ABSENT",
    "AddAnnotation",
    "AddEvent",
    "AddTags",
    "AdvanceSession",
    "AppendMessages",
    "CheckpointFiles",
    "Cleanup",
    "Command",
    "Configure",
    "CountSessions",
    "DeleteSession",
    "EnablePersistence",
    "EraseSession",
    "ExplainCleanup",
    "Fields",
    "ForkSession",
    "PinSession",
    "Prepared",
    "PreparedAppend",
    "PreparedSave",
    "RemoveTags",
    "RenameSession",
    "RestoreBackup",
    "ResumeSession",
    "RewindSession",
    "SaveSession",
    "UndeleteSession",
    "UnpinSession",
    "Within",
    "rewinding",
    "without_persistence",
]
