"""Imports the installed wheel, without extras, and stores a session with it."""

import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import sessionkeeper
from sessionkeeper import SessionStore

package = Path(sessionkeeper.__file__).parent
assert "site-packages" in package.parts, package
assert (package / "py.typed").is_file()

with tempfile.TemporaryDirectory() as folder:
    with SessionStore.open(folder) as store:
        store.append("s1", [{"role": "user", "content": "hello"}])
    with SessionStore.open(folder, read_only=True) as store:
        assert store.load_session("s1").messages[0]["content"] == "hello"

command = Path(sys.executable).parent / "sessionkeeper"
done = subprocess.run([command, "list"], capture_output=True, text=True, check=False)
assert done.returncode == 1, done
assert "sessionkeeper[cli]" in done.stderr, done.stderr
print(f"sessionkeeper {version('sessionkeeper')} works as installed")
