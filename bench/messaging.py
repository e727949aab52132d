"""Who answers messages: this library's server and its store, stock Pykka, and bare queues.

None of them does any I/O. Each answers the number of its sessions, which is always `SESSIONS`.
"""

from __future__ import annotations

import queue
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, Self

import pykka

from bench.measure import WorkNotDone
from sessionkeeper import CountSessions, SessionStore
from sessionkeeper.otp import GenServer, ServerRef

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from sessionkeeper import Receipt

SESSIONS = 3

# Whoever asks waits so long at most, whomever it asks: a bare wait is cheaper and no fair match.
PATIENCE = 5.0


class MessageClient(Protocol):
    """One thread's way to a server."""

    def ask(self) -> int:
        """Ask for the number of sessions and wait for the answer."""
        ...

    def ask_many(self, count: int) -> list[int]:
        """Ask so many times before the first answer is looked at."""
        ...

    def tell(self) -> None:
        """Have them counted, and wait for nothing."""
        ...

    def settle(self) -> None:
        """Wait until all that this client has told is done."""
        ...


class MessagePeer(Protocol):
    """A server with a mailbox."""

    def client(self) -> AbstractContextManager[MessageClient]:
        """A client for the calling thread."""
        ...

    def processed(self) -> int:
        """How many messages told it has done, all settled."""
        ...

    def close(self) -> None:
        """Stop the server and its thread."""
        ...


@dataclass(frozen=True, slots=True)
class MessagePeerSpec:
    """How a peer is called and started; the folder is there for those that want one."""

    name: str
    open: Callable[[Path], MessagePeer]


# --- this library -------------------------------------------------------------------------


class _Server(GenServer):
    """A bare server."""

    def init(self) -> None:
        self.told = 0

    def handle_call(self, request: Any) -> int:
        return self.told if request == "told" else SESSIONS

    def handle_cast(self, request: Any) -> None:
        del request
        self.told += 1


class ServerMessages:
    """`call` and `cast` of a bare GenServer through its handle, with its own settings."""

    def __init__(self, folder: Path) -> None:
        del folder
        self._ref = ServerRef("bench-server")
        self._ref.start(_Server)

    @contextmanager
    def client(self) -> Iterator[Self]:
        """Itself."""
        yield self

    def ask(self) -> int:
        """See `MessageClient.ask`."""
        answer: int = self._ref.call("ask", PATIENCE)
        return answer

    def ask_many(self, count: int) -> list[int]:
        """See `MessageClient.ask_many`."""
        replies = [self._ref.send_request("ask") for _ in range(count)]
        return [reply.result() for reply in replies]

    def tell(self) -> None:
        """See `MessageClient.tell`."""
        self._ref.cast("tell")

    def settle(self) -> None:
        """Messages are done in their order."""
        self._ref.call("ask", None)

    def processed(self) -> int:
        """See `MessagePeer.processed`."""
        told: int = self._ref.call("told")
        return told

    def close(self) -> None:
        """Stop the server."""
        self._ref.stop()
        self._ref.close()


class KeeperMessages:
    """`ask` and `tell` of a store that touches no disk."""

    def __init__(self, folder: Path) -> None:
        self.store = SessionStore.open(folder, durability="memory")
        for number in range(SESSIONS):
            self.store.save_session(f"s{number}", [])
        self._clients: list[KeeperClient] = []

    @contextmanager
    def client(self) -> Iterator[KeeperClient]:
        """One that counts for itself."""
        client = KeeperClient(self.store)
        self._clients.append(client)
        yield client

    def processed(self) -> int:
        """What was sent: commands are done in their order, and `flush` raises what failed."""
        self.store.flush()
        return sum(client.sent for client in self._clients)

    def close(self) -> None:
        """Close the store."""
        self.store.close()


