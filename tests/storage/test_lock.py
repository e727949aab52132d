from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sessionkeeper import SessionStore, StoreClosed, StoreLocked
from sessionkeeper.layout import Layout
from sessionkeeper.storage import lock
from sessionkeeper.storage.lock import owner_of

OWNER = """
import sys
from sessionkeeper import SessionStore
store = SessionStore.open(sys.argv[1], watch=False)
store.save_session("theirs", [1])
print("ready", flush=True)
sys.stdin.read()
"""


def test_a_second_store_of_this_process_is_refused(folder: Path) -> None:
    with SessionStore.open(folder, watch=False):
        with pytest.raises(StoreLocked) as refused:
            SessionStore.open(folder, watch=False)
        assert refused.value.holder["pid"] == os.getpid()
    SessionStore.open(folder, watch=False).close()


def test_another_process_is_named_and_its_death_frees_the_folder(folder: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"ready\n"
        with pytest.raises(StoreLocked) as refused:
            SessionStore.open(folder, watch=False)
        assert refused.value.holder["pid"] == owner.pid
        assert str(owner.pid) in str(refused.value)
        with SessionStore.open(folder, read_only=True) as beside:
            assert beside.load_session("theirs").messages == [1]
        owner.kill()
        owner.wait(10)
    with SessionStore.open(folder, watch=False) as store:
        assert store.load_session("theirs").messages == [1]


def test_a_forked_child_neither_writes_nor_frees_the_folder(folder: Path) -> None:
    with SessionStore.open(folder, watch=False) as store:
        store.save_session("s1", [1])
        read, write = os.pipe()
        child = os.fork()
        if child == 0:  # pragma: no cover - runs in the child
            answer = b"nothing"
            try:
                store.save_session("s1", [2])
            except StoreClosed:
                answer = b"refused"
            except BaseException as error:  # noqa: BLE001 - the child must end here
                answer = repr(error).encode()
            os.write(write, answer)
            os._exit(0)
        os.waitpid(child, 0)
        os.close(write)
        assert os.read(read, 1000) == b"refused"
        os.close(read)
        with pytest.raises(StoreLocked):
            SessionStore.open(folder, watch=False)
        store.append("s1", [3])
        assert store.load_session("s1").messages == [1, 3]


def test_a_folder_whose_holder_cannot_be_noted_is_not_kept_locked(folder: Path) -> None:
    killed = [sys.executable, "-c", OWNER.replace("sys.stdin.read()", "import os; os._exit(0)")]
    subprocess.run([*killed, str(folder)], check=True, timeout=60, stdout=subprocess.DEVNULL)
    holder = folder / ".sessionkeeper" / "holder"
    before = holder.read_bytes()
    in_the_way = folder / ".sessionkeeper" / "tmp" / f"holder-{os.getpid()}.tmp"
    in_the_way.mkdir()
    with pytest.raises(OSError, match=in_the_way.name):
        SessionStore.open(folder, watch=False)
    assert holder.read_bytes() == before, "which tells that the store was not closed"
    in_the_way.rmdir()
    with SessionStore.open(folder, watch=False) as store:
        assert store.load_session("theirs").messages == [1]


FORKING_OWNER = """
import os, signal, sys
from sessionkeeper import SessionStore
store = SessionStore.open(sys.argv[1], watch=False)
store.save_session("theirs", [1])
child = os.fork()
if child == 0:
    print(os.getpid(), flush=True)
signal.pause()
"""


def test_a_forked_child_does_not_keep_the_folder_beyond_its_parents_death(folder: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", FORKING_OWNER, str(folder)],
        stdout=subprocess.PIPE,
    ) as owner:
        assert owner.stdout is not None
        child = int(owner.stdout.readline())
        try:
            owner.kill()
            owner.wait(10)
            with SessionStore.open(folder, watch=False) as store:
                assert store.load_session("theirs").messages == [1]
        finally:
            os.kill(child, signal.SIGKILL)


@pytest.mark.parametrize("table", ["/proc/locks", "/proc/there-is-none"])
def test_who_owns_a_folder_is_told_without_a_lock(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    table: str,
) -> None:
    monkeypatch.setattr(lock, "LOCK_TABLE", Path(table))
    layout = Layout.of(folder, "flat")
    assert owner_of(layout) == {}
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"ready\n"
        assert owner_of(layout)["pid"] == owner.pid
        owner.kill()
        owner.wait(10)
    # Killed, it left its name behind.
    assert layout.holder.exists()
    assert owner_of(layout) == {}
