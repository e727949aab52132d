"""`sessionkeeper stats`."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sessionkeeper.answers import StorageStats
from sessionkeeper.cli.infos import all_infos
from sessionkeeper.cli.options import JsonOption
from sessionkeeper.cli.output import print_json, print_pairs
from sessionkeeper.cli.places import Place, on_store, open_for_reading
from sessionkeeper.cli.text import iso
from sessionkeeper.session import SessionInfo
from sessionkeeper.storage.backend import Problem
from sessionkeeper.storage.usage import measure


@on_store
def stats(
    place: Place,
    *,
    as_json: JsonOption = False,
) -> None:
    """Count what is in a store, in all namespaces together.

    What was wrong in its folder when it was opened is listed as problems.

    Example: sessionkeeper --path var/agent stats --json
    """
    with open_for_reading(place) as store:
        infos = all_infos(store)
        problems = store.last_recovery.problems
        usage = measure(place.layout)
    if as_json:
        print_json(_as_json(store.path, infos, usage, problems))
    else:
        print_pairs(_pairs(_as_json(store.path, infos, usage, problems)))


def _as_json(
    path: Path,
    infos: Sequence[SessionInfo],
    usage: StorageStats,
    problems: Sequence[Problem],
) -> dict[str, Any]:
    return {
        "path": str(path),
        "sessions": len(infos),
        "messages": sum(info.message_count for info in infos),
        "total_cost": math.fsum(info.total_cost for info in infos),
        "oldest": iso(min(info.created_at for info in infos)) if infos else None,
        "newest": iso(max(info.updated_at for info in infos)) if infos else None,
        "storage": asdict(usage),
        "problems": [
            {"kind": p.kind, "file": p.path.name, "detail": p.detail, "session_id": p.session_id}
            for p in problems
        ],
    }


def _pairs(found: dict[str, Any]) -> list[tuple[str, str]]:
    problems = found.pop("problems")
    storage = found.pop("storage")
    pairs = [(name, "" if value is None else str(value)) for name, value in found.items()]
    pairs += [(name.replace("_", " "), str(number)) for name, number in storage.items()]
    pairs.append(("problems", str(len(problems))))
    pairs += [("problem", f"{p['kind']}: {p['file']}: {p['detail']}") for p in problems]
    return pairs
