"""What becomes of a session from outside whose id is taken."""

from __future__ import annotations

from hashlib import blake2b
from itertools import count
from tempfile import SpooledTemporaryFile
from typing import TYPE_CHECKING, Final, Literal, get_args

from sessionkeeper.errors import ImportRefused, InvalidConfig, SessionNotFound
from sessionkeeper.layout import MAX_ID_CHARACTERS, check_session_id
from sessionkeeper.storage.documents import decode_document
from sessionkeeper.transfer.documents import document_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from sessionkeeper.changing import Changing
    from sessionkeeper.session import Session
    from sessionkeeper.storage.documents import Document

OnConflict = Literal["refuse", "rename", "replace", "skip"]
"""What to do about a session that exists: refuse the file, or that session's way out."""

_NAMED: Final = 5
_IN_MEMORY: Final = 16 * 1024 * 1024


def check_on_conflict(value: object) -> OnConflict:
    """The value, if it is one of the four.

    Raises:
        InvalidConfig: It is not.
    """
    for known in get_args(OnConflict):
        if value == known:
            found: OnConflict = known
            return found
    words = ", ".join(get_args(OnConflict))
    raise InvalidConfig(f"on_conflict={value!r} is unknown", hint=f"It is one of {words}.")


class IdSet:
    """Ids of sessions, in a few bytes each, however long they are."""

    def __init__(self) -> None:
        self._digests: set[bytes] = set()

    def add(self, session_id: str) -> bool:
        """Add an id; whether it was new."""
        before = len(self._digests)
        self._digests.add(_digest(session_id))
        return len(self._digests) > before

    def __contains__(self, session_id: str) -> bool:
        return _digest(session_id) in self._digests


def _digest(session_id: str) -> bytes:
    return blake2b(session_id.encode(), digest_size=16).digest()


class Before:
    """The sessions that stand where others are to be, to be put back if storing fails.

    What is more than a few megabytes lies in a nameless file, which is gone with the process.
    """

    def __init__(self) -> None:
        self._places: dict[str, tuple[int, int, int]] = {}
        self._file = SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 - closed by __exit__

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._places)

    def add(self, session: Session) -> None:
        """Remember a session as it is now."""
        start = self._file.seek(0, 2)
        for chunk in document_of(session):
            self._file.write(chunk)
        place = (session.generation, start, self._file.tell() - start)
        self._places[session.session_id] = place

    def generation(self, session_id: str) -> int | None:
        """The generation of a session that was added; None for any other."""
        place = self._places.get(session_id)
        return None if place is None else place[0]

    def document(self, session_id: str) -> Document | None:
        """A session that was added, as its document; None for any other."""
        place = self._places.get(session_id)
        if place is None:
            return None
        _, start, length = place
        self._file.seek(start)
        return decode_document([self._file.read(length)])


class Plan:
    """What is to be done about each session of a file.

    Attributes:
        path: The file.
        before: The sessions that will be replaced.
        skipped: The ids of those that will not be stored.
        renamed: New ids, by the one in the file.
    """

    def __init__(self, path: Path, before: Before) -> None:
        self.path = path
        self.before = before
        self.skipped: set[str] = set()
        self.renamed: dict[str, str] = {}


def plan(
    store: Changing,
    path: Path,
    ids: Iterable[str],
    on_conflict: OnConflict,
    before: Before,
) -> Plan:
    """Look which sessions of a file exist, and decide about them; nothing is written.

    Args:
        store: Where they are to be stored.
        path: The file, for errors.
        ids: The ids in it, all different.
        on_conflict: What to do about those that exist.
        before: Gets those that will be replaced.

    Raises:
        ImportRefused: `refuse`, and some exist.
    """
    made = Plan(path, before)
    taken = IdSet()
    found: list[str] = []
    for session_id in ids:
        taken.add(session_id)
        if session_id in store:
            found.append(session_id)
    if found and on_conflict == "refuse":
        raise _refusal(path, found)
    for session_id in found:
        if on_conflict == "skip":
            made.skipped.add(session_id)
        elif on_conflict == "rename":
            new = _free_id(store, session_id, taken)
            taken.add(new)
            made.renamed[session_id] = new
        else:
            _remember(store, session_id, before)
    return made


def _remember(store: Changing, session_id: str, before: Before) -> None:
    try:
        before.add(store.load_session(session_id))
    except SessionNotFound:
        return  # deleted since we looked: then there is nothing to replace


def _refusal(path: Path, found: list[str]) -> ImportRefused:
    named = ", ".join(repr(session_id[:80]) for session_id in found[:_NAMED])
    more = ", …" if len(found) > _NAMED else ""
    return ImportRefused(
        f"{path}: {len(found)} of its sessions exist already: {named}{more}",
        path=path,
        hint="Nothing was changed. on_conflict (--on-conflict) says what else is to be done about "
        "them: replace, rename or skip.",
    )


def _free_id(store: Changing, session_id: str, taken: IdSet) -> str:
    for number in count(2):
        ending = f"-{number}"
        candidate = check_session_id(session_id[: MAX_ID_CHARACTERS - len(ending)] + ending)
        if candidate not in taken and candidate not in store:
            return candidate
    raise AssertionError  # pragma: no cover - the numbers never end
