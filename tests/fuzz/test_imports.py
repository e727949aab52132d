"""Whatever is imported: it is stored as it says, or refused with a typed error, and soon."""

from __future__ import annotations

import contextlib
import gzip
import json
import random
from typing import TYPE_CHECKING

import pytest
from mangle import SECONDS, mangled, rounds

from sessionkeeper import SessionKeeperError, SessionStore
from sessionkeeper.transfer import (
    export_bundle,
    export_session,
    import_bundle,
    import_session,
    import_transcripts,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.timeout(SECONDS * 2 + 60)


@pytest.fixture
def rng() -> random.Random:
    """Other bytes each time; a failure shows its seed."""
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")  # noqa: T201 - pytest shows it with a failure
    return random.Random(seed)


@pytest.fixture
def target(folder: Path) -> Iterator[SessionStore]:
    """Where everything goes; its own session must outlive it all."""
    with SessionStore.open(folder, watch=False, durability="memory") as store:
        store.save_session("mine", ["untouched"])
        yield store
        assert store.load_session("mine").messages == ["untouched"]


@pytest.fixture
def source(tmp_path: Path) -> Iterator[SessionStore]:
    """What is exported from."""
    with SessionStore.open(tmp_path / "source", watch=False) as store:
        for number in range(3):
            store.save_session(f"s{number}", [{"n": number}, "text"], tags=["t"], title="T")
            store.annotate(f"s{number}", "noted")
        yield store


def test_documents(
    target: SessionStore,
    source: SessionStore,
    tmp_path: Path,
    rng: random.Random,
) -> None:
    path = tmp_path / "one.json"
    export_session(source, "s1", path)
    seeds = [path.read_bytes(), json.dumps(json.loads(path.read_bytes()), indent=2).encode()]
    done = refused = 0
    for _ in rounds():
        path.write_bytes(mangled(rng, seeds))
        try:
            session_id = import_session(target, path, on_conflict="rename")
        except SessionKeeperError:
            refused += 1
            continue
        assert target.load_session(session_id).info.session_id == session_id
        target.delete_session(session_id)
        done += 1
    assert refused
    assert len(target) == 1


def test_bundles(
    target: SessionStore,
    source: SessionStore,
    tmp_path: Path,
    rng: random.Random,
) -> None:
    path = tmp_path / "all.tar.gz"
    export_bundle(source, path)
    whole = path.read_bytes()
    inside = gzip.decompress(whole)
    refused = 0
    for number in rounds():
        # As it is packed, or what is packed in it.
        packed = mangled(rng, [whole]) if number % 2 else gzip.compress(mangled(rng, [inside]), 1)
        path.write_bytes(packed)
        try:
            import_bundle(target, path, on_conflict="skip")
        except SessionKeeperError:
            refused += 1
            assert len(target) == 1, "all of it or nothing"
            continue
        for info in list(target.iter_sessions()):
            if info.session_id != "mine":
                target.delete_session(info.session_id)
    assert refused


def test_transcripts(target: SessionStore, tmp_path: Path, rng: random.Random) -> None:
    folder = tmp_path / "projects" / "one"
    folder.mkdir(parents=True)
    path = folder / "0b5f2f0e-7b0e-4d8c-9b0a-000000000001.jsonl"
    lines = [
        {
            "type": "user" if number % 2 else "assistant",
            "uuid": f"u{number}",
            "sessionId": "0b5f2f0e-7b0e-4d8c-9b0a-000000000001",
            "timestamp": "2025-01-01T00:00:00.000Z",
            "message": {"role": "user", "content": f"text {number}"},
        }
        for number in range(8)
    ]
    seed = b"\n".join(json.dumps(line).encode() for line in lines) + b"\n"
    for _ in rounds():
        path.write_bytes(mangled(rng, [seed]))
        with contextlib.suppress(SessionKeeperError):
            import_transcripts(target, tmp_path / "projects")
        for info in list(target.iter_sessions()):
            if info.session_id != "mine":
                target.delete_session(info.session_id)
