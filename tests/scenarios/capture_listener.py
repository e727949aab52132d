"""Listens for HL7 v2 messages and answers each at once: `capture_listener.py RETENTION_DAYS`.

What a connection said is one session, stored when the connection is over. The listener itself
never waits for the disk.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any
from uuid import uuid4

from hl7.mllp import start_hl7_server
from spoken import listen, tell

from sessionkeeper import AsyncSessionStore, SaveSession, SessionKeeperError
from sessionkeeper.testing import FaultyFileSystem, Injected

# Reports travel inside of messages.
LONGEST_MESSAGE = 1024 * 1024


class Listener:
    def __init__(self, store: AsyncSessionStore) -> None:
        self._store = store
        self._keeping: set[asyncio.Task[None]] = set()

    async def serve(self, reader: Any, writer: Any) -> None:
        exchanges: list[Any] = []
        try:
            while True:
                message = await reader.readmessage()
                answer = message.create_ack("AA", application="CAPTURE")
                writer.writemessage(answer)
                await writer.drain()
                exchanges.append({"heard": str(message), "answered": str(answer)})
                tell("answered", control_id=str(message.segment("MSH")[10]))
        except asyncio.IncompleteReadError:
            pass  # the other side is done
        finally:
            writer.close()
        session_id = str(uuid4())
        tell("completed", session_id=session_id)
        keeping = asyncio.create_task(self._keep(session_id, exchanges))
        self._keeping.add(keeping)
        keeping.add_done_callback(self._keeping.discard)

    async def _keep(self, session_id: str, exchanges: list[Any]) -> None:
        command = SaveSession(session_id, exchanges, status="completed", tags=["hl7"])
        try:
            receipt = await self._store.tell(command)
            await receipt.result()
        except SessionKeeperError as error:
            tell("lost", session_id=session_id, error=type(error).__name__)
        else:
            tell("saved", session_id=session_id)


async def main(retention_days: float) -> None:
    fs, stopped = FaultyFileSystem(), asyncio.Event()
    loop = asyncio.get_running_loop()
    async with await AsyncSessionStore.open(
        preset="capture",
        retention_days=retention_days,
        inject=Injected(fs=fs),
    ) as store:
        async for session in store.load_all():
            tell("restored", session_id=session.session_id, exchanges=len(session))
        listener = Listener(store)
        server = await start_hl7_server(
            listener.serve,
            "127.0.0.1",
            0,
            limit=LONGEST_MESSAGE,
            encoding="utf-8",
        )
        listen(
            {
                "hold": fs.hold,
                "stalled": fs.wait_held,
                "release": fs.release,
                "stop": lambda: loop.call_soon_threadsafe(stopped.set),
            },
        )
        tell("listening", port=server.sockets[0].getsockname()[1])
        await stopped.wait()
        server.close()


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1])))
