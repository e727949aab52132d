"""Fixtures for all tests: no thread may outlive its test, and nothing is left to chance."""

from __future__ import annotations

import random
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

from sessionkeeper import SessionStore
from sessionkeeper.testing import FakeClock, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

settings.register_profile(
    "default",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("default")


@pytest.fixture(autouse=True)
def _no_thread_left() -> Iterator[None]:
    before = set(threading.enumerate())

    def left() -> list[str]:
        threads = [t for t in threading.enumerate() if t not in before and t.is_alive()]
        # trio keeps the threads of its to_thread for some seconds.
        return [t.name for t in threads if not t.name.startswith("Trio thread")]

    yield
    try:
        wait_until(lambda: not left())
    except AssertionError:
        pytest.fail(f"threads outlived the test: {left()}")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def store(folder: Path) -> Iterator[SessionStore]:
    with SessionStore.open(folder, watch=False) as opened:
        yield opened


@pytest.fixture
def conversation() -> Callable[[int], list[dict[str, Any]]]:
    """A customer-service conversation with tool calls, the same for the same seed."""

    def make(seed: int) -> list[dict[str, Any]]:
        rng = random.Random(seed)
        messages: list[dict[str, Any]] = [{"role": "system", "content": "You are an agent. " * 40}]
        for turn in range(rng.randint(2, 8)):
            order = f"#W{rng.randint(10**6, 10**7)}"
            messages += [
                {"role": "user", "content": f"Where is {order}? — “soon”, they said\n"},
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [
                        {
                            "id": f"call_{turn}",
                            "type": "function",
                            "function": {"name": "lookup", "arguments": f'{{"id": "{order}"}}'},
                        },
                    ],
                },
                {"role": "tool", "tool_call_id": f"call_{turn}", "content": f"{rng.random()}"},
                {"role": "assistant", "content": "It is on its way."},
            ]
        return messages

    return make


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how much the tests in faults/ have covered; see docs/durability.md."""
    found: Counter[tuple[str, str]] = Counter()
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            if name == "covered":
                cases, number, what = str(value).split("|", 2)
                found[cases, what] += int(number)
    if found:
        terminalreporter.section("fault cases covered")
        for (cases, what), count in sorted(found.items()):
            terminalreporter.write_line(f"case {cases}: {count} {what}")
