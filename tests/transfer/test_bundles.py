"""Many sessions in one file, and back; a bundle that is not whole and right is refused whole."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sessionkeeper import ImportRefused, SessionNotFound, SessionStore
from sessionkeeper.errors import PathBlocked
from sessionkeeper.transfer import (
    Exported,
    Imported,
    export_bundle,
    import_bundle,
    importer,
    planned_bundle,
    staged_bundle,
    unbundling,
    write_bundle,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sessionkeeper.transfer import OnConflict

Members = list[tuple[str, bytes]]


@pytest.fixture
def other() -> Iterator[SessionStore]:
    with SessionStore.open("nowhere", durability="memory") as opened:
        yield opened


@pytest.fixture
def three(store: SessionStore) -> SessionStore:
    """Three sessions; the ids make other names in the archive than in the store."""
    store.save_session("a", [{"n": 1}, {"n": 2}], tags=["x"], title="A", state={"step": 1})
    store.save_session("b:é", ["one"], metadata={"k": [1]}, status="completed", total_cost=2.5)
    store.save_session("c", [], summary="S")
    return store


@pytest.fixture
def bundle(three: SessionStore, tmp_path: Path) -> Path:
    export_bundle(three, tmp_path / "bundle.tar.gz")
    return tmp_path / "bundle.tar.gz"


def everything(store: SessionStore) -> dict[str, Any]:
    names = ("messages", "state", "metadata", "tags", "title", "summary", "status", "total_cost")
    return {s.session_id: [getattr(s, name) for name in names] for s in store.load_all()}


def members(path: Path) -> Members:
    """What is in a bundle, read by somebody else's code."""
    with tarfile.open(path) as archive:
        found = []
        for info in archive:
            file = archive.extractfile(info)
            assert file is not None
            found.append((info.name, file.read()))
        return found


