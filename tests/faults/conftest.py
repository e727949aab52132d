"""What every rig needs: its helpers, what it requires of the machine, and how much it covered."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

# Test folders are not packages: this makes the helpers beside this file importable.
sys.path.insert(0, str(Path(__file__).parent))

from replays import make_small

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def covered(record_property: Callable[[str, object], None]) -> Callable[[str, int, str], None]:
    """Say how much a test has covered: the numbers of its cases, how many, and of what."""

    def note(cases: str, count: int, what: str) -> None:
        assert count > 0, f"{what}: the rig covered nothing"
        record_property("covered", f"{cases}|{count}|{what}")

    return note


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small bounds for the journal, so that a short run meets all of them."""
    make_small(monkeypatch)


def needs(*programs: str, root: bool = False) -> None:
    """Skip where the machine lacks something; fail there if this is the gate.

    Args:
        programs: Commands that must be there, by Debian package after a colon.
        root: Whether the test mounts things.
    """
    missing = [
        f"{name} (Debian package {package or name})"
        for name, _, package in (program.partition(":") for program in programs)
        if shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is None
    ]
    if root and os.geteuid() != 0:
        missing.append("root")
    if not missing:
        return
    reason = f"this rig needs {', '.join(missing)}"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture
def require() -> Callable[..., None]:
    """`needs`, for tests."""
    return needs
