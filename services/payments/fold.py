"""Raw Stripe events become payments: read in order, joined to what is known, announced where the state changed.

One batch is one transaction.  While the database works on one, the next is read and understood.  A batch that fails is
halved until its culprit stands alone and is parked; what the database or the network did passes and is tried again.
"""

import asyncio
import time
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import asyncpg

from services.payments import fold_records as records
from services.payments import saved_methods
from services.payments.fold_batch import Batch, assign, fold_payment, note_charges, understand
from services.payments.fold_records import RawEvent, Verdict
from services.payments.gateway import Understood
from shared import lease, log
from shared.clock import Clock
from shared.errors import Unavailable
from shared.faults import is_transient
from shared.trace import trace_id

LEASE = "fold"
# Of a backlog, a payment's facts often come together: joined in one transaction they are one row, one announcement.
BATCH_EVENTS = 2_000
# Two batches' bodies are in memory at once, and what is understood of them.
BATCH_BYTES = 16 * 1024 * 1024
# So many batches read onwards before looking at what became visible behind them.
BATCHES_AT_ONCE = 8
# A webhook's position is given before it is committed: what is not visible yet lies this close behind at most, ...
OVERLAP_POSITIONS = 5_000
# ... or is found by a look at everything, this often, and so that looking takes no more than this part of the time.
# While an old transaction keeps dead index entries alive, each look walks over all that was folded since.
LOOK_BACK_SECONDS = 1.0
LOOK_BACK_PAUSES = 20
# A lease is renewed this often, not with each batch: every renewal is a dead row.  Each batch holds it all the same.
RENEW_SECONDS = 2.0
# Some 3 ms of work: after it other tasks have a turn, and the database its next statement.
TURN_ITEMS = 50

logger = log.get("fold")


@dataclass
class Load:
    """Events read together, and what is understood of each so far."""

    events: Sequence[RawEvent] = ()
    understood: dict[int, Understood | Verdict] = field(default_factory=dict)

    async def understand(self, livemode: bool | None) -> None:
        for number, event in enumerate(self.events, 1):
            if event.position not in self.understood:
                self.understood[event.position] = understand(event, livemode)
                if number % TURN_ITEMS == 0:
                    await asyncio.sleep(0)

    def halves(self) -> "tuple[Load, Load]":
        middle = len(self.events) // 2
        return Load(self.events[:middle], self.understood), Load(
            self.events[middle:], self.understood
        )


async def run_once(
    pool: asyncpg.Pool, holder: str, clock: Clock, livemode: bool | None = None
) -> int:
    """Fold the next batches; returns how many events they took, 0 when there are none or another worker folds.

    Events of another mode than `livemode` (none: whatever comes) are ignored.
    """
    return await Folder(pool, holder, clock, livemode).run_once()


