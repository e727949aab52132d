"""Replay: what the journal's records make of the sessions found in the folder."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sessionkeeper.errors import CorruptDocument, NewerVersion
from sessionkeeper.layout import belongs
from sessionkeeper.storage.backend import Trash
from sessionkeeper.storage.entries import (
    AppendEntry,
    Entry,
    ForgetEntry,
    PutEntry,
    ReferenceEntry,
    TrashEntry,
    decode_entry,
)
from sessionkeeper.storage.pending import Pending

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from sessionkeeper.storage.documents import Document, Record


@dataclass(slots=True)
class Entries:
    """The readable records of a journal, and what was wrong with the others.

    Attributes:
        by_session: Each session's records by LSN; one that was carried forward counts once.
        unreadable: Records that cannot be read, with the reason.
        lsn: The highest number in them.
    """

    by_session: dict[str, list[Entry]] = field(default_factory=dict)
    unreadable: list[tuple[bytes, str]] = field(default_factory=list)
    lsn: int = 0

    @classmethod
    def of(cls, bodies: Iterable[bytes]) -> Entries:
        """Decode and sort."""
        found = cls()
        numbered: defaultdict[str, dict[int, Entry]] = defaultdict(dict)
        for body in bodies:
            try:
                entry = decode_entry(body)
            except (CorruptDocument, NewerVersion) as error:
                found.unreadable.append((body, str(error.args[0])))
                continue
            numbered[entry.session_id][entry.lsn] = entry
            found.lsn = max(found.lsn, entry.lsn)
        for session_id, entries in numbered.items():
            found.by_session[session_id] = [entries[lsn] for lsn in sorted(entries)]
        return found

    def of_stem(self, stem: str) -> Iterator[list[Entry]]:
        """The records of the session that a file of that name may hold."""
        for session_id, entries in self.by_session.items():
            if belongs(stem, session_id):
                yield entries

    def temporaries(self) -> set[str]:
        """Names of the temporaries that hold documents."""
        return {
            entry.temporary
            for entries in self.by_session.values()
            for entry in entries
            if isinstance(entry, ReferenceEntry)
        }


@dataclass(slots=True)
class Replayed:
    """One session after its records were applied.

    Attributes:
        record: The newest version; None if the session is gone.
        pending: What its file does not hold; None if the file is the newest version.
        changes: How many records counted.
        problems: What did not fit, in words.
        unusable: Additions to a version that is nowhere.
    """

    record: Record | None
    pending: Pending | None = None
    changes: int = 0
    problems: list[str] = field(default_factory=list)
    unusable: list[AppendEntry] = field(default_factory=list)

    def start_anew(self, record: Record | None, pending: Pending | None = None) -> None:
        """From here on nothing before counts, so nothing that did not fit there is missed."""
        self.record, self.pending = record, pending
        self.problems.clear()
        self.unusable.clear()


@dataclass(frozen=True, slots=True)
class Hands:
    """What a replay does to the folder.

    Attributes:
        load: Reads the document that a record names; None if it is gone.
        remove: Moves the session, with what is pending, to the trash.
        is_removed: Whether a removal lies complete in the trash.
    """

    load: Callable[[ReferenceEntry], Document | None]
    remove: Callable[[Trash, Pending | None], None]
    is_removed: Callable[[TrashEntry], bool]


def replay(
    entries: Iterable[Entry],
    record: Record | None,
    hands: Hands,
    pending: Pending | None = None,
) -> Replayed:
    """Apply one session's records, in the order of their numbers, to what its file holds.

    Whatever the file holds already is skipped, so doing it twice changes nothing.

    Args:
        entries: The records, by LSN.
        record: The version in the session's file; None if there is no such file.
        hands: What is done to the folder.
        pending: That version whole, if it is not what the file holds.
    """
    state = Replayed(record, pending)
    lsn = 0 if record is None else record.lsn
    for entry in entries:
        if entry.lsn > lsn and _applied(state, entry, record, hands):
            lsn = entry.lsn
            state.changes += 1
    return state


def _applied(state: Replayed, entry: Entry, filed: Record | None, hands: Hands) -> bool:
    match entry:
        case PutEntry(document):
            state.start_anew(document.record, Pending(document))
        case ReferenceEntry():
            found = hands.load(entry)
            if found is None:
                state.problems.append(f"the document of change {entry.lsn} is gone")
                return False
            state.start_anew(found.record, Pending(found))
        case AppendEntry():
            return _append(state, entry)
        case TrashEntry():
            _remove(state, entry, hands)
        case ForgetEntry():
            state.start_anew(filed)  # a file that is there was put back by hand
    return True


def _remove(state: Replayed, entry: TrashEntry, hands: Hands) -> None:
    if hands.is_removed(entry):
        state.start_anew(None)
    elif state.record is not None:
        change = Trash(state.record, entry.lsn, entry.reason, entry.at, entry.request_id)
        hands.remove(change, state.pending)
    state.record, state.pending = None, None


def _append(state: Replayed, entry: AppendEntry) -> bool:
    if state.record is None:
        state.problems.append(f"change {entry.lsn} adds to a session that is not there")
        state.unusable.append(entry)
        return False
    if entry.base_lsn != state.record.lsn:
        # What follows a hole was acknowledged too, so it is kept.
        state.problems.append(f"the changes between {state.record.lsn} and {entry.lsn} are lost")
    change = entry.upon(state.record)
    if state.pending is None:
        state.pending = Pending()
    state.pending.appends.append(change)
    state.record = change.record
    return True
