"""Whatever bytes come in: a value, or a typed error, and soon."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from mangle import SECONDS, mangled, rounds

from sessionkeeper import CorruptDocument, InvalidSessionId, NewerVersion, SessionStore
from sessionkeeper.layout import belongs, check_session_id, hashed_stem, plain_stem
from sessionkeeper.storage.documents import decode_document, decode_foreign, encode_document
from sessionkeeper.storage.entries import decode_entry
from sessionkeeper.storage.frames import frames_in, journal_id_of
from sessionkeeper.storage.journal import Journal
from sessionkeeper.storage.platform import FileSystem

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(SECONDS * 2 + 60)
NOW = datetime(2025, 1, 1, tzinfo=UTC)


@pytest.fixture
def rng() -> random.Random:
    """Other bytes each time; a failure shows its seed."""
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")  # noqa: T201 - pytest shows it with a failure
    return random.Random(seed)


@pytest.fixture(scope="module")
def lived_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with documents of many kinds, and a journal with all kinds of records."""
    folder = tmp_path_factory.mktemp("fuzz") / "store"
    store = SessionStore.open(folder, watch=False)
    for number in range(6):
        session_id = f"s{number}"
        messages = [{"role": "user", "content": "x" * number * 50}, number, None, [1.5, "ü"]]
        store.save_session(session_id, messages, tags=["a", "b"], metadata={"n": number})
        store.append(session_id, ["more"], key="once")
        store.annotate(session_id, "a note")
        store.save_session(session_id, status="completed", title="T", state={"deep": [[[]]]})
    store.checkpoint()
    for number in range(6):
        store.append(f"s{number}", ["unpublished", number])
    store.delete_session("s0")
    store.save_session("s1", ["large", "y" * 80_000])
    copy = folder.with_name("copy")
    journal = copy / "journal"
    journal.mkdir(parents=True)
    for path in (folder / ".sessionkeeper" / "journal").iterdir():
        (journal / path.name).write_bytes(path.read_bytes())
    store.close()
    for path in folder.glob("*.json"):
        (copy / path.name).write_bytes(path.read_bytes())
    return copy


def test_documents(lived_in: Path, rng: random.Random) -> None:
    seeds = [path.read_bytes() for path in lived_in.glob("*.json") if path.stat().st_size < 9000]
    pretty = [json.dumps(json.loads(seed), indent=1).encode() for seed in seeds]
    read = refused = 0
    for _ in rounds():
        data = mangled(rng, [*seeds, *pretty])
        try:
            document = decode_document([data])
            if document is None:
                document = decode_foreign(data, NOW)
        except (CorruptDocument, NewerVersion):
            refused += 1
            continue
        # What is taken can be written, and is the same when it is read again.
        again = decode_document([bytes(piece) for piece in encode_document(document)])
        assert again is not None
        assert again.session().messages == document.session().messages
        assert again.record == document.record
        read += 1
    assert read
    assert refused


def test_journal_records(lived_in: Path, rng: random.Random) -> None:
    seeds: list[bytes] = []
    for path in (lived_in / "journal").iterdir():
        data = path.read_bytes()
        for frame in frames_in(data, journal_id_of(data) or b""):
            seeds += [bytes(body) for body in frame.records if len(body) < 9000]
    assert seeds
    read = refused = 0
    for _ in rounds():
        try:
            decode_entry(mangled(rng, seeds))
            read += 1
        except (CorruptDocument, NewerVersion):
            refused += 1
    assert read
    assert refused


def test_journals(lived_in: Path, tmp_path: Path, rng: random.Random) -> None:
    seeds = [path.read_bytes()[:60_000] for path in (lived_in / "journal").iterdir()]
    damaged = 0
    for _ in rounds():
        for number, seed in enumerate(seeds):
            data = mangled(rng, [seed]) if rng.random() < 0.7 else seed
            (tmp_path / f"{number}.segment").write_bytes(data)
        log = Journal(FileSystem(), tmp_path).read()
        damaged += bool(log.damage)
        for body in log.records:
            try:
                decode_entry(bytes(body))
            except (CorruptDocument, NewerVersion):
                pytest.fail("a record with a right checksum cannot be read")
    assert damaged


def test_ids(rng: random.Random) -> None:
    seeds = [
        b"s1",
        b"a.b-c_d",
        "grüße 漢字".encode(),
        b"x" * 300,
        b"CON",
        b"../../etc/passwd",
        b"a:b@c",
    ]
    taken = refused = 0
    for _ in rounds():
        text = mangled(rng, seeds).decode("utf-8", "surrogateescape")
        try:
            session_id = check_session_id(text)
        except InvalidSessionId:
            refused += 1
            continue
        for stem in (plain_stem(session_id), hashed_stem(session_id)):
            assert belongs(stem, session_id)
            assert 0 < len(stem.encode()) <= 250
            assert not set(stem) & set('/\\\0\n:*?"<>|')
            assert stem not in (".", "..")
            assert not stem.startswith((".", "-", " "))
        taken += 1
    assert taken
    assert refused