def pack(path: Path, content: Members, change: Callable[..., object] = lambda _info: None) -> None:
    """Write an archive, with any change to its entries."""
    with tarfile.open(path, "w:gz", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in content:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            change(info)
            archive.addfile(info, io.BytesIO(data))


def manifest(documents: Members, **head: Any) -> tuple[str, bytes]:
    """A manifest that fits."""
    first = {"format": "sessionkeeper-bundle", "version": 1, "count": len(documents), **head}
    lines = [first] + [
        {
            "file": name,
            "session_id": json.loads(data)["session_id"],
            "sha256": hashlib.sha256(data).hexdigest(),
            "bytes": len(data),
        }
        for name, data in documents
    ]
    return "manifest.jsonl", b"".join(json.dumps(line).encode() + b"\n" for line in lines)


# --- there and back -----------------------------------------------------------------------


def test_all_sessions_come_back_equal(
    three: SessionStore,
    other: SessionStore,
    tmp_path: Path,
) -> None:
    path = tmp_path / "bundle.tar.gz"
    written: list[tuple[int, int]] = []
    stored: list[tuple[int, int]] = []

    exported = export_bundle(three, path, progress=lambda *seen: written.append(seen))
    imported = import_bundle(other, path, progress=lambda *seen: stored.append(seen))

    assert everything(other) == everything(three)
    assert exported == Exported(path, 3, 3, path.stat().st_size)
    assert imported == Imported(path, 3, 3, 0)
    assert written == stored == [(1, 3), (2, 3), (3, 3)]


def test_an_empty_store_makes_an_empty_bundle(other: SessionStore, tmp_path: Path) -> None:
    path = tmp_path / "bundle.tar.gz"

    assert export_bundle(other, path).sessions == 0
    assert import_bundle(other, path) == Imported(path, 0, 0, 0)


def test_any_tar_reads_it_and_the_manifest_tells_what_is_in_it(bundle: Path) -> None:
    *documents, (name, lines) = members(bundle)

    assert [name for name, _ in documents] == [f"sessions/0000000{n}.json" for n in (1, 2, 3)]
    assert (name, [json.loads(line) for line in lines.splitlines()]) == (
        "manifest.jsonl",
        [json.loads(line) for line in manifest(documents)[1].splitlines()],
    )
    assert json.loads(documents[1][1])["session_id"] == "b:é"


def test_a_selection_is_written_once_each_in_the_order_given(
    three: SessionStore,
    other: SessionStore,
    tmp_path: Path,
) -> None:
    exported = export_bundle(three, tmp_path / "b", (name for name in ("c", "a", "c")))
    import_bundle(other, tmp_path / "b")

    assert exported.sessions == 2
    assert [json.loads(data)["session_id"] for _, data in members(tmp_path / "b")[:2]] == ["c", "a"]
    assert list(everything(other)) == ["a", "c"]


def test_an_absent_session_leaves_no_bundle(three: SessionStore, tmp_path: Path) -> None:
    with pytest.raises(SessionNotFound):
        export_bundle(three, tmp_path / "b", ["a", "absent"])
    assert not (tmp_path / "b").exists()
    assert list(tmp_path.glob(".*.tmp")) == []


def test_a_bundle_is_not_replaced_unless_asked_and_never_in_the_store(
    three: SessionStore,
    bundle: Path,
) -> None:
    before = bundle.read_bytes()
    with pytest.raises(PathBlocked, match="exists already"):
        export_bundle(three, bundle)
    with pytest.raises(PathBlocked, match="in the folder of the store"):
        export_bundle(three, three.path / "b", overwrite=True)
    assert bundle.read_bytes() == before

    export_bundle(three, bundle, ["c"], overwrite=True)
    assert len(members(bundle)) == 2


def test_a_session_deleted_meanwhile_is_left_out(
    three: SessionStore,
    other: SessionStore,
    tmp_path: Path,
) -> None:
    def delete(done: int, total: int) -> None:
        del done, total
        three.delete_session("c")

    export_bundle(three, tmp_path / "b", progress=delete)
    import_bundle(other, tmp_path / "b")

    assert set(everything(other)) == {"a", "b:é"}


def test_only_one_session_is_held_at_a_time(
    store: SessionStore,
    other: SessionStore,
    tmp_path: Path,
) -> None:
    import tracemalloc

    size, count = 400_000, 60
    for number in range(count):
        store.save_session(f"s{number}", ["x" * size])
    store.checkpoint()
    tracemalloc.start()
    try:
        # It has no cache, which would count as well.
        with SessionStore.open(store.path, read_only=True) as reader:
            export_bundle(reader, tmp_path / "b")
        _, exporting = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        with staged_bundle(tmp_path / "b") as staged:
            _, checking = tracemalloc.get_traced_memory()
            assert staged.sessions == count
    finally:
        tracemalloc.stop()

    assert max(exporting, checking) < size * count / 2


# --- conflicts ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("on_conflict", "titles", "outcome"),
    [
        ("skip", {"a": "Mine", "b:é": None, "c": None}, {"sessions": 2, "skipped": 1}),
        ("replace", {"a": "A", "b:é": None, "c": None}, {"sessions": 3, "replaced": 1}),
        (
            "rename",
            {"a": "Mine", "a-2": "A", "b:é": None, "c": None},
            {"sessions": 3, "renamed": {"a": "a-2"}},
        ),
    ],
)
def test_what_becomes_of_ids_that_are_taken(
    other: SessionStore,
    bundle: Path,
    on_conflict: OnConflict,
    titles: dict[str, str | None],
    outcome: dict[str, Any],
) -> None:
    other.save_session("a", ["mine"], title="Mine")
    with staged_bundle(bundle) as staged:
        expected = planned_bundle(other, staged, on_conflict=on_conflict)
    assert len(other) == 1

    imported = import_bundle(other, bundle, on_conflict=on_conflict)

    assert imported == expected
    assert {name: getattr(imported, name) for name in outcome} == outcome
    assert {info.session_id: info.title for info in other.iter_sessions()} == titles


