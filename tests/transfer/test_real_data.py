"""Two hundred recorded conversations, as they were published."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sessionkeeper.transfer import FieldMapping, import_file

if TYPE_CHECKING:
    from sessionkeeper import SessionStore

DATA = Path(__file__).parents[2].parent / "shared" / "data" / "tau_bench_airline_gpt4o.json.gz"


@pytest.mark.skipif(not DATA.exists(), reason="the recorded conversations are not here")
def test_recorded_conversations_come_back_deep_equal(store: SessionStore) -> None:
    mapping = FieldMapping.of(
        session_id="{task_id}-{trial}",
        messages="traj",
        cost="info.user_cost",
        tags=["trial-{trial}"],
        metadata={"reward": "reward"},
        state="info",
    )

    imported = import_file(store, DATA, mapping)

    assert (imported.sessions, imported.messages) == (200, 5308)
    assert len(store) == 200
    for item in json.loads(gzip.decompress(DATA.read_bytes())):
        session = store.load_session(f"{item['task_id']}-{item['trial']}")
        assert session.messages == item["traj"]
        assert session.state == item["info"]
        assert session.total_cost == (item["info"]["user_cost"] or 0.0)
        assert session.tags == (f"trial-{item['trial']}",)
        assert session.metadata == {"reward": item["reward"]}
