"""What the library logs, while a command runs."""

from __future__ import annotations

import logging
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sessionkeeper.cli.text import escaped
from sessionkeeper.events import logger

if TYPE_CHECKING:
    from collections.abc import Iterator


class _OneLine(logging.Formatter):
    """The message alone, escaped: names of files are in it, and tracebacks help nobody here."""

    def format(self, record: logging.LogRecord) -> str:
        return f"sessionkeeper: {escaped(record.getMessage())}"


@contextmanager
def warnings_shown() -> Iterator[None]:
    """Show warnings of the library on standard error, one line each."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setLevel(logging.WARNING)
    handler.setFormatter(_OneLine())
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


@contextmanager
def silenced() -> Iterator[None]:
    """Show nothing: whoever uses this reports every failure in other ways."""
    # watchdog warns of events that arrive while its observer is being stopped.
    loggers = (logger, logging.getLogger("watchdog"))
    levels = [each.level for each in loggers]
    for each in loggers:
        each.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)
