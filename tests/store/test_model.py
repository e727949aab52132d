"""The store against a model in a dict: random commands, crashes, restarts and hand edits."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from sessionkeeper import (
    AppendMessages,
    Changes,
    Conflict,
    InvalidValue,
    NotResumable,
    Session,
    SessionExists,
    SessionNotFound,
    SessionScope,
    SessionStore,
)
from sessionkeeper.keys import key_of, split_key
from sessionkeeper.processes.actor import Suspects
from sessionkeeper.testing import Fault, FaultyFileSystem, Injected, InjectedCrash, crash_actor
from sessionkeeper.transfer import export_session, import_session

names = st.sampled_from(["a", "A", "b:c", "x" * 300, "é"])
# The same ids in two namespaces: a session is named by both together.
ids = st.tuples(st.sampled_from(["", "", "team"]), names)
Id = tuple[str, str]
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
).filter(lambda value: "\\ud8" not in ascii(value) and "\\udc" not in ascii(value))
messages = st.lists(values, max_size=3)


@dataclass(frozen=True)
class Model:
    generation: int
    messages: list[Any]
    state: Any = None
    tags: tuple[str, ...] = ()
    pinned: bool = False
    notes: tuple[str, ...] = ()
    title: str | None = None
    status: str | None = None
    keys: dict[str, int] = field(default_factory=dict)
    # What it was, by generation, as far as anybody looked at it.
    versions: dict[int, Model] = field(default_factory=dict, compare=False)

    def changed(self, **changes: Any) -> Model:
        """The next generation."""
        return replace(self, generation=self.generation + 1, **changes)


class StoreMachine(RuleBasedStateMachine):
    """Every rule does the same to the store and to the model."""

    max_records = 20_000

    @initialize(durability=st.sampled_from(["journal", "file", "os"]))
    def start(self, durability: str) -> None:
        self.durability = durability
        self.root = Path(tempfile.mkdtemp())
        self.fs = FaultyFileSystem()
        self.model: dict[Id, Model] = {}
        self.trash: dict[Id, Model] = {}
        self.open()

    def open(self) -> None:
        self.crashes = 0
        self.planned = 0
        self.store = SessionStore.open(
            self.root / "store",
            watch=False,
            durability=self.durability,
            max_restarts=1000,
            cache_bytes=3000,
            max_records=self.max_records,
            call_timeout=30.0,
            inject=Injected(fs=self.fs),
        )

    def view(self, namespace: str) -> SessionStore | SessionScope:
        return self.store.scope(namespace) if namespace else self.store

    def at(self, session_id: Id) -> SessionStore | SessionScope:
        return self.view(session_id[0])

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.fs.heal()
            self.store.close()
            shutil.rmtree(self.root)

    @rule(session_id=ids, new=messages, tags=st.sampled_from([[], ["t"], ["t", "u"]]))
    def save(self, session_id: Id, new: list[Any], tags: list[str]) -> None:
        before = self.model.get(session_id, Model(0, []))
        saved = self.at(session_id).save_session(session_id[1], new, tags=tags)
        self.model[session_id] = replace(
            before,
            generation=before.generation + 1,
            messages=new,
            tags=tuple(tags),
        )
        assert saved.generation == before.generation + 1

    @rule(session_id=ids, state=values)
    def save_state_only(self, session_id: Id, state: Any) -> None:
        before = self.model.get(session_id, Model(0, []))
        self.at(session_id).save_session(session_id[1], state=state)
        self.model[session_id] = replace(before, generation=before.generation + 1, state=state)

    @rule(session_id=ids, new=messages, key=st.sampled_from([None, "k1", "k2"]))
    def append(self, session_id: Id, new: list[Any], key: str | None) -> None:
        before = self.model.get(session_id, Model(0, []))
        saved = self.at(session_id).append(session_id[1], new, key=key)
        if key is not None and key in before.keys:
            assert saved.generation == before.keys[key]
            return
        if before.generation and not new:
            assert saved.generation == before.generation
            return
        generation = before.generation + 1
        keys = before.keys if key is None else {**before.keys, key: generation}
        self.model[session_id] = replace(
            before,
            generation=generation,
            messages=before.messages + new,
            keys=keys,
        )
        assert saved.message_count == len(before.messages) + len(new)

    @rule(session_id=ids, offset=st.sampled_from([-1, 0, 1]))
    def compare_and_swap(self, session_id: Id, offset: int) -> None:
        before = self.model.get(session_id, Model(0, []))
        expected = max(0, before.generation + offset)
        if expected == before.generation:
            self.at(session_id).save_session(
                session_id[1], title="swapped", expected_generation=expected
            )
            self.model[session_id] = before.changed(title="swapped")
            return
        with pytest.raises(SessionExists if expected == 0 else Conflict):
            self.at(session_id).save_session(
                session_id[1], title="swapped", expected_generation=expected
            )

    @rule(session_id=ids, new=messages, status=st.sampled_from([None, "active"]))
    def create(self, session_id: Id, new: list[Any], status: str | None) -> None:
        if session_id in self.model:
            with pytest.raises(SessionExists):
                self.at(session_id).create_session(session_id[1], new, status=status)
            return
        saved = self.at(session_id).create_session(session_id[1], new, status=status)
        assert saved.generation == 1
        self.model[session_id] = Model(1, new, status=status)

    @rule(session_id=ids, more=values)
    def update(self, session_id: Id, more: Any) -> None:
        def added(session: Session) -> Changes:
            return session.replace(messages=[*session.messages, more], title="updated")

        before = self.model.get(session_id)
        if before is None:
            with pytest.raises(SessionNotFound):
                self.at(session_id).update(session_id[1], added)
            return
        self.at(session_id).update(session_id[1], added)
        self.model[session_id] = before.changed(messages=[*before.messages, more], title="updated")

    @rule(session_id=ids, new=st.lists(messages.filter(bool), min_size=1, max_size=4))
    def tell(self, session_id: Id, new: list[list[Any]]) -> None:
        before = self.model.get(session_id, Model(0, []))
        view = self.at(session_id)
        receipts = [view.tell(AppendMessages(session_id[1], each)) for each in new]
        for each, receipt in zip(new, receipts, strict=True):
            before = before.changed(messages=before.messages + each)
            assert receipt.result(30.0).generation == before.generation
        self.model[session_id] = before

    @rule(session_id=ids, status=st.sampled_from([None, "active", "paused", "completed", "own"]))
    def set_status(self, session_id: Id, status: str | None) -> None:
        before = self.model.get(session_id, Model(0, []))
        self.at(session_id).save_session(session_id[1], status=status)
        self.model[session_id] = before.changed(status=status)

    @rule(session_id=ids)
    def resume(self, session_id: Id) -> None:
        before = self.model.get(session_id)
        if before is None or before.status not in ("active", "paused"):
            with pytest.raises((SessionNotFound, NotResumable)):
                self.at(session_id).resume(session_id[1])
            return
        assert self.at(session_id).resume(session_id[1]).status == "active"
        self.model[session_id] = before.changed(status="active")

    @rule(session_id=ids)
    def delete(self, session_id: Id) -> None:
        assert self.at(session_id).delete_session(session_id[1]) is (session_id in self.model)
        if session_id in self.model:
            self.trash[session_id] = self.model.pop(session_id)

    @rule(session_id=ids)
    def undelete(self, session_id: Id) -> None:
        if session_id in self.model:
            with pytest.raises(SessionExists):
                self.at(session_id).undelete_session(session_id[1])
        elif session_id not in self.trash:
            with pytest.raises(SessionNotFound):
                self.at(session_id).undelete_session(session_id[1])
        else:
            back = self.trash[session_id]
            self.at(session_id).undelete_session(session_id[1])
            self.model[session_id] = replace(back, generation=back.generation + 1)

    # --- what changes little, or much ---------------------------------------------------------

    @rule(session_id=ids, tags=st.sets(st.sampled_from(["t", "u", "v"]), min_size=1))
    def add_tags(self, session_id: Id, tags: set[str]) -> None:
        before = self.model.get(session_id)
        if before is None:
            with pytest.raises(SessionNotFound):
                self.at(session_id).add_tags(session_id[1], tags)
            return
        added = [tag for tag in tags if tag not in before.tags]
        saved = self.at(session_id).add_tags(session_id[1], tags)
        assert saved.generation == before.generation + bool(added)
        self.model[session_id] = replace(
            before,
            generation=saved.generation,
            tags=(*before.tags, *added),
        )

    @rule(session_id=ids, tag=st.sampled_from(["t", "u", "v"]))
    def remove_tag(self, session_id: Id, tag: str) -> None:
        before = self.model.get(session_id)
        if before is None:
            with pytest.raises(SessionNotFound):
                self.at(session_id).remove_tags(session_id[1], [tag])
            return
        saved = self.at(session_id).remove_tags(session_id[1], [tag])
        assert saved.generation == before.generation + (tag in before.tags)
        tags = tuple(one for one in before.tags if one != tag)
        self.model[session_id] = replace(before, generation=saved.generation, tags=tags)

    @rule(session_id=ids, pinned=st.booleans())
    def pin(self, session_id: Id, pinned: bool) -> None:  # noqa: FBT001 - drawn
        before = self.model.get(session_id)
        view = self.at(session_id)
        call = view.pin if pinned else view.unpin
        if before is None:
            with pytest.raises(SessionNotFound):
                call(session_id[1])
            return
        saved = call(session_id[1])
        assert saved.generation == before.generation + (pinned != before.pinned)
        self.model[session_id] = replace(before, generation=saved.generation, pinned=pinned)

    @rule(session_id=ids, text=st.sampled_from(["first", "ü"]))
    def annotate(self, session_id: Id, text: str) -> None:
        before = self.model.get(session_id)
        if before is None:
            with pytest.raises(SessionNotFound):
                self.at(session_id).annotate(session_id[1], text)
            return
        self.at(session_id).annotate(session_id[1], text)
        self.model[session_id] = replace(
            before,
            generation=before.generation + 1,
            notes=(*before.notes, text),
        )

    @rule(session_id=ids, data=values)
    def add_event(self, session_id: Id, data: Any) -> None:
        before = self.model.get(session_id)
        if before is None:
            with pytest.raises(SessionNotFound):
                self.at(session_id).add_event(session_id[1], "kind", data)
            return
        event = self.at(session_id).add_event(session_id[1], "kind", data)
        self.model[session_id] = before.changed()
        assert self.at(session_id).load_session(session_id[1]).events[-1] == event

    @rule(session_id=ids, new_id=names)
    def rename(self, session_id: Id, new_id: str) -> None:
        before = self.model.get(session_id)
        new = session_id[0], new_id
        if before is None or new in self.model:
            with pytest.raises((SessionNotFound, SessionExists)):
                self.at(session_id).rename_session(session_id[1], new_id)
            return
        saved = self.at(session_id).rename_session(session_id[1], new_id)
        assert saved.generation == before.generation + 1
        self.trash[session_id] = self.model.pop(session_id)
        self.model[new] = replace(before, generation=saved.generation, versions={})

    @rule(session_id=ids, new_id=names, at=st.none() | st.integers(0, 3))
    def fork(self, session_id: Id, new_id: str, at: int | None) -> None:
        before = self.model.get(session_id)
        new = session_id[0], new_id
        if before is None or new in self.model or (at or 0) > len(before.messages):
            with pytest.raises((SessionNotFound, SessionExists, InvalidValue)):
                self.at(session_id).fork_session(session_id[1], new_id, at=at)
            return
        assert self.at(session_id).fork_session(session_id[1], new_id, at=at).generation == 1
        self.model[new] = Model(
            1,
            before.messages[:at],
            before.state,
            before.tags,
            title=before.title,
        )

    @rule(session_id=ids, message=st.integers(0, 3))
    def rewind(self, session_id: Id, message: int) -> None:
        before = self.model.get(session_id)
        if before is None or message > len(before.messages):
            with pytest.raises((SessionNotFound, InvalidValue)):
                self.at(session_id).rewind(session_id[1], message=message)
            return
        saved = self.at(session_id).rewind(session_id[1], message=message)
        assert saved.generation == before.generation + (message < len(before.messages))
        self.model[session_id] = replace(
            before,
            generation=saved.generation,
            messages=before.messages[:message],
        )

    @rule(session_id=ids, data=st.data(), rewinds=st.booleans())
    def restore(self, session_id: Id, data: st.DataObject, rewinds: bool) -> None:  # noqa: FBT001
        """Of a session that is there, one of the versions that were replaced and are kept."""
        view, before = self.at(session_id), self.model.get(session_id)
        kept = [backup.generation for backup in view.backups(session_id[1])]
        assert kept == sorted(kept, reverse=True)
        if before is None or not kept:
            return
        assert kept[0] < before.generation
        generation = data.draw(st.sampled_from(kept))
        if rewinds:
            saved = view.rewind(session_id[1], generation=generation)
        else:
            saved = view.restore(session_id[1], generation)
        assert saved.generation == before.generation + 1
        version = before.versions[generation]
        self.model[session_id] = replace(
            version,
            generation=saved.generation,
            # About the session, not about one version of it.
            pinned=before.pinned,
            keys=before.keys,
            versions=before.versions,
        )

    @rule(number=st.integers(1, 4))
    def clean_up(self, number: int) -> None:
        self.store.configure(max_sessions=number)
        # What the change of the settings began is done when this is answered.
        explained = {d.key: d.removed for d in self.store.explain_cleanup()}
        gone = {split_key(removal.key) for removal in self.store.cleanup()}
        self.store.configure(max_sessions=None)
        left = {
            (info.namespace, info.session_id)
            for view in (self.store, self.store.scope("team"))
            for info in view.list_sessions()
        }
        removed = self.model.keys() - left
        assert gone <= removed
        assert {split_key(key) for key, goes in explained.items() if goes} <= removed
        protected = {
            key
            for key, model in self.model.items()
            if model.pinned or model.status in ("active", "paused")
        }
        assert not removed & protected
        assert len(left - protected) <= number
        assert not removed or len(left) >= min(number, len(self.model))
        for key in removed:
            self.trash[key] = self.model.pop(key)

    @rule(session_id=ids, namespace=st.sampled_from(["", "team"]))
    def export_and_import(self, session_id: Id, namespace: str) -> None:
        path, before = self.root / "exported.json", self.model.get(session_id)
        if before is None:
            with pytest.raises(SessionNotFound):
                export_session(self.at(session_id), session_id[1], path, overwrite=True)
            return
        export_session(self.at(session_id), session_id[1], path, overwrite=True)
        target = namespace, session_id[1]
        there = self.model.get(target, Model(0, []))
        import_session(self.view(namespace), path, on_conflict="replace")
        # Its notes may be a change of their own; and an equal session is left as it is.
        generation = self.at(target).load_session(target[1]).generation
        assert there.generation <= generation <= there.generation + 2
        self.model[target] = replace(
            before,
            generation=generation,
            pinned=there.pinned,
            keys=there.keys,
            versions=there.versions,
        )

    @precondition(lambda self: len(self.model) > 2)
    @rule(namespace=st.sampled_from(["", "team"]))
    def clear(self, namespace: str) -> None:
        gone = {key: model for key, model in self.model.items() if key[0] == namespace}
        assert self.view(namespace).clear() == len(gone)
        self.trash.update(gone)
        for key in gone:
            del self.model[key]

    @rule(session_id=ids)
    def erase(self, session_id: Id) -> None:
        self.on_the_disk()
        self.at(session_id).erase_session(session_id[1])
        self.model.pop(session_id, None)
        self.trash.pop(session_id, None)

    def may_crash(self) -> None:
        # Each crash in a row is followed by a longer pause; a new store begins anew.
        if self.crashes >= 3:
            self.reopen()
        self.crashes += 1

    # --- persistence ------------------------------------------------------------------------

    @rule()
    def switch_persistence(self) -> None:
        self.store.enable_persistence(not self.store.info().persistence)

    def on_the_disk(self) -> None:
        self.fs.heal()
        self.store.enable_persistence()
        assert self.store.info().unsaved == 0

    @rule()
    def crash(self) -> None:
        self.may_crash()
        crash_actor(self.store)

    @rule(
        operation=st.sampled_from(
            ["write_new", "write_at", "sync_data", "sync", "replace", "sync_folder", "sync_files"],
        ),
        skip=st.integers(0, 3),
        after=st.booleans(),
    )
    def crash_soon(self, operation: str, skip: int, after: bool) -> None:  # noqa: FBT001 - drawn
        # A command that meets three crashes is given up, by design; two may lie ahead of it.
        if self.planned >= 2:
            self.reopen()
        self.may_crash()
        self.planned += 1
        self.fs.fail(Fault(operation, InjectedCrash("soon"), skip=skip, after=after))

    @rule()
    def reopen(self) -> None:
        self.on_the_disk()
        self.store.close()
        self.open()
        assert self.store.last_recovery.problems == []

    @rule()
    def checkpoint(self) -> None:
        self.on_the_disk()
        self.store.checkpoint()

    @precondition(lambda self: self.model)
    @rule(data=st.data(), new=messages)
    def edit_by_hand(self, data: st.DataObject, new: list[Any]) -> None:
        self.may_crash()
        session_id = data.draw(st.sampled_from(sorted(self.model)))
        self.on_the_disk()
        # One that is under way could publish between our look at the file and our edit of it.
        self.store.checkpoint()
        more = data.draw(messages)
        if more:
            self.append(session_id, more, None)
        name = self.store._view._backend.file_name(key_of(*session_id))
        path = self.root / "store" / name
        fields = json.loads(path.read_bytes())
        before = self.model[session_id]
        # What the file does not show yet was acknowledged, and follows whatever is written there.
        unpublished = before.messages[len(fields["messages"]) :]
        fields["messages"] = new
        path.write_text(json.dumps(fields))
        crash_actor(self.store)
        self.find_edit(name)
        self.store.flush()
        self.model[session_id] = replace(
            before,
            generation=before.generation + 1,
            messages=new + unpublished,
        )

    def find_edit(self, name: str) -> None:
        """The recovery does, which looks at every file."""

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "store"):
            return
        self.store.flush()
        views = self.store, self.store.scope("team")
        infos = [info for view in views for info in view.list_sessions()]
        assert {(info.namespace, info.session_id) for info in infos} == self.model.keys()
        assert self.store.namespaces() == sorted({key[0] for key in self.model} - {""})
        for view in views:
            assert len(view) == len(view.list_sessions())
        for session_id, expected in self.model.items():
            session = self.at(session_id).load_session(session_id[1])
            assert session.messages == expected.messages
            assert session.state == expected.state
            assert session.tags == expected.tags
            assert session.info.pinned == expected.pinned
            assert tuple(note.text for note in session.annotations) == expected.notes
            assert session.generation == expected.generation
            assert (session.title, session.status) == (expected.title, expected.status)
            assert self.at(session_id).validate_session(session_id[1]) == []
            expected.versions[expected.generation] = expected
        for namespace in ("", "team"):
            view = self.view(namespace)
            own = {key[1]: model for key, model in self.model.items() if key[0] == namespace}
            assert [info.session_id for info in view.iter_sessions()] == sorted(own)
            for tag in ("t", "u", "v"):
                tagged = {info.session_id for info in view.search(tags=[tag])}
                assert tagged == {name for name, model in own.items() if tag in model.tags}
            paused = {info.session_id for info in view.search(status="paused", all_tags=["t"])}
            assert paused == {
                name
                for name, model in own.items()
                if model.status == "paused" and "t" in model.tags
            }
            assert len(view.get_recent(2)) == min(2, len(own))


StoreMachine.TestCase.settings = settings(
    # The gate takes more of both.
    max_examples=int(os.environ.get("MODEL_EXAMPLES", "25")),
    stateful_step_count=int(os.environ.get("MODEL_STEPS", "25")),
    deadline=None,
)
TestModel = StoreMachine.TestCase


class BoundedMachine(StoreMachine):
    """The same with a store of whose sessions most are looked up in the index."""

    max_records = 1

    def find_edit(self, name: str) -> None:
        """As the watcher would: the recovery looks at what the journal names."""
        assert self.store._tree is not None
        self.store._tree.actor.post(Suspects((name,)))


# What both do alike is the other one's business.
BoundedMachine.TestCase.settings = settings(
    StoreMachine.TestCase.settings,
    max_examples=max(10, StoreMachine.TestCase.settings.max_examples // 4),
)
TestBounded = BoundedMachine.TestCase
