"""Answers messages at once and saves behind that: `bot_service.py [LARGEST_FILE]`.

Each line is `SENDER TEXT`. On SIGTERM it saves what is still to be saved, and says if it could
not. LARGEST_FILE is a limit of the system's for each of its files, in bytes: a medium that is full
for this process alone.
"""

from __future__ import annotations

import logging
import resource
import signal
import socketserver
import sys
import threading

from spoken import listen, tell

from sessionkeeper import AppendMessages, SessionStore, UnreadFailures
from sessionkeeper.testing import FaultyFileSystem, Injected


class Conversation(socketserver.StreamRequestHandler):
    store: SessionStore

    def handle(self) -> None:
        for line in self.rfile:
            sender, _, text = line.decode().rstrip("\n").partition(" ")
            self.store.tell(AppendMessages(sender, [{"text": text}]))
            self.wfile.write(b"got it\n")


class Service(socketserver.ThreadingTCPServer):
    daemon_threads = False
    request_queue_size = 64


def serve(store: SessionStore) -> None:
    """Until SIGTERM comes."""
    Conversation.store = store
    with Service(("127.0.0.1", 0), Conversation) as service:
        threading.Thread(target=service.serve_forever, args=(0.02,)).start()
        tell("listening", port=service.server_address[1])
        signal.sigwait([signal.SIGTERM])
        tell("closing")
        service.shutdown()


def main(largest_file: str | None = None) -> int:
    logging.basicConfig(format="%(levelname)s %(name)s %(message)s")
    # Before there are threads: they inherit it, so that the signal waits for sigwait().
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    if largest_file is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(largest_file), int(largest_file)))
    fs = FaultyFileSystem()
    store = SessionStore.open(preset="bot", inject=Injected(fs=fs))
    tell("opened", sessions={info.session_id: info.message_count for info in store.list_sessions()})
    commands = {"hold": fs.hold, "stalled": fs.wait_held, "release": fs.release}
    listen({**commands, "flush": lambda: store.flush(timeout=None)})
    try:
        serve(store)
        store.close()
    except UnreadFailures as error:
        tell("unsaved", failures=[str(failure) for failure in error.failures])
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
