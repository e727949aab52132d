"""The bytes of a file from outside: never more than a bound, compressed or not."""

from __future__ import annotations

import gzip
import os
import stat
import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from sessionkeeper.errors import ImportRefused

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import BufferedIOBase, BufferedReader
    from pathlib import Path

MAX_IMPORT_BYTES: Final = 1024**3
"""Files with more content than this, compressed or not, are refused."""

_GZIP_MAGIC: Final = b"\x1f\x8b"
_CHUNK: Final = 1024 * 1024


def read_content(path: Path, max_bytes: int = MAX_IMPORT_BYTES) -> bytes:
    """Read a file whole; a gzip file is recognised by its first bytes and decompressed.

    Args:
        path: The file.
        max_bytes: The bound of the file, and of what it decompresses to.

    Raises:
        ImportRefused: It cannot be read, is no regular file, is too large, or is damaged.
    """
    with opened(path, max_bytes) as file:
        if not is_gzip(file):
            return _read_bounded(file, path, max_bytes)
        with gzip.GzipFile(fileobj=file) as unzipped:
            return _read_bounded(unzipped, path, max_bytes)


def is_gzip(file: BufferedReader) -> bool:
    """Whether what comes next in a file is gzipped; it is not read."""
    return file.peek(len(_GZIP_MAGIC)).startswith(_GZIP_MAGIC)


@contextmanager
def opened(path: Path, max_bytes: int = MAX_IMPORT_BYTES) -> Iterator[BufferedReader]:
    """Open a file from outside; the body does nothing but read it.

    Args:
        path: The file.
        max_bytes: The bound of the file.

    Yields:
        The file, to be read.

    Raises:
        ImportRefused: It cannot be read, is no regular file, is too large, or is damaged.
    """
    with refusing_failures(path), open_regular(path, max_bytes) as file:
        yield file


@contextmanager
def refusing_failures(path: Path) -> Iterator[None]:
    """Say of a file that it cannot be read, or is damaged, if reading it fails in the body.

    Raises:
        ImportRefused: It did.
    """
    try:
        yield
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ImportRefused(f"{path}: damaged gzip data: {error}", path=path) from error
    except OSError as error:
        raise ImportRefused(f"{path}: cannot be read: {error.strerror}", path=path) from error


def open_regular(path: Path, max_bytes: int) -> BufferedReader:
    """Open a regular file, without ever waiting for what is none.

    Raises:
        ImportRefused: It is no regular file, or is too large.
        OSError: As the system said.
    """
    # Without O_NONBLOCK a named pipe would be waited for, perhaps for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        _check_status(os.fstat(descriptor), path, max_bytes)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def _check_status(status: os.stat_result, path: Path, max_bytes: int) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ImportRefused(f"{path}: not a regular file", path=path)
    if status.st_size > max_bytes:
        raise _too_large(path, max_bytes)


def _read_bounded(file: BufferedIOBase, path: Path, max_bytes: int) -> bytes:
    # In steps: a small gzip file can decompress to more than there is memory.
    content = bytearray()
    while chunk := file.read(_CHUNK):
        content += chunk
        if len(content) > max_bytes:
            raise _too_large(path, max_bytes)
    return bytes(content)


def _too_large(path: Path, max_bytes: int) -> ImportRefused:
    return ImportRefused(
        f"{path}: more than {max_bytes} bytes of content",
        path=path,
        hint="Split the file; each part is imported on its own.",
    )
