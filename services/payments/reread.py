"""Events that an earlier release let pass and this one reads: found, and given back to the fold."""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

import asyncpg

from services.payments import fold_records as records
from services.payments.fold_batch import OTHER_MODE, Batch, assign, note_charges
from services.payments.fold_records import RawEvent, Verdict
from services.payments.gateway import Understood, translate
from services.payments.mend import give_back
from shared.clock import Clock
from shared.errors import FareboxError

# Some 5 kB each, and a tenth of a second of reading.
CHUNK_EVENTS = 1_000
# Those of another mode than the key's are none of ours, whatever they say.
IGNORED = """
SELECT position, id, livemode, body, traceparent, redacted_at IS NOT NULL AS is_redacted
FROM stripe_events
WHERE status = 'ignored' AND position > $1 AND (detail IS NULL OR detail <> ALL ($3))
ORDER BY position LIMIT $2
"""


@dataclass(frozen=True)
class Passed:
    """How many ignored events would be read today; `lost` were redacted before anybody could read them."""

    read: int
    lost: int


async def give_all_back(
    pool: asyncpg.Pool, clock: Clock, on_progress: Callable[[int], None] | None = None
) -> Passed:
    """Whatever is read by now is folded once more, by the worker; all that was found."""
    found = Passed(0, 0)
    async with pool.acquire() as connection:
        async for positions, lost in _passed_by(connection, clock()):
            given_back = await give_back(connection, positions, "ignored")
            found = Passed(found.read + given_back, found.lost + lost)
            if on_progress is not None:
                on_progress(found.read)
    return found


async def count(pool: asyncpg.Pool, clock: Clock) -> Passed:
    """The same, and nothing is given back."""
    async with pool.acquire() as connection:
        chunks = [(len(read), lost) async for read, lost in _passed_by(connection, clock())]
    return Passed(sum(read for read, _ in chunks), sum(lost for _, lost in chunks))


async def _passed_by(
    connection: asyncpg.Connection, now: datetime
) -> AsyncIterator[tuple[list[int], int]]:
    """Chunk by chunk, where the ignored events are that would not be any more, and how many are lost."""
    after = 0
    modes = list(OTHER_MODE.values())
    while rows := await connection.fetch(IGNORED, after, CHUNK_EVENTS, modes):
        after = rows[-1]["position"]
        redacted = {row["position"] for row in rows if row["is_redacted"]}
        events = [
            RawEvent(row["position"], row["id"], row["livemode"], row["body"], row["traceparent"])
            for row in rows
        ]
        yield await _passed(connection, events, redacted, now)


async def _passed(
    connection: asyncpg.Connection, events: Sequence[RawEvent], redacted: set[int], now: datetime
) -> tuple[list[int], int]:
    batch = Batch(now)
    understood = [(event, _meaning(event)) for event in events]
    named = note_charges(batch, understood)
    assign(batch, understood, await records.known_charges(connection, named) | batch.charges)
    read: list[int] = []
    lost = 0
    for event in events:
        verdict = batch.verdicts.get(event.position)
        match verdict.status if verdict else "applied":
            case "ignored":
                pass
            case "parked" if event.position in redacted:
                lost += 1
            case _:
                read.append(event.position)
    return read, lost


def _meaning(event: RawEvent) -> Understood | Verdict:
    try:
        return translate(event.body)
    except FareboxError as error:
        return Verdict("parked", detail=error.detail)
