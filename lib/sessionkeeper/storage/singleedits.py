"""A single file edited or removed by hand: taken, merged with what is written, never lost."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sessionkeeper.storage.backend import SETTLE, Problem, Reconciled
from sessionkeeper.storage.singlereader import State
from sessionkeeper.storage.singlewriter import Edit, SingleFileWriter

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sessionkeeper.storage.backend import ProblemKind
    from sessionkeeper.storage.onefile import Contents, Damage, Slot
    from sessionkeeper.storage.platform import Signature


class EditableSingleFile(SingleFileWriter):
    """A single file that people may work in while the store is open."""

    def reconcile(self, names: Sequence[str], lsn: int) -> Reconciled:
        """Look at the file, which may have been changed by hand. See `Backend.reconcile`."""
        self._check_identity()
        result = Reconciled(lsn=lsn)
        if self._file.name not in names:
            return result
        found = self._look_as_owner()
        if isinstance(found, Problem):
            # What is in memory is served; a change would have to replace the file.
            self._note(found, result.problems)
            return result
        state = self._state
        current = None if found is None else found[1]
        changed = current != self._signature or state.blocked is not None
        if changed and self._may_be_unfinished(found, current):
            result.unsettled.append(self._file.name)
            return result
        edits, self._edits = self._edits, []
        for edit in edits:
            state = self._merged(edit, state, result)
        if changed:
            state = self._taken(found, state, result)
        if state is not self._state:
            self._store(state, result)
        elif changed and current != self._signature:
            self._edits = edits  # what could not be kept is tried again, in the same order
        return result

    def _may_be_unfinished(
        self,
        found: tuple[Contents, Signature] | None,
        current: Signature | None,
    ) -> bool:
        """Whether a file that is gone, or damaged, has not been so for long."""
        if found is not None and found[0].torn is None and not found[0].damaged:
            self._damaged = None
            return False
        now = self._clock.monotonic()
        if self._damaged is not None and self._damaged[0] == current:
            if now - self._damaged[1] < SETTLE:
                return True
            self._damaged = None
            return False
        self._damaged = (current, now)
        return True

    def _taken(
        self,
        found: tuple[Contents, Signature] | None,
        state: State,
        result: Reconciled,
    ) -> State:
        """The state with what somebody made of the file; what that replaces is kept.

        Nothing is written to the file yet.
        """
        if found is None:
            result.vanished += list(state.slots)
            self._keep_state()
            self._vanish(state.slots, result.problems, "the file was removed by hand")
            self._signature = None
            return State()
        contents, signature = found
        merged = state
        if contents.torn is None:
            merged = self._merged(Edit(contents, self._state.slots), state, result)
        if merged.slots == state.slots and contents.torn is None and not contents.damaged:
            self._signature = signature
            # Only laid out anew, or what could not be read has gone.
            return state if merged == state else merged
        try:
            self._kept.keep_edit(self._file, result.lsn)
            if self._repairs:
                self._quarantine_all(contents.damaged, contents.torn)
        except OSError as error:
            self._tell("ignored", self._file, f"not taken yet, it could not be kept: {error}")
            detail = f"made or edited by hand, and not taken yet: {error}"
            result.problems[:] = [self._problem("unreadable", detail)]
            result.vanished.clear()
            result.records.clear()
            return self._state
        if contents.torn is not None:
            result.problems.append(self._problem("corrupt", contents.torn))
        self._keep_state()
        self._signature = signature
        # A new object: the file is to be written, also if it was only damaged.
        return replace(merged)

    def _merged(self, edit: Edit, state: State, result: Reconciled) -> State:
        """The state with an edit, but for sessions that were changed since."""
        slots = dict(state.slots)
        made: dict[str, Slot] = {}
        for slot in edit.contents.slots:
            result.problems += self._enter(made, slot)
        for key, slot in made.items():
            before = edit.base.get(key)
            if before is not None and slot.document == before.document:
                continue
            if state.slots.get(key) is not before:
                continue  # a write came before it, and the edit is kept aside
            slots[key] = self._adopted(slot, before.record if before else None, result)
            result.records.append(slots[key].record)
        stuck = self._stuck_after(edit.contents, made, result)
        unnamed = any(damage.session_id is None for damage in edit.contents.damaged)
        damaged = {d.session_id for d in edit.contents.damaged if not d.newer and self._repairs}
        if edit.contents.torn is None and not unnamed:
            missing = {
                key: slot
                for key, slot in edit.base.items()
                if key not in made and key not in damaged and state.slots.get(key) is slot
            }
            for key in missing:
                del slots[key]
            result.vanished += missing
            self._vanish(missing, result.problems, "it was removed by hand")
        for healed in damaged & slots.keys():
            self._tell("healed", self._file, "its damaged version was replaced", healed)
        return State(slots, stuck)

    def _stuck_after(
        self,
        contents: Contents,
        made: Mapping[str, Slot],
        result: Reconciled,
    ) -> tuple[Damage, ...]:
        for damage in contents.damaged:
            kind: ProblemKind = "newer-version" if damage.newer else "corrupt"
            result.problems.append(self._problem(kind, damage.detail, damage.session_id))
        return tuple(
            damage
            for damage in contents.damaged
            if (damage.newer or not self._repairs) and damage.session_id not in made
        )

    def _store(self, state: State, result: Reconciled) -> None:
        """Bring the file up to what was taken."""
        if self._current() is None and not state.slots and not state.stuck:
            self._state = state
            return
        try:
            temporary, signature = self._write(state)
        except OSError as error:  # it is all kept aside; the next change writes it
            self._state, self._behind = state, True
            self._tell("ignored", self._file, f"not written yet: {error}")
        else:
            self._publish(state, temporary, signature, keep=False)
        self._lsn = max(self._lsn, result.lsn)
