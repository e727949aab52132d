"""A disk that remembers what was synced, and shows every state a power cut may leave.

It takes a log of operations on numbered nodes (files and folders). After any prefix of the log it
knows what is durable and what is pending, and writes a legal state into a real folder:

- weak model: what is pending is there or not, each write and each name for itself; a write may be
  torn at sectors; a file may have its length and not its bytes. A rename is atomic and durable
  when either of its folders is synced; it never moves a file to a folder that is not there. Two
  changes of one name keep their order.
- ordered model, as ext4 with data=ordered: names and growing files reach the disk in the order of
  the log, up to some point not before the last fsync; what is written in place reaches it at any
  time.

A failed sync leaves what was pending in doubt for ever: no later sync makes it durable.
"""

from __future__ import annotations

import copy
import os
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import random
    from pathlib import Path

ROOT: Final = 0
SECTOR: Final = 512
_ZERO_RUN: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class MakeFolder:
    """A new folder."""

    node: int
    folder: int
    name: str


@dataclass(frozen=True, slots=True)
class MakeFile:
    """A new, empty file."""

    node: int
    folder: int
    name: str


@dataclass(frozen=True, slots=True)
class Write:
    """Bytes written to a file."""

    node: int
    offset: int
    data: bytes = field(repr=False)
    in_place: bool = False


@dataclass(frozen=True, slots=True)
class SyncFile:
    """A file's bytes made durable; `data_only` as by fdatasync."""

    node: int
    data_only: bool = False
    failed: bool = False


@dataclass(frozen=True, slots=True)
class SyncFolder:
    """A folder's names made durable."""

    node: int
    failed: bool = False


@dataclass(frozen=True, slots=True)
class SetName:
    """A name made to point to a node, or removed."""

    folder: int
    name: str
    node: int | None


