"""Files for outside: they appear whole and durable under their name, or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO, Final

from sessionkeeper.errors import PathBlocked
from sessionkeeper.layout import FILE_MODE
from sessionkeeper.storage.platform import FileSystem

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# What file systems without hard links say when asked for one.
_NO_LINKS: Final = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})


@contextmanager
def new_file(
    path: Path,
    *,
    overwrite: bool = False,
    fs: FileSystem | None = None,
) -> Iterator[BinaryIO]:
    """Open a file that gets its name when the body is done and its bytes are durable.

    Until then it lies beside the name under another, readable by the owner only; if anything
    fails, it is removed and what stood under the name is as it was.

    Args:
        path: The name it gets.
        overwrite: Take the place of a file of that name; else that is refused.
        fs: A replacement of the file system, for tests.

    Yields:
        The file, to be written.

    Raises:
        PathBlocked: Something stands there.
        OSError: As the system said.
    """
    fs = fs or FileSystem()
    if not overwrite:
        refuse_existing(path, fs)
    # Not made from the name, which may be as long as a name can be.
    temporary = path.parent / f".sessionkeeper-{secrets.token_hex(8)}.tmp"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, FILE_MODE)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            fs.sync(descriptor)
        if overwrite:
            fs.replace(temporary, path)
        else:
            _publish_new(temporary, path, fs)
    except BaseException:
        with contextlib.suppress(OSError):
            fs.unlink(temporary)
        raise
    fs.sync_folder(path.parent)


def refuse_existing(path: Path, fs: FileSystem | None = None) -> None:
    """Refuse a name under which something stands.

    Raises:
        PathBlocked: Something does.
    """
    if (fs or FileSystem()).status(path) is not None:
        raise _exists(path)


def _publish_new(temporary: Path, path: Path, fs: FileSystem) -> None:
    # A rename would replace what somebody put there meanwhile; a link never does.
    try:
        fs.link(temporary, path)
    except FileExistsError as error:
        raise _exists(path) from error
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        refuse_existing(path, fs)
        fs.replace(temporary, path)
    else:
        fs.unlink(temporary)


def _exists(path: Path) -> PathBlocked:
    return PathBlocked(
        f"{path} exists already",
        path=path,
        hint="Choose another name, or say that it is to be replaced: overwrite (--overwrite).",
    )