class KeeperClient:
    """One thread's commands."""

    def __init__(self, store: SessionStore) -> None:
        self._store = store
        self._last: Receipt[int] | None = None
        self.sent = 0

    def ask(self) -> int:
        """See `MessageClient.ask`."""
        return self._store.ask(CountSessions())

    def ask_many(self, count: int) -> list[int]:
        """See `MessageClient.ask_many`."""
        receipts = [self._store.tell(CountSessions()) for _ in range(count)]
        return [receipt.result() for receipt in receipts]

    def tell(self) -> None:
        """See `MessageClient.tell`."""
        self._last = self._store.tell(CountSessions())
        self.sent += 1

    def settle(self) -> None:
        """Wait for the last: commands are done in their order."""
        if self._last is not None and self._last.result() != SESSIONS:
            raise WorkNotDone("a wrong answer")


# --- Pykka --------------------------------------------------------------------------------


class _Counter(pykka.ThreadingActor):
    """A stock actor that answers everything with the number of sessions."""

    use_daemon_thread = True

    def __init__(self) -> None:
        super().__init__()
        self.told = 0

    def on_receive(self, message: Any) -> Any:
        if message == "tell":
            self.told += 1
        elif message == "told":
            return self.told
        return SESSIONS


class PykkaMessages:
    """Stock Pykka: a ThreadingActor with `on_receive`."""

    def __init__(self, folder: Path) -> None:
        del folder
        self._ref = _Counter.start()

    @contextmanager
    def client(self) -> Iterator[Self]:
        """Itself."""
        yield self

    def ask(self) -> int:
        """See `MessageClient.ask`."""
        answer: int = self._ref.ask("ask", block=True, timeout=PATIENCE)
        return answer

    def ask_many(self, count: int) -> list[int]:
        """See `MessageClient.ask_many`."""
        futures = [self._ref.ask("ask", block=False) for _ in range(count)]
        return [future.get() for future in futures]

    def tell(self) -> None:
        """See `MessageClient.tell`."""
        self._ref.tell("tell")

    def settle(self) -> None:
        """Messages are done in their order."""
        self._ref.ask("ask", block=True)

    def processed(self) -> int:
        """See `MessagePeer.processed`."""
        told: int = self._ref.ask("told", block=True)
        return told

    def close(self) -> None:
        """Stop the actor."""
        self._ref.stop()


# --- queues -------------------------------------------------------------------------------


class QueueMessages:
    """The least that can be had: a thread, a queue for it, and a queue for each that asks."""

    def __init__(self, folder: Path) -> None:
        del folder
        self.requests: queue.SimpleQueue[queue.SimpleQueue[int] | None] = queue.SimpleQueue()
        self._stopped = False
        self._told = 0
        self._thread = threading.Thread(target=self._serve, name="bench-queue", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            answers = self.requests.get()
            if answers is not None:
                answers.put(SESSIONS)
            elif self._stopped:
                return
            else:
                self._told += 1

    @contextmanager
    def client(self) -> Iterator[QueueClient]:
        """One with a queue of its own for its answers."""
        yield QueueClient(self.requests)

    def processed(self) -> int:
        """See `MessagePeer.processed`."""
        return self._told

    def close(self) -> None:
        """Stop the thread."""
        self._stopped = True
        self.requests.put(None)
        self._thread.join()


class QueueClient:
    """One thread's end of the queues."""

    def __init__(self, requests: queue.SimpleQueue[queue.SimpleQueue[int] | None]) -> None:
        self._requests = requests
        self._answers: queue.SimpleQueue[int] = queue.SimpleQueue()

    def ask(self) -> int:
        """See `MessageClient.ask`."""
        self._requests.put(self._answers)
        return self._answers.get()

    def ask_many(self, count: int) -> list[int]:
        """See `MessageClient.ask_many`."""
        for _ in range(count):
            self._requests.put(self._answers)
        return [self._answers.get() for _ in range(count)]

    def tell(self) -> None:
        """See `MessageClient.tell`."""
        self._requests.put(None)

    def settle(self) -> None:
        """Messages are done in their order."""
        self.ask()


SERVER = "GenServer"
PYKKA = "Pykka"

MESSAGE_PEERS: tuple[MessagePeerSpec, ...] = (
    MessagePeerSpec(SERVER, ServerMessages),
    MessagePeerSpec("sessionkeeper, memory", KeeperMessages),
    MessagePeerSpec(PYKKA, PykkaMessages),
    MessagePeerSpec("SimpleQueue", QueueMessages),
)
