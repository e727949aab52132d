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
        lambda where: SessionStore.open(where, watch=False, inject=injected),
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


def test_hostile_names_in_errors_are_escaped(run: Run, folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "\x1b[31m.json"
    path.write_text('[{"id": "\\u001b[32m", "messages": []}]')

    result = run("--path", folder, "import", path)

    assert result.exit_code == 1
    assert "\x1b" not in result.stderr
    assert r"\x1b[31m.json: item 1: " in result.stderr
