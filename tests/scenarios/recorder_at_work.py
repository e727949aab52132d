"""Records a session until it is killed: `recorder_at_work.py FOLDER`."""

from __future__ import annotations

import itertools
import sys

from spoken import tell

from sessionkeeper import SessionManager, SessionStore


def main(folder: str) -> None:
    with SessionStore.open(folder, preset="recorder") as store:
        manager = SessionManager(store)
        recovered = manager.recover_session()
        session_id = recovered or manager.start_session("Set up the database")
        tell("recording", session_id=session_id, recovered=recovered is not None)
        for step in itertools.count(1):
            manager.append([{"command": f"step {step}"}])
            if step % 3 == 0:
                manager.change(state={"commands": step})
                manager.force_save()
            elif step % 5 == 0:
                manager.annotate(f"Step {step} is complete.")
            else:
                continue
            tell("saved", step=step)


if __name__ == "__main__":
    main(*sys.argv[1:])
