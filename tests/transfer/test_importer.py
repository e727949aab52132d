"""A staged file is written whole or not at all, and nothing else is touched."""

from __future__ import annotations

import errno
import json
from typing import TYPE_CHECKING, Any

import pytest

from sessionkeeper import ImportRefused, InvalidConfig, SessionStore
from sessionkeeper.storage.platform import FileSystem
from sessionkeeper.testing import Injected
from sessionkeeper.transfer import (
    FieldMapping,
    Imported,
    import_file,
    importer,
    planned,
    stage_file,
    write_staged,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sessionkeeper.transfer import OnConflict

NAMES = [f"s{number}" for number in range(10)]


@pytest.fixture
def ten(tmp_path: Path) -> Path:
    """A file of ten sessions, s0 to s9."""
    path = tmp_path / "ten.json"
    path.write_text(json.dumps([{"id": name, "messages": [{"n": name}]} for name in NAMES]))
    return path


def everything(store: SessionStore) -> dict[str, list[Any]]:
    return {session.session_id: session.messages for session in store.load_all()}


def test_all_sessions_are_stored(store: SessionStore, ten: Path) -> None:
    seen: list[tuple[int, int]] = []

    imported = import_file(store, ten, progress=lambda done, total: seen.append((done, total)))

    assert imported == Imported(ten, sessions=10, messages=10, replaced=0)
    assert everything(store) == {name: [{"n": name}] for name in NAMES}
    assert seen == [(number, 10) for number in range(1, 11)]


def test_messages_come_back_deep_equal(
    store: SessionStore,
    tmp_path: Path,
    conversation: Callable[[int], list[dict[str, Any]]],
) -> None:
    items: list[dict[str, Any]] = [
        {"task": n, "trial": n % 4, "traj": conversation(n), "info": {"cost": n / 7}}
        for n in range(30)
    ]
    path = tmp_path / "runs.json"
    path.write_text(json.dumps(items))
    mapping = FieldMapping.of(
        session_id="{task}-{trial}",
        messages="traj",
        cost="info.cost",
        tags=["trial-{trial}"],
    )

    imported = import_file(store, path, mapping)

    assert imported.sessions == 30
    assert imported.messages == sum(len(item["traj"]) for item in items)
    for item in items:
        session = store.load_session(f"{item['task']}-{item['trial']}")
        assert session.messages == item["traj"]
        assert session.total_cost == item["info"]["cost"]
        assert session.tags == (f"trial-{item['trial']}",)


def test_nothing_is_taken_of_a_file_with_one_bad_item(store: SessionStore, tmp_path: Path) -> None:
    path = tmp_path / "bad.json"
    items = [{"id": name, "messages": []} for name in (*NAMES, "../x")]
    path.write_text(json.dumps(items))

    with pytest.raises(ImportRefused, match=r"item 11: session id '\.\./x' contains a path"):
        import_file(store, path)

    assert len(store) == 0
    assert not (tmp_path / "x.json").exists()


def test_a_session_that_exists_is_never_replaced_unless_asked(
    store: SessionStore,
    ten: Path,
) -> None:
    store.save_session(
        "s9",
        ["mine"],
        state=[1],
        metadata={"a": 1},
        tags=["a"],
        title="Mine",
        summary="Mine",
        status="paused",
        total_cost=9.0,
    )

    with pytest.raises(ImportRefused, match="1 of its sessions exist already: 's9'") as caught:
        import_file(store, ten)
    assert "on_conflict" in caught.value.hint
    assert everything(store) == {"s9": ["mine"]}

    imported = import_file(store, ten, on_conflict="replace")
    assert imported.replaced == 1
    replaced = store.load_session("s9")
    assert replaced.messages == [{"n": "s9"}]
    # It is the file's session now, with nothing left of the other.
    assert (replaced.title, replaced.summary, replaced.status) == (None, None, None)
    assert (replaced.state, replaced.metadata, replaced.tags) == (None, {}, ())
    assert replaced.total_cost == 0.0


def test_few_of_many_that_exist_are_named(store: SessionStore, ten: Path) -> None:
    import_file(store, ten)

    with pytest.raises(ImportRefused, match=r"10 of .* 's0', 's1', 's2', 's3', 's4', …"):
        import_file(store, ten)


def test_sessions_that_exist_are_skipped_if_asked(store: SessionStore, ten: Path) -> None:
    store.save_session("s3", ["mine"])
    seen: list[tuple[int, int]] = []

    imported = import_file(
        store, ten, on_conflict="skip", progress=lambda done, total: seen.append((done, total))
    )

    assert imported == Imported(ten, sessions=9, messages=9, replaced=0, skipped=1)
    assert everything(store) == {**{n: [{"n": n}] for n in NAMES}, "s3": ["mine"]}
    assert seen == [(number, 9) for number in range(1, 10)]


def test_sessions_that_exist_are_kept_beside_the_new_ones_if_asked(
    store: SessionStore,
    tmp_path: Path,
) -> None:
    # s-2 is taken in the store, s-3 in the file itself.
    for name in ("s", "s-2"):
        store.save_session(name, ["mine"])
    path = tmp_path / "two.json"
    items = [{"id": name, "messages": [name]} for name in ("s", "s-2", "s-3")]
    path.write_text(json.dumps(items))

    imported = import_file(store, path, on_conflict="rename")

    assert imported == Imported(path, 3, 3, 0, renamed={"s": "s-4", "s-2": "s-2-2"})
    assert everything(store) == {
        "s": ["mine"],
        "s-2": ["mine"],
        "s-3": ["s-3"],
        "s-4": ["s"],
        "s-2-2": ["s-2"],
    }


def test_the_longest_id_can_be_renamed(store: SessionStore, tmp_path: Path) -> None:
    longest = "x" * 4096
    store.save_session(longest, ["mine"])
    path = tmp_path / "long.json"
    path.write_text(json.dumps({"id": longest, "messages": []}))

    renamed = import_file(store, path, on_conflict="rename").renamed

    assert renamed == {longest: "x" * 4094 + "-2"}


def test_two_sessions_never_get_the_same_new_id(store: SessionStore, tmp_path: Path) -> None:
    ids = ["x" * 4095 + end for end in "ab"]
    for session_id in ids:
        store.save_session(session_id, ["mine"])
    path = tmp_path / "long.json"
    path.write_text(json.dumps([{"id": session_id, "messages": []} for session_id in ids]))

    renamed = import_file(store, path, on_conflict="rename").renamed

    assert sorted(renamed.values()) == ["x" * 4094 + "-2", "x" * 4094 + "-3"]


@pytest.mark.parametrize("on_conflict", ["refuse", "rename", "replace", "skip"])
def test_a_plan_says_what_would_be_stored_and_stores_nothing(
    store: SessionStore,
    ten: Path,
    on_conflict: OnConflict,
) -> None:
    store.save_session("s3", ["mine", "too"])
    staged = stage_file(ten)

    if on_conflict == "refuse":
        with pytest.raises(ImportRefused, match="'s3'"):
            planned(store, staged)
        return
    expected = planned(store, staged, on_conflict=on_conflict)

    assert everything(store) == {"s3": ["mine", "too"]}
    assert write_staged(store, staged, on_conflict=on_conflict) == expected


def test_an_unknown_way_out_is_refused_before_anything_is_read(
    store: SessionStore,
    tmp_path: Path,
) -> None:
    with pytest.raises(InvalidConfig, match="'overwrite' is unknown") as caught:
        import_file(store, tmp_path / "absent", on_conflict="overwrite")  # type: ignore[arg-type]
    assert "refuse, rename, replace, skip" in caught.value.hint


@pytest.mark.parametrize("window", ["WINDOW_COMMANDS", "WINDOW_BYTES"])
def test_what_is_on_its_way_is_bounded(
    store: SessionStore,
    ten: Path,
    monkeypatch: pytest.MonkeyPatch,
    window: str,
) -> None:
    monkeypatch.setattr(importer, window, 1)
    most = 0

    def watch(done: int, total: int) -> None:
        nonlocal most
        del total
        most = max(most, len(store) - done)

    import_file(store, ten, progress=watch)

    # With one at a time nothing is stored that was not also reported.
    assert most == 0
    assert len(store) == 10


# --- half-way -----------------------------------------------------------------------------


class FullDisk(FileSystem):
    """Has no room for one session; or, from then on, for nothing."""

    def __init__(self, session_id: str, *, for_good: bool) -> None:
        self.is_full = False
        self.armed = False
        self._needle = b'"session_id":"%s"' % session_id.encode()
        self._for_good = for_good

    def begin_new(self, path: Path, chunks: Any) -> int:
        if self.armed and (self.is_full or self._needle in b"".join(chunks)):
            self.is_full = self._for_good
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().begin_new(path, chunks)


@pytest.fixture
def disk() -> FullDisk:
    return FullDisk("s7", for_good=False)


@pytest.fixture
def full(folder: Path, disk: FullDisk) -> Iterator[SessionStore]:
    with SessionStore.open(folder, watch=False, inject=Injected(fs=disk)) as opened:
        yield opened


def test_what_was_stored_before_the_disk_was_full_is_taken_back(
    full: SessionStore,
    disk: FullDisk,
    ten: Path,
) -> None:
    full.save_session("other", ["mine"])
    disk.armed = True

    with pytest.raises(
        ImportRefused, match=r": nothing was written: .*No space.*was taken back"
    ) as caught:
        import_file(full, ten)

    assert "Free space" in caught.value.hint
    assert everything(full) == {"other": ["mine"]}
    full.flush()  # no failure is left unread


def test_what_was_replaced_is_put_back(full: SessionStore, disk: FullDisk, ten: Path) -> None:
    full.save_session(
        "s1",
        ["mine"],
        state=[1],
        metadata={"a": 1},
        tags=["a"],
        title="T",
        summary="S",
        status="completed",
        total_cost=3.5,
    )
    full.annotate("s1", "look")
    full.add_event("s1", "started", [1])
    before = full.load_session("s1")
    disk.armed = True

    with pytest.raises(ImportRefused, match="was taken back"):
        import_file(full, ten, on_conflict="replace")

    after = full.load_session("s1")
    assert [s.session_id for s in full.list_sessions()] == ["s1"]
    assert (after.messages, after.state, after.metadata) == (["mine"], [1], {"a": 1})
    assert (after.tags, after.title, after.summary) == (("a",), "T", "S")
    assert (after.status, after.total_cost) == ("completed", 3.5)
    assert (after.annotations, after.events) == (before.annotations, before.events)
    assert after.generation > before.generation


def test_what_cannot_be_taken_back_is_named(
    folder: Path,
    ten: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importer, "WINDOW_COMMANDS", 1)
    disk = FullDisk("s7", for_good=True)
    # With a journal deletes need no room: then everything can be taken back.
    inject = Injected(fs=disk)
    with SessionStore.open(folder, watch=False, durability="file", inject=inject) as store:
        disk.armed = True
        with pytest.raises(ImportRefused, match=r"taken back: 's0' was stored and stays.*; …"):
            import_file(store, ten)
        disk.armed = False

        assert everything(store) == {name: [{"n": name}] for name in NAMES[:7]}


def test_somebody_who_comes_in_between_is_not_overwritten(
    store: SessionStore,
    ten: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importer, "WINDOW_COMMANDS", 1)

    def intrude(done: int, total: int) -> None:
        del total
        if done == 3:
            store.create_session("s8", ["mine"])
            store.append("s1", ["mine too"])

    with pytest.raises(ImportRefused, match=r"session 's8' exists.*'s1' was stored and stays"):
        import_file(store, ten, progress=intrude)

    assert everything(store) == {"s8": ["mine"], "s1": [{"n": "s1"}, "mine too"]}


def test_somebody_who_changes_what_is_to_be_replaced_is_not_overwritten(
    store: SessionStore,
    ten: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importer, "WINDOW_COMMANDS", 1)
    store.save_session("s8", ["old"])

    def intrude(done: int, total: int) -> None:
        del total
        if done == 3:
            store.append("s8", ["new"])

    with pytest.raises(ImportRefused, match="'s8' has generation 2, not 1"):
        import_file(store, ten, on_conflict="replace", progress=intrude)

    assert everything(store) == {"s8": ["old", "new"]}


def test_what_somebody_changes_after_it_was_replaced_is_not_put_back(
    store: SessionStore,
    ten: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importer, "WINDOW_COMMANDS", 1)
    store.save_session("s1", ["old"])

    def intrude(done: int, total: int) -> None:
        del total
        if done == 3:
            store.append("s1", ["new"])
            store.create_session("s8", [])

    with pytest.raises(ImportRefused, match=r"'s1' was stored and stays: .*generation 3, not 2"):
        import_file(store, ten, on_conflict="replace", progress=intrude)

    assert everything(store) == {"s1": [{"n": "s1"}, "new"], "s8": []}


def test_what_somebody_deleted_meanwhile_is_no_failure_of_taking_back(
    store: SessionStore,
    ten: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importer, "WINDOW_COMMANDS", 1)

    def intrude(done: int, total: int) -> None:
        del total
        if done == 3:
            store.delete_session("s0")
            store.create_session("s8", [])

    with pytest.raises(ImportRefused, match="what had been stored of it was taken back"):
        import_file(store, ten, progress=intrude)
    assert set(everything(store)) == {"s8"}


def test_an_interrupt_leaves_nothing_behind(store: SessionStore, ten: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        del total
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_file(store, ten, progress=interrupt)

    assert len(store) == 0