@dataclass(frozen=True, slots=True)
class Move:
    """A rename: one name goes, another comes, together."""

    folder: int
    name: str
    to_folder: int
    to_name: str
    node: int


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that happened above the disk."""

    what: object


Operation = MakeFolder | MakeFile | Write | SyncFile | SyncFolder | SetName | Move | Mark
NameChange = MakeFolder | MakeFile | SetName | Move


@dataclass(slots=True)
class _Pending:
    number: int
    operation: Write | MakeFolder | MakeFile | SetName | Move
    durable: bool = False
    doubtful: bool = False


@dataclass(slots=True)
class _File:
    base: bytes = b""
    writes: list[_Pending] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Choice:
    """Which of the pending operations have reached the disk.

    Attributes:
        there: Their numbers.
        torn: Of these, writes of which only some sectors have; by number, a seed.
        stretched: Files that have their length, zeros for what is not there.
    """

    there: frozenset[int]
    torn: tuple[tuple[int, int], ...] = ()
    stretched: bool = False


class Disk:
    """What is durable and what is pending after the operations applied so far."""

    def __init__(self) -> None:
        self._files: dict[int, _File] = {}
        self._folders: dict[int, dict[str, int]] = {ROOT: {}}
        self._changed: dict[tuple[int, str], int] = {}
        self._names: list[_Pending] = []
        self._count = 0
        self._barrier = 0

    def clone(self) -> Disk:
        """A disk of its own in the same state."""
        return copy.deepcopy(self)

    # --- the log ----------------------------------------------------------------------------

    def apply(self, operation: Operation) -> None:
        """Take the next operation of the log."""
        self._count += 1
        match operation:
            case Write(node):
                self._files[node].writes.append(_Pending(self._count, operation))
            case SyncFile(node, data_only, failed):
                self._sync_file(node, failed=failed)
                if not data_only and not failed:
                    self._barrier = self._count
            case SyncFolder(node, failed):
                self._sync_folder(node, failed=failed)
                if not failed:
                    self._barrier = self._count
            case MakeFolder(node):
                self._folders[node] = {}
                self._names.append(_Pending(self._count, operation))
            case MakeFile(node):
                self._files[node] = _File()
                self._names.append(_Pending(self._count, operation))
            case SetName() | Move():
                self._names.append(_Pending(self._count, operation))
            case Mark():
                pass

    def _sync_file(self, node: int, *, failed: bool) -> None:
        file = self._files[node]
        for write in file.writes:
            if failed and not write.durable:
                write.doubtful = True
            elif not write.doubtful:
                write.durable = True
        while file.writes and file.writes[0].durable:
            first = file.writes.pop(0).operation
            assert isinstance(first, Write)
            file.base = _written(file.base, first.offset, first.data)

    def _sync_folder(self, node: int, *, failed: bool) -> None:
        left: list[_Pending] = []
        for change in self._names:
            assert not isinstance(change.operation, Write)
            if node not in _folders_of(change.operation):
                left.append(change)
            elif failed or change.doubtful:
                change.doubtful = True
                left.append(change)
            else:
                self._reach(change, left, self._folders, self._changed)
                self._rename(self._folders, change, self._changed)
        self._names = [change for change in left if not change.durable]

    def _reach(
        self,
        change: _Pending,
        names: list[_Pending],
        folders: dict[int, dict[str, int]],
        changed: dict[tuple[int, str], int],
    ) -> None:
        """Make the folder that a rename moves something to, and those above it."""
        operation = change.operation
        if not isinstance(operation, Move) or operation.folder == operation.to_folder:
            return
        wanted = operation.to_folder
        for above in reversed(names):
            made = above.operation
            if isinstance(made, MakeFolder) and made.node == wanted and not above.doubtful:
                self._rename(folders, above, changed)
                above.durable = True
                wanted = made.folder

    def _rename(
        self,
        folders: dict[int, dict[str, int]],
        change: _Pending,
        changed: dict[tuple[int, str], int],
    ) -> None:
        for folder, name, node in _effects(change.operation):
            if changed.get((folder, name), 0) > change.number:
                continue  # a later change of that name is durable already
            changed[folder, name] = change.number
            if node is None:
                folders[folder].pop(name, None)
            else:
                folders[folder][name] = node

    # --- states -----------------------------------------------------------------------------

    def pending(self) -> list[int]:
        """The numbers of the operations that may be lost, in order."""
        writes = (w.number for f in self._files.values() for w in f.writes if not w.durable)
        return sorted([*(change.number for change in self._names), *writes])

    def _in_place(self) -> set[int]:
        return {
            write.number
            for file in self._files.values()
            for write in file.writes
            if not write.durable and isinstance(write.operation, Write) and write.operation.in_place
        }

    def everything(self) -> Choice:
        """All has reached the disk: what a process that is killed leaves."""
        return Choice(frozenset(self.pending()))

    def weak_choices(self, rng: random.Random, count: int) -> list[Choice]:
        """Some legal states of the weak model: the plain ones first, then any."""
        pending = self.pending()
        every = frozenset(pending)
        plain = [Choice(frozenset()), Choice(every)]
        if pending:
            plain.append(Choice(frozenset(), stretched=True))
            plain += [Choice(every - {one}) for one in pending[-8:]]
            plain += [Choice(frozenset({one})) for one in pending[-8:]]
        if len(plain) > count:
            return [*plain[:2], *rng.sample(plain[2:], max(0, count - 2))][:count]
        chosen = plain
        while pending and len(chosen) < count:
            there = frozenset(one for one in pending if rng.random() < 0.5)
            torn = tuple((one, rng.randrange(1 << 30)) for one in there if rng.random() < 0.3)
            chosen.append(Choice(there, torn, rng.random() < 0.5))
        return chosen

    def ordered_choices(self, rng: random.Random, count: int) -> list[Choice]:
        """Some legal states of the ordered model."""
        pending = self.pending()
        in_place = self._in_place()
        chosen: list[Choice] = []
        for _ in range(count):
            cut = rng.randint(self._barrier, self._count)
            there = {one for one in pending if one <= cut and one not in in_place}
            doubtful = {one for one in in_place if rng.random() < 0.6}
            torn = tuple((one, rng.randrange(1 << 30)) for one in doubtful if rng.random() < 0.5)
            chosen.append(Choice(frozenset(there | doubtful), torn))
        return chosen

    def materialise(self, choice: Choice, target: Path) -> None:
        """Write that state into a folder that is there and empty."""
        folders = {node: dict(names) for node, names in self._folders.items()}
        changed = dict(self._changed)
        for change in copy.deepcopy(self._names):
            if change.number in choice.there:
                self._reach(change, copy.deepcopy(self._names), folders, changed)
                self._rename(folders, change, changed)
        torn = dict(choice.torn)
        links: dict[int, Path] = {}
        reached: list[tuple[int, Path]] = [(ROOT, target)]
        while reached:
            node, path = reached.pop()
            for name, child in folders[node].items():
                place = path / name
                if child in folders:
                    place.mkdir(mode=0o700)
                    reached.append((child, place))
                elif child in links:
                    os.link(links[child], place)
                else:
                    _write_sparse(place, self._content(self._files[child], choice, torn))
                    links[child] = place

    def _content(self, file: _File, choice: Choice, torn: dict[int, int]) -> bytes:
        content = file.base
        length = len(content)
        for write in file.writes:
            operation = write.operation
            assert isinstance(operation, Write)
            length = max(length, operation.offset + len(operation.data))
            if write.durable or (write.number in choice.there and write.number not in torn):
                content = _written(content, operation.offset, operation.data)
            elif write.number in choice.there:
                content = _torn(content, operation, torn[write.number])
        if choice.stretched and len(content) < length:
            content = content.ljust(length, b"\0")
        return content

    def nodes(self) -> dict[str, int]:
        """Every path as it is while the machine is up, with its node."""
        folders = {node: dict(names) for node, names in self._folders.items()}
        changed = dict(self._changed)
        for change in self._names:
            self._rename(folders, change, changed)
        found: dict[str, int] = {"": ROOT}
        reached = [("", ROOT)]
        while reached:
            path, node = reached.pop()
            for name, child in folders[node].items():
                inner = f"{path}/{name}" if path else name
                found[inner] = child
                if child in folders:
                    reached.append((inner, child))
        return found


def disk_of(folder: Path) -> Disk:
    """A disk on which all that a folder holds is durable."""
    disk = Disk()
    seen: dict[int, int] = {}
    number = ROOT
    reached = [(ROOT, folder)]
    while reached:
        node, path = reached.pop()
        for entry in sorted(path.iterdir()):
            inode = entry.lstat().st_ino
            if inode not in seen:
                number += 1
                seen[inode] = number
                if entry.is_dir():
                    disk._folders[number] = {}
                    reached.append((number, entry))
                else:
                    disk._files[number] = _File(entry.read_bytes())
            disk._folders[node][entry.name] = seen[inode]
    return disk


def _effects(operation: Operation) -> list[tuple[int, str, int | None]]:
    match operation:
        case MakeFolder(node, folder, name) | MakeFile(node, folder, name):
            return [(folder, name, node)]
        case SetName(folder, name, target):
            return [(folder, name, target)]
        case Move(folder, name, to_folder, to_name, node):
            return [(folder, name, None), (to_folder, to_name, node)]
    raise AssertionError(operation)


def _folders_of(operation: NameChange) -> set[int]:
    return {folder for folder, _, _ in _effects(operation)}


def _written(content: bytes, offset: int, data: bytes) -> bytes:
    if len(content) < offset:
        content = content.ljust(offset, b"\0")
    return b"".join((content[:offset], data, content[offset + len(data) :]))


def _torn(content: bytes, write: Write, seed: int) -> bytes:
    """The content with some sectors of the write; which ones is drawn from the seed."""
    data = write.data
    sectors = max(1, -(-len(data) // SECTOR))
    kind, rest = seed % 3, seed // 3
    if kind == 0:  # a prefix
        return _written(content, write.offset, data[: SECTOR * (rest % sectors)])
    for sector in range(min(sectors, 4096)):
        rest = (rest * 1103515245 + 12345) & 0x7FFFFFFF
        if rest >> 16 & 1 == (kind == 1):
            start = sector * SECTOR
            content = _written(content, write.offset + start, data[start : start + SECTOR])
    return content


def _write_sparse(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        end = len(content.rstrip(b"\0")) if len(content) > _ZERO_RUN else len(content)
        os.pwrite(descriptor, content[:end], 0)
        os.ftruncate(descriptor, len(content))
    finally:
        os.close(descriptor)


def counts(log: list[Operation]) -> dict[str, int]:
    """How many operations of each kind a log holds."""
    found: defaultdict[str, int] = defaultdict(int)
    for operation in log:
        found[type(operation).__name__] += 1
    return dict(found)