def test_a_bundle_with_a_session_that_exists_is_refused_by_default(
    other: SessionStore,
    bundle: Path,
) -> None:
    other.save_session("a", ["mine"])

    with pytest.raises(ImportRefused, match="1 of its sessions exist already: 'a'"):
        import_bundle(other, bundle)

    assert [s.messages for s in other.load_all()] == [["mine"]]


def test_storing_that_fails_half_way_leaves_everything_as_it_was(
    other: SessionStore,
    bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importer, "WINDOW_COMMANDS", 1)
    other.save_session("a", ["mine"], title="Mine", tags=["t"], state=[1])
    before = everything(other)

    def intrude(done: int, total: int) -> None:
        del total
        if done == 1:
            other.save_session("c", ["theirs"])

    with pytest.raises(ImportRefused, match=r"'c' exists.*was taken back"):
        import_bundle(other, bundle, on_conflict="replace", progress=intrude)

    after = everything(other)
    assert after.pop("c")[0] == ["theirs"]
    assert after == before


def test_a_bundle_that_changes_after_it_was_checked_is_not_taken(
    other: SessionStore,
    bundle: Path,
    three: SessionStore,
) -> None:
    with staged_bundle(bundle) as staged:
        three.append("c", ["more"])
        export_bundle(three, bundle, overwrite=True)

        with pytest.raises(ImportRefused, match=r"changed since it was checked.*was taken back"):
            write_bundle(other, staged)

    assert len(other) == 0


# --- hostile bundles ----------------------------------------------------------------------


def refused(other: SessionStore, path: Path, reason: str) -> None:
    with pytest.raises(ImportRefused, match=reason) as caught:
        import_bundle(other, path)
    assert caught.value.path == path
    assert len(other) == 0


@pytest.mark.parametrize(
    "name",
    ["../evil.json", "/etc/evil.json", "sessions/../../evil.json", "sessions/2.json", "\udc80"],
)
def test_names_of_entries_are_never_paths(other: SessionStore, bundle: Path, name: str) -> None:
    documents = members(bundle)[:3]
    documents[1] = (name, documents[1][1])
    pack(bundle, [*documents, manifest(documents)])

    refused(other, bundle, "entry 2 is")
    assert not (bundle.parent.parent / "evil.json").exists()


@pytest.mark.parametrize(
    "kind",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE],
)
def test_only_plain_files_are_entries(other: SessionStore, bundle: Path, kind: bytes) -> None:
    content = members(bundle)

    def change(info: tarfile.TarInfo) -> None:
        if info.name == "sessions/00000002.json":
            info.type, info.linkname, info.size = kind, "/etc/passwd", 0

    pack(bundle, content, change)

    refused(other, bundle, "is no plain file")


def test_extended_headers_are_refused(other: SessionStore, bundle: Path) -> None:
    documents = members(bundle)
    with tarfile.open(bundle, "w:gz", format=tarfile.PAX_FORMAT) as archive:
        for name, data in documents:
            info = tarfile.TarInfo(name)
            info.size, info.pax_headers = len(data), {"path": "../evil.json"}
            archive.addfile(info, io.BytesIO(data))

    refused(other, bundle, "is no plain file")


def test_documents_are_checked_although_the_manifest_fits(
    other: SessionStore,
    bundle: Path,
) -> None:
    documents = members(bundle)[:3]
    evil = documents[1][1].replace(b'"b:\xc3\xa9"', b'"../e"')
    documents[1] = (documents[1][0], evil)
    pack(bundle, [*documents, manifest(documents)])
    refused(other, bundle, "sessions/00000002.json: its checksum is wrong")

    fields = json.loads(evil)
    del fields["checksum"]
    documents[1] = (documents[1][0], json.dumps(fields).encode())
    pack(bundle, [*documents, manifest(documents)])
    refused(other, bundle, "its checksum is wrong")


