"""The index.json of an open store follows what is saved, and nothing depends on it."""

from __future__ import annotations

import errno
import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from sessionkeeper import InvalidConfig, SessionStore
from sessionkeeper.processes.indexer import LIST
from sessionkeeper.processes.writer import RETRY
from sessionkeeper.storage.platform import FileSystem
from sessionkeeper.testing import FakeClock, Injected, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Medium(FileSystem):
    """Notes each index.json that is published, and refuses it when told to."""

    def __init__(self) -> None:
        self.published = 0
        self.refused = 0
        self.refuses = False

    def replace(self, source: Path, target: Path) -> None:
        if target.name == "index.json" and ".sessionkeeper" in target.parts:
            if self.refuses:
                self.refused += 1
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self.published += 1
        super().replace(source, target)


def path_in(folder: Path) -> Path:
    return folder / ".sessionkeeper" / "index.json"


def listed(folder: Path) -> dict[str, Any]:
    content = json.loads(path_in(folder).read_bytes())
    return {session["session_id"]: session for session in content["sessions"]}


@pytest.fixture
def medium() -> Medium:
    return Medium()


@pytest.fixture
def listing(folder: Path, clock: FakeClock, medium: Medium) -> Iterator[SessionStore]:
    inject = Injected(clock=clock, fs=medium)
    # Without checkpoints, which also wake the indexer.
    with SessionStore.open(
        folder, durability="file", watch=False, index_json=True, inject=inject
    ) as store:
        yield store


def wait_listed(clock: FakeClock, folder: Path, **counts: int) -> None:
    """Let time go by until the file lists just these sessions, with so many messages each."""

    def is_listed() -> bool:
        clock.advance(LIST / 4)
        if not path_in(folder).exists():
            return False
        return {k: s["message_count"] for k, s in listed(folder).items()} == counts

    wait_until(is_listed)


def test_it_follows_what_is_saved_changed_and_deleted(
    listing: SessionStore,
    clock: FakeClock,
    folder: Path,
) -> None:
    listing.save_session("s1", ["one"], title="First", tags=["a"], metadata={"k": [1]})
    wait_listed(clock, folder, s1=1)
    assert listed(folder)["s1"]["title"] == "First"
    assert listed(folder)["s1"]["metadata"] == {"k": [1]}
    listing.append("s1", ["two"])
    listing.save_session("index", [])
    wait_listed(clock, folder, s1=2, index=0)
    assert listing.load_session("index").messages == []
    listing.delete_session("s1")
    wait_listed(clock, folder, index=0)


def test_it_is_written_at_most_once_a_second(
    listing: SessionStore,
    clock: FakeClock,
    folder: Path,
    medium: Medium,
) -> None:
    listing.save_session("s0", [])
    wait_listed(clock, folder, s0=0)
    before = medium.published
    for number in range(1, 20):
        listing.save_session("s0", list(range(number)))
        assert list(listing.search())  # it is in the index, so the indexer has had its turn
    clock.advance(LIST / 2)
    listing.save_session("s0", list(range(20)))
    assert list(listing.search())
    assert medium.published == before
    wait_listed(clock, folder, s0=20)
    assert medium.published == before + 1


def test_it_is_current_when_the_store_is_closed(folder: Path) -> None:
    with SessionStore.open(folder, watch=False, index_json=True) as store:
        store.save_session("s1", ["one"])
    assert listed(folder).keys() == {"s1"}


@pytest.mark.parametrize("harm", ["gone", "damaged", "stale", "a folder"])
def test_nothing_depends_on_it_and_it_is_made_anew(harm: str, folder: Path) -> None:
    with SessionStore.open(folder, watch=False, index_json=True) as store:
        store.save_session("s1", ["one"])
    path, current = path_in(folder), path_in(folder).read_bytes()
    path.unlink()
    if harm == "damaged":
        path.write_bytes(b"\0{")
    elif harm == "stale":
        path.write_bytes(current.replace(b'"s1"', b'"s2"'))
    elif harm == "a folder":
        path.mkdir()
    with SessionStore.open(folder, watch=False, index_json=True) as store:
        assert [info.session_id for info in store.list_sessions()] == ["s1"]
        assert store.load_session("s1").messages == ["one"]
        store.append("s1", ["two"])
        if harm == "a folder":
            path.rmdir()
    assert listed(folder)["s1"]["message_count"] == 2


def test_it_is_made_at_the_opening_of_a_store_that_had_none(
    folder: Path,
    clock: FakeClock,
) -> None:
    with SessionStore.open(folder, watch=False) as store:
        store.save_session("s1", ["one"])
    assert not path_in(folder).exists()
    inject = Injected(clock=clock)
    with SessionStore.open(folder, watch=False, index_json=True, inject=inject):
        wait_listed(clock, folder, s1=1)
    with SessionStore.open(folder, watch=False):
        assert not path_in(folder).exists(), "one that nobody keeps up to date would lie"


def test_an_erased_session_is_out_of_it_when_the_caller_is_told(
    listing: SessionStore,
    clock: FakeClock,
    folder: Path,
) -> None:
    listing.save_session("s1", ["one"], title="secret")
    listing.save_session("s2", ["two"])
    wait_listed(clock, folder, s1=1, s2=1)
    listing.erase_session("s1")
    assert b"secret" not in path_in(folder).read_bytes()
    assert listed(folder).keys() == {"s2"}


def test_a_medium_that_refuses_it_hurts_nobody_and_is_tried_again(
    listing: SessionStore,
    clock: FakeClock,
    folder: Path,
    medium: Medium,
) -> None:
    listing.save_session("s1", [])
    wait_listed(clock, folder, s1=0)
    medium.refuses = True
    listing.append("s1", ["one"])
    assert list(listing.search())  # from now on nothing is noted any more

    def was_refused() -> bool:
        clock.advance(LIST)
        return medium.refused > 0

    wait_until(was_refused)
    assert [info.session_id for info in listing.list_sessions()] == ["s1"]
    assert listing.info().restarts == 0
    medium.refuses = False
    clock.advance(LIST)
    assert listed(folder)["s1"]["message_count"] == 0, "not at every turn"
    clock.advance(RETRY)
    wait_listed(clock, folder, s1=1)


def test_it_lists_the_sessions_of_a_single_file_too(folder: Path) -> None:
    with SessionStore.open(folder, watch=False, layout="single", index_json=True) as store:
        store.save_session("s1", ["one"])
    assert listed(folder).keys() == {"s1"}


def test_the_setting_is_checked(folder: Path) -> None:
    with pytest.raises(InvalidConfig, match="index_json"):
        SessionStore.open(folder, index_json=1)
