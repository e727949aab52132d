"""Asks people to choose, and shows what they chose: `history_server.py FOLDER`.

A choice that is still open is in memory alone; one that was made is stored, and for a while both,
as in any server that keeps what it may be asked for next.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from spoken import tell

from sessionkeeper import SessionStore, StoreLocked


@dataclass(frozen=True)
class OpenChoice:
    session_id: str
    updated_at: datetime


class History:
    """What is under way, and what is stored."""

    def __init__(self, store: SessionStore) -> None:
        self._store = store
        self._live: dict[str, OpenChoice] = {}

    def begin(self, session_id: str, _: Any) -> None:
        self._live[session_id] = OpenChoice(session_id, datetime.now(UTC))

    def choose(self, session_id: str, result: Any) -> None:
        self._store.save_session(
            session_id,
            state={"prompt": "Please choose", "result": result},
            title="Choose an option",
            status="submitted",
            metadata={"interface": "web", "url": f"/choice/{session_id}"},
        )

    def forget(self, session_id: str, _: Any) -> None:
        del self._live[session_id]

    def configure(self, _: str, settings: Any) -> None:
        self._store.configure(**settings)

    def recent(self) -> list[dict[str, Any]]:
        return [
            {"session_id": each.session_id, "live": isinstance(each, OpenChoice)}
            for each in self._store.merge_recent(self._live.values(), limit=None)
        ]


class Handler(BaseHTTPRequestHandler):
    history: History

    def do_GET(self) -> None:
        self._answer(self.history.recent())

    def do_POST(self) -> None:
        _, action, session_id = self.path.split("/")
        body = self.rfile.read(int(self.headers["Content-Length"]))
        getattr(self.history, action)(session_id, json.loads(body))
        self._answer({"done": action})

    def _answer(self, content: Any) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main(folder: str) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    try:
        store = SessionStore.open(folder, preset="history")
    except StoreLocked as error:
        with SessionStore.open(folder, preset="history", read_only=True) as reader:
            stored = [info.session_id for info in reader.get_recent()]
        tell("locked", error=str(error), stored=stored)
        return
    with store:
        Handler.history = History(store)
        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.02,)).start()
        tell("listening", port=server.server_port)
        signal.sigwait([signal.SIGTERM])
        server.shutdown()
        server.server_close()


if __name__ == "__main__":
    main(*sys.argv[1:])
