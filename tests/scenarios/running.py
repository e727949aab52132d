"""Runs the programs of this folder as processes of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self

import sessionkeeper

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

HERE = Path(__file__).parent
# The same library as the test's own, wherever that is from.
LIBRARY = Path(sessionkeeper.__file__).parents[1]

# No scenario takes so long; a program that hangs is killed, and its test fails.
LIMIT = 30.0


class Program:
    """A program of this folder, running; use it as a context manager.

    Args:
        name: Its file, without suffix.
        arguments: What it is started with.
        folder: The folder it runs in; its standard error goes to a file there.
        environment: Variables over those of this process.

    Attributes:
        told: What was read of what it told, in order.
        errors: The file with its standard error.
    """

    def __init__(
        self,
        name: str,
        *arguments: object,
        folder: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.errors = folder / f"{name}.stderr"
        self.told: list[dict[str, Any]] = []
        with self.errors.open("a") as errors:
            self._process = subprocess.Popen(
                [sys.executable, str(HERE / f"{name}.py"), *map(str, arguments)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=folder,
                env={**os.environ, "PYTHONPATH": str(LIBRARY), **(environment or {})},
            )
        self._watchdog = threading.Timer(LIMIT, self._process.kill)
        self._watchdog.start()

    @property
    def pid(self) -> int:
        """The number of its process."""
        return self._process.pid

    def expect(self, event: str) -> dict[str, Any]:
        """Read what it tells until it tells of that event, and return its fields.

        Raises:
            AssertionError: It ended before.
        """
        for line in _stream(self._process.stdout):
            self.told.append(json.loads(line))
            if self.told[-1]["event"] == event:
                return self.told[-1]
        raise AssertionError(f"no {event!r} from the program: {self.errors.read_text()[-2000:]}")

    def rest(self) -> list[dict[str, Any]]:
        """Whatever else it tells, until its end."""
        rest = [json.loads(line) for line in _stream(self._process.stdout)]
        self.told += rest
        return rest

    def do(self, command: str) -> None:
        """Have it do something, and wait until that is done."""
        self.send(command)
        self.expect(command)

    def send(self, command: str) -> None:
        """Tell it to do something."""
        stream = _stream(self._process.stdin)
        stream.write(f"{command}\n")
        stream.flush()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def end(self) -> int:
        """Its exit status, once it has ended."""
        return self._process.wait()

    def kill(self) -> list[dict[str, Any]]:
        """End it without any warning.

        Returns:
            What it told before and nobody has read.
        """
        self.signal(signal.SIGKILL)
        told = self.rest()
        assert self.end() == -signal.SIGKILL
        return told

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.communicate()
        self._watchdog.cancel()


def _stream(stream: IO[str] | None) -> IO[str]:
    if stream is None:
        raise AssertionError("it was started with pipes")
    return stream
