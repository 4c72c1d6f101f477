"""Many renewals in few transactions, and none at the mercy of another: whose step fails is left alone for an hour."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from shared import log
from shared.db import Sessions
from shared.faults import is_transient

# A commit costs more than a step; more of them in one would hold rows that pricing's facts wait for.
TOGETHER = 20
LEFT_ALONE = timedelta(hours=1)

Act = Callable[[AsyncSession], Awaitable[int]]

logger = log.get("renewals")


@dataclass
class PutOff:
    """Whose step failed, and until when they are left alone.  Forgotten with the process: then it is tried again."""

    until: dict[UUID, datetime] = field(default_factory=dict)

    def at(self, now: datetime) -> list[UUID]:
        self.until = {name: until for name, until in self.until.items() if until > now}
        return list(self.until)

    def note(self, name: UUID, error: Exception, now: datetime) -> None:
        self.until[name] = now + LEFT_ALONE
        logger.error("renewal cannot be carried on", id=str(name), error=repr(error))


async def act(
    sessions: Sessions, acts: Sequence[tuple[UUID, Act]], put_off: PutOff, now: datetime
) -> int:
    """What the acts return, added up.  Raises what passes by itself: then nothing of that transaction was done."""
    off = put_off.at(now)
    due = [each for each in acts if each[0] not in off]
    done = 0
    for start in range(0, len(due), TOGETHER):
        done += await _together_or_apart(sessions, due[start : start + TOGETHER], put_off, now)
    return done


async def _together_or_apart(
    sessions: Sessions, acts: Sequence[tuple[UUID, Act]], put_off: PutOff, now: datetime
) -> int:
    try:
        async with sessions.begin() as session:
            return sum([await one(session) for _, one in acts])
    except Exception as error:
        if is_transient(error):
            raise
        if len(acts) == 1:
            put_off.note(acts[0][0], error, now)
            return 0
    return sum([await _together_or_apart(sessions, [each], put_off, now) for each in acts])
