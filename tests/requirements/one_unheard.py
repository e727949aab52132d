"""A pytest plugin: stores are opened as if nobody had given them one setting.

Which one, the environment says. Only this plugin reads that variable; the library knows of none.
"""

from __future__ import annotations

import os
from typing import Any, Final

from sessionkeeper import Config

VARIABLE: Final = "UNHEARD"


def pytest_configure() -> None:
    """Have every Config leave that setting at its default, whatever it is given."""
    name = os.environ[VARIABLE]
    made = Config.__init__

    def deaf(self: Config, **given: Any) -> None:
        given.pop(name, None)
        made(self, **given)

    Config.__init__ = deaf  # type: ignore[method-assign]