def with_checksum(document: bytes, old: bytes, new: bytes) -> bytes:
    """A document of somebody who knows how checksums are made."""
    text = document.replace(old, new)[: -len(b',"checksum":"') - 32 - len(b'"}\n')]
    digest = hashlib.blake2b(text, digest_size=16).hexdigest()
    return text + b',"checksum":"%s"}\n' % digest.encode()


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b'"c"', b'"../c"', "contains a path separator"),
        (b'"c"', b'"a"', "the id 'a' comes twice"),
        (b'"version":1', b'"version":2', "version 2 is newer"),
        (b'"state":null', b'"state":NaN', "NaN is not JSON"),
        (b'"state":null', b'"state":{"a":1,"a":2}', "stands twice"),
        (b'"state":null', b'"state":' + b"[" * 300 + b"]" * 300, "nested deeper"),
        (b'"sessionkeeper"', b'"sessionkeepar"', "no session document|lines are not"),
    ],
)
def test_checksums_that_fit_are_no_proof(
    other: SessionStore,
    bundle: Path,
    old: bytes,
    new: bytes,
    reason: str,
) -> None:
    documents = members(bundle)[:3]
    documents[2] = (documents[2][0], with_checksum(documents[2][1], old, new))
    pack(bundle, [*documents, manifest(documents)])

    refused(other, bundle, reason)


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        ({"format": "zip"}, "its format is not"),
        ({"version": 2}, "version 2 is newer than 1"),
        ({"version": True}, "not a whole number"),
        ({"count": 4}, "speaks of 4 sessions, and there are 3"),
    ],
)
def test_the_manifest_is_checked(
    other: SessionStore,
    bundle: Path,
    head: dict[str, Any],
    reason: str,
) -> None:
    documents = members(bundle)[:3]
    pack(bundle, [*documents, manifest(documents, **head)])

    refused(other, bundle, reason)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b'"bytes": ', b'"bytes": 1', "not what the manifest says"),
        (b'"sha256": "', b'"sha256": "0', "not what the manifest says"),
        (b'"session_id": "a"', b'"session_id": "z"', "not what the manifest says"),
        (b"}\n", b"}\n{}\n", "not what the manifest says"),
        (b"}\n", b"}\n{\n", "manifest.jsonl: not JSON"),
        (b"}\n{", b"} {", "manifest.jsonl: not JSON"),
        (b'"a"', b'"' + b"a" * 200_000 + b'"', "a line of it is too long"),
    ],
)
def test_every_line_of_the_manifest_is_checked(
    other: SessionStore,
    bundle: Path,
    old: bytes,
    new: bytes,
    reason: str,
) -> None:
    documents = members(bundle)[:3]
    name, lines = manifest(documents)
    pack(bundle, [*documents, (name, lines.replace(old, new))])

    refused(other, bundle, reason)


def test_what_stands_behind_the_last_line_of_the_manifest_is_refused(
    other: SessionStore,
    bundle: Path,
) -> None:
    documents = members(bundle)[:3]
    name, lines = manifest(documents)

    pack(bundle, [*documents, (name, lines + b"{}\n")])
    refused(other, bundle, "more lines than there are sessions")
    pack(bundle, [*documents, (name, lines[:-1])])
    refused(other, bundle, "has no end")


def test_entries_are_not_left_out_repeated_or_swapped(other: SessionStore, bundle: Path) -> None:
    one, two, three, listed = members(bundle)

    pack(bundle, [one, two, listed])
    refused(other, bundle, "speaks of 3 sessions, and there are 2")
    pack(bundle, [one, one, two, three, listed])
    refused(other, bundle, "entry 2 is 'sessions/00000001.json'")
    pack(bundle, [two, one, three, listed])
    refused(other, bundle, "entry 1 is")
    pack(bundle, [one, two, three])
    refused(other, bundle, "has no manifest.jsonl")
    pack(bundle, [one, two, three, listed, listed])
    refused(other, bundle, "entry 5 is")


