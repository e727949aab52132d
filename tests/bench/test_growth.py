"""What grows with the number of sessions, and its pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from bench import growing, report
from bench.disk import Here
from bench.growing import run_growth
from bench.growth import CATALOGS, PAGE, QUESTIONS, CatalogSpec, name_of, tag_of
from bench.kinds import Entrant, Target, Workload
from bench.measure import Plan, WorkNotDone
from bench.plots import PlotsMissing, library, write_plots
from bench.results import GrowthRow, Row, rows_of

if TYPE_CHECKING:
    from pathlib import Path

TINY = Plan(rounds=2, seconds=0.0, max_operations=1, warm_up=0.0)


class Listed:
    """Sessions in a list."""

    def __init__(self, folder: Path | None = None) -> None:
        del folder
        self.numbers: list[int] = []
        self.made_ready = 0

    def fill(self, numbers: range) -> None:
        self.numbers += numbers

    def ready(self) -> None:
        self.made_ready += 1

    def page(self) -> list[str]:
        return [name_of(number) for number in self.numbers[::-1][:PAGE]]

    def search(self, tag: str) -> list[str]:
        found = [number for number in self.numbers[::-1] if tag_of(number) == tag]
        return [name_of(number) for number in found[:PAGE]]

    def close(self) -> None:
        self.numbers = []


@pytest.mark.parametrize("spec", CATALOGS, ids=lambda spec: spec.name)
def test_every_catalog_finds_the_newest(spec: CatalogSpec, tmp_path: Path) -> None:
    if spec.missing:
        pytest.skip(f"{spec.missing} is not installed")
    catalog = spec.open(tmp_path)
    try:
        for numbers in (range(30), range(30, 1_100)):
            catalog.fill(numbers)
            catalog.ready()
            for question in QUESTIONS:
                question.ask(catalog, numbers.stop)
    finally:
        catalog.close()


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.name)
def test_an_answer_that_is_wrong_is_found_out(question: Any) -> None:
    catalog = Listed()
    catalog.fill(range(100))
    question.ask(catalog, 100)
    catalog.numbers.reverse()
    with pytest.raises(WorkNotDone):
        question.ask(catalog, 100)


def test_all_are_asked_everything_at_each_size(tmp_path: Path) -> None:
    specs = [CatalogSpec("ours", Listed), CatalogSpec("peer", Listed)]
    at = list(run_growth((40, 70), TINY, Here(tmp_path), specs))
    assert [[(row.growth, row.peer, row.sessions) for row in rows] for rows in at] == [
        [(question, peer, size) for question in ("list", "search") for peer in ("ours", "peer")]
        for size in (40, 70)
    ]
    for row in (row for rows in at for row in rows):
        assert row.value is not None
        assert row.samples == TINY.rounds
        assert (row.limit is None, row.ratio is None) == (row.peer == "peer", row.peer == "ours")
        assert row.failure is None
    assert list(tmp_path.iterdir()) == []


def test_a_slow_peer_stops_growing_and_the_subject_does_not(tmp_path: Path) -> None:
    specs = [CatalogSpec("ours", Listed), CatalogSpec("peer", Listed)]
    at = list(run_growth((10, 20), TINY, Here(tmp_path), specs, patience=0.0))
    assert [[row.value is not None for row in rows] for rows in at] == [[True, False] * 2] * 2
    assert at[0][1].stopped is not None
    assert at[0][0].stopped is None


def test_a_peer_whose_answers_take_long_stops_before_the_next_size(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    monkeypatch.setattr(growing, "perf_counter", lambda: now[0])

    class Timed(Listed):
        takes = 1.0

        def page(self) -> list[str]:
            now[0] += self.takes
            return super().page()

        def search(self, tag: str) -> list[str]:
            now[0] += self.takes
            return super().search(tag)

    class Slow(Timed):
        takes = 15.0

    specs = [CatalogSpec("ours", Timed), CatalogSpec("peer", Slow)]
    first, second = run_growth((10, 20), TINY, Here(tmp_path), specs, patience=60.0)
    assert [row.value for row in first] == [1.0, 15.0] * 2
    assert [row.ratio for row in first] == [None, 15.0] * 2
    assert [row.value is not None for row in second] == [True, False] * 2
    assert second[1].stopped == "10 sessions took it over 60 s"


def test_a_peer_that_fails_is_a_result_and_an_absent_one_is_none(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Forgetful(Listed):
        def search(self, tag: str) -> list[str]:
            return [tag]

    def refused(folder: Path) -> Listed:
        raise OSError(f"{folder.name}: full")

    specs = [
        CatalogSpec("ours", Listed),
        CatalogSpec("forgetful", Forgetful),
        CatalogSpec("absent", Listed, package="no_such_package"),
        CatalogSpec("refused", refused),
    ]
    [rows] = run_growth((10,), TINY, Here(tmp_path), specs)
    report.print_growth(rows)
    told = {row.peer: row for row in rows if row.growth == "search"}
    assert (told["forgetful"].failure or "").startswith("WorkNotDone")
    assert (told["absent"].missing, told["absent"].failure) == ("no_such_package", None)
    assert told["refused"].failure == "OSError: 3: full"
    printed = capsys.readouterr().out
    assert "growth: with 10 sessions (ratio: the row to ours)" in printed
    assert "absent: the package no_such_package is not installed" in printed
    assert "FAILED" in printed


# --- plots --------------------------------------------------------------------------------


def compared() -> list[Row]:
    from bench.measure import Outcome, Round

    def never(folder: Path) -> Any:
        raise AssertionError(folder)

    names = ("ours", "one peer", "absent one")
    entrants: tuple[Any, ...] = tuple(Entrant(name, never) for name in names)
    workload = Workload("save", "it", "ours", entrants, targets=(Target("one peer", 2.0),))
    rates = {"ours": [500, 600], "one peer": [100, 150]}
    outcomes = {name: Outcome([Round(rate, 1.0) for rate in each]) for name, each in rates.items()}
    return [*rows_of(workload, 1, outcomes), *rows_of(workload, 64, outcomes)]


def grown(value: float | None, sessions: int) -> GrowthRow:
    return GrowthRow(
        *("list", "a page", "ours", sessions, value, value, value, value, 3, None, "ours"),
        *(None, None, None, None, None),
    )


def test_the_same_figures_give_the_same_pictures(tmp_path: Path) -> None:
    pytest.importorskip("pygal")
    growths = [grown(0.001, 1_000), grown(0.0015, 10_000), grown(None, 100_000)]
    first = write_plots(tmp_path / "one", compared(), growths)
    second = write_plots(tmp_path / "two", compared(), growths)
    assert [path.name for path in first] == ["save.svg", "growth-list.svg"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    bars, lines = (path.read_text(encoding="utf-8") for path in first)
    assert "one peer" in bars
    assert "absent one" not in bars
    assert "64 threads" in bars
    assert "xlink:href" not in bars  # nothing is asked of any server
    assert "10,000" in lines
    more = write_plots(tmp_path / "three", compared()[:3], [])
    assert more[0].read_bytes() != first[0].read_bytes()


# Once imported, the library leaves a finder behind that knows only the old way to look for modules.
@pytest.mark.filterwarnings("ignore:PluginImportFixer:ImportWarning")
def test_without_the_library_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.plots.PACKAGE", "no_such_package")
    with pytest.raises(PlotsMissing, match="pip install"):
        library()
