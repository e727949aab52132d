"""Transcripts become sessions; importing again takes what was added, and nothing twice."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessionkeeper import ImportRefused, InvalidValue, SessionStore
from sessionkeeper.errors import NotExecuted, StoreReadOnly
from sessionkeeper.transfer import (
    TranscriptsImported,
    import_transcripts,
    records,
    report,
    transcript,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ID = "0b3c9c1e-6f5c-4d8e-9a52-3d5b5d1f0001"


@pytest.fixture
def memory() -> Iterator[SessionStore]:
    with SessionStore.open("nowhere", durability="memory") as opened:
        yield opened


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "projects" / "-home-mia-shop").mkdir(parents=True)
    return tmp_path / "projects"


def record(number: int, **more: Any) -> dict[str, Any]:
    """A record as it is found in real transcripts."""
    kind = "user" if number % 2 == 0 else "assistant"
    return {
        "parentUuid": None,
        "isSidechain": False,
        "cwd": "/home/mia/shop",
        "sessionId": ID,
        "version": "1.0.44",
        "gitBranch": "main",
        "type": kind,
        "message": {"role": kind, "content": f"Nr. {number} — “ok”\n"},
        "uuid": f"u{number}",
        "timestamp": "2025-07-01T10:00:00.000Z",
        **more,
    }


def lines_of(*values: Any) -> bytes:
    return b"".join(json.dumps(value, ensure_ascii=False).encode() + b"\n" for value in values)


def put(root: Path, content: bytes, name: str = ID) -> Path:
    path = root / "-home-mia-shop" / f"{name}.jsonl"
    path.write_bytes(content)
    return path


def counts(outcome: TranscriptsImported) -> dict[str, int]:
    names = ("files", "created", "extended", "unchanged", "empty", "messages", "left_out")
    return {name: getattr(outcome, name) for name in names if getattr(outcome, name)}


def told(outcome: TranscriptsImported) -> list[tuple[str, int | None, str, str]]:
    return [(p.path.name, p.line, p.kind, p.detail) for p in outcome.problems]


# --- what becomes of a transcript ---------------------------------------------------------


def test_every_record_is_a_message_and_summaries_are_title_and_summary(
    store: SessionStore,
    root: Path,
) -> None:
    values = [record(0), {"type": "system", "content": "x"}, record(1, gitBranch="fix")]
    first = {"type": "summary", "summary": "Shop:\n the  cart", "leafUuid": "u1"}
    last = {**first, "summary": "Shop: paying"}
    put(root, lines_of(first, *values[:2], last, values[2]))

    outcome = import_transcripts(store, root, tags=["shop"])

    assert counts(outcome) == {"files": 1, "created": 1, "messages": 3}
    session = store.load_session(ID)
    assert session.messages == values
    assert (session.title, session.summary) == ("Shop: paying", "Shop:\n the  cart\nShop: paying")
    assert session.tags == ("claude-code", "shop")
    assert session.generation == 1
    mark = session.metadata.pop("transcript")
    assert session.metadata == {"cwd": "/home/mia/shop", "gitBranch": "fix", "version": "1.0.44"}
    assert (mark["file"], mark["messages"]) == (f"-home-mia-shop/{ID}.jsonl", 3)


def test_one_file_can_be_imported_alone(store: SessionStore, root: Path) -> None:
    path = put(root, lines_of(record(0)))

    assert counts(import_transcripts(store, path)) == {"files": 1, "created": 1, "messages": 1}
    assert counts(import_transcripts(store, root)) == {"files": 1, "unchanged": 1}


def test_progress_counts_bytes(store: SessionStore, root: Path) -> None:
    sizes = [put(root, lines_of(record(n)), f"s{n}").stat().st_size for n in range(3)]
    (root / "notes.txt").write_text("no transcript")
    seen: list[tuple[int, int]] = []

    import_transcripts(store, root, progress=lambda *now: seen.append(now))

    assert seen == [(sum(sizes[: n + 1]), sum(sizes)) for n in range(3)]


@pytest.mark.parametrize(
    ("name", "inner", "expected"),
    [
        (ID, ID, ID),
        ("chat", "abc", "abc"),
        ("chat", None, "chat"),
    ],
)
def test_the_id_is_in_the_records_or_else_the_name(
    store: SessionStore,
    root: Path,
    name: str,
    inner: str | None,
    expected: str,
) -> None:
    value = {"type": "user", **({} if inner is None else {"sessionId": inner})}
    put(root, lines_of({"type": "summary", "summary": "S"}, value), name)

    import_transcripts(store, root)

    assert [info.session_id for info in store.iter_sessions()] == [expected]
    assert counts(import_transcripts(store, root)) == {"files": 1, "unchanged": 1}


def test_two_files_of_one_session_id_are_two_sessions(store: SessionStore, root: Path) -> None:
    # As transcripts of agents are: they carry the id of who started them.
    for name in ("0-agent", ID, "agent-2"):
        put(root, lines_of(record(0, sessionId=ID, who=name)), name)
    for name in ("x", "y"):
        put(root, lines_of(record(0, sessionId="other", who=name)), name)

    for expected in ({"files": 5, "created": 5, "messages": 5}, {"files": 5, "unchanged": 5}):
        assert counts(import_transcripts(store, root)) == expected

    found = {s.session_id: s.messages[0]["who"] for s in store.load_all()}
    assert found == {"0-agent": "0-agent", "agent-2": "agent-2", ID: ID, "other": "x", "y": "y"}


def test_a_session_keeps_its_file_although_another_comes_with_its_name(
    store: SessionStore,
    root: Path,
) -> None:
    put(root, lines_of(record(0, sessionId="b")), "a")
    import_transcripts(store, root)
    put(root, lines_of(record(1, sessionId="b")), "b")

    outcome = import_transcripts(store, root)

    assert counts(outcome) == {"files": 2, "unchanged": 1, "left_out": 1}
    assert [session.messages[0]["uuid"] for session in store.load_all()] == ["u0"]


def test_two_files_of_one_name_are_never_one_new_session(
    store: SessionStore,
    root: Path,
) -> None:
    put(root, lines_of(record(0)))
    (root / f"{ID}.jsonl").write_bytes(lines_of(record(1)))

    for dry_run in (True, False):
        outcome = import_transcripts(store, root, dry_run=dry_run)

        assert counts(outcome) == {"files": 2, "created": 1, "messages": 1, "left_out": 1}
    assert store.load_session(ID).messages == [record(0)]


def test_a_session_that_is_none_of_its_own_is_never_touched(
    store: SessionStore,
    root: Path,
) -> None:
    store.save_session(ID, ["mine"])
    put(root, lines_of(record(0)))
    put(root, lines_of(record(1, sessionId="b")), "b")

    outcome = import_transcripts(store, root)

    assert counts(outcome) == {"files": 2, "created": 1, "messages": 1, "left_out": 1}
    assert told(outcome) == [
        (f"{ID}.jsonl", None, "refused", f"there is another session of the id {ID!r}"),
    ]
    assert store.load_session(ID).messages == ["mine"]


def test_a_transcript_without_messages_makes_no_session(store: SessionStore, root: Path) -> None:
    put(root, lines_of({"type": "summary", "summary": "S"}), "a")
    put(root, b"\n  \n", "b")
    put(root, b"", "c")

    assert counts(import_transcripts(store, root)) == {"files": 3, "empty": 3}
    assert len(store) == 0


def test_a_dry_run_says_what_would_be_stored_and_stores_nothing(
    store: SessionStore,
    root: Path,
) -> None:
    put(root, lines_of(record(0)))
    import_transcripts(store, root)
    put(root, lines_of(record(0), record(1)))
    put(root, lines_of(record(2, sessionId="b")) + b'{"torn', "b")
    before = store.info().sessions, store.load_session(ID)

    with SessionStore.open(store.path, read_only=True) as reader:
        dry = import_transcripts(reader, root, dry_run=True)
    assert (store.info().sessions, store.load_session(ID)) == before

    assert import_transcripts(store, root) == dry
    assert counts(dry) == {"files": 2, "created": 1, "extended": 1, "messages": 2, "left_out": 1}


# --- again --------------------------------------------------------------------------------


def test_importing_again_takes_what_was_added(store: SessionStore, root: Path) -> None:
    values = [record(n) for n in range(5)]
    put(root, lines_of(*values[:2]))
    import_transcripts(store, root)
    again = import_transcripts(store, root)
    generation = store.load_session(ID).generation
    put(root, lines_of(*values[:2], {"type": "summary", "summary": "S"}, *values[2:]))

    more = import_transcripts(store, root)

    assert counts(again) == {"files": 1, "unchanged": 1}
    assert generation == 1
    assert counts(more) == {"files": 1, "extended": 1, "messages": 3}
    session = store.load_session(ID)
    assert session.messages == values
    assert (session.title, session.summary) == ("S", "S")


def test_what_the_application_says_of_the_session_stays(store: SessionStore, root: Path) -> None:
    summary = {"type": "summary", "summary": "Theirs"}
    put(root, lines_of(summary, record(0)))
    import_transcripts(store, root)
    session = store.load_session(ID)
    metadata = {**session.metadata, "mine": 1}
    store.save_session(ID, title="Mine", tags=["mine"], metadata=metadata, status="paused")
    put(root, lines_of(summary, record(0), {**summary, "summary": "New"}, record(1)))

    import_transcripts(store, root)

    session = store.load_session(ID)
    assert (session.title, session.summary) == ("Mine", "Theirs\nNew")
    assert (session.tags, session.status, session.metadata["mine"]) == (("mine",), "paused", 1)


def test_a_file_that_was_rewritten_is_refused(store: SessionStore, root: Path) -> None:
    put(root, lines_of(record(0), record(1)))
    import_transcripts(store, root)
    for content in (lines_of(record(0)), lines_of(record(9), record(1), record(2))):
        put(root, content)

        outcome = import_transcripts(store, root)

        assert counts(outcome) == {"files": 1, "left_out": 1}
        assert "its beginning differs" in outcome.problems[0].detail
    assert store.load_session(ID).messages == [record(0), record(1)]


@pytest.mark.parametrize("change", ["more", "fewer"])
def test_a_session_that_somebody_changed_is_left_as_it_is(
    store: SessionStore,
    root: Path,
    change: str,
) -> None:
    put(root, lines_of(record(0), record(1)))
    import_transcripts(store, root)
    if change == "more":
        store.append(ID, ["mine"])
    else:
        store.save_session(ID, [])
    before = store.load_session(ID)
    for added in ([record(2)], [record(2), record(3)], []):
        put(root, lines_of(record(0), record(1), *added))

        outcome = import_transcripts(store, root)

        assert "changed by somebody else" in outcome.problems[0].detail
        assert store.load_session(ID) == before


def test_a_second_writer_in_between_is_noticed(
    store: SessionStore,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transcript, "_BATCH_BYTES", 1)
    put(root, lines_of(*map(record, range(3))))
    real, calls = store.append, 0

    def intrude(session_id: str, messages: list[Any]) -> Any:
        nonlocal calls
        calls += 1
        if calls == 1:
            real(session_id, ["mine"])
        return real(session_id, messages)

    monkeypatch.setattr(store, "append", intrude)

    outcome = import_transcripts(store, root)

    assert "changed by somebody else" in outcome.problems[0].detail
    assert len(store.load_session(ID)) == 3


def test_a_second_writer_at_the_end_is_noticed(
    store: SessionStore,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    put(root, lines_of(record(0)))
    import_transcripts(store, root)
    mark = store.load_session(ID).metadata
    put(root, lines_of(record(0), record(1)))
    real = store.update

    def intrude(session_id: str, change: Any) -> Any:
        store.append(session_id, ["mine"])
        return real(session_id, change)

    monkeypatch.setattr(store, "update", intrude)

    outcome = import_transcripts(store, root)

    assert "changed by somebody else" in outcome.problems[0].detail
    assert store.load_session(ID).metadata == mark


def test_summaries_are_noted_once_however_the_file_is_cut(
    store: SessionStore,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transcript, "_BATCH_BYTES", 1)
    summaries = [{"type": "summary", "summary": text} for text in "abc"]
    put(root, lines_of(summaries[0], record(0), summaries[1], record(1), summaries[2]))

    import_transcripts(store, root)

    session = store.load_session(ID)
    assert (session.title, session.summary) == ("c", "a\nb\nc")


@pytest.mark.parametrize("batch", [1, 300, 10**6])
@pytest.mark.parametrize("failing", ["create_session", "append", "update"])
@pytest.mark.parametrize("after", [False, True])
def test_an_import_that_broke_off_goes_on_where_it_was(
    store: SessionStore,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    failing: str,
    batch: int,
    *,
    after: bool,
) -> None:
    monkeypatch.setattr(transcript, "_BATCH_BYTES", batch)
    values = [record(n) for n in range(6)]
    put(root, lines_of(*values[:1]))
    if failing != "create_session":
        import_transcripts(store, root)
    put(root, lines_of(*values[:4]))
    real = getattr(store, failing)

    def break_off(*arguments: Any, **more: Any) -> Any:
        if after:
            real(*arguments, **more)
        raise NotExecuted("broken off")

    # With and without the change having happened; then the file goes on growing.
    with monkeypatch.context() as patched:
        patched.setattr(store, failing, break_off)
        with pytest.raises(NotExecuted):
            import_transcripts(store, root)
    put(root, lines_of(*values))

    assert import_transcripts(store, root).problems == ()

    assert store.load_session(ID).messages == values
    assert counts(import_transcripts(store, root)) == {"files": 1, "unchanged": 1}


# --- torn, damaged, hostile ---------------------------------------------------------------


def test_a_torn_last_line_is_left_out_and_taken_when_it_is_whole(
    store: SessionStore,
    root: Path,
) -> None:
    whole = lines_of(record(0), record(1))
    put(root, whole[:-20])

    torn = import_transcripts(store, root)
    assert counts(torn) == {"files": 1, "created": 1, "messages": 1, "left_out": 1}
    assert told(torn)[0][:3] == (f"{ID}.jsonl", 2, "torn")

    put(root, whole[:-9])
    assert told(import_transcripts(store, root))[0][:3] == (f"{ID}.jsonl", 2, "torn")
    put(root, whole)
    assert counts(import_transcripts(store, root)) == {"files": 1, "extended": 1, "messages": 1}
    assert store.load_session(ID).messages == [record(0), record(1)]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"a": 1', "not JSON"),
        (b"\0" * 300, "holds no data"),
        (b"[1]", "list, not an object"),
        (b'{"a": NaN}', "NaN is not JSON"),
        (b'{"a": 1, "a": 2}', "stands twice"),
        (b'{"a": "\xff"}', "not UTF-8"),
        (b'{"a": "\\ud800"}', "lone surrogate"),
        (b'{"a": ' + b"[" * 100_000, "nested deeper|not JSON"),
        (b'{"a": ' + b"1" * 5000 + b"}", "more than 64 bits"),
    ],
)
def test_a_damaged_line_is_left_out_and_told(
    store: SessionStore,
    root: Path,
    line: bytes,
    reason: str,
) -> None:
    import re

    put(root, lines_of(record(0)) + line + b"\n" + lines_of(record(1)))

    outcome = import_transcripts(store, root)

    assert counts(outcome) == {"files": 1, "created": 1, "messages": 2, "left_out": 1}
    assert told(outcome)[0][:3] == (f"{ID}.jsonl", 2, "damaged")
    assert re.search(reason, outcome.problems[0].detail)
    assert store.load_session(ID).messages == [record(0), record(1)]
    # It was told of once.
    assert counts(import_transcripts(store, root)) == {"files": 1, "unchanged": 1}
    put(root, (root / "-home-mia-shop" / f"{ID}.jsonl").read_bytes() + line + b"\n")
    assert told(import_transcripts(store, root))[0][:3] == (f"{ID}.jsonl", 4, "damaged")


def test_a_line_without_bound_is_passed_over(
    store: SessionStore,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(records, "MAX_LINE_BYTES", 1000)
    long = lines_of(record(0, text="x" * 5000))
    put(root, lines_of(record(1)) + long + lines_of(record(2)) + long[:-1])

    outcome = import_transcripts(store, root)

    assert [problem[:3] for problem in told(outcome)] == [
        (f"{ID}.jsonl", 2, "damaged"),
        (f"{ID}.jsonl", 4, "torn"),
    ]
    assert store.load_session(ID).messages == [record(1), record(2)]
    put(root, lines_of(record(1)) + long + lines_of(record(2)) + long + lines_of(record(3)))
    import_transcripts(store, root)
    assert store.load_session(ID).messages == [record(1), record(2), record(3)]


@pytest.mark.parametrize("inner", ["../evil", "a/b", "CON", "", "x\n", 7, ["a"], "x" * 5000])
def test_ids_in_records_are_not_trusted(store: SessionStore, root: Path, inner: Any) -> None:
    put(root, lines_of(record(0, sessionId=inner)), "hostile")
    put(root, lines_of(record(0)))

    outcome = import_transcripts(store, root)

    assert counts(outcome) == {"files": 2, "created": 1, "messages": 1, "left_out": 1}
    assert told(outcome)[0][:3] == ("hostile.jsonl", None, "refused")
    assert [info.session_id for info in store.iter_sessions()] == [ID]


def test_only_regular_files_are_read(store: SessionStore, root: Path, tmp_path: Path) -> None:
    import os

    outside = tmp_path / "outside.jsonl"
    outside.write_bytes(lines_of(record(0)))
    (root / "link.jsonl").symlink_to(outside)
    (root / "loop").symlink_to(root)
    (root / "folder.jsonl").mkdir()
    os.mkfifo(root / "pipe.jsonl")

    outcome = import_transcripts(store, root)

    assert told(outcome) == [
        ("link.jsonl", None, "refused", "a link, which is not followed"),
        ("pipe.jsonl", None, "refused", "not a regular file"),
    ]
    assert len(store) == 0


def test_marks_that_somebody_made_up_are_not_trusted(store: SessionStore, root: Path) -> None:
    put(root, lines_of(record(0), record(1)))
    import_transcripts(store, root)
    mark = store.load_session(ID).metadata["transcript"]
    for change in ({"offset": -5}, {"offset": 10**18}, {"messages": -1}, {"digest": "x"}):
        store.save_session(ID, metadata={"transcript": {**mark, **change}})

        outcome = import_transcripts(store, root)

        assert counts(outcome) == {"files": 1, "left_out": 1}, change
        assert len(store.load_session(ID)) == 2


def test_problems_are_told_up_to_a_bound(
    store: SessionStore,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(report, "MAX_PROBLEMS", 3)
    put(root, b"{\n" * 10)

    outcome = import_transcripts(store, root)

    assert (len(outcome.problems), outcome.left_out) == (3, 10)


def test_a_folder_that_is_none_is_refused(store: SessionStore, root: Path) -> None:
    with pytest.raises(ImportRefused, match="there is no such folder"):
        import_transcripts(store, root / "absent")


def test_tags_are_checked_first(store: SessionStore, root: Path) -> None:
    put(root, lines_of(record(0)))
    with pytest.raises(InvalidValue):
        import_transcripts(store, root, tags=[" "])


def test_a_store_that_fails_ends_the_import(store: SessionStore, root: Path) -> None:
    put(root, lines_of(record(0)))
    with (
        SessionStore.open(store.path, read_only=True) as reader,
        pytest.raises(StoreReadOnly),
    ):
        import_transcripts(reader, root)


def test_costs_that_add_up_to_too_much_are_refused(store: SessionStore, root: Path) -> None:
    put(root, lines_of(*[{"type": "result", "cost": 1.5e308}] * 2), "a")

    outcome = import_transcripts(store, root)

    assert told(outcome)[0][:3] == ("a.jsonl", None, "refused")
    assert len(store) == 0


# --- any transcript, cut anywhere ---------------------------------------------------------

lines = st.lists(
    st.one_of(
        st.integers(0, 9).map(lambda number: lines_of(record(number))),
        st.text(max_size=5).map(lambda text: lines_of({"type": "summary", "summary": text})),
        st.sampled_from([b"\n", b"{\n", b"[]\n", b"\0\0\n", b" \r\n", b'{"x": "\xc3\xa9"}\r\n']),
    ),
    max_size=8,
)


def expected(content: bytes) -> list[Any]:
    """The messages of a whole file, found in the simplest way."""
    found = []
    for line in content.split(b"\n"):
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict) and value.get("type") != "summary":
            found.append(value)
    return found


@given(parts=lines, data=st.data(), batch=st.sampled_from([1, 700, 10**6]))
def test_a_transcript_read_in_any_pieces_is_as_if_it_were_read_at_once(
    parts: list[bytes],
    data: st.DataObject,
    batch: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    content = b"".join(parts)
    cuts = data.draw(st.lists(st.integers(0, len(content)), max_size=5).map(sorted))
    path = tmp_path_factory.mktemp("t") / "t.jsonl"
    with (
        pytest.MonkeyPatch.context() as patched,
        SessionStore.open("nowhere", durability="memory") as store,
    ):
        patched.setattr(transcript, "_BATCH_BYTES", batch)
        for cut in (*cuts, len(content), len(content)):
            path.write_bytes(content[:cut])
            outcome = import_transcripts(store, path)
            assert all(problem.kind != "refused" for problem in outcome.problems)
            sessions = list(store.load_all())
            messages = sessions[0].messages if sessions else []
            assert len(sessions) <= 1
            assert messages == expected(content[:cut])
            assert counts(outcome).get("messages", 0) <= len(messages)
        assert counts(outcome).get("messages", 0) == 0


@given(content=st.binary(max_size=300) | lines.map(b"".join))
def test_whatever_is_in_a_file_it_never_ends_but_in_a_report(
    content: bytes,
    tmp_path: Path,
) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(content)
    with SessionStore.open("nowhere", durability="memory") as store:
        outcome = import_transcripts(store, path)
        assert len(store) == outcome.created
