"""The checks no service can make alone: between databases, and between databases and Kafka."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from cli.broker_view import BrokerView, Offsets, Records
from cli.services import HANDLERS
from shared.audit import CheckResult
from shared.consumer import BEHIND
from shared.db import SERVICES
from shared.decode import decode
from shared.inbox import InboxMessage, progress_of
from shared.outbox import OutboxMessage
from shared.parking import ParkedEvent
from shared.topics import topic_name

Place = tuple[str, int]
SessionOf = Mapping[str, AsyncSession]  # by service, in one snapshot each

SHOWN = 3  # offenders named in a line
CLAIMS = text("""
    SELECT count(*), count(*) - count(DISTINCT (consumer, message_id)), (
        SELECT count(*) FROM pg_constraint
        WHERE conrelid = 'inbox'::regclass AND contype = 'p' AND convalidated
    ) FROM inbox
""")
# Lines that one fact, or one request, wrote twice about the same thing.
TWICE = {
    "pricing": text(
        "SELECT count(*), count(*) - count(DISTINCT (cause_id, subscription_id))"
        " FROM subscription_cost_history"
    ),
    "loyalty": text(
        "SELECT count(*), count(*) - count(DISTINCT event_id) FROM points_transactions"
    ),
}
NEWEST_EVENT = text("SELECT max(position) FROM stripe_events")
UNFOLDED = text("""
    SELECT count(*) FROM stripe_events
    WHERE status = 'received' AND waiting_for IS NULL AND position <= :newest
""")


async def applied_once(sessions: SessionOf) -> list[CheckResult]:
    """S3: a fact's claim exists once per consumer, and no ledger holds two lines from one fact."""
    results = []
    for service in SERVICES:
        counted, twice, keys = (await sessions[service].execute(CLAIMS)).one()
        detail = f"{service} claims are unique" if keys == 1 else f"{service} inbox lost its key"
        results.append(CheckResult("S3", twice == 0 and keys == 1, counted, detail))
        if service in TWICE:
            lines, repeated = (await sessions[service].execute(TWICE[service])).one()
            detail = f"{service} ledger lines have a cause each"
            if repeated:
                detail = f"{service} ledger holds {repeated} lines from a fact that wrote one"
            results.append(CheckResult("S3", repeated == 0, lines, detail))
    return results


async def held_back(sessions: SessionOf) -> CheckResult:
    """L2: who waits, waits behind a fact of the same customer."""
    counted, wrong = 0, []
    for service in SERVICES:
        statement = (
            select(ParkedEvent)
            .where(ParkedEvent.consumer == service, ParkedEvent.status == "parked")
            .order_by(ParkedEvent.id)
        )
        culprits: set[str] = set()
        for row in await sessions[service].scalars(statement):
            counted += 1
            if row.error != BEHIND:
                culprits.add(row.key)
            elif row.key not in culprits:
                wrong.append(f"{service} {row.id} waits behind nothing of {row.key}")
    fine = f"{counted} facts wait, each behind one of the same customer" if counted else "nobody"
    return CheckResult("L2", not wrong, counted, "; ".join(wrong[:SHOWN]) or f"held back: {fine}")


@dataclass(frozen=True)
class Reach:
    """How far a service's group came: by Kafka's account, and by the service's own."""

    service: str
    committed: Offsets
    progress: Offsets
    parked: frozenset[tuple[str, int, int]]

    @classmethod
    async def of(cls, service: str, committed: Offsets, session: AsyncSession) -> "Reach":
        parked = select(ParkedEvent.topic, ParkedEvent.partition, ParkedEvent.offset)
        rows = await session.execute(parked.where(ParkedEvent.consumer == service))
        places = frozenset((row.topic, row.partition, row.offset) for row in rows)
        return cls(service, committed, await progress_of(session, service), places)


