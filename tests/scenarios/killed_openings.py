"""Opens copies of a store and dies in it: `killed_openings.py ORIGINAL COPIES`.

The copy of number n is opened by a process that kills itself before its n-th change to the disk;
the last one is opened without any.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spoken import tell

from sessionkeeper import SessionStore
from sessionkeeper.storage.platform import FileSystem
from sessionkeeper.testing import Injected

if TYPE_CHECKING:
    from collections.abc import Callable

CHANGES = ("begin_new", "write_at", "replace", "link", "unlink", "sync", "sync_data", "sync_folder")


def deadly(fs: FileSystem, number: int) -> FileSystem:
    """Have it kill this process before the change of that number."""
    changes = count(1)

    def instead_of(method: Callable[..., Any]) -> Callable[..., Any]:
        def change(*arguments: Any) -> Any:
            if next(changes) == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return method(*arguments)

        return change

    for name in CHANGES:
        setattr(fs, name, instead_of(getattr(fs, name)))
    return fs


def open_and_die(folder: Path, number: int) -> None:
    fs = deadly(FileSystem(), number)
    SessionStore.open(folder, preset="recorder", watch=False, inject=Injected(fs=fs))
    os._exit(0)  # what closing does is another story


def main(original: str, copies: str) -> None:
    for number in count(1):
        folder = Path(copies) / str(number)
        shutil.copytree(original, folder)
        # There is no thread yet in this process, so a fork is a process like any other.
        child = os.fork()
        if child == 0:
            open_and_die(folder, number)
        _, status = os.waitpid(child, 0)
        tell("opened", number=number, killed=os.waitstatus_to_exitcode(status) == -signal.SIGKILL)
        if status == 0:
            break


if __name__ == "__main__":
    main(*sys.argv[1:])
