"""Fixtures of the supervision tests: everything that is started ends, and no thread is left."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pykka
import pytest

# Test folders are not packages: this makes the helpers beside this file importable.
sys.path.insert(0, str(Path(__file__).parent))

from otp_kit import PATIENCE, Bench

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    threads = set(threading.enumerate())
    actors = pykka.ActorRegistry.get_all()
    yield
    for thread in set(threading.enumerate()) - threads:
        thread.join(PATIENCE)
        assert not thread.is_alive(), f"{thread} was left behind"
    assert pykka.ActorRegistry.get_all() == actors


@pytest.fixture
def bench() -> Iterator[Bench]:
    """Make servers and supervisors that are stopped when the test ends."""
    made = Bench()
    yield made
    made.clear()
