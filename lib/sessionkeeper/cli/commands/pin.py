"""`sessionkeeper pin` and `unpin`."""

from sessionkeeper.changing import Changing
from sessionkeeper.cli.changes import Done, change_each
from sessionkeeper.cli.options import IdsArgument, JsonOption
from sessionkeeper.cli.places import Place, on_sessions


@on_sessions
def pin(place: Place, session_ids: IdsArgument, *, as_json: JsonOption = False) -> None:
    """Keep sessions whatever the retention settings say.

    They can still be deleted. Columns: session, generation.

    Example: sessionkeeper --path var/agent pin s1 s2
    """

    def change(store: Changing, session_id: str) -> Done:
        return Done("pinned", {"generation": store.pin(session_id).generation})

    change_each(place, session_ids, change, as_json=as_json)


@on_sessions
def unpin(place: Place, session_ids: IdsArgument, *, as_json: JsonOption = False) -> None:
    """Let the retention settings decide about sessions again.

    Columns: session, generation.

    Example: sessionkeeper --path var/agent unpin s1
    """

    def change(store: Changing, session_id: str) -> Done:
        return Done("not pinned", {"generation": store.unpin(session_id).generation})

    change_each(place, session_ids, change, as_json=as_json)
