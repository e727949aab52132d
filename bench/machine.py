"""Where the figures come from: without this they mean nothing."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sqlite3
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

_PACKAGES = (
    *("sessionkeeper", "pykka", "orjson", "lmdb", "diskcache", "cachelib"),
    *("openai-agents", "langgraph-checkpoint-sqlite", "strands-agents", "google-adk"),
)


@dataclass(frozen=True, slots=True)
class Machine:
    """What was measured on.

    Attributes:
        date: ISO 8601, UTC.
        command: How it was started.
        system: Name and release of the kernel.
        cpu: The model.
        cpus: How many this process may use.
        python: Implementation and version.
        sqlite: The version of the library.
        packages: Versions, by name; absent ones are left out.
        file_system: What holds what is written.
        load: How many processes wanted to run, on average of the minute before.
    """

    date: str
    command: str
    system: str
    cpu: str
    cpus: int
    python: str
    sqlite: str
    packages: dict[str, str]
    file_system: str
    load: float


def describe(command: str, disk: str) -> Machine:
    """This machine, now.

    Args:
        command: How the benchmark was started.
        disk: The file system that it writes to, in words.
    """
    return Machine(
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        command=command,
        system=f"{platform.system()} {platform.release()}",
        cpu=_cpu_model(),
        cpus=len(os.sched_getaffinity(0)),
        python=f"{platform.python_implementation()} {platform.python_version()}",
        sqlite=sqlite3.sqlite_version,
        packages=_versions(),
        file_system=disk,
        load=os.getloadavg()[0],
    )


def _versions() -> dict[str, str]:
    found: dict[str, str] = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _cpu_model() -> str:
    for line in _lines(Path("/proc/cpuinfo")):
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


def file_system(folder: Path, proc: Path = Path("/proc")) -> str:
    """The file system that holds a folder, in words.

    Args:
        folder: Any folder.
        proc: Where the kernel tells about itself.
    """
    found: tuple[str, str] | None = None
    longest = -1
    for line in _lines(proc / "mounts"):
        device, point, kind = line.split(" ")[:3]
        place = _unescaped(point)
        # Of two mounts on one point the later one is seen.
        if folder.resolve().is_relative_to(place) and len(place) >= longest:
            found, longest = (device, kind), len(place)
    if found is None:
        return "unknown"
    device, kind = found
    if kind == "tmpfs":
        return "tmpfs: memory, where nothing is durable and syncs cost nothing"
    return f"{kind} {_journal(device, proc)}" if kind == "ext4" else kind


def _journal(device: str, proc: Path) -> str:
    """Whether an ext4 has a journal: jbd2 shows one folder for each journal it runs."""
    name = Path(device).resolve().name
    if not (proc / "fs" / "ext4" / name).is_dir():
        return "(journal unknown)"
    if any((proc / "fs" / "jbd2").glob(f"{name}-*")):
        return "with journal"
    return "WITHOUT journal: renames are not crash-atomic here, and syncs cost less"


def _unescaped(point: str) -> str:
    """Mount points show blanks as octal numbers."""
    return point.encode().decode("unicode_escape").encode("latin-1").decode()


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
