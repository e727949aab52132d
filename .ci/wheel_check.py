"""Imports the installed wheel, without extras, and stores a session with it."""

import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import sessionkeeper
from sessionkeeper import SessionStore

package = Path(sessionkeeper.__file__).parent
assert "site-packages" in package.parts, package  # noqa: S101 - the check itself
assert (package / "py.typed").is_file()  # noqa: S101 - the check itself

with tempfile.TemporaryDirectory() as folder:
    with SessionStore.open(folder) as store:
        store.append("s1", [{"role": "user", "content": "hello"}])
    with SessionStore.open(folder, read_only=True) as store:
        assert store.load_session("s1").messages[0]["content"] == "hello"  # noqa: S101 - the same

command = Path(sys.executable).parent / "sessionkeeper"
done = subprocess.run([command, "list"], capture_output=True, text=True, check=False)  # noqa: S603 - our own
assert done.returncode == 1, done  # noqa: S101 - without the extra it prints a hint
assert "sessionkeeper[cli]" in done.stderr, done.stderr  # noqa: S101 - the same
print(f"sessionkeeper {version('sessionkeeper')} works as installed")  # noqa: T201 - the result
