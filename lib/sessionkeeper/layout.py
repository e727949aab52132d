"""Where everything lies on the disk: ids to file names, and the folders of a store."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING, Literal

from sessionkeeper.errors import InvalidNamespace, InvalidSessionId
from sessionkeeper.keys import SEPARATOR, key_of

if TYPE_CHECKING:
    from pathlib import Path

LayoutName = Literal["flat", "rooted", "single"]

SUFFIX = ".json"
PRIVATE_FOLDER = ".sessionkeeper"
SINGLE_FILE = f"sessions{SUFFIX}"
FILE_MODE = 0o600
FOLDER_MODE = 0o700

MAX_ID_CHARACTERS = 4096
MAX_NAMESPACE_CHARACTERS = 64
# 255 bytes is the limit of ext4, XFS, btrfs, APFS and NTFS; what is left over is for decoration.
MAX_STEM_BYTES = 200
HASHED_PREFIX_BYTES = 120

_NAMESPACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*")
_LITERAL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_KEPT = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")
# Windows reserves these with any extension; a folder must survive being copied there.
_RESERVED = frozenset(
    ["CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"]
    + [f"{device}{digit}" for device in ("COM", "LPT") for digit in "0123456789¹²³"],
)


def check_session_id(session_id: object) -> str:
    """Return the id as an exact `str`, or refuse it before any path is built.

    Args:
        session_id: What the caller, a file or an import calls the session.

    Raises:
        TypeError: It is not a str (a UUID or Path is converted by the caller).
        InvalidSessionId: It cannot be the name of a session on every system.
    """
    if not isinstance(session_id, str):
        raise TypeError(f"session_id must be a str, not {type(session_id).__name__}")
    # A subclass may lie in __str__ or __eq__; joining copies the characters themselves.
    text = session_id if type(session_id) is str else "".join(str.__iter__(session_id))
    problem = _problem_of(text)
    if problem:
        raise InvalidSessionId(f"session id {text[:80]!r} {problem}", session_id=text[:80])
    return text


# Callers use the same few ids again and again; the bound keeps hostile ones from piling up.
@lru_cache(maxsize=1024)
def _problem_of(text: str) -> str | None:  # noqa: PLR0911 - one return for each rule
    if not text:
        return "is empty"
    if len(text) > MAX_ID_CHARACTERS:
        return f"has more than {MAX_ID_CHARACTERS} characters"
    if "/" in text or "\\" in text:
        return "contains a path separator"
    if text[0] in ". " or text[-1] in ". " or text != text.strip():
        return "begins or ends with a dot or a space"
    for character in text:
        category = unicodedata.category(character)
        if category == "Cc":
            return "contains a control character"
        if category == "Cs":
            return "contains a lone surrogate"
    if text.split(".", 1)[0].rstrip().upper() in _RESERVED:
        return "is a device name on Windows"
    return None


def check_namespace(namespace: object) -> str:
    """Return the name as an exact `str`, or refuse it before any path is built.

    The name is that of a folder, as it stands: what is safe on every system is all it may be.

    Raises:
        TypeError: It is not a str.
        InvalidNamespace: It cannot be the name of a namespace on every system.
    """
    if not isinstance(namespace, str):
        raise TypeError(f"a namespace must be a str, not {type(namespace).__name__}")
    text = namespace if type(namespace) is str else "".join(str.__iter__(namespace))
    if not is_namespace(text):
        raise InvalidNamespace(f"{text[:80]!r} cannot name a namespace", namespace=text[:80])
    return text


def is_namespace(name: str) -> bool:
    """Whether that can be the name of a namespace, and of its folder."""
    return (
        len(name) <= MAX_NAMESPACE_CHARACTERS
        and _NAMESPACE.fullmatch(name) is not None
        and name.upper() not in _RESERVED
    )


def is_file_name(name: str) -> bool:
    """Whether a session's file can have that name, below the sessions folder."""
    namespace, separator, file = name.rpartition(SEPARATOR)
    if separator and not is_namespace(namespace):
        return False
    return file.endswith(SUFFIX) and not file.startswith(".")


def check_key(key: object) -> str:
    """A session's key as a file has it, or an error before any path is built.

    Raises:
        TypeError: It is not a str.
        InvalidSessionId: The id in it cannot be one.
        InvalidNamespace: The namespace in it cannot be one.
    """
    if type(key) is not str or SEPARATOR not in key:
        return check_session_id(key)
    namespace, _, session_id = key.partition(SEPARATOR)
    return key_of(check_namespace(namespace), check_session_id(session_id))


# A file's stem is what its path is below the sessions folder, without the suffix: a session of a
# namespace has its folder in it. Where those of all namespaces lie side by side, this sign, which
# is in no name and no stem, stands for the separator.
_ASIDE = "@"


def aside_name(stem: str) -> str:
    """A stem as the name of a folder among those of all namespaces."""
    return stem.replace(SEPARATOR, _ASIDE)


def stem_of_aside(name: str) -> str:
    """The stem that `aside_name` made such a name of."""
    return name.replace(_ASIDE, SEPARATOR)


def plain_stem(key: str) -> str:
    """The usual file name of a session, without its suffix, below the sessions folder.

    The id itself where it is safe everywhere; other characters are percent-encoded (UTF-8,
    capital digits), long ones cut and hashed. The mapping is injective: `%` and `~` never stand
    for themselves.
    """
    namespace, separator, session_id = key.rpartition(SEPARATOR)
    stem = _stem_of_id(session_id)
    if len(namespace) + len(separator) + len(stem) > MAX_STEM_BYTES:
        return hashed_stem(key)
    return f"{namespace}{separator}{stem}" if namespace else stem


