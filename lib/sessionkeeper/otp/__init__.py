"""Supervised processes for Python threads: OTP's behaviours on Pykka actors.

A `GenServer` is a process with a mailbox; a `ServerRef` is its stable handle; a supervisor,
started with `start_supervisor` from `ChildSpec` objects, restarts what crashes. Usable on its
own: see docs/supervision.md.
"""

from sessionkeeper.otp.child_spec import Backoff as Backoff
from sessionkeeper.otp.child_spec import ChildSpec as ChildSpec
from sessionkeeper.otp.errors import Busy as Busy
from sessionkeeper.otp.errors import CallTimeout as CallTimeout
from sessionkeeper.otp.errors import ExitReason as ExitReason
from sessionkeeper.otp.errors import Fenced as Fenced
from sessionkeeper.otp.errors import ForkedError as ForkedError
from sessionkeeper.otp.errors import InvalidChildSpec as InvalidChildSpec
from sessionkeeper.otp.errors import OtpError as OtpError
from sessionkeeper.otp.errors import OutcomeUnknown as OutcomeUnknown
from sessionkeeper.otp.errors import SelfCall as SelfCall
from sessionkeeper.otp.errors import ServerDown as ServerDown
from sessionkeeper.otp.errors import StartError as StartError
from sessionkeeper.otp.future import Reply as Reply
from sessionkeeper.otp.gen_server import NO_REPLY as NO_REPLY
from sessionkeeper.otp.gen_server import GenServer as GenServer
from sessionkeeper.otp.mailbox import Envelope as Envelope
from sessionkeeper.otp.runtime import set_exit_limit as set_exit_limit
from sessionkeeper.otp.server_ref import ServerRef as ServerRef
from sessionkeeper.otp.supervisor import SupervisorEvent as SupervisorEvent
from sessionkeeper.otp.supervisor import SupervisorRef as SupervisorRef
from sessionkeeper.otp.supervisor import start_supervisor as start_supervisor
from sessionkeeper.otp.timer import ManualTimerService as ManualTimerService
from sessionkeeper.otp.timer import Timer as Timer
from sessionkeeper.otp.timer import TimerService as TimerService
