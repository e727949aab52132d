"""What is read off a list of messages."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessionkeeper import InvalidValue, calculate_cost, count_turns, extract_session_id

if TYPE_CHECKING:
    from sessionkeeper import SessionStore

NO_MESSAGES: list[Any] = [None, 3, "system", [], ["type", "system"], {}, {"type": None}]


def test_the_id_is_that_of_the_first_system_message_that_carries_one() -> None:
    messages = [
        {"type": "user", "session_id": "of a user"},
        {"type": "system", "subtype": "note"},
        {"type": "system", "session_id": ""},
        {"type": "system", "session_id": 3, "data": {"session_id": "abc"}},
        {"type": "system", "session_id": "later"},
    ]
    assert extract_session_id(messages) == "abc"
    assert extract_session_id(messages[4:]) == "later"
    assert extract_session_id(iter(messages)) == "abc"
    assert extract_session_id(messages[:3]) is None


def test_a_role_says_what_a_message_without_a_type_is() -> None:
    assert extract_session_id([{"role": "system", "session_id": "abc"}]) == "abc"
    assert extract_session_id([{"role": "system", "type": "x", "session_id": "abc"}]) is None
    roles = [{"role": "assistant"}, {"role": "user"}, {"type": "assistant"}, {"role": "assistant"}]
    assert count_turns(roles) == 3
    assert count_turns([{"type": "result", "role": "assistant"}]) == 0


def test_the_costs_of_all_results_are_added_up() -> None:
    messages = [
        {"type": "result", "total_cost_usd": 0.1},
        {"type": "assistant", "total_cost_usd": 99},
        {"type": "result", "data": {"cost": 0.2}},
        {"type": "result", "cost_usd": 0.3, "cost": 99},
        {"type": "result", "total_cost_usd": None, "cost": 1},
        {"type": "result", "cost": float("nan")},
        {"type": "result", "cost": True},
        {"type": "result", "cost": "2"},
        {"type": "result"},
    ]
    assert calculate_cost(messages) == pytest.approx(1.6)
    assert calculate_cost([{"type": "result", "cost": 0.1}] * 10) == 1.0


@pytest.mark.parametrize("message", NO_MESSAGES)
def test_what_is_no_message_is_passed_over(message: Any) -> None:
    others = [message, {"type": "system", "session_id": "abc"}, {"type": "assistant"}, message]
    assert extract_session_id(others) == "abc"
    assert count_turns(others) == 1
    assert calculate_cost(others) == 0.0


@given(
    st.lists(
        st.recursive(
            st.none() | st.booleans() | st.floats() | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(["type", "role", "data", "cost", "session_id"]), inner
                )
            ),
            max_leaves=8,
        )
    )
)
def test_nothing_a_list_can_hold_is_an_error(messages: list[Any]) -> None:
    assert 0 <= count_turns(messages) <= len(messages)
    found = extract_session_id(messages)
    assert found is None or found
    results = [{"type": "result", "cost": message} for message in messages]
    try:
        assert math.isfinite(calculate_cost(results))
    except InvalidValue:
        assert max(abs(m) for m in messages if isinstance(m, float) and math.isfinite(m)) > 1e300


def test_costs_that_are_more_than_a_number_can_hold_are_refused(store: SessionStore) -> None:
    huge = {"type": "result", "cost": 1e308}
    with pytest.raises(InvalidValue, match="finite"):
        calculate_cost([huge, huge])
    with pytest.raises(InvalidValue, match="finite"):
        store.save_session("s1", [huge, huge])
    store.append("s1", [huge])
    with pytest.raises(InvalidValue, match="finite"):
        store.append("s1", [huge])
    assert store.append("s1", ["more"]).message_count == 2
