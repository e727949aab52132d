"""A file is known by what is in it."""

from __future__ import annotations

import gzip
import json
import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessionkeeper import ImportRefused, SessionStore
from sessionkeeper.transfer import export_bundle, export_session, kind_of

if TYPE_CHECKING:
    from pathlib import Path

RECORD = {"type": "user", "sessionId": "s", "uuid": "u", "message": {"role": "user"}}


def line(value: object) -> bytes:
    return json.dumps(value).encode()


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (line(RECORD), "transcripts"),
        (b"\0\0\n" + line(RECORD) + b"\n{", "transcripts"),
        (b"[\n" + line(RECORD) + b"\n]", "sessions"),
        (b'{"type": "x"}\n' + line(RECORD), "transcripts"),
        (b'{"type": "summary", "summary": "S", "leafUuid": "u"}\n', "transcripts"),
        (json.dumps([RECORD]).encode(), "sessions"),
        (b'{"sessionId": "s", "messages": []}', "sessions"),
        (b'{"role": "user", "content": "Hi"}\n{"role": "user"}\n', "sessions"),
        (b'{"type": "x", "image": "%s"}\n' % (b"x" * 2_000_000) + line(RECORD), "transcripts"),
        (b"", "sessions"),
        (b"\x1f\x8b", "refused"),
        (gzip.compress(b"[]", mtime=0), "sessions"),
        (gzip.compress(b"x" * 257 + b"ustar", mtime=0)[:-3], "bundle"),
    ],
)
def test_the_name_decides_nothing(tmp_path: Path, content: bytes, kind: str) -> None:
    for name in ("a.json", "a.jsonl", "a.tar.gz", "a"):
        path = tmp_path / name
        path.write_bytes(content)
        if kind == "refused":
            with pytest.raises(ImportRefused, match="damaged gzip data"):
                kind_of(path)
        else:
            assert kind_of(path) == kind


def test_what_was_exported_is_known(store: SessionStore, tmp_path: Path) -> None:
    store.save_session("s", [RECORD])
    export_session(store, "s", tmp_path / "a.jsonl")
    export_bundle(store, tmp_path / "b.json")

    assert kind_of(tmp_path / "a.jsonl") == "sessions"
    assert kind_of(tmp_path / "b.json") == "bundle"
    assert kind_of(tmp_path) == "transcripts"


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "absent"):
        with pytest.raises(ImportRefused):
            kind_of(tmp_path / name)


@given(st.binary(max_size=400), st.booleans())
def test_noise_is_something_or_refused(tmp_path: Path, content: bytes, zipped: bool) -> None:  # noqa: FBT001
    path = tmp_path / "noise"
    path.write_bytes(gzip.compress(content, 1) if zipped else content)

    assert kind_of(path) in ("bundle", "transcripts", "sessions")
