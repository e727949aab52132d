"""Receipts of what was told: whom they tell of a failure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sessionkeeper import Receipt, StoreClosed
from sessionkeeper.otp import Reply, ServerDown

if TYPE_CHECKING:
    from collections.abc import Callable


def answer(reply: Reply[int]) -> bool:
    return reply.set_result(1)


def fail(reply: Reply[int]) -> bool:
    return reply.set_exception(ServerDown("gone", executed=False))


def withdraw(reply: Reply[int]) -> bool:
    return reply.withdraw(ServerDown("gone", executed=False))


@pytest.mark.parametrize(("settle", "times"), [(answer, 0), (fail, 1), (withdraw, 1)])
def test_on_error_is_told_of_errors_only_before_or_after_they_come(
    settle: Callable[[Reply[int]], bool], times: int
) -> None:
    reply: Reply[int] = Reply()
    receipt = Receipt(reply)
    before: list[Receipt[int]] = []
    after: list[Receipt[int]] = []
    receipt.on_error(before.append)
    assert before == []
    assert settle(reply)
    receipt.on_error(after.append)
    assert before == after == [receipt] * times
    if times:
        assert isinstance(receipt.exception(0), StoreClosed)


def test_what_is_told_may_fail_itself(caplog: pytest.LogCaptureFixture) -> None:
    def broken(_receipt: object) -> None:
        raise ValueError("in the callback")

    reply: Reply[int] = Reply()
    Receipt(reply).on_error(broken)
    assert fail(reply)
    assert "in the callback" in caplog.text
