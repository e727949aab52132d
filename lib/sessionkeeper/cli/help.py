"""Docstrings as help texts, line by line as they are written."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

# Before a paragraph it keeps click from filling the lines anew.
_AS_WRITTEN = "\b\n"


def help_of(command: Callable[..., None]) -> str:
    """The help of a command: its docstring, with examples that can be copied."""
    summary, *paragraphs = (inspect.getdoc(command) or "").split("\n\n")
    return "\n\n".join([summary, *(_AS_WRITTEN + paragraph for paragraph in paragraphs)])
