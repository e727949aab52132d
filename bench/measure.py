"""Rounds: threads that start together repeat one operation; the peers take turns.

A round ends for each thread after a time or a number of operations, whichever comes first. Its
rate is all operations over the time from the common start to the end of the last thread. Rounds
of the peers are interleaved, so that a drift of the machine or its disk hits all of them.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

R = TypeVar("R")

# Nobody is measured by its patience: waiting longer than this is a failure.
TIMEOUT = 60.0

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
        operate: Called again and again.
        settle: Called once after the last operation: wait until all that was sent is done. It
            counts as part of the round.
        count: How many operations one call of `operate` makes.
        stands_for: How many threads' work it does, if others look on.
    """

    operate: Callable[[], object]
    settle: Callable[[], object] = _nothing
    count: int = 1
    stands_for: int = 1


class Trial(Protocol):
    """One peer at one piece of work."""

    def worker(self, number: int, threads: int) -> AbstractContextManager[Job | None]:
        """The job of one thread; entered and left in that thread, outside the measured time.

        Args:
            number: Of the thread, from 0.
            threads: How many there are in this round.

        Returns:
            The job, or None for a thread that looks on.
        """
        ...

    def verify(self, operations: int) -> None:
        """Check that the peer holds what all rounds so far must have left in it.

        Args:
            operations: How many there were in all rounds together.

        Raises:
            WorkNotDone: It does not.
        """
        ...


class Sampler(Protocol):
    """One peer at something that is told by other figures than how often it is done."""

    def sample(self, plan: Plan, seconds: float) -> Sequence[float]:
        """One round.

        Args:
            plan: How much is measured.
            seconds: How long the round takes, if that can be chosen.

        Returns:
            The delays in seconds, or whatever is told; at least one.

        Raises:
            WorkNotDone: It did not do what it should.
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
        session_bytes: How large a session, or a journal, is where its size matters.
        sessions: How many sessions there are where their number matters.
    """

    rounds: int
    seconds: float
    max_operations: int
    warm_up: float
    session_bytes: int = 1024 * 1024
    sessions: int = 100


@dataclass(slots=True)
class Outcome(Generic[R]):
    """What all rounds of one peer came to.

    Attributes:
        rounds: Those that count.
        failure: Why it was given up, or None.
    """

    rounds: list[R] = field(default_factory=list)
    failure: str | None = None


def measure(
    trials: Mapping[str, Trial],
    threads: int,
    plan: Plan,
    between: Callable[[], object] = _nothing,
) -> dict[str, Outcome[Round]]:
    """Measure several trials in turns.

    Args:
        trials: The trials, by the name of the peer.
        threads: How many threads work in each round.
        plan: How many rounds of what length.
        between: Called after each round, outside the measured time.

    Returns:
        The outcome of each. One that failed has no more rounds; the others go on.
    """
    totals = dict.fromkeys(trials, 0)

    def one_round(name: str, seconds: float) -> Round:
        done = run_round(trials[name], threads, seconds, plan.max_operations)
        totals[name] += done.operations
        trials[name].verify(totals[name])
        return done

    return in_turns(list(trials), plan, one_round, between)


def in_turns(
    names: Sequence[str],
    plan: Plan,
    one_round: Callable[[str, float], R],
    between: Callable[[], object] = _nothing,
) -> dict[str, Outcome[R]]:
    """Let several peers take turns: A B C, B C A, and so on.

    Args:
        names: The peers.
        plan: How many rounds; one more comes first and does not count.
        one_round: Called with the peer and the seconds that its round shall take.
        between: Called after each round, outside the measured time.

    Returns:
        The outcome of each. One that failed has no more rounds; the others go on.
    """
    outcomes: dict[str, Outcome[R]] = {name: Outcome() for name in names}
    for number in range(plan.rounds + 1):
        for name in _rotated(names, number):
            outcome = outcomes[name]
            if outcome.failure is not None:
                continue
            try:
                done = one_round(name, plan.seconds if number else plan.warm_up)
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
    try:
        for member in members:
            member.start()
        for member in members:
            member.join()
    except BaseException:
        crew.call_off()
        for member in members:
            if member.ident is not None:
                member.join()
        raise
    return crew.result()


class _Crew:
    """The threads of one round."""

    def __init__(self, trial: Trial, threads: int, seconds: float, limit: int) -> None:
        self._trial = trial
        self._seconds = seconds
        self._limit = limit
        self._started = 0.0
        self._deadline = 0.0
        self._operations = [0] * threads
        self._ended = [0.0] * threads
        self._errors: list[BaseException] = []
        self._barrier = threading.Barrier(threads, self._start, _START_TIMEOUT)

    def _start(self) -> None:
        self._started = perf_counter()
        self._deadline = self._started + self._seconds

    def call_off(self) -> None:
        """Have all threads end after what they are at."""
        self._barrier.abort()
        self._deadline = 0.0

    def work(self, number: int) -> None:
        """The life of one thread."""
        try:
            with self._trial.worker(number, len(self._ended)) as job:
                self._barrier.wait()
                if job is not None:
                    calls = self._repeat(job.operate, self._limit * job.stands_for // job.count)
                    self._operations[number] = calls * job.count
                    job.settle()
                    self._ended[number] = perf_counter()
        except BaseException as error:  # noqa: BLE001 - result() raises it
            self._errors.append(error)
            self._barrier.abort()  # those that have not begun need not

    def _repeat(self, operate: Callable[[], object], limit: int) -> int:
        done = 0
        while True:
            operate()
            done += 1
            if done >= limit or perf_counter() >= self._deadline:
                return done

    def result(self) -> Round:
        """What the round came to, once all threads have ended."""
        # The threads that were called off fail too, but later.
        if self._errors:
            raise self._errors[0]
        return Round(sum(self._operations), max(self._ended) - self._started)


def _rotated(names: Sequence[str], by: int) -> list[str]:
    start = by % len(names) if names else 0
    return [*names[start:], *names[:start]]
