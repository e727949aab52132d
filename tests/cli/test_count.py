"""Counting finds what is lost, doubled or out of order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessionkeeper import SessionStore
from sessionkeeper.cli.drill.count import Mark, count
from sessionkeeper.cli.drill.ledger import Ledger
from sessionkeeper.cli.drill.part import marks_found
from sessionkeeper.cli.drill.writers import Crew

if TYPE_CHECKING:
    from pathlib import Path

A1, A2, A3, B1, B2 = Mark(1, 1), Mark(1, 2), Mark(1, 3), Mark(2, 1), Mark(2, 2)
ACKNOWLEDGED = {"s": [A1, B1, A2], "t": [A3, B2]}


def test_all_is_there() -> None:
    # In another order between writers, with one more that was on its way.
    result = count(ACKNOWLEDGED, {"s": [B1, A1, A2], "t": [A3, B2, Mark(2, 3)], "u": []})

    assert result.passed
    assert (result.acknowledged, result.found, result.unacknowledged) == (5, 5, 1)
    assert (result.lost, result.doubled, result.disordered) == ((), (), ())


def test_a_message_that_is_missing_is_lost() -> None:
    result = count(ACKNOWLEDGED, {"s": [A1, A2], "t": [A3, B2]})

    assert not result.passed
    assert result.lost == (("s", B1),)
    assert (result.acknowledged, result.found) == (5, 4)


def test_a_session_that_is_missing_is_lost() -> None:
    result = count(ACKNOWLEDGED, {"s": [A1, B1, A2]})

    assert not result.passed
    assert result.lost == (("t", A3), ("t", B2))


def test_a_message_in_another_session_is_lost_where_it_belongs() -> None:
    result = count(ACKNOWLEDGED, {"s": [A1, A2], "t": [A3, B2, B1]})

    assert not result.passed
    assert result.lost == (("s", B1),)


@pytest.mark.parametrize(
    "found",
    [
        {"s": [A1, B1, A2, A2], "t": [A3, B2]},
        {"s": [A1, B1, A2], "t": [A3, B2], "u": [A2]},
    ],
    ids=["in one session", "in two sessions"],
)
def test_a_message_that_is_there_twice_is_doubled(found: dict[str, list[Mark]]) -> None:
    result = count(ACKNOWLEDGED, found)

    assert not result.passed
    assert result.doubled == (A2,)
    assert result.lost == ()


def test_what_was_on_its_way_must_not_be_doubled_either() -> None:
    result = count({"s": [A1]}, {"s": [A1, A2, A2]})

    assert result.doubled == (A2,)
    assert not result.passed


def test_a_message_behind_a_later_one_of_its_writer_is_out_of_order() -> None:
    result = count(ACKNOWLEDGED, {"s": [A2, B1, A1], "t": [A3, B2]})

    assert not result.passed
    assert result.disordered == (("s", A1),)


def test_nothing_acknowledged_is_no_success() -> None:
    assert not count({}, {"s": [A1]}).passed


@given(st.lists(st.integers(1, 3), min_size=1, max_size=30), st.data())
def test_every_single_loss_and_every_single_double_is_seen(
    writers: list[int],
    data: st.DataObject,
) -> None:
    written = [Mark(w, writers[: n + 1].count(w)) for n, w in enumerate(writers)]
    position = data.draw(st.integers(0, len(written) - 1))
    mark = written[position]

    assert count({"s": written}, {"s": written}).passed
    without = written[:position] + written[position + 1 :]
    assert count({"s": written}, {"s": without}).lost == (("s", mark),)
    elsewhere = data.draw(st.integers(0, len(written)))
    twice = [*written[:elsewhere], mark, *written[elsewhere:]]
    assert count({"s": written}, {"s": twice}).doubled == (mark,)


# --- with real files ----------------------------------------------------------------------


@pytest.fixture
def written(folder: Path) -> dict[str, list[Mark]]:
    """What a crew has written into the folder, as acknowledged."""
    ledger = Ledger()
    with (
        SessionStore.open(folder, watch=False) as store,
        Crew(store, 3, ledger.note, lambda _: ledger.close()),
    ):
        assert ledger.wait_for(60, timeout=20)
    return ledger.acknowledged()


def edit(folder: Path, session_id: str, change: Any) -> None:
    with SessionStore.open(folder, watch=False) as store:
        store.save_session(session_id, change(store.load_session(session_id).messages))


def found_in(folder: Path) -> dict[str, list[Mark]]:
    with SessionStore.open(folder, read_only=True) as store:
        return marks_found(store)


def test_a_crew_loses_and_doubles_nothing(folder: Path, written: dict[str, list[Mark]]) -> None:
    result = count(written, found_in(folder))

    assert result.passed
    assert result.acknowledged >= 60
    assert result.unacknowledged == 0
    # Sessions of one writer, and sessions of all.
    assert {session_id.partition("-")[0] for session_id in written} == {"case", "desk"}
    assert len({mark.writer for mark in written["desk-00001"]}) > 1


def test_a_file_that_is_taken_away_shows(folder: Path, written: dict[str, list[Mark]]) -> None:
    (folder / "desk-00001.json").unlink()

    result = count(written, found_in(folder))

    assert not result.passed
    assert sorted(mark for _, mark in result.lost) == sorted(written["desk-00001"])


def test_a_message_that_is_taken_away_shows(folder: Path, written: dict[str, list[Mark]]) -> None:
    edit(folder, "case-1-00001", lambda messages: messages[:1] + messages[2:])

    result = count(written, found_in(folder))

    assert result.lost == (("case-1-00001", Mark(1, 2)),)
    assert (result.doubled, result.disordered) == ((), ())


def test_a_message_that_is_put_there_twice_shows(
    folder: Path,
    written: dict[str, list[Mark]],
) -> None:
    edit(folder, "case-1-00001", lambda messages: [*messages, messages[0]])

    result = count(written, found_in(folder))

    assert result.doubled == (Mark(1, 1),)
    assert not result.passed


def test_messages_of_others_are_not_counted(folder: Path, written: dict[str, list[Mark]]) -> None:
    edit(folder, "case-1-00001", lambda messages: [*messages, {"role": "user"}, "plain"])

    assert count(written, found_in(folder)).passed
