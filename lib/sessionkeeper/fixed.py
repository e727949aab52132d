"""Small values that never change, made often."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar, dataclass_transform

_T = TypeVar("_T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def fixed(cls: type[_T]) -> type[_T]:
    """A dataclass with slots whose fields a type checker takes for read-only.

    At run time nothing guards them: a frozen dataclass takes four to eight times as long to make
    (`python -m timeit`, 18 fields), and each change makes a dozen. So it is for the store's own
    values; what callers get is frozen. Its methods name the class where others write `super()`:
    the slots make another class of it.
    """
    return dataclass(slots=True)(cls)
