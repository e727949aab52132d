"""Times of other programs, whichever way they write them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessionkeeper import ImportRefused, SessionStore
from sessionkeeper.transfer import FieldMapping, import_file
from sessionkeeper.transfer.template import FieldError
from sessionkeeper.transfer.times import times_of

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1751364000123, "2025-07-01T10:00:00.123000Z"),
        (1751364000123.5, "2025-07-01T10:00:00.123500Z"),
        (0, "1970-01-01T00:00:00.000000Z"),
        (-1, "1969-12-31T23:59:59.999000Z"),
        ("2025-07-01T10:00:00Z", "2025-07-01T10:00:00.000000Z"),
        ("2025-07-01T12:00:00.5+02:00", "2025-07-01T10:00:00.500000Z"),
        (None, None),
    ],
)
def test_times_become_iso_in_utc(value: Any, expected: str | None) -> None:
    item = {"info": {"startTime": value}}

    assert times_of(item, {"started": "info.startTime"}) == {"started": expected}


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("2025-07-01T10:00:00", "has no time zone"),
        ("yesterday", "is no time: 'yesterday'"),
        ("", "is no time"),
        (True, "is bool"),
        ([], "is list"),
        (10**17, "is no time"),
        (-(10**17), "is no time"),
        (1e300, "is no time"),
        ("0001-01-01T00:00:00+14:00", "is no time"),
    ],
)
def test_what_is_no_time_is_refused(value: Any, reason: str) -> None:
    with pytest.raises(FieldError, match=f"the field `at` {reason}"):
        times_of({"at": value}, {"at": "at"})


@given(st.datetimes(min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30)))  # noqa: DTZ001
def test_both_ways_of_writing_a_time_mean_the_same(naive: datetime) -> None:
    moment = naive.replace(tzinfo=UTC, microsecond=naive.microsecond // 1000 * 1000)
    unix_ms = (moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1000
    item = {"ms": round(unix_ms), "iso": moment.isoformat()}

    found = times_of(item, {"ms": "ms", "iso": "iso"})

    assert found["ms"] == found["iso"]
    assert datetime.fromisoformat(str(found["ms"])) == moment


def test_records_of_an_older_program_keep_their_times(
    store: SessionStore,
    tmp_path: Path,
) -> None:
    path = tmp_path / "old.json"
    item = {"id": "s1", "messages": [], "startTime": 1751364000123, "end": "2025-07-01T12:00+02:00"}
    path.write_text(json.dumps([item]))
    times = {"started": "startTime", "ended": "end"}

    import_file(store, path, FieldMapping.of(times=times, metadata={"raw": "startTime"}))

    assert store.load_session("s1").metadata == {
        "raw": 1751364000123,
        "started": "2025-07-01T10:00:00.123000Z",
        "ended": "2025-07-01T10:00:00.000000Z",
    }
    with pytest.raises(ImportRefused, match="item 1: there is no field `absent`"):
        import_file(store, path, FieldMapping.of(times={"a": "absent"}), on_conflict="replace")
