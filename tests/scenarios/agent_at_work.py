"""An agent that works until it is killed: `agent_at_work.py FOLDER SESSION`."""

from __future__ import annotations

import itertools
import sys

from spoken import tell

from sessionkeeper import SessionStore


def main(folder: str, session_id: str) -> None:
    with SessionStore.open(folder, preset="agent") as store:
        first = {"type": "system", "data": {"session_id": session_id}}
        store.save_session(session_id, [first], tags=["code-review"], status="active")
        tell("begun")
        for turn in itertools.count(1):
            said = {"type": "assistant", "data": {"message": {"content": f"finding {turn}"}}}
            cost = {"type": "result", "data": {"turn": turn, "total_cost_usd": 0.25}}
            store.append(session_id, [said, cost])
            tell("done", turn=turn)


if __name__ == "__main__":
    main(*sys.argv[1:])
