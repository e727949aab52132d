"""The order in which commands were sent holds over a crash, also of those that change nothing."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from sessionkeeper import (
    AppendMessages,
    Conflict,
    DeleteSession,
    SaveSession,
    SessionStore,
    StorageFailed,
)
from sessionkeeper.testing import Fault, FaultyBackend, Injected, InjectedCrash

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sessionkeeper.storage.backend import Backend, Change


class Holding(FaultyBackend):
    """Lets the first commit wait, so that what is sent meanwhile becomes one turn."""

    def __init__(self, inner: Backend) -> None:
        super().__init__(inner)
        self.held = threading.Event()
        self.going_on = threading.Event()

    def commit(self, batch: Sequence[Change]) -> None:
        if not self.held.is_set():
            self.held.set()
            assert self.going_on.wait(10)
        super().commit(batch)


@pytest.mark.parametrize("durability", ["journal", "file", "memory"])
@pytest.mark.parametrize("after", [True, False])
def test_a_delete_that_found_nothing_does_not_take_what_was_made_after_it(
    folder: Path,
    durability: str,
    after: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    backends: list[Holding] = []

    def wrap(inner: Backend) -> Backend:
        backends.append(Holding(inner))
        return backends[-1]

    inject = Injected(wrap_backend=wrap)
    with SessionStore.open(folder, watch=False, durability=durability, inject=inject) as store:
        first = store.tell(SaveSession("other", [0]))
        assert backends[0].held.wait(10)
        backends[0].fail(Fault("commit", InjectedCrash("soon"), skip=1, after=after))
        deleted = store.tell(DeleteSession("s1"))
        refused = store.tell(SaveSession("s1", [], expected_generation=7))
        nothing = store.tell(AppendMessages("s1", []))
        saved = store.tell(SaveSession("s1", ["kept"]))
        emptied = store.tell(AppendMessages("s1", []))
        backends[0].going_on.set()
        assert first.result(10).generation == 1
        assert deleted.result(10) is False
        assert isinstance(refused.exception(10), Conflict)
        assert saved.result(10).generation == nothing.result(10).generation + 1
        assert emptied.result(10).message_count == 1
        assert store.info().restarts == 1
        assert store.load_session("s1").messages == ["kept"]


def test_a_conflict_is_told_when_what_it_met_can_be_seen(folder: Path) -> None:
    """Else whoever loads the session again would meet the same conflict again."""
    backends: list[Holding] = []

    def wrap(inner: Backend) -> Backend:
        backends.append(Holding(inner))
        return backends[-1]

    with SessionStore.open(folder, watch=False, inject=Injected(wrap_backend=wrap)) as store:
        first = store.tell(SaveSession("s1", ["first"]))
        assert backends[0].held.wait(10)
        second = store.tell(SaveSession("s1", ["second"]))
        conflict = store.tell(SaveSession("s1", ["third"], expected_generation=1))
        seen: list[int] = []
        told = threading.Event()

        def look(_: object) -> None:
            seen.append(store.load_session("s1").generation)
            told.set()

        conflict.add_done_callback(look)
        backends[0].going_on.set()
        assert [first.result(10).generation, second.result(10).generation] == [1, 2]
        assert isinstance(conflict.exception(10), Conflict)
        assert told.wait(10)
        assert seen == [2]


def test_a_conflict_with_a_change_that_failed_is_none(folder: Path) -> None:
    backends: list[Holding] = []

    def wrap(inner: Backend) -> Backend:
        backends.append(Holding(inner))
        return backends[-1]

    with SessionStore.open(folder, watch=False, inject=Injected(wrap_backend=wrap)) as store:
        first = store.tell(SaveSession("s1", ["first"]))
        assert backends[0].held.wait(10)
        backends[0].fail(Fault("commit", StorageFailed("refused"), skip=1, times=2))
        second = store.tell(SaveSession("s1", ["second"]))
        third = store.tell(SaveSession("s1", ["third"], expected_generation=1))
        backends[0].going_on.set()
        assert first.result(10).generation == 1
        assert isinstance(second.exception(10), StorageFailed)
        assert third.result(10).generation == 2
        assert store.load_session("s1").messages == ["third"]
