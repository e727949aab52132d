"""Rounds: threads that start together repeat one operation; the peers take turns.

A round ends for each thread after a time or a number of operations, whichever comes first. Its
rate is all operations over the time from the common start to the end of the last thread. Rounds
of the peers are interleaved, so that a drift of the machine or its disk hits all of them.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

# Opening a connection for each of 64 threads is not measured, but it must end.
_START_TIMEOUT = 60.0


class WorkNotDone(Exception):
    """A peer did not do the work it was measured at."""


def _nothing() -> None:
    pass


@dataclass(frozen=True, slots=True)
class Job:
    """What one thread does in a round.

    Attributes:
        operate: One operation; repeated.
        settle: Called once after the last operation: wait until all that was sent is done. It
            counts as part of the round.
    """

    operate: Callable[[], object]
    settle: Callable[[], object] = _nothing


class Trial(Protocol):
    """One peer at one piece of work."""

    def worker(self, number: int) -> AbstractContextManager[Job]:
        """The job of one thread; entered and left in that thread, outside the measured time."""
        ...

    def verify(self, operations: int) -> None:
        """Check that the peer holds what all rounds so far must have left in it.

        Args:
            operations: How many there were in all rounds together.

        Raises:
            WorkNotDone: It does not.
        """
        ...


@dataclass(frozen=True, slots=True)
class Round:
    """What one round came to."""

    operations: int
    seconds: float

    @property
    def rate(self) -> float:
        """Operations each second, of all threads together."""
        return self.operations / self.seconds


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured.

    Attributes:
        rounds: How many rounds count.
        seconds: How long each takes.
        max_operations: After how many operations, of all threads together, a round ends early.
        warm_up: How long the first round takes, which does not count.
    """

    rounds: int
    seconds: float
    max_operations: int
    warm_up: float


@dataclass(slots=True)
class Outcome:
    """What all rounds of one peer came to.

    Attributes:
        rounds: Those that count.
        failure: Why it was given up, or None.
    """

    rounds: list[Round] = field(default_factory=list)
    failure: str | None = None


def measure(
    trials: Mapping[str, Trial],
    threads: int,
    plan: Plan,
    between: Callable[[], object] = _nothing,
) -> dict[str, Outcome]:
    """Measure several trials in turns: A B C, B C A, and so on.

    Args:
        trials: The trials, by the name of the peer.
        threads: How many threads work in each round.
        plan: How many rounds of what length.
        between: Called after each round, outside the measured time.

    Returns:
        The outcome of each. One that failed has no more rounds; the others go on.
    """
    outcomes = {name: Outcome() for name in trials}
    totals = dict.fromkeys(trials, 0)
    for number in range(plan.rounds + 1):
        for name in _rotated(list(trials), number):
            outcome = outcomes[name]
            if outcome.failure is not None:
                continue
            seconds = plan.seconds if number else plan.warm_up
            try:
                done = run_round(trials[name], threads, seconds, plan.max_operations)
                totals[name] += done.operations
                trials[name].verify(totals[name])
            except Exception as error:  # noqa: BLE001 - a peer that fails is a result
                outcome.failure = f"{type(error).__name__}: {error}"
            else:
                if number:
                    outcome.rounds.append(done)
            between()
    return outcomes


def run_round(trial: Trial, threads: int, seconds: float, max_operations: int) -> Round:
    """Let so many threads work at a trial together.

    Raises:
        Exception: What a worker raised first.
    """
    crew = _Crew(trial, threads, seconds, max(1, max_operations // threads))
    members = [
        threading.Thread(target=crew.work, args=(number,), name=f"bench-{number}")
        for number in range(threads)
    ]
    for member in members:
        member.start()
    for member in members:
        member.join()
    return crew.result()


class _Crew:
    """The threads of one round."""

    def __init__(self, trial: Trial, threads: int, seconds: float, limit: int) -> None:
        self._trial = trial
        self._seconds = seconds
        self._limit = limit
        self._started = 0.0
        self._operations = [0] * threads
        self._ended = [0.0] * threads
        self._errors: list[BaseException] = []
        self._barrier = threading.Barrier(threads, self._start, _START_TIMEOUT)

    def _start(self) -> None:
        self._started = perf_counter()

    def work(self, number: int) -> None:
        """The life of one thread."""
        try:
            with self._trial.worker(number) as job:
                self._barrier.wait()
                deadline = self._started + self._seconds
                self._operations[number] = _repeat(job.operate, deadline, self._limit)
                job.settle()
                self._ended[number] = perf_counter()
        except BaseException as error:  # noqa: BLE001 - result() raises it
            self._errors.append(error)
            self._barrier.abort()  # those that have not begun need not

    def result(self) -> Round:
        """What the round came to, once all threads have ended."""
        # The threads that were called off fail too, but later.
        if self._errors:
            raise self._errors[0]
        return Round(sum(self._operations), max(self._ended) - self._started)


def _repeat(operate: Callable[[], object], deadline: float, limit: int) -> int:
    done = 0
    while done < limit:
        operate()
        done += 1
        if perf_counter() >= deadline:
            break
    return done


def _rotated(names: Sequence[str], by: int) -> list[str]:
    start = by % len(names) if names else 0
    return [*names[start:], *names[:start]]
