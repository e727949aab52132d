"""`sessionkeeper import`."""

from __future__ import annotations

import errno
import gzip
import json
from typing import TYPE_CHECKING, Any

import pytest

from sessionkeeper import SessionStore
from sessionkeeper.storage.platform import FileSystem
from sessionkeeper.testing import Injected
from sessionkeeper.transfer import export_bundle, export_session

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from typer.testing import Result

    Run = Callable[..., Result]


@pytest.fixture
def runs(tmp_path: Path, conversation: Callable[[int], list[dict[str, Any]]]) -> Path:
    """Recorded runs as a benchmark writes them, with four trials of each task."""
    items = [
        {
            "task_id": number // 4,
            "trial": number % 4,
            "reward": float(number % 2),
            "info": {"user_cost": None if number == 7 else number / 100},
            "traj": conversation(number),
        }
        for number in range(20)
    ]
    path = tmp_path / "runs.json.gz"
    path.write_bytes(gzip.compress(json.dumps(items).encode()))
    return path


MAPPED = ["--id", "{task_id}-{trial}", "--messages", "traj", "--cost", "info.user_cost"]


def test_recorded_runs_are_imported(run: Run, folder: Path, runs: Path) -> None:
    tags = ["--tag", "trial-{trial}", "--tag", "bench"]
    more = ["--title", "Task {task_id}", "--metadata", "reward=reward", "--state", "info"]

    result = run("--path", folder, "import", runs, *MAPPED, *tags, *more, "--json")

    items = json.loads(gzip.decompress(runs.read_bytes()))
    assert result.exit_code == 0
    assert result.stderr == ""
    counted = json.loads(result.stdout)
    assert counted.pop("seconds") > 0
    assert counted == {
        "file": str(runs),
        "sessions": 20,
        "messages": sum(len(item["traj"]) for item in items),
        "replaced": 0,
        "skipped": 0,
        "renamed": {},
    }
    with SessionStore.open(folder, read_only=True) as store:
        assert len(store) == 20
        for item in items:
            session = store.load_session(f"{item['task_id']}-{item['trial']}")
            assert session.messages == item["traj"]
            assert session.state == item["info"]
            assert session.metadata == {"reward": item["reward"]}
            assert session.tags == (f"trial-{item['trial']}", "bench")
            assert session.title == f"Task {item['task_id']}"
            assert session.total_cost == (item["info"]["user_cost"] or 0.0)


def test_a_refused_file_leaves_nothing_not_even_a_folder(
    run: Run,
    folder: Path,
    runs: Path,
) -> None:
    result = run("--path", folder, "import", runs)

    assert result.exit_code == 1
    assert f"sessionkeeper: {runs}: item 1: neither a session" in result.stderr
    assert "--messages" in result.stderr
    assert not folder.exists()


def test_a_refused_file_does_not_keep_the_others_out(
    run: Run,
    folder: Path,
    tmp_path: Path,
) -> None:
    for name, content in (("a", '{"id": "a", "messages": []}'), ("b", "{"), ("c", "[]")):
        (tmp_path / f"{name}.json").write_text(content)
    files = [tmp_path / f"{name}.json" for name in "bac"]

    result = run("--path", folder, "import", *files)

    assert result.exit_code == 1
    assert result.stdout == f"{files[1]}\t1\t0\t0\n{files[2]}\t0\t0\t0\n"
    assert result.stderr.count("b.json") == 1
    with SessionStore.open(folder, read_only=True) as store:
        assert [session.session_id for session in store.list_sessions()] == ["a"]


def test_sessions_that_exist_are_replaced_only_if_asked(
    run: Run,
    filled: Path,
    tmp_path: Path,
) -> None:
    path = tmp_path / "refund.json"
    path.write_text('["no object"]')
    path.write_text('[{"role": "user", "content": "Mine"}]')

    refused = run("--path", filled, "import", path)
    assert refused.exit_code == 1
    assert "1 of its sessions exist already: 'refund'" in refused.stderr
    assert "--on-conflict" in refused.stderr

    replaced = run("--path", filled, "import", path, "--overwrite")
    assert replaced.exit_code == 0
    assert replaced.stdout == f"{path}\t1\t1\t1\n"
    with SessionStore.open(filled, read_only=True) as store:
        assert store.load_session("refund").messages == [{"role": "user", "content": "Mine"}]


def test_what_becomes_of_sessions_that_exist_can_be_said(
    run: Run,
    filled: Path,
    tmp_path: Path,
) -> None:
    path = tmp_path / "refund.json"
    path.write_text('[{"role": "user", "content": "Mine"}]')

    skipped = run("--path", filled, "import", path, "--on-conflict", "skip")
    renamed = run("--path", filled, "import", path, "--on-conflict", "rename")

    assert skipped.stdout == f"{path}\t0\t0\t0\n"
    assert renamed.stdout == f"{path}\t1\t1\t0\n"
    with SessionStore.open(filled, read_only=True) as store:
        assert len(store.load_session("refund")) == 4
        assert store.load_session("refund-2").messages == [{"role": "user", "content": "Mine"}]


