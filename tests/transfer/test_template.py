"""Templates over dotted paths."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessionkeeper import InvalidConfig
from sessionkeeper.transfer.template import FieldError, Template, lookup

ITEM: dict[str, Any] = {
    "task": 7,
    "trial": 0,
    "reward": 0.5,
    "done": True,
    "none": None,
    "info": {"user": {"name": "mia"}},
    "traj": [{"role": "system"}, {"role": "user"}],
}


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("{task}-{trial}", "7-0"),
        ("plain", "plain"),
        ("", ""),
        ("{info.user.name}", "mia"),
        ("{traj.1.role}!", "user!"),
        ("{reward}/{done}", "0.5/true"),
        ("{{{task}}}", "{7}"),
    ],
)
def test_fields_are_filled_in(text: str, filled: str) -> None:
    assert Template.parse(text).fill(ITEM) == filled


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{absent}", "no field `absent`"),
        ("{info.absent.name}", "no field `info.absent`"),
        ("{task.real}", "no field `task.real`"),
        ("{traj.2.role}", "no field `traj.2`"),
        ("{traj.-1}", "no field `traj.-1`"),
        ("{traj.²}", "no field `traj.²`"),
        ("{traj." + "1" * 5000 + "}", "no field `traj.1111"),
        ("{none}", "`none` is null"),
        ("{info}", "`info` is dict"),
        ("{info.__class__}", "no field `info.__class__`"),
    ],
)
def test_a_field_that_is_missing_or_no_text_is_named(text: str, reason: str) -> None:
    with pytest.raises(FieldError) as caught:
        Template.parse(text).fill(ITEM)
    assert reason in str(caught.value)


@pytest.mark.parametrize("text", ["{", "}", "{a", "{}", "{a!r}", "{a:>99}", "{a}}"])
def test_what_is_no_template_is_refused_at_once(text: str) -> None:
    with pytest.raises(InvalidConfig, match="cannot be read"):
        Template.parse(text)


def test_a_field_of_python_is_no_field() -> None:
    template = Template.parse("{task.__class__.__mro__}")

    with pytest.raises(FieldError, match=r"no field `task\.__class__`"):
        template.fill(ITEM)


@given(st.text())
def test_any_text_is_given_back_when_its_braces_are_doubled(text: str) -> None:
    doubled = text.replace("{", "{{").replace("}", "}}")

    assert Template.parse(doubled).fill({}) == text


def test_lookup_gives_any_value() -> None:
    assert lookup(ITEM, "traj.0") == {"role": "system"}
    assert lookup(ITEM, "none") is None
