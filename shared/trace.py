"""What caused this: W3C trace context and the id of the event or request, carried from door to fact."""

import random
import re
from contextvars import ContextVar
from dataclasses import dataclass

from shared.events import Event

TRACEPARENT = re.compile(r"^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$")


@dataclass(frozen=True)
class Cause:
    """`id` is an event's id, `stripe:evt_…` or `request:…`; it becomes `ce_causationid`."""

    id: str
    traceparent: str | None = None

    @classmethod
    def of(cls, event: Event) -> "Cause":
        return cls(str(event.id), event.traceparent)


# Set by the HTTP middleware; handlers of facts name their cause themselves.
request_cause: ContextVar[Cause] = ContextVar("request_cause")


def new_traceparent() -> str:
    """Unique, not secret: no question to the operating system for each."""
    return f"00-{random.getrandbits(128):032x}-{random.getrandbits(64):016x}-01"


def child_of(traceparent: str | None) -> str:
    """A new span in the same trace; a new trace where there is none or it is malformed."""
    if traceparent is None or not TRACEPARENT.match(traceparent):
        return new_traceparent()
    return f"{traceparent[:36]}{random.getrandbits(64):016x}-01"


def trace_id(traceparent: str | None) -> str | None:
    return traceparent[3:35] if traceparent and TRACEPARENT.match(traceparent) else None
