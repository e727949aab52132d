"""A kit for tests of applications that use the store, and of backends for it.

It has no dependency on a test framework: helpers raise `AssertionError`.
"""

from sessionkeeper.processes.tree import Injected
from sessionkeeper.testing.clock import FakeClock
from sessionkeeper.testing.conformance import CASES, backend_conformance
from sessionkeeper.testing.crash import CrashCommand, InjectedCrash, crash_actor
from sessionkeeper.testing.faults import Fault, FaultyBackend, FaultyFileSystem
from sessionkeeper.testing.wait import EventLog, wait_until

__all__ = [
    "CASES",
    "CrashCommand",
    "EventLog",
    "FakeClock",
    "Fault",
    "FaultyBackend",
    "FaultyFileSystem",
    "Injected",
    "InjectedCrash",
    "backend_conformance",
    "crash_actor",
    "wait_until",
]
