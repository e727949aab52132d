"""The command line: `sessionkeeper`, or `python -m sessionkeeper.cli`."""

from __future__ import annotations

import io
import sys

_EXTRA = {"typer", "rich"}


def run() -> None:
    """Run the command line and exit with its status.

    Without the extra `cli` it says how to install it, and exits with status 1.
    """
    try:
        from sessionkeeper.cli.main import app  # noqa: PLC0415 - the extra may be missing
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        sys.stderr.write(
            f"sessionkeeper: the command line needs {error.name}: "
            "pip install 'sessionkeeper[cli]'\n",
        )
        sys.exit(1)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A character that the terminal's encoding lacks must not end the command.
        sys.stdout.reconfigure(errors="backslashreplace")
    app(prog_name="sessionkeeper")