def _stem_of_id(session_id: str) -> str:
    if _LITERAL.fullmatch(session_id):
        stem = session_id
    else:
        raw = session_id.encode()
        stem = "".join(chr(b) if b in _KEPT else f"%{b:02X}" for b in raw)
        if stem[0] == "-":
            stem = f"%2D{stem[1:]}"
    return stem


def hashed_stem(key: str) -> str:
    """The file name for long ids and for the second of two ids that differ in case only."""
    namespace, separator, session_id = key.rpartition(SEPARATOR)
    digest = blake2b(session_id.encode(), digest_size=16).hexdigest()
    readable = "".join(chr(b) if b in _KEPT else "_" for b in session_id.encode())
    return f"{namespace}{separator}{readable[:HASHED_PREFIX_BYTES].lstrip('-.')}~{digest}"


def belongs(stem: str, key: str) -> bool:
    """Whether a file of that name may hold the session of that key."""
    return stem in (plain_stem(key), hashed_stem(key))


# In here a folder for the single file, of the same name, holds the versions that were replaced.
_KEPT_FILES = "single"


def _is_kept_for(file: Path) -> bool:
    """Whether that path is the single file of the store around it."""
    return (file.parent / PRIVATE_FOLDER / _KEPT_FILES / file.name).is_dir()


@dataclass(frozen=True, slots=True)
class Layout:
    """Every folder and file of one store.

    Attributes:
        root: The folder the user named, absolute and resolved once.
        sessions: Where the `{id}.json` files lie.
        backups: Where replaced and conflicting versions lie, one folder for each session.
        private: The store's own folder; nothing in it is ever a session.
        file: The file that all sessions lie in; None if each has its own.
    """

    root: Path
    sessions: Path
    backups: Path
    private: Path
    file: Path | None = None

    @classmethod
    def of(cls, root: Path, name: LayoutName) -> Layout:
        """The layout called `name` below `root`, which for `single` may name the file itself."""
        if name == "single":
            return cls._single(root)
        private = root / PRIVATE_FOLDER
        if name == "rooted":
            return cls(root, root / "sessions", root / "backups", private)
        return cls(root, root, private / "backups", private)

    @classmethod
    def found_in(cls, root: Path) -> LayoutName | None:
        """The layout of the store that is there, told by where its backups lie; None if none."""
        flat, rooted = cls.of(root, "flat"), cls.of(root, "rooted")
        if flat.backups.is_dir():
            return "flat"
        if cls.single_file_of(root) is not None or _is_kept_for(root):
            return "single"
        return "rooted" if rooted.private.is_dir() and rooted.backups.is_dir() else None

    @classmethod
    def _single(cls, root: Path) -> Layout:
        file = root
        if root.suffix != SUFFIX or root.is_dir():
            file = cls.single_file_of(root) or root / SINGLE_FILE
        private = file.parent / PRIVATE_FOLDER
        return cls(file.parent, file.parent, private / _KEPT_FILES / file.name, private, file)

    @classmethod
    def single_file_of(cls, folder: Path) -> Path | None:
        """The file in which the store of that folder keeps all sessions; None if it has none."""
        try:
            kept = sorted((folder / PRIVATE_FOLDER / _KEPT_FILES).iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return None
        return folder / kept[0].name if kept else None

    def folder_of(self, namespace: str) -> Path:
        """Where the session files of a namespace lie."""
        return self.sessions / namespace if namespace else self.sessions

    def name_at(self, path: Path) -> str:
        """The name of a session file, with its namespace's folder before it if it has one."""
        return str(path)[len(str(self.sessions)) + 1 :]

    def stem_at(self, path: Path) -> str:
        """The stem of a session file."""
        return self.name_at(path)[: -len(SUFFIX)]

    @property
    def namespaces(self) -> Path:
        """In here an empty folder for each namespace that the store has made a folder for.

        By it the files in there are told from those of other programs in a folder beside.
        """
        return self.private / "namespaces"

    @property
    def journal(self) -> Path:
        """The changes that the session files may not hold yet."""
        return self.private / "journal"

    @property
    def index(self) -> Path:
        """What queries are answered from; it can be deleted at any time."""
        return self.private / "index.db"

    @property
    def text_index(self) -> Path:
        """What searches in texts are answered from; it can be deleted at any time."""
        return self.private / "text.db"

    @property
    def index_json(self) -> Path:
        """The list of sessions for other programs; here no session's name can be in its way."""
        return self.private / "index.json"

    @property
    def trash(self) -> Path:
        """Deleted sessions, one folder for each removal, until their grace is over."""
        return self.private / "trash"

    @property
    def quarantine(self) -> Path:
        """Files that could not be read, and why."""
        return self.private / "quarantine"

    @property
    def temporaries(self) -> Path:
        """Unpublished files; the sweep looks here and nowhere else."""
        return self.private / "tmp"

    @property
    def config(self) -> Path:
        """Settings that stay with the folder."""
        return self.private / "config.json"

    @property
    def lock(self) -> Path:
        """The file whose lock makes a process the owner."""
        return self.private / "lock"

    @property
    def holder(self) -> Path:
        """What the owner says of itself."""
        return self.private / "holder"

    def folders(self) -> tuple[Path, ...]:
        """All folders, parents first."""
        return (
            self.root,
            self.sessions,
            self.private,
            *(() if self.file is not None else (self.journal,)),
            self.backups,
            self.trash,
            self.quarantine,
            self.temporaries,
        )
