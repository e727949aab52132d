"""Conversations from a file, appended message by message."""

from __future__ import annotations

import gzip
import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from bench.__main__ import main
from bench.conversations import UnreadableInput, conversations
from bench.measure import Plan, measure
from bench.replays import ReplayTrial

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

KEYS = ("traj", "messages")
A = [{"role": "user", "content": "Zürich?"}, {"role": "assistant", "content": None}]
B = [{"role": "user", "content": "one"}]
ITEMS = [{"traj": A, "messages": []}, {"messages": B}, {"traj": []}]


def written(path: Path, text: str) -> Path:
    data = text.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize("name", ["it.json", "it.json.gz"])
@pytest.mark.parametrize("lines", [False, True], ids=["array", "lines"])
def test_arrays_and_lines_are_read(
    name: str,
    lines: bool,  # noqa: FBT001 - a parameter of the test
    tmp_path: Path,
) -> None:
    text = "\n".join(map(json.dumps, ITEMS)) + "\n\n" if lines else json.dumps(ITEMS, indent=1)
    assert conversations(written(tmp_path / name, text), KEYS) == [A, B]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "no message"),
        ("[]", "no message"),
        ("[{", "it.json: "),
        ('{"traj": []}\nnonsense', "it.json: "),
        ('[{"traj": []}, 5]', "item 2 is no object"),
        ('[{"other": []}]', "item 1 has no traj or messages"),
        ('[{"traj": "text"}]', "item 1: traj is no list of objects"),
        ('[{"messages": [1]}]', "item 1: messages is no list of objects"),
    ],
)
def test_what_holds_no_conversations_is_refused(text: str, error: str, tmp_path: Path) -> None:
    with pytest.raises(UnreadableInput, match=error):
        conversations(written(tmp_path / "it.json", text), KEYS)


def test_a_compressed_file_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "it.json.gz", json.dumps(ITEMS))
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(UnreadableInput, match=r"it\.json\.gz"):
        conversations(path, KEYS)


class Kept:
    """Remembers what is appended."""

    def __init__(self) -> None:
        self.sessions: dict[str, list[Any]] = {}

    @contextmanager
    def client(self) -> Iterator[Kept]:
        yield self

    def append(self, session_id: str, message: Any) -> None:
        self.sessions.setdefault(session_id, []).append(message)

    def count_messages(self) -> int:
        return sum(map(len, self.sessions.values()))


def replayed(peer: Any, given: Sequence[Sequence[Any]], operations: int) -> str | None:
    trial = ReplayTrial(peer, conversations=given)
    plan = Plan(rounds=1, seconds=60.0, max_operations=operations, warm_up=0.0)
    return measure({"it": trial}, 1, plan)["it"].failure


def test_conversations_are_appended_in_order_and_begin_again() -> None:
    peer = Kept()
    assert replayed(peer, [A, B], 5) is None
    # The warm-up takes one message; the thread of the round begins with the next conversation.
    assert list(peer.sessions.values()) == [A[:1], B, A, B, A[:1]]


def test_messages_that_are_lost_are_found_out() -> None:
    class Forgetful(Kept):
        def append(self, session_id: str, message: Any) -> None:
            if session_id != "s00000002":
                super().append(session_id, message)

    assert "are there, not" in (replayed(Forgetful(), [A, B], 5) or "")


def test_a_file_is_replayed_by_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path / "it.jsonl", "\n".join(map(json.dumps, ITEMS)))
    command = ["--quick", "--rounds", "1", "--seconds", "0.01", "--only", "replay", "--here"]
    command += ["--threads", "2", "--path", str(tmp_path), "--input", str(path)]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "replay: the next message of one of 2 conversations (3 messages)" in printed
    assert "per-file, fsync" in printed


def test_a_replay_needs_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    for command, error in (
        (["--only", "replay"], "replay needs --input"),
        (["--input", "no/such/file"], "no/such/file"),
    ):
        with pytest.raises(SystemExit) as stopped:
            main(command)
        assert stopped.value.code == 2
        assert error in capsys.readouterr().err
