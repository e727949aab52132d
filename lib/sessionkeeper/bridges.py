"""Waiting for a reply on whichever event loop runs: asyncio, or trio if the application uses it."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from sessionkeeper.errors import NotExecuted
from sessionkeeper.events import logger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sessionkeeper.otp import Reply

T = TypeVar("T")

Outcome = Literal["done", "refused", "not executed", "unknown"]
_MARK = "__sessionkeeper_outcome__"


def cancelled_outcome(error: BaseException) -> Outcome | None:
    """What became of the store's call that was cancelled.

    Args:
        error: The `CancelledError`, or trio's `Cancelled`, that left the call. Its notes say the
            same in words.

    Returns:
        `done`: it took effect. `refused`: the store answered with an error. `not executed`: it has
        not happened and will not. `unknown`: it was being executed when a second cancellation
        came. None: the error is not from a call of the store.
    """
    outcome: Outcome | None = getattr(error, _MARK, None)
    return outcome


async def settled(reply: Reply[T], withdraw: Callable[[], object]) -> T:
    """Wait for a reply without blocking the event loop.

    A cancellation withdraws what has not begun. What has begun is waited for, for it cannot be
    stopped half-way; then the cancellation goes on, and says what happened.

    Args:
        reply: Settled in some other thread.
        withdraw: Called upon a cancellation; settles the reply if the call has not begun.
    """
    wait, wait_shielded = _waits()
    try:
        await wait(reply)
    except BaseException as cancelled:
        withdraw()
        try:
            await wait_shielded(reply)
        except BaseException as again:
            _mark(again, reply)
            raise
        _mark(cancelled, reply)
        raise
    return reply.result(0)


async def read(reply: Reply[T]) -> T:
    """Wait for something that changes nothing; a cancellation just stops the waiting."""
    wait, _ = _waits()
    try:
        await wait(reply)
    except BaseException:
        reply.withdraw(NotExecuted("the call was cancelled"))
        raise
    return reply.result(0)


def _mark(cancelled: BaseException, reply: Reply[Any]) -> None:
    outcome: Outcome = "unknown"
    detail = ""
    if reply.done():
        error = reply.exception(0)
        if error is None:
            outcome, detail = "done", f": {reply.result(0)!r}"
        elif isinstance(error, NotExecuted):
            outcome = "not executed"
        else:
            outcome, detail = "refused", f": {error!r}"
    setattr(cancelled, _MARK, outcome)
    cancelled.add_note(f"the store's call that was cancelled: {outcome}{detail}")


def _waits() -> tuple[
    Callable[[Reply[Any]], Awaitable[None]],
    Callable[[Reply[Any]], Awaitable[None]],
]:
    trio = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_task():
        return _wait_trio, _wait_trio_shielded
    return _wait_asyncio, _wait_asyncio


async def _wait_asyncio(reply: Reply[Any]) -> None:
    loop = asyncio.get_running_loop()
    waiter = loop.create_future()

    def settle() -> None:
        if not waiter.done():
            waiter.set_result(None)

    def wake(_: object) -> None:
        try:
            loop.call_soon_threadsafe(settle)
        except RuntimeError:
            logger.debug("an event loop was closed before the store answered it")

    reply.add_done_callback(wake)
    await waiter


async def _wait_trio(reply: Reply[Any]) -> None:
    import trio  # noqa: PLC0415 - only where the application runs on it

    token = trio.lowlevel.current_trio_token()
    event = trio.Event()

    def wake(_: object) -> None:
        try:
            token.run_sync_soon(event.set)
        except trio.RunFinishedError:
            logger.debug("an event loop was closed before the store answered it")

    reply.add_done_callback(wake)
    await event.wait()


async def _wait_trio_shielded(reply: Reply[Any]) -> None:
    import trio  # noqa: PLC0415 - only where the application runs on it

    with trio.CancelScope(shield=True):
        await _wait_trio(reply)
