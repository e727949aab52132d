"""A listener for HL7 v2 messages: what it heard is stored behind its back, and survives it."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import os
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from running import Program

from sessionkeeper import SessionStore
from sessionkeeper.testing import FakeClock, Injected

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    Send = Callable[[Any], Awaitable[str]]

if os.environ.get("CI") == "true":
    hl7 = importlib.import_module("hl7")
else:
    hl7 = pytest.importorskip("hl7", reason="hl7 comes with the extra `test`")
mllp = importlib.import_module("hl7.mllp")

DAYS = 14
# For an answer; one that waits for the disk does not come at all.
PATIENCE = 10.0


def message(number: int, name: str = "Müller^Ärztin — “Anna”") -> Any:
    """The admission of a patient, with a control id of its own."""
    return hl7.parse(
        f"MSH|^~\\&|ADT1|WARD|CAPTURE|LAB|20250101120000||ADT^A01|MSG{number:05}|P|2.5\r"
        f"PID|1||{number}^^^WARD||{name}||19700101|F\r"
        "PV1|1|I|W^389^1\r",
    )


@contextlib.asynccontextmanager
async def connected(port: int) -> AsyncIterator[Send]:
    """A ward's connection: what it yields sends a message, and returns the answer to it."""
    reader, writer = await mllp.open_hl7_connection("127.0.0.1", port, encoding="utf-8")

    async def send(sent: Any) -> str:
        async with asyncio.timeout(PATIENCE):
            writer.writemessage(sent)
            await writer.drain()
            answer = await reader.readmessage()
        assert str(answer.segment("MSA")[1]) == "AA"
        assert str(answer.segment("MSA")[2]) == str(sent.segment("MSH")[10])
        return str(answer)

    try:
        yield send
    finally:
        writer.close()
        with contextlib.suppress(OSError):  # the listener may have been killed
            await writer.wait_closed()


async def converse(port: int, messages: list[Any]) -> list[dict[str, str]]:
    """Send messages, each after the answer to the one before; what was said on either side."""
    async with connected(port) as send:
        return [{"heard": str(each), "answered": await send(each)} for each in messages]


async def ward(port: int, number: int) -> None:
    """A conversation of five messages."""
    await converse(port, [message(100 * number + each) for each in range(5)])


def files(project: Path) -> dict[str, dict[str, Any]]:
    """The sessions as any other program sees them."""
    found = (project / "docs" / "sessions").glob("*.json")
    return {path.stem: json.loads(path.read_bytes()) for path in found}


def test_what_was_captured_survives_a_kill(project: Path) -> None:
    said: dict[str, list[dict[str, str]]] = {}

    async def capture(listener: Program) -> None:
        port = listener.expect("listening")["port"]
        for ward in range(3):
            messages = [message(10 * ward + number) for number in range(4)]
            exchanges = await converse(port, messages)
            said[listener.expect("saved")["session_id"]] = exchanges
        async with connected(port) as send:
            await send(message(100))
            listener.kill()

    with Program("capture_listener", DAYS, folder=project) as listener:
        asyncio.run(capture(listener))

    stored = files(project)
    assert {name: each["messages"] for name, each in stored.items()} == said
    for each in stored.values():
        saved = datetime.fromisoformat(each["completed_at"])
        until = datetime.fromtimestamp(each["persistedUntil"] / 1000, UTC)
        assert timedelta() <= until - saved - timedelta(days=DAYS) < timedelta(milliseconds=2)

    (project / "docs" / "sessions" / "broken.json").write_text('{"format":"sessionkeeper",')
    with Program("capture_listener", DAYS, folder=project) as listener:
        port = listener.expect("listening")["port"]
        restored = {t["session_id"]: t["exchanges"] for t in listener.told if "exchanges" in t}
        assert restored == dict.fromkeys(said, 4)
        asyncio.run(converse(port, [message(200)]))
        new = listener.expect("saved")["session_id"]
        listener.send("stop")
        assert listener.end() == 0
    assert files(project).keys() == said.keys() | {new}, "nothing was replaced"


def test_the_listener_answers_while_the_disk_stands_still(project: Path) -> None:
    report = message(1, "A^Report " + "x" * 200_000)

    async def wards(port: int) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(1, 21):
                group.create_task(ward(port, number))
            group.create_task(converse(port, [report]))

    with Program("capture_listener", DAYS, folder=project) as listener:
        port = listener.expect("listening")["port"]
        listener.do("hold")
        asyncio.run(ward(port, 0))
        listener.do("stalled")

        asyncio.run(wards(port))
        for _ in range(21):
            listener.expect("completed")
        assert not [told for told in listener.told if told["event"] == "saved"]

        listener.do("release")
        answered = [told for told in listener.told if told["event"] == "answered"]
        assert len(answered) == 5 + 100 + 1
        saved = [told for told in listener.told if told["event"] == "saved"]
        while len(saved) < 22:
            saved.append(listener.expect("saved"))
        listener.send("stop")
        assert listener.end() == 0
    stored = files(project)
    assert stored.keys() == {told["session_id"] for told in saved}
    assert sum(len(each["messages"]) for each in stored.values()) == len(answered)
    assert any(each["messages"][0]["heard"] == str(report) for each in stored.values())


def test_what_is_too_much_for_a_stalled_disk_is_told_and_not_waited_for(project: Path) -> None:
    environment = {"SESSIONKEEPER_MAX_PENDING": "5", "SESSIONKEEPER_CALL_TIMEOUT": "0.2"}
    program = Program("capture_listener", DAYS, folder=project, environment=environment)
    with program as listener:
        port = listener.expect("listening")["port"]
        listener.do("hold")
        asyncio.run(ward(port, 0))
        listener.do("stalled")
        for number in range(1, 11):
            asyncio.run(ward(port, number))
        lost = [listener.expect("lost") for _ in range(5)]
        assert {told["error"] for told in lost} == {"StoreBusy"}
        listener.send("release")
        saved = [listener.expect("saved")["session_id"] for _ in range(6)]
        asyncio.run(ward(port, 11))
        saved.append(listener.expect("saved")["session_id"])
        listener.send("stop")
        assert listener.end() == 0
        assert "lost" not in [told["event"] for told in listener.rest()]
    assert files(project).keys() == set(saved)


def test_a_session_is_kept_as_long_as_was_promised(project: Path, clock: FakeClock) -> None:
    def opened(retention_days: float) -> SessionStore:
        return SessionStore.open(
            preset="capture",
            retention_days=retention_days,
            watch=False,
            inject=Injected(clock=clock),
        )

    with opened(DAYS) as store:
        store.save_session("captured", [{"heard": "…"}], status="completed")
        promised = store.load_session("captured").info.persisted_until
        assert promised is not None
        assert promised == clock.now() + timedelta(days=DAYS)

    clock.set_wall_clock(promised - timedelta(minutes=1))
    with opened(1) as store:
        store.cleanup()
        assert "captured" in store, "a shorter setting shortens no promise"
        store.save_session("later", [], status="completed")
        later = store.load_session("later").info.persisted_until
        assert later is not None
        assert later < promised + timedelta(days=1)

    clock.set_wall_clock(promised + timedelta(minutes=1))
    with opened(1) as store:
        store.cleanup()
        assert [info.session_id for info in store.list_sessions()] == ["later"]
        assert store.undelete_session("captured").message_count == 1, "there is a grace"
