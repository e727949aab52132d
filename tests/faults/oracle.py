"""What a store may hold after a crash, given what was sent and what was acknowledged."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal

from sessionkeeper import SessionNotFound
from sessionkeeper.keys import split_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sessionkeeper import SessionScope, SessionStore


@dataclass(frozen=True, slots=True)
class State:
    """One session: its messages, or None; and the version deleted last, or None."""

    messages: tuple[str, ...] | None = None
    trashed: tuple[str, ...] | None = None


NOTHING: Final = State()
Allowed = dict[str, frozenset[State]]
Kind = Literal["append", "save", "delete", "undelete"]


@dataclass(frozen=True, slots=True)
class Sent:
    """A change was sent to the store."""

    number: int
    kind: Kind
    session_id: str
    messages: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Answered:
    """It was answered: `done`, `refused` (it certainly did not happen) or `unknown`.

    Or `nothing`: there was nothing to delete. A change whose outcome is unknown may still turn up
    with the next recovery, which is what decides it.
    """

    number: int
    outcome: Literal["done", "refused", "unknown", "nothing"]


@dataclass(frozen=True, slots=True)
class Observed:
    """A reader saw this: from now on it is what the store holds."""

    states: tuple[tuple[str, State], ...]


Happening = Sent | Answered | Observed


class Lost(AssertionError):
    """The store holds something that it must not hold, or lacks something."""


def after(state: State, sent: Sent) -> State:
    """The state that a change makes."""
    match sent.kind:
        case "append":
            return replace(state, messages=(*(state.messages or ()), *sent.messages))
        case "save":
            return replace(state, messages=sent.messages)
        case "delete":
            return state if state.messages is None else State(None, state.messages)
        case "undelete":
            return state if state.messages is not None else replace(state, messages=state.trashed)


def allowed(before: Mapping[str, frozenset[State]], happened: Iterable[object]) -> Allowed:
    """What each session may be after all that happened.

    Changes of one session are applied in the order in which they were sent, so of those that are
    not answered any number of the first may have happened.
    """
    found: Allowed = dict(before)
    changes: dict[str, list[Sent]] = {}
    outcomes: dict[int, str] = {}
    for event in happened:
        match event:
            case Sent():
                changes.setdefault(event.session_id, []).append(event)
            case Answered():
                outcomes[event.number] = event.outcome
            case Observed():
                # A reader saw one of the states allowed so far; `check` has made sure of it.
                for session_id, state in event.states:
                    found[session_id] = frozenset({state})
                changes.clear()
    for session_id, sent in changes.items():
        found[session_id] = _folded(found.get(session_id, frozenset({NOTHING})), sent, outcomes)
    return found


def _folded(
    states: frozenset[State],
    changes: Iterable[Sent],
    outcomes: dict[int, str],
) -> frozenset[State]:
    current, ends = set(states), set[State]()
    for sent in changes:
        outcome = outcomes.get(sent.number)
        if outcome == "refused":
            continue
        if outcome == "nothing":
            if all(state.messages is not None for state in current):
                raise Lost(f"{sent.session_id} was there when change {sent.number} found nothing")
            continue
        done = {after(state, sent) for state in current}
        if outcome == "done":
            current, ends = done, set()
        elif outcome == "unknown":
            current |= done
        else:
            ends |= current
            current = done
    return frozenset(current | ends)


def at(store: SessionStore, key: str) -> tuple[SessionStore | SessionScope, str]:
    """Where a session lies, and its id there; its key may name a namespace."""
    namespace, session_id = split_key(key)
    return (store.scope(namespace) if namespace else store), session_id


def observe(store: SessionStore, session_ids: Iterable[str]) -> dict[str, State]:
    """What the store holds of these sessions, trash included."""
    found: dict[str, State] = {}
    for session_id in session_ids:
        view, name = at(store, session_id)
        try:
            messages = tuple(view.load_session(name).messages)
        except SessionNotFound:
            messages = None
        document = store._view._backend.trashed(session_id)
        trashed = None if document is None else tuple(document.session().messages)
        found[session_id] = State(messages, trashed)
    return found


def check(found: Mapping[str, State], expected: Allowed, where: str) -> None:
    """Every session is in a state that is allowed.

    Raises:
        Lost: One is not.
    """
    for session_id, states in expected.items():
        state = found.get(session_id, NOTHING)
        if state not in states:
            wanted = " or ".join(_short(one) for one in states)
            raise Lost(f"{where}: {session_id} is {_short(state)}, not {wanted}")


def _short(state: State) -> str:
    shown = [
        "absent" if part is None else "[" + " ".join(text[:12] for text in part) + "]"
        for part in (state.messages, state.trashed)
    ]
    return f"{shown[0]} (trash: {shown[1]})"