def test_what_show_prints_can_be_imported(run: Run, filled: Path, tmp_path: Path) -> None:
    shown = tmp_path / "shown.json"
    shown.write_text(run("--path", filled, "show", "refund", "--json").stdout)

    other = tmp_path / "other"
    assert run("--path", other, "import", shown).exit_code == 0

    assert (
        json.loads(run("--path", other, "show", "refund", "--json").stdout)["messages"]
        == json.loads(shown.read_text())["messages"]
    )


class FullDisk(FileSystem):
    """Has no room for a session of the name s7."""

    def begin_new(self, path: Path, chunks: Any) -> int:
        if b'"session_id":"s7"' in b"".join(chunks):
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().begin_new(path, chunks)


def test_a_full_disk_is_reported_once_and_nothing_is_left(
    run: Run,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "ten.json"
    path.write_text(json.dumps([{"id": f"s{n}", "messages": []} for n in range(10)]))
    injected = Injected(fs=FullDisk())
    monkeypatch.setattr(
        "sessionkeeper.cli.commands.import_.open_for_writing",
        lambda place: SessionStore.open(place.path, watch=False, inject=injected),
    )

    result = run("--path", folder, "import", path)

    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 2
    assert "No space left on device; what had been stored of it was taken back" in result.stderr
    assert "Free space" in result.stderr
    assert list(folder.glob("*.json")) == []


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--id", "{task_id"], "cannot be read"),
        (["--tag", "{}"], "cannot be read"),
        (["--on-conflict", "overwrite"], "'overwrite' is unknown"),
        (["--on-conflict", "skip", "--overwrite"], "contradict each other"),
        (["--metadata", "reward"], "is not KEY=FIELD"),
        (["--metadata", "=reward"], "is not KEY=FIELD"),
        (["--metadata", "reward="], "is not KEY=FIELD"),
        (["--time", "at"], "--time 'at' is not KEY=FIELD"),
    ],
)
def test_options_that_make_no_sense_are_refused_before_anything_is_read(
    run: Run,
    folder: Path,
    options: list[str],
    reason: str,
) -> None:
    result = run("--path", folder, "import", "absent.json", *options)

    assert result.exit_code == 2
    assert reason in result.stderr
    assert "absent.json" not in result.stderr


# --- what sessionkeeper has written, and transcripts --------------------------------------


@pytest.fixture
def bundle(filled: Path, tmp_path: Path) -> Path:
    path = tmp_path / "all.bundle"
    with SessionStore.open(filled, read_only=True) as store:
        export_bundle(store, path)
    return path


@pytest.fixture
def projects(tmp_path: Path) -> Path:
    """A folder with the transcript of one session, torn at its end."""
    record = {"type": "user", "sessionId": "t1", "uuid": "u", "message": {"content": "Hi"}}
    folder = tmp_path / "projects" / "-home-mia"
    folder.mkdir(parents=True)
    (folder / "t1.jsonl").write_text(json.dumps(record) + "\n" + json.dumps(record)[:-9])
    return tmp_path / "projects"


def contents(folder: Path) -> dict[str, Any]:
    with SessionStore.open(folder, read_only=True) as store:
        return {s.session_id: (s.messages, s.state, s.tags, s.title) for s in store.load_all()}


def test_bundles_are_known_by_their_content(
    run: Run,
    filled: Path,
    bundle: Path,
    tmp_path: Path,
) -> None:
    other = tmp_path / "other"

    first = run("--path", other, "import", bundle)
    refused = run("--path", other, "import", bundle)
    renamed = run("--path", other, "import", bundle, "--on-conflict", "rename", "--json")

    assert (first.exit_code, first.stdout) == (0, f"{bundle}\t3\t5\t0\n")
    assert refused.exit_code == 1
    assert "3 of its sessions exist already: 'empty', 'greeting', 'refund'" in refused.stderr
    assert json.loads(renamed.stdout)["renamed"]["refund"] == "refund-2"
    found = contents(other)
    assert {name: found[name] for name in contents(filled)} == contents(filled)
    assert found["refund-2"] == found["refund"]


def test_documents_are_taken_without_any_option(run: Run, filled: Path, tmp_path: Path) -> None:
    path, other = tmp_path / "a-document", tmp_path / "other"
    with SessionStore.open(filled, read_only=True) as store:
        export_session(store, "refund", path)

    assert run("--path", other, "import", path).exit_code == 0

    assert contents(other) == {"refund": contents(filled)["refund"]}