def test_what_grows_without_bound_is_refused(
    other: SessionStore,
    bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    content = "sessions/00000001.json", b"[" + b" " * 20_000_000 + b"]"
    pack(bundle, [content])
    assert bundle.stat().st_size < 30_000

    with pytest.raises(ImportRefused, match="holds more than is allowed"):
        import_bundle(other, bundle, max_bytes=1_000_000)

    monkeypatch.setattr(unbundling, "MAX_IMPORT_BYTES", 10_000_000)
    refused(other, bundle, "sessions/00000001.json: more than 10000000 bytes")


def test_many_sessions_are_together_within_the_bound(
    store: SessionStore,
    other: SessionStore,
    tmp_path: Path,
) -> None:
    path = tmp_path / "b"
    for number in range(5):
        store.save_session(f"s{number}", ["x" * 100_000])
    export_bundle(store, path)

    with pytest.raises(ImportRefused, match="holds more than is allowed"):
        import_bundle(other, path, max_bytes=400_000)
    assert import_bundle(other, path, max_bytes=600_000).sessions == 5


def test_a_header_that_promises_terabytes_costs_nothing(other: SessionStore, bundle: Path) -> None:
    info = tarfile.TarInfo("sessions/00000001.json")
    info.size = 2**60
    bundle.write_bytes(gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + b"x" * 1024))

    refused(other, bundle, "more than 1073741824 bytes")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not gzipped"),
        (b"PK\x03\x04", "not gzipped"),
        (gzip.compress(b"", mtime=0), "cut off"),
        (gzip.compress(b'[{"id": "a", "messages": []}]', mtime=0), "cut off"),
        (gzip.compress(b"x" * 512, mtime=0), "no entry of an archive"),
        (gzip.compress(bytes(1024), mtime=0), "has no manifest.jsonl"),
        (gzip.compress(bytes(512) + b"x", mtime=0), "something behind its end"),
    ],
)
def test_what_is_no_bundle_says_so(
    other: SessionStore,
    tmp_path: Path,
    content: bytes,
    reason: str,
) -> None:
    path = tmp_path / "b"
    path.write_bytes(content)

    refused(other, path, reason)


def test_files_that_are_none_are_refused(other: SessionStore, tmp_path: Path) -> None:
    refused(other, tmp_path / "absent", "cannot be read: No such file")
    refused(other, tmp_path, "not a regular file")


# --- any damage ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("whole") / "b"
    with SessionStore.open("nowhere", durability="memory") as store:
        store.save_session("a", [{"a": 1}, "é"], tags=["t"])
        store.save_session("b", [], state={"x": [1.5, None]})
        export_bundle(store, path)
    return path.read_bytes()


@given(data=st.data())
def test_a_bundle_cut_anywhere_is_refused(
    data: st.DataObject,
    whole: bytes,
    tmp_path: Path,
) -> None:
    path = tmp_path / "b"
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])

    with SessionStore.open("nowhere", durability="memory") as other:
        refused(other, path, "b: ")


@given(data=st.data(), packed=st.booleans())
def test_a_bundle_changed_anywhere_is_refused_or_the_same(
    data: st.DataObject,
    whole: bytes,
    tmp_path: Path,
    *,
    packed: bool,
) -> None:
    path = tmp_path / "b"
    plain = whole if packed else gzip.decompress(whole)
    at = data.draw(st.integers(0, len(plain) - 1))
    changed = plain[:at] + data.draw(st.binary(min_size=0, max_size=600)) + plain[at + 1 :]
    path.write_bytes(changed if packed else gzip.compress(changed, 1))

    with SessionStore.open("nowhere", durability="memory") as other:
        try:
            import_bundle(other, path)
        except ImportRefused:
            assert len(other) == 0
        else:
            # Some bytes mean nothing: times and owners in headers, what follows the end.
            assert {s.session_id: s.messages for s in other.load_all()} == {
                "a": [{"a": 1}, "é"],
                "b": [],
            }


@given(content=st.binary(max_size=2000))
@example(content=b"")
def test_noise_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "b"
    with SessionStore.open("nowhere", durability="memory") as other:
        for data in (content, gzip.compress(content, 1)):
            path.write_bytes(data)
            refused(other, path, "b: ")
