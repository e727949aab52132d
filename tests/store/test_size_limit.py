"""A session that would be too large is refused whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import pytest

from sessionkeeper import SessionStore, SessionTooLarge
from sessionkeeper.testing import crash_actor

if TYPE_CHECKING:
    from pathlib import Path

LIMIT = 10_000
LEVELS = pytest.mark.parametrize("durability", ["journal", "file", "memory"])
Level = Literal["journal", "file", "memory"]


@LEVELS
def test_what_makes_it_too_large_is_refused(folder: Path, durability: Level) -> None:
    with SessionStore.open(
        folder,
        watch=False,
        durability=durability,
        max_session_size=LIMIT,
        cache_bytes=1,
    ) as store:
        store.save_session("s1", ["x" * 6000])
        with pytest.raises(SessionTooLarge, match="s1"):
            store.append("s1", ["y" * 6000])
        with pytest.raises(SessionTooLarge):
            store.save_session("s1", state="z" * 6000)
        with pytest.raises(SessionTooLarge):
            store.save_session("s2", ["x" * 20_000])
        with pytest.raises(SessionTooLarge):
            store.append("s3", ["x" * 20_000])
        assert store.load_session("s1").messages == ["x" * 6000]
        assert store.load_session("s1").generation == 1
        assert len(store) == 1
        store.append("s1", ["y" * 3000])
        with pytest.raises(SessionTooLarge):
            store.append("s1", ["y" * 3000])


def test_what_was_there_before_counts_also_after_a_crash(folder: Path) -> None:
    with SessionStore.open(folder, watch=False, max_session_size=LIMIT) as store:
        for _ in range(3):
            store.append("s1", ["x" * 3000])
        with pytest.raises(SessionTooLarge):
            store.append("s1", ["x" * 3000])
        crash_actor(store)
        with pytest.raises(SessionTooLarge):
            store.append("s1", ["x" * 3000])


def test_one_that_is_larger_already_can_be_tagged_and_shortened(folder: Path) -> None:
    with SessionStore.open(folder, watch=False) as store:
        store.save_session("s1", ["x" * 20_000, "short"])
        store.configure(max_session_size=LIMIT)
        store.add_tags("s1", ["large"])
        store.save_session("s1", title="Large", status="active")
        with pytest.raises(SessionTooLarge):
            store.append("s1", ["one more"])
        store.save_session("s1", ["short"])
        store.append("s1", ["one more"])
        store.configure(max_session_size=None)
        store.append("s1", ["x" * 20_000])
