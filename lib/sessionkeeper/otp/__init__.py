"""Supervised processes for Python threads: OTP's behaviours on Pykka actors.

A `GenServer` is a process with a mailbox; a `ServerRef` is its stable handle; a supervisor,
started with `start_supervisor` from `ChildSpec` objects, restarts what crashes. Usable on its
own: see docs/supervision.md.
"""

from sessionkeeper.otp.backoff import Backoff
from sessionkeeper.otp.child_spec import ChildSpec
from sessionkeeper.otp.errors import (
    Busy,
    CallTimeout,
    Fenced,
    ForkedError,
    InvalidChildSpec,
    OtpError,
    OutcomeUnknown,
    SelfCall,
    ServerDown,
    StartError,
)
from sessionkeeper.otp.exit_reason import ExitReason
from sessionkeeper.otp.future import Reply
from sessionkeeper.otp.gen_server import NO_REPLY, GenServer
from sessionkeeper.otp.mailbox import Envelope
from sessionkeeper.otp.runtime import set_exit_limit
from sessionkeeper.otp.server_ref import Monitor, ServerInfo, ServerRef
from sessionkeeper.otp.supervisor import (
    ChildCounts,
    ChildInfo,
    Supervisor,
    SupervisorEvent,
    SupervisorRef,
    start_supervisor,
)
from sessionkeeper.otp.timer import (
    Clock,
    ManualTimerService,
    ThreadTimerService,
    Timer,
    TimerService,
    default_timers,
)

__all__ = [
    "NO_REPLY",
    "Backoff",
    "Busy",
    "CallTimeout",
    "ChildCounts",
    "ChildInfo",
    "ChildSpec",
    "Clock",
    "Envelope",
    "ExitReason",
    "Fenced",
    "ForkedError",
    "GenServer",
    "InvalidChildSpec",
    "ManualTimerService",
    "Monitor",
    "OtpError",
    "OutcomeUnknown",
    "Reply",
    "SelfCall",
    "ServerDown",
    "ServerInfo",
    "ServerRef",
    "StartError",
    "Supervisor",
    "SupervisorEvent",
    "SupervisorRef",
    "ThreadTimerService",
    "Timer",
    "TimerService",
    "default_timers",
    "set_exit_limit",
    "start_supervisor",
]
