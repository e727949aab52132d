"""Files that somebody made with ill will: refused with a reason, or taken and as good as any."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st

from sessionkeeper import ImportRefused, SessionStore
from sessionkeeper.transfer import (
    FieldMapping,
    export_bundle,
    import_bundle,
    import_file,
    import_session,
    import_transcripts,
    kind_of,
)

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

numbers = st.sampled_from([0, -1, 1, 2**63, 2**64, 10**30, 10**400, -0.0, 1e308, 5e-324, 1e400])
names = st.sampled_from(
    ["s1", "s2", "S1", "../x", "a/b", "", ".", "CON", "x" * 300, "é", "\ud800", "\0", "a\n", "é"],
)
values = st.recursive(
    st.none() | st.booleans() | numbers | names | st.text(max_size=3) | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=5,
)
FIELDS = [
    "format",
    "version",
    "session_id",
    "namespace",
    "messages",
    "state",
    "generation",
    "lsn",
    "created_at",
    "updated_at",
    "completed_at",
    "persistedUntil",
    "status",
    "title",
    "summary",
    "tags",
    "pinned",
    "message_count",
    "total_cost",
    "metadata",
    "requests",
    "checksum",
    "whatever",
]
documents = st.fixed_dictionaries(
    {
        "format": st.just("sessionkeeper"),
        "version": st.just(1),
        "session_id": st.sampled_from(["s1", "s2"]) | names,
        "messages": st.lists(values, max_size=3),
    },
)
changes = st.dictionaries(st.sampled_from(FIELDS), values, max_size=3)


def text_of(value: Any) -> bytes:
    """JSON as sloppy programs write it: NaN, lone surrogates and endless numbers included."""
    with_numbers = _written(value)
    return with_numbers.encode("utf-8", "surrogatepass")


def _written(value: Any) -> str:
    match value:
        case dict():
            pairs = (f"{_written(key)}:{_written(item)}" for key, item in value.items())
            return "{" + ",".join(pairs) + "}"
        case list():
            return "[" + ",".join(map(_written, value)) + "]"
        case int() if not isinstance(value, bool) and abs(value) > 10**300:
            return "1" + "0" * 5000
    return json.dumps(value)


def signed(document: bytes) -> bytes:
    """A document with the checksum that belongs to it."""
    covered = document[:-1]
    digest = hashlib.blake2b(covered, digest_size=16).hexdigest()
    return covered + b',"checksum":"%s"}\n' % digest.encode()


def is_sound(store: SessionStore) -> None:
    """Whatever was taken can be read, listed, saved again and carried on."""
    for session in store.load_all():
        assert len(session.messages) == session.info.message_count
        assert store.append(session.session_id, ["more"]).message_count == len(session) + 1
    assert len(store.list_sessions()) == len(store)
    store.flush()


@given(document=documents, change=changes, with_checksum=st.booleans())
def test_documents(
    document: dict[str, Any],
    change: dict[str, Any],
    tmp_path: Path,
    *,
    with_checksum: bool,
) -> None:
    path = tmp_path / "in" / "document.json"
    path.parent.mkdir(exist_ok=True)
    content = text_of(document | change)
    path.write_bytes(signed(content) if with_checksum else content)
    with SessionStore.open("nowhere", durability="memory") as store:
        kind_of(path)
        try:
            session_id = import_session(store, path)
        except ImportRefused as error:
            assert error.path == path  # noqa: PT017 - either outcome is right
            assert len(store) == 0
        else:
            assert session_id in store
        is_sound(store)
    assert [found.name for found in tmp_path.iterdir()] == ["in"]


@given(
    items=st.lists(st.dictionaries(st.sampled_from(["id", "messages", "at", "x"]), values)),
    lines=st.booleans(),
)
def test_records_of_other_programs(
    items: list[dict[str, Any]],
    tmp_path: Path,
    *,
    lines: bool,
) -> None:
    path = tmp_path / "items"
    path.write_bytes(b"\n".join(map(text_of, items)) if lines else text_of(items))
    mapping = FieldMapping.of(session_id="{id}", cost="x", tags=["{x}"], times={"at": "at"})
    with SessionStore.open("nowhere", durability="memory") as store:
        for each in (mapping, FieldMapping.of(state="x"), None):
            try:
                import_file(store, path, each, on_conflict="rename")
            except ImportRefused as error:
                assert error.path == path  # noqa: PT017 - either outcome is right
        is_sound(store)


good_names = st.integers(1, 3).map(lambda number: f"sessions/{number:08}.json")
bad_names = st.sampled_from(["../x.json", "/x.json", "sessions/1.json", "x" * 90, "manifest.json"])
types = st.sampled_from(
    [tarfile.REGTYPE] * 5 + [tarfile.SYMTYPE, tarfile.DIRTYPE, b"\0", b"S", b"z"]
)
members = st.lists(
    st.tuples(good_names | bad_names, documents, changes, types, st.integers(-1, 600)),
    max_size=3,
)


def header(name: str, size: int, kind: bytes) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = max(size, 0), kind, "/etc/passwd"
    return info.tobuf(tarfile.GNU_FORMAT)


@given(
    content=members,
    head=st.fixed_dictionaries({"format": st.just("sessionkeeper-bundle"), "version": st.just(1)}),
    change=st.dictionaries(st.sampled_from(["format", "version", "count"]), values, max_size=1),
    honest=st.booleans(),
)
def test_bundles(
    content: list[tuple[str, dict[str, Any], dict[str, Any], bytes, int]],
    head: dict[str, Any],
    change: dict[str, Any],
    tmp_path: Path,
    *,
    honest: bool,
) -> None:
    path = tmp_path / "in" / "bundle"
    path.parent.mkdir(exist_ok=True)
    archive, lines = io.BytesIO(), []
    for number, (name, document, changed, kind, size) in enumerate(content, 1):
        if honest:
            name, kind, size = f"sessions/{number:08}.json", tarfile.REGTYPE, -1  # noqa: PLW2901
        data = signed(text_of(document | changed))
        archive.write(header(name, len(data) if size < 0 else size, kind))
        archive.write(data + bytes(-len(data) % 512))
        digest = hashlib.sha256(data).hexdigest()
        session_id = document["session_id"]
        lines.append([name, session_id, digest, len(data)])
    listed = [{**head, "count": len(content), **change}] + [
        dict(zip(("file", "session_id", "sha256", "bytes"), line, strict=True)) for line in lines
    ]
    manifest = b"".join(text_of(line) + b"\n" for line in listed)
    archive.write(header("manifest.jsonl", len(manifest), tarfile.REGTYPE))
    archive.write(manifest + bytes(-len(manifest) % 512) + bytes(1024))
    path.write_bytes(gzip.compress(archive.getvalue(), 1))

    with SessionStore.open("nowhere", durability="memory") as store:
        try:
            imported = import_bundle(store, path)
        except ImportRefused as error:
            assert error.path == path  # noqa: PT017 - either outcome is right
            assert len(store) == 0
        else:
            assert imported.sessions == len(content) == len(store)
        is_sound(store)
    assert [found.name for found in tmp_path.iterdir()] == ["in"]


KEYS = ("sessionId", "type", "summary", "cwd", "gitBranch", "version", "message", "cost", "uuid")
records = st.dictionaries(st.sampled_from(KEYS), values | st.just("summary") | st.just("s1"))
files = st.dictionaries(
    st.sampled_from(["s1", "s2", "agent-1", "CON", "x" * 200, "é", "\x1b[31m", ".hidden", "a b "]),
    st.lists(records.map(text_of) | st.binary(max_size=20), max_size=4).map(b"\n".join),
    max_size=4,
)


@given(first=files, second=files)
def test_transcripts(
    first: dict[str, bytes],
    second: dict[str, bytes],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("transcripts")
    with SessionStore.open("nowhere", durability="memory") as store:
        for contents in (first, second):
            for name, content in contents.items():
                with (folder / f"{name}.jsonl").open("ab") as file:
                    file.write(content)
            outcome = import_transcripts(store, folder)
            refused = sum(problem.kind == "refused" for problem in outcome.problems)
            done = outcome.created + outcome.extended + outcome.unchanged + outcome.empty
            assert done + refused == outcome.files
            assert all(folder in problem.path.parents for problem in outcome.problems)
            assert import_transcripts(store, folder).messages == 0
        export_bundle(store, folder / "bundle", overwrite=True)
        with SessionStore.open("nowhere", durability="memory") as other:
            import_bundle(other, folder / "bundle")
            assert [s.messages for s in other.load_all()] == [s.messages for s in store.load_all()]
        is_sound(store)
