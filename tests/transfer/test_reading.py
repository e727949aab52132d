"""The bytes of a file from outside are bounded, whatever the file is."""

from __future__ import annotations

import gzip
import os
from typing import TYPE_CHECKING

import pytest

from sessionkeeper import ImportRefused
from sessionkeeper.transfer import reading
from sessionkeeper.transfer.reading import read_content

if TYPE_CHECKING:
    from pathlib import Path

CONTENT = b'[{"id": "s1", "messages": []}]'


def test_a_plain_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(CONTENT)

    assert read_content(path) == CONTENT


def test_gzip_is_known_by_its_first_bytes_and_not_by_its_name(tmp_path: Path) -> None:
    zipped, plain = tmp_path / "zipped.json", tmp_path / "plain.gz"
    # Two members, one behind the other, as `cat a.gz b.gz` makes them.
    zipped.write_bytes(gzip.compress(CONTENT[:10]) + gzip.compress(CONTENT[10:]))
    plain.write_bytes(CONTENT)

    assert read_content(zipped) == CONTENT
    assert read_content(plain) == CONTENT


def test_a_file_larger_than_the_bound_is_refused_and_one_of_that_size_is_not(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(CONTENT)

    assert read_content(path, len(CONTENT)) == CONTENT
    with pytest.raises(ImportRefused, match=f"more than {len(CONTENT) - 1} bytes"):
        read_content(path, len(CONTENT) - 1)


def test_a_file_that_is_too_large_is_not_even_read(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "huge.json"
    path.touch()
    os.truncate(path, 2 * 1024**3)
    monkeypatch.setattr(reading, "_read_bounded", pytest.fail)

    with pytest.raises(ImportRefused, match="more than 1073741824 bytes"):
        read_content(path)


def test_a_small_file_that_decompresses_to_more_than_the_bound_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.json.gz"
    path.write_bytes(gzip.compress(b" " * 8_000_000))
    assert path.stat().st_size < 10_000

    with pytest.raises(ImportRefused, match="more than 1000000 bytes"):
        read_content(path, 1_000_000)


@pytest.mark.parametrize(
    "damaged",
    [
        gzip.compress(CONTENT, mtime=0)[:-9],
        gzip.compress(CONTENT, mtime=0)[:-8] + b"\0" * 8,
        gzip.compress(CONTENT, mtime=0) + b"rest",
        b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xff\xff\xff",
    ],
    ids=["cut off", "wrong checksum", "something behind it", "no deflate data"],
)
def test_damaged_gzip_data_are_refused(tmp_path: Path, damaged: bytes) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(damaged)

    with pytest.raises(ImportRefused, match="damaged gzip data") as caught:
        read_content(path)
    assert caught.value.path == path


def test_what_is_no_regular_file_is_refused_and_never_waited_for(tmp_path: Path) -> None:
    pipe, folder = tmp_path / "pipe.json", tmp_path / "folder.json"
    os.mkfifo(pipe)
    folder.mkdir()

    for path in (pipe, folder):
        with pytest.raises(ImportRefused, match="not a regular file"):
            read_content(path)


def test_a_file_that_cannot_be_read_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(ImportRefused, match="cannot be read: No such file") as caught:
        read_content(tmp_path / "absent.json")
    assert caught.value.path == tmp_path / "absent.json"
