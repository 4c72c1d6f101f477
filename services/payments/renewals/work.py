"""One turn of the renewals: what became of charges, what is due, what is to be charged now."""

from dataclasses import dataclass, field

import asyncpg

from services.payments.renewals.apart import PutOff
from services.payments.renewals.attempts import attempt_due
from services.payments.renewals.due import open_due
from services.payments.renewals.follow import follow
from services.payments.renewals.methods import try_learnt
from services.payments.renewals.outcomes import Rules
from shared import lease
from shared.clock import Clock
from shared.db import Sessions
from shared.settings import Settings

LEASE = "renewals"


@dataclass(frozen=True)
class Renewals:
    """What a turn needs.  `holder` names the process that holds the lease."""

    pool: asyncpg.Pool
    sessions: Sessions
    rules: Rules
    holder: str
    put_off: PutOff = field(default_factory=PutOff)


async def run_once(renewals: Renewals, clock: Clock) -> int:
    """How many renewals were changed; 0 when there is nothing to do or another worker does it.

    The lease keeps two workers from doing the same work; rows are locked, so that it would be done once anyway.
    """
    async with renewals.pool.acquire() as connection:
        if await lease.take(connection, LEASE, renewals.holder) is None:
            return 0
    now, put_off = clock(), renewals.put_off
    learnt = await try_learnt(renewals.sessions, now)
    followed = await follow(renewals.sessions, renewals.rules, now, put_off)
    opened = await open_due(renewals.sessions, renewals.rules, now, put_off)
    attempted = await attempt_due(renewals.sessions, renewals.rules, now, put_off)
    return learnt + followed + opened + attempted


def rules_of(settings: Settings) -> Rules:
    return Rules(settings.time_zone, settings.dunning_days, settings.farebox_pause_when_given_up)