@pytest.mark.parametrize("alone", [True, False])
def test_transcripts_are_known_and_taken_once(
    run: Run,
    folder: Path,
    projects: Path,
    *,
    alone: bool,
) -> None:
    path = projects / "-home-mia" / "t1.jsonl" if alone else projects

    first = run("--path", folder, "import", path, "--tag", "mine", "--json")
    second = run("--path", folder, "import", path)

    counted = json.loads(first.stdout)
    assert counted.pop("seconds") >= 0
    assert counted == {
        "file": str(path),
        "sessions": 1,
        "messages": 1,
        "replaced": 0,
        "files": 1,
        "created": 1,
        "extended": 0,
        "unchanged": 0,
        "empty": 0,
        "left_out": 1,
    }
    assert f"sessionkeeper: {projects}/-home-mia/t1.jsonl: line 2: torn: not JSON" in first.stderr
    # What is torn is no failure: its end may still come.
    assert (first.exit_code, second.exit_code) == (0, 0)
    assert second.stdout == f"{path}\t0\t0\t0\n"
    assert contents(folder)["t1"][2] == ("claude-code", "mine")


def test_what_is_lost_of_a_transcript_is_a_failure(
    run: Run,
    folder: Path,
    projects: Path,
) -> None:
    (projects / "bad.jsonl").write_text('{"a": 1}\n{"b"\n')
    (projects / "\x1b[31m.jsonl").write_text('{"a": 1}\n')

    result = run("--path", folder, "import", projects)

    assert result.exit_code == 1
    assert result.stdout == f"{projects}\t2\t2\t0\n"
    assert f"{projects}/bad.jsonl: line 2: damaged: not JSON" in result.stderr
    assert f"{projects}/\\x1b[31m.jsonl: refused: session id" in result.stderr
    assert "\x1b" not in result.stderr


@pytest.mark.parametrize("exists", [True, False])
def test_a_dry_run_changes_nothing(
    run: Run,
    folder: Path,
    bundle: Path,
    projects: Path,
    filled: Path,
    tmp_path: Path,
    *,
    exists: bool,
) -> None:
    plain = tmp_path / "plain.json"
    plain.write_text('{"id": "p", "messages": ["one"]}')
    target = filled if exists else tmp_path / "other"
    conflicts = ["--on-conflict", "replace"]
    before = contents(target) if exists else None

    dry = run("--path", target, "import", bundle, projects, plain, *conflicts, "--dry-run")

    assert dry.exit_code == 0
    if exists:
        assert contents(target) == before
    else:
        assert not target.exists()
    real = run("--path", target, "import", bundle, projects, plain, *conflicts)
    assert real.stdout == dry.stdout
    assert real.stdout.splitlines()[0] == f"{bundle}\t3\t5\t{3 if exists else 0}"


def test_a_dry_run_says_that_it_was_one_and_refuses_as_the_real_one(
    run: Run,
    filled: Path,
    bundle: Path,
    tmp_path: Path,
) -> None:
    refused = run("--path", filled, "import", bundle, "--dry-run")
    other = run("--path", tmp_path / "other", "import", bundle, "--dry-run", "--json")

    assert refused.exit_code == 1
    assert "exist already" in refused.stderr
    assert json.loads(other.stdout)["dry_run"] is True


def test_a_dry_run_works_beside_the_owner(run: Run, filled: Path, projects: Path) -> None:
    with SessionStore.open(filled, watch=False):
        assert run("--path", filled, "import", projects, "--dry-run").exit_code == 0
        assert run("--path", filled, "import", projects).exit_code == 75


@pytest.mark.parametrize("options", [["--title", "T"], ["--tag", "{id}"]])
def test_options_for_other_programs_do_not_go_with_bundles_and_transcripts(
    run: Run,
    folder: Path,
    bundle: Path,
    projects: Path,
    options: list[str],
) -> None:
    for path in (bundle, projects):
        result = run("--path", folder / "other", "import", path, *options)

        assert result.exit_code == 1
        assert "they are for files of other programs" in result.stderr
    assert not (folder / "other").exists()


def test_one_transcript_can_be_mapped_all_the_same(
    run: Run,
    folder: Path,
    projects: Path,
) -> None:
    path = projects / "whole.jsonl"
    path.write_text('{"type": "user", "sessionId": "x", "uuid": "u", "content": "Hi"}\n')

    assert run("--path", folder, "import", path, "--id", "mine").exit_code == 0
    assert set(contents(folder)) == {"mine"}


def test_times_of_other_programs_become_metadata(run: Run, folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    path.write_text('[{"id": "s", "messages": [], "at": 1751364000123}]')

    assert run("--path", folder, "import", path, "--time", "started=at").exit_code == 0

    with SessionStore.open(folder, read_only=True) as store:
        metadata = store.load_session("s").metadata
    assert metadata == {"started": "2025-07-01T10:00:00.123000Z"}


def test_hostile_names_in_errors_are_escaped(run: Run, folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "\x1b[31m.json"
    path.write_text('[{"id": "\\u001b[32m", "messages": []}]')

    result = run("--path", folder, "import", path)

    assert result.exit_code == 1
    assert "\x1b" not in result.stderr
    assert r"\x1b[31m.json: item 1: " in result.stderr
