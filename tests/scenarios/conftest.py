"""Five kinds of programs, live on the store: processes, sockets, files, and kills."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

# Test folders are not packages: this makes the helpers beside this file importable.
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder a program runs in, with an environment that says nothing about stores."""
    for variable in [*os.environ]:
        if variable.startswith("SESSION"):
            monkeypatch.delenv(variable)
    monkeypatch.chdir(tmp_path)
    return tmp_path