@dataclass
class Folder:
    """One owner's folding, which remembers how far it has come."""

    pool: asyncpg.Pool
    holder: str
    clock: Clock
    livemode: bool | None = None
    _last: int = 0  # position
    _look_seconds: float = 0.0
    _looked_at: float = 0.0
    _look_at: float = 0.0
    _owned_until: float = 0.0

    async def run_once(self) -> int:
        folded = batches = 0
        async with self.pool.acquire() as connection:
            load = Load(await self._read_next(connection))
            # An idle folder takes no lease: each taking is a write.
            while load.events and await self._owns(connection):
                batches += 1
                ahead = Load() if batches < BATCHES_AT_ONCE else None
                await self._fold(connection, load, ahead)
                folded += len(load.events)
                self._last = load.events[-1].position
                load = ahead or Load()
        return folded

    async def _read_next(self, connection: asyncpg.Connection) -> Sequence[RawEvent]:
        if time.monotonic() < self._look_at:
            behind = max(0, self._last - OVERLAP_POSITIONS)
            if events := await _read(connection, behind):
                return events
            if time.monotonic() < self._look_at:
                return ()
        started = time.monotonic()
        events = await _read(connection, 0)
        self._looked_at = time.monotonic()
        self._look_seconds = self._looked_at - started
        self._look_again(LOOK_BACK_SECONDS)
        return events

    def _look_again(self, after_seconds: float) -> None:
        pause = max(after_seconds, LOOK_BACK_PAUSES * self._look_seconds)
        self._look_at = self._looked_at + pause

    async def _owns(self, connection: asyncpg.Connection) -> bool:
        if time.monotonic() < self._owned_until:
            return True
        if await lease.take(connection, LEASE, self.holder) is None:
            return False
        self._owned_until = time.monotonic() + RENEW_SECONDS
        return True

    async def _require_lease(self, connection: asyncpg.Connection) -> None:
        """Nobody can take the lease over until this transaction ends; an owner that lost it must not write."""
        if await connection.fetchval(records.HOLD, LEASE, self.holder) is None:
            self._owned_until = 0.0
            raise Unavailable(f"{self.holder} has lost the lease {LEASE}")

    async def _fold(self, connection: asyncpg.Connection, load: Load, ahead: Load | None) -> None:
        """`ahead` is filled with what comes behind `load`; where it is none, nothing is read ahead."""
        started = time.monotonic()
        try:
            async with connection.transaction():
                await self._require_lease(connection)
                batch = await self._fold_together(connection, load, ahead)
        except Exception as error:
            if is_transient(error):
                raise
            if len(load.events) == 1:
                await self._park(connection, load.events[0], error)
                return
            for half in load.halves():
                await self._fold(connection, half, None)
        else:
            logger.info(
                "folded",
                events=len(load.events),
                payments_changed=len(batch.changes),
                took_ms=round((time.monotonic() - started) * 1_000),
            )

    async def _fold_together(
        self, connection: asyncpg.Connection, load: Load, ahead: Load | None
    ) -> Batch:
        batch = Batch(self.clock())
        await load.understand(self.livemode)
        understood = [(event, load.understood[event.position]) for event in load.events]
        named = note_charges(batch, understood)
        known = await records.known_charges(connection, named)
        assign(batch, understood, known | batch.charges)
        stored = await records.load(connection, batch.facts)
        # The database reads the next events while these are joined, and writes these while those are understood.
        await _both(_fold_payments(batch, stored), _read_ahead(connection, load, ahead))
        await _both(self._record(connection, batch), self._understand_ahead(ahead))
        return batch

    async def _understand_ahead(self, ahead: Load | None) -> None:
        # Whatever cannot be understood is met again in its own batch, which is halved down to it.
        with suppress(Exception):
            if ahead is not None:
                await ahead.understand(self.livemode)

    async def _record(self, connection: asyncpg.Connection, batch: Batch) -> None:
        news = await records.learn_charges(connection, batch.charges)
        await records.write(connection, batch.rows)
        await records.stage(connection, batch.changes)
        await saved_methods.learn(connection, batch.learnt)
        if await records.mark(connection, batch.verdicts, batch.now) < len(batch.verdicts):
            raise Unavailable("another owner has folded some of these events")
        known = [*news, *(row.stripe_id for row in batch.rows if row.is_new)]
        if await records.release(connection, known):
            self._look_again(0.0)
        await records.ask(connection, list(batch.wanted.values()))

    async def _park(
        self, connection: asyncpg.Connection, event: RawEvent, error: Exception
    ) -> None:
        verdict = Verdict("parked", detail=f"{type(error).__name__}: {error}"[:500])
        async with connection.transaction():
            await self._require_lease(connection)
            await records.mark(connection, {event.position: verdict}, self.clock())
        logger.error(
            "stripe event parked",
            event_id=event.id,
            error=repr(error),
            trace_id=trace_id(event.traceparent),
        )


async def _fold_payments(batch: Batch, stored: dict[str, records.Stored]) -> None:
    for number, (payment, facts) in enumerate(batch.facts.items(), 1):
        fold_payment(batch, payment, facts, stored.get(payment))
        if number % TURN_ITEMS == 0:
            await asyncio.sleep(0)


async def _read_ahead(connection: asyncpg.Connection, load: Load, ahead: Load | None) -> None:
    if ahead is not None:
        ahead.events = await _read(connection, load.events[-1].position)


async def _read(connection: asyncpg.Connection, after: int) -> Sequence[RawEvent]:
    """What is to be folded behind this position, in order: a batch at most."""
    positions: list[int] = []
    size_bytes = 0
    for row in await connection.fetch(records.NEXT, after, BATCH_EVENTS):
        size_bytes += row["size_bytes"]
        if positions and size_bytes > BATCH_BYTES:
            break
        positions.append(row["position"])
    if not positions:
        return ()
    return [RawEvent(**row) for row in await connection.fetch(records.READ, positions)]


async def _both(first: Coroutine[None, None, None], second: Coroutine[None, None, None]) -> None:
    """Both to their end, whatever becomes of the other: a statement under way would hold the connection."""
    for outcome in await asyncio.gather(first, second, return_exceptions=True):
        if outcome is not None:
            raise outcome