@dataclass
class OffsetCheck:
    """S10, fed with every record there is: none lies behind a committed offset undone."""

    reaches: list[Reach]
    sessions: SessionOf
    counted: int = 0
    wrong: list[str] = field(default_factory=list)

    def compare(self) -> None:
        for reach in self.reaches:
            for (topic, partition), offset in sorted(reach.committed.items()):
                known = reach.progress.get((topic, partition), 0)
                if offset > known:
                    self.wrong.append(
                        f"{reach.service} {topic}/{partition}: Kafka has {offset}, we know {known}"
                    )

    async def read(self, records: Records) -> None:
        for reach in self.reaches:
            await self._read_for(reach, records)

    async def _read_for(self, reach: Reach, records: Records) -> None:
        wanted = frozenset(event.type for event in HANDLERS[reach.service])
        waiting = {}
        for record in records:
            place = (record.topic, record.partition)
            if record.offset >= reach.committed.get(place, 0):
                continue
            delivery = decode(record, wanted)
            if delivery.event is None and delivery.error is None:
                continue
            self.counted += 1
            if (*place, record.offset) in reach.parked:
                continue
            if delivery.event is None:
                self.wrong.append(
                    f"{reach.service} {place} {record.offset}: neither read nor parked"
                )
            else:
                waiting[delivery.event.id] = record
        statement = select(InboxMessage.message_id).where(
            InboxMessage.consumer == reach.service,
            InboxMessage.message_id == func.any(list(waiting)),
        )
        done = set(await self.sessions[reach.service].scalars(statement)) if waiting else set()
        self.wrong += [
            f"{reach.service} {record.topic}/{record.partition} {record.offset}:"
            f" {identity} is neither applied nor parked"
            for identity, record in waiting.items()
            if identity not in done
        ]

    def result(self) -> CheckResult:
        shown = "; ".join(self.wrong[:SHOWN])
        detail = f"{len(self.wrong)} wrong: {shown}" if self.wrong else "read from Kafka and found"
        return CheckResult("S10", not self.wrong, self.counted, detail)


async def offsets_cover(
    broker: BrokerView, committed: Mapping[str, Offsets], sessions: SessionOf
) -> CheckResult:
    """S10.  `committed` must have been asked before `sessions` took their snapshots."""
    reaches = [await Reach.of(s, committed[s], sessions[s]) for s in SERVICES]
    check = OffsetCheck(reaches, sessions)
    check.compare()
    until: dict[Place, int] = {}
    for reach in reaches:
        for place, offset in reach.committed.items():
            until[place] = max(until.get(place, 0), offset)
    async for records in broker.records(until):
        await check.read(records)
    return check.result()


@dataclass(frozen=True)
class Marks:
    """How far everything had come when the audit began; what comes after it is the next audit's."""

    outboxes: Mapping[str, int]  # newest position, by service
    stripe_events: int  # newest position
    ends: Offsets

    @classmethod
    async def now(cls, broker: BrokerView, sessions: SessionOf) -> "Marks":
        newest = select(func.coalesce(func.max(OutboxMessage.position), 0))
        outboxes = {s: await sessions[s].scalar(newest) or 0 for s in SERVICES}
        events = await sessions["payments"].scalar(NEWEST_EVENT) or 0
        return cls(outboxes, events, await broker.ends())


async def left_over(marks: Marks, prefix: str, sessions: SessionOf) -> CheckResult:
    """L1, at this moment: of what there was at `marks`, facts not sent, events not folded, records not applied."""
    left: list[str] = []
    for service in SERVICES:
        unsent = select(func.count()).where(
            OutboxMessage.published_at.is_(None),
            OutboxMessage.position <= marks.outboxes[service],
        )
        count = await sessions[service].scalar(unsent) or 0
        if count:
            left.append(f"{service} has {count} facts unsent")
    unfolded = await sessions["payments"].scalar(UNFOLDED, {"newest": marks.stripe_events})
    if unfolded:
        left.append(f"payments has {unfolded} Stripe events to fold")
    for service in SERVICES:
        heard = {topic_name(prefix, event.topic) for event in HANDLERS[service]}
        progress = await progress_of(sessions[service], service)
        ends = ((place, end) for place, end in marks.ends.items() if place[0] in heard)
        lag = sum(max(end - progress.get(place, 0), 0) for place, end in ends)
        if lag:
            left.append(f"{service} has {lag} facts to apply")
    fine = "what was there at the start is sent, folded and applied"
    return CheckResult("L1", not left, sum(marks.ends.values()), "; ".join(left) or fine)
