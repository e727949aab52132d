"""The façade for event loops: every method of `SessionStore`, awaited and never blocking."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from sessionkeeper.aiosessions import AsyncSessions, AsyncSessionScope, withdraw_from
from sessionkeeper.bridges import settled
from sessionkeeper.engine.commands import (
    Cleanup,
    Configure,
    EnablePersistence,
    ExplainCleanup,
    without_persistence,
)
from sessionkeeper.opening import path_for_app
from sessionkeeper.store import SessionStore
from sessionkeeper.workers import Workers

if TYPE_CHECKING:
    from os import PathLike
    from types import TracebackType

    from sessionkeeper.answers import Decision, Removal, StorageStats
    from sessionkeeper.changing import Timeout
    from sessionkeeper.describing import StoreInfo
    from sessionkeeper.presets import PresetName
    from sessionkeeper.processes.tree import ProcessInfo
    from sessionkeeper.storage.backend import RecoveryReport

# So many threads of our own load and encode sessions.
WORKERS = 4


class AsyncSessionStore(AsyncSessions):
    """A `SessionStore` for asyncio and trio; any number of event loops may share one.

    See `AsyncSessions` for what its methods have in common.
    """

    _store: SessionStore

    def __init__(self, store: SessionStore) -> None:
        super().__init__(store, Workers(WORKERS))

    def scope(self, namespace: str) -> AsyncSessionScope:
        """The sessions of a namespace; see `SessionStore.scope`."""
        return AsyncSessionScope(self._store.scope(namespace), self._workers)

    async def namespaces(self) -> list[str]:
        """The namespaces that hold sessions; see `SessionStore.namespaces`."""
        return await self._run(self._store.namespaces)

    @classmethod
    async def open(
        cls,
        path: str | PathLike[str] | None = None,
        *,
        preset: PresetName | None = None,
        read_only: bool = False,
        **settings: Any,
    ) -> Self:
        """Open the store in a folder; see `SessionStore.open`."""
        workers = Workers(1)
        try:
            opening = workers.submit(
                lambda: SessionStore.open(path, preset=preset, read_only=read_only, **settings),
            )
            opening.add_done_callback(lambda _: workers.stop())
            return cls(await settled(opening, lambda: withdraw_from(opening)))
        except BaseException:
            workers.stop()
            if opening.done() and opening.exception(0) is None:
                closer = Workers(1)  # cancelled while it was opened: nobody else will close it
                closer.submit(opening.result(0).close)
                closer.stop()
            raise

    @classmethod
    async def for_app(cls, name: str, **options: Any) -> Self:
        """Open the store of an application; see `SessionStore.for_app`."""
        return await cls.open(path_for_app(name), **options)

    async def checkpoint(self, timeout: float | None = 30.0) -> None:
        """Wait until every session file is current; see `SessionStore.checkpoint`."""
        await self._run(lambda: self._store.checkpoint(timeout))

    async def close(self, timeout: float | None = 30.0) -> None:
        """Have everything done that was sent, stop, and give the folder up.

        See `SessionStore.close`. It is not interrupted by a cancellation once it has begun.
        """
        closer = Workers(1)
        try:
            closing = closer.submit(lambda: self._store.close(timeout))
            await settled(closing, lambda: None)
        finally:
            closer.stop()
            self._workers.stop()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await self.close()
        except Exception as close_error:
            if error is None:
                raise
            error.add_note(f"closing the store failed too: {close_error!r}")

    # --- about the store --------------------------------------------------------------------

    async def configure(self, **settings: Any) -> None:
        """Change settings of the open store; see `SessionStore.configure`."""
        rest, persistence = without_persistence(settings)
        if rest or persistence is None:
            await self.ask(Configure(rest))
        if persistence is not None:
            await self.enable_persistence(persistence)

    async def enable_persistence(
        self,
        enabled: bool = True,  # noqa: FBT001, FBT002 - the only thing to say
        *,
        timeout: Timeout = None,
    ) -> None:
        """Switch persistence on, or off; see `SessionStore.enable_persistence`."""
        await self.ask(EnablePersistence(enabled), timeout=timeout)

    async def cleanup(self, *, dry_run: bool = False) -> list[Removal]:
        """Apply the retention settings now; see `SessionStore.cleanup`."""
        return await self.ask(Cleanup(dry_run))

    async def explain_cleanup(self) -> list[Decision]:
        """Say what a cleanup would do with each session; see `SessionStore.explain_cleanup`."""
        return await self.ask(ExplainCleanup())

    @property
    def last_recovery(self) -> RecoveryReport:
        """What the last recovery scan found."""
        return self._store.last_recovery

    def info(self) -> StoreInfo:
        """What the store is up to; never waits."""
        return self._store.info()

    async def stats(self) -> StorageStats:
        """Count the files of the store and their bytes; see `SessionStore.stats`."""
        return await self._run(self._store.stats)

    async def processes(self) -> list[ProcessInfo]:
        """The supervision tree; see `SessionStore.processes`."""
        return await self._run(self._store.processes)
