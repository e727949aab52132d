from __future__ import annotations

import contextlib
import math
import sys
import tracemalloc
import uuid
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessionkeeper import InvalidValue
from sessionkeeper.storage.codec import (
    MAX_DEPTH,
    StrictError,
    decode,
    decode_strict,
    encode,
)

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(json_values)
def test_a_json_value_comes_back_equal_from_both_decoders(value: Any) -> None:
    encoded = encode(value)
    assert b"\n" not in encoded
    assert decode(encoded) == value
    assert decode_strict(encoded) == value


def test_a_zero_below_zero_stays_one() -> None:
    for decoded in (decode(encode(-0.0)), decode_strict(encode(-0.0))):
        assert math.copysign(1, decoded) == -1


class Colour(Enum):
    RED = "red"


def _nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (float("nan"), "value: nan"),
        ({"a": [1, float("inf")]}, "value['a'][1]: inf"),
        ({"a": {1: 2}}, "value['a']: the key 1 is not a str"),
        ({True: 1}, "the key True"),
        ({None: 1}, "the key None"),
        ([1, (2, 3)], "value[1]: a tuple"),
        ({"x": {2, 3}}, "value['x']: set"),
        ([b"raw"], "value[0]: bytes"),
        ([Decimal("1.5")], "value[0]: Decimal"),
        ([uuid.uuid4()], "value[0]: UUID"),
        ([Colour.RED], "value[0]: Colour"),
        (datetime(2025, 1, 1), "value: datetime"),  # noqa: DTZ001 - a naive one is the point
        (datetime(2025, 1, 1, tzinfo=UTC), "value: datetime"),
        ([2**64], "value[0]: an integer of more than 64 bits"),
        ([-(2**63) - 1], "value[0]: an integer"),
        (["a", "\ud800"], "value[1]: the text holds a lone surrogate"),
        ({"\udc80": 1}, "a key holds a lone surrogate"),
        (_nested(100_000), "nested deeper"),
    ],
)
def test_what_json_would_not_give_back_is_refused_with_its_path(value: Any, path: str) -> None:
    with pytest.raises(InvalidValue) as refused:
        encode(value)
    assert path in str(refused.value)


def test_a_cycle_is_refused() -> None:
    cycle: dict[str, Any] = {}
    cycle["self"] = [cycle]
    with pytest.raises(InvalidValue, match="nested deeper"):
        encode(cycle)


def test_depth_up_to_the_limit_passes_both_ways() -> None:
    value = _nested(MAX_DEPTH - 1)
    assert decode_strict(encode(value)) == value


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"\x00" * 100, "no data"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
        ("{}".encode("utf-16"), "not UTF-8"),
        (b'{"a": "\xff"}', "not UTF-8"),
        (b'{"a": 1', "not JSON"),
        (b'{"a": 1} trailing', "not JSON"),
        (b'{"a": 1, "a": 2}', "stands twice"),
        (b"[NaN]", "NaN"),
        (b"[-Infinity]", "-Infinity"),
        (b"[1e400]", "out of range"),
        (b"[18446744073709551616]", "more than 64 bits"),
        (b"[" + b"9" * 5000 + b"]", "more than 64 bits"),
        (b'["\\ud800"]', "lone surrogate"),
        (b"[" * 100_000, "nested deeper"),
        (b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), "nested deeper"),
    ],
)
def test_bytes_from_outside_are_decoded_strictly(data: bytes, reason: str) -> None:
    with pytest.raises(StrictError, match=reason):
        decode_strict(data)


def test_a_strict_error_names_the_byte() -> None:
    with pytest.raises(StrictError) as refused:
        decode_strict('{"ä": 1 x}'.encode())
    assert refused.value.offset == 9


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_but_a_strict_error(data: bytes) -> None:
    with contextlib.suppress(StrictError):
        decode_strict(data)


@pytest.mark.parametrize("size", [0, 100, 5_000])
def test_what_is_encoded_takes_no_more_memory_than_it_needs(size: int) -> None:
    values = [{"text": "x" * size} for _ in range(100)]
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        kept = [encode(value) for value in values]
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < sum(map(sys.getsizeof, kept)) + 100 * 50
