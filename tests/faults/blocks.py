"""A disk that writes down every write and flush, served over NBD and mounted through FUSE and loop.

`nbdfuse` shows the export as a file, and the file system is mounted from it; so the log holds what
the real file system sent, in order, and any legal part of it can be mounted and recovered from.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import subprocess
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sessionkeeper.testing import wait_until

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator
    from pathlib import Path

_OPTION: Final = 0x49484156454F5054
_REPLY: Final = 0x3E889045565A9
_REQUEST: Final = struct.Struct(">IHHQQI")
_READ, _WRITE, _CLOSE, _FLUSH = range(4)
_EXPORT_NAME, _ABORT, _INFO, _GO = 1, 2, 6, 7
_FLAGS: Final = 1 | 4 | 8  # has flags, flush, FUA
_UNSUPPORTED: Final = (1 << 31) + 1
FLUSH: Final = None
Entry = tuple[int, bytes] | None


@dataclass
class BlockLog:
    """The content of the disk, and the log: writes, and None for each flush."""

    content: bytearray

    def __post_init__(self) -> None:
        self.lock = threading.Lock()
        self.log: list[Entry] = []
        self.broken = False

    def request(self, kind: int, offset: int, length: int, data: bytes) -> tuple[int, bytes]:
        """Do one request; returns the error number and the bytes read."""
        with self.lock:
            if kind == _READ:
                return 0, bytes(self.content[offset : offset + length])
            if self.broken:
                return errno.EIO, b""
            if kind == _WRITE:
                self.content[offset : offset + length] = data
                self.log.append((offset, data))
            elif kind == _FLUSH:
                self.log.append(FLUSH)
            return 0, b""


def state(before: bytes, log: list[Entry], length: int, rng: random.Random | None) -> bytearray:
    """The disk after a prefix of the log.

    Args:
        before: The disk before the log.
        log: The log.
        length: How much of it has happened.
        rng: If given, draws which of the writes after the last flush are there.
    """
    content = bytearray(before)
    flushed = max((at for at in range(length) if log[at] is FLUSH), default=0)
    for at in range(length):
        entry = log[at]
        if entry is not None and (rng is None or at < flushed or rng.random() < 0.5):
            content[entry[0] : entry[0] + len(entry[1])] = entry[1]
    return content


def _receive(connection: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        piece = connection.recv(count - len(data))
        if not piece:
            raise ConnectionError("the client went away")
        data += piece
    return bytes(data)


def _negotiate(connection: socket.socket, size: int) -> bool:
    connection.sendall(struct.pack(">8sQH", b"NBDMAGIC", _OPTION, 3))
    no_zeroes = struct.unpack(">I", _receive(connection, 4))[0] & 2
    while True:
        _, option, length = struct.unpack(">QII", _receive(connection, 16))
        _receive(connection, length)
        if option == _EXPORT_NAME:
            connection.sendall(
                struct.pack(">QH", size, _FLAGS) + (b"" if no_zeroes else bytes(124))
            )
            return True
        if option in (_INFO, _GO):
            info = struct.pack(">HQH", 0, size, _FLAGS)
            connection.sendall(struct.pack(">QIII", _REPLY, option, 3, len(info)) + info)
            connection.sendall(struct.pack(">QIII", _REPLY, option, 1, 0))
            if option == _GO:
                return True
        elif option == _ABORT:
            connection.sendall(struct.pack(">QIII", _REPLY, option, 1, 0))
            return False
        else:
            connection.sendall(struct.pack(">QIII", _REPLY, option, _UNSUPPORTED, 0))


def _serve(connection: socket.socket, disk: BlockLog) -> None:
    with connection, contextlib.suppress(ConnectionError):
        if not _negotiate(connection, len(disk.content)):
            return
        while True:
            _, flags, kind, handle, offset, length = _REQUEST.unpack(_receive(connection, 28))
            if kind == _CLOSE:
                return
            data = _receive(connection, length) if kind == _WRITE else b""
            error, found = disk.request(kind, offset, length, data)
            if flags & 1 and not error:
                error, _ = disk.request(_FLUSH, 0, 0, b"")
            connection.sendall(struct.pack(">IIQ", 0x67446698, error, handle) + found)


@contextlib.contextmanager
def exported(disk: BlockLog, place: Path) -> Iterator[Path]:
    """The disk as a file that can be mounted with `-o loop`."""
    address, shown = place / "socket", place / "shown"
    shown.mkdir()
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(address))
    server.listen(8)
    threads: list[threading.Thread] = []

    def accept() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            threads.append(threading.Thread(target=_serve, args=(connection, disk)))
            threads[-1].start()

    accepting = threading.Thread(target=accept)
    accepting.start()
    command = ["nbdfuse", str(shown), "--unix", str(address)]
    with subprocess.Popen(command, env=_environment()) as fuse:
        try:
            wait_until(lambda: (shown / "nbd").exists() or fuse.poll() is not None, timeout=20)
            assert fuse.poll() is None, "nbdfuse ended"
            yield shown / "nbd"
        finally:
            unmount = ["fusermount3", "-u", str(shown)]
            subprocess.run(unmount, check=False, env=_environment())
            with contextlib.suppress(subprocess.TimeoutExpired):
                fuse.wait(20)
            fuse.terminate()
            server.shutdown(socket.SHUT_RDWR)
            server.close()
    accepting.join()
    for thread in threads:
        thread.join()


def _environment() -> dict[str, str]:
    return {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"}
