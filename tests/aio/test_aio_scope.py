"""Namespaces on an event loop."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any

import pytest

from sessionkeeper import (
    AsyncSessionManager,
    AsyncSessionScope,
    AsyncSessionStore,
    InvalidNamespace,
    SaveSession,
    SessionNotFound,
    SessionScope,
)

if TYPE_CHECKING:
    from pathlib import Path


def test_a_scope_has_the_sessions_of_its_namespace(folder: Path) -> None:
    async def scenario() -> None:
        async with await AsyncSessionStore.open(folder, watch=False) as store:
            async with store.scope("team") as scope:
                await scope.save_session("s1", ["team"], tags=["t"])
                receipt = await scope.tell(SaveSession("s2", []))
                assert (await receipt.result()).namespace == "team"
            await store.save_session("s1", ["default"])
            assert (await scope.append("s1", [2])).message_count == 2
            assert [i.session_id for i in await scope.search(tags=["t"])] == ["s1"]
            assert [s.session_id async for s in scope.load_all()] == ["s1", "s2"]
            assert (await scope.count(), await store.count()) == (2, 1)
            assert await store.namespaces() == ["team"]
            with pytest.raises(SessionNotFound):
                await store.load_session("s2")
            with pytest.raises(InvalidNamespace):
                store.scope("../outside")
            with scope._store.watch() as watch:
                await scope.delete_session("s2")
                change = await asyncio.to_thread(watch.next, 5)
                assert change is not None
                assert (change.session_id, change.namespace) == ("s2", "team")
            assert "team" in repr(scope)
            assert scope.path == store.path

    asyncio.run(scenario())


def test_a_manager_works_on_a_scope(folder: Path) -> None:
    async def scenario() -> None:
        async with await AsyncSessionStore.open(folder, watch=False) as store:
            manager = AsyncSessionManager(store.scope("team"))
            await manager.start_session("Something")
            assert (await manager.stop_session()).info.namespace == "team"
            assert await store.count() == 0

    asyncio.run(scenario())


RENAMED = {"__contains__": "contains", "__len__": "count"}
SYNC_ONLY = {"submit", "require_open"}


def test_both_scopes_have_the_same_methods_with_the_same_arguments() -> None:
    def public(cls: type) -> dict[str, Any]:
        return {
            RENAMED.get(name, name): member
            for name, member in inspect.getmembers(cls)
            if (not name.startswith("_") or name in RENAMED) and name not in SYNC_ONLY
        }

    sync, others = public(SessionScope), public(AsyncSessionScope)
    assert sync.keys() == others.keys()
    for name, member in sync.items():
        if inspect.isfunction(member) and name != "contains":
            one = inspect.signature(member).parameters
            other = inspect.signature(others[name]).parameters
            assert [(p.name, p.default, p.kind) for p in one.values()] == [
                (p.name, p.default, p.kind) for p in other.values()
            ], name
