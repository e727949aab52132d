from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sessionkeeper.clock import SystemClock
from sessionkeeper.layout import Layout
from sessionkeeper.storage.file import FileBackend
from sessionkeeper.storage.folder import prepare_folders
from sessionkeeper.storage.memory import MemoryBackend
from sessionkeeper.storage.platform import FileSystem
from sessionkeeper.storage.single import SingleFileBackend
from sessionkeeper.testing import CASES, FaultyBackend, backend_conformance

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sessionkeeper.layout import LayoutName
    from sessionkeeper.storage.backend import Backend, RecoveryReport


def file_backend(root: Path, layout: LayoutName = "flat") -> FileBackend:
    folders = Layout.of(root, layout)
    prepare_folders(FileSystem(), folders)
    return FileBackend(folders, SystemClock())


def single_file_backend(root: Path) -> SingleFileBackend:
    folders = Layout.of(root, "single")
    prepare_folders(FileSystem(), folders)
    return SingleFileBackend(folders, SystemClock())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__.strip("_"))
@pytest.mark.parametrize("kind", ["flat", "rooted", "single", "memory", "wrapped"])
def test_backend(kind: str, case: Callable[[Backend], None], tmp_path: Path) -> None:
    backend: Backend
    if kind == "flat":
        backend = file_backend(tmp_path, "flat")
    elif kind == "rooted":
        backend = file_backend(tmp_path, "rooted")
    elif kind == "single":
        backend = single_file_backend(tmp_path)
    else:
        backend = FaultyBackend(MemoryBackend()) if kind == "wrapped" else MemoryBackend()
    case(backend)
    backend.close()


def test_the_suite_runs_every_case_on_a_new_backend() -> None:
    made: list[MemoryBackend] = []

    def make() -> MemoryBackend:
        made.append(MemoryBackend())
        return made[-1]

    assert backend_conformance(make) == len(CASES) == len(made)


class _Forgetful(MemoryBackend):
    def trashed(self, session_id: str) -> None:
        return None


class _Doubling(MemoryBackend):
    def recover(self) -> RecoveryReport:
        report = super().recover()
        report.lsn = 0
        return report


@pytest.mark.parametrize("broken", [_Forgetful, _Doubling])
def test_the_suite_finds_a_broken_backend(broken: type[MemoryBackend]) -> None:
    with pytest.raises(AssertionError):
        backend_conformance(broken)
