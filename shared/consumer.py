"""Kafka in: a batch's effects, its claims and its progress commit together; then the offset moves.

What passes (database away, deadlock) is waited out and holds the partition; what cannot be understood or breaks
a rule is parked, with its customer's later facts, and everyone else's flow on.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from aiokafka import ConsumerRecord
from faststream import AckPolicy
from faststream.kafka import KafkaBroker, KafkaMessage
from sqlalchemy.ext.asyncio import AsyncSession

from shared import log
from shared.db import Sessions
from shared.decode import Delivery, decode, parked_row
from shared.events import Event
from shared.faults import is_transient
from shared.inbox import advance, applied, claim
from shared.parking import keys_held_back, park, resolved_places
from shared.topics import topic_name
from shared.trace import trace_id

E = TypeVar("E", bound=Event)
# All facts of one type in a batch; each customer's in the order they were said.
Handler = Callable[[AsyncSession, Sequence[E]], Awaitable[None]]
Handlers = Mapping[type[Event], Handler[Any]]

BATCH_RECORDS = 500  # effects of more than this in one transaction hold row locks too long
POLL_MS = 50  # how long an empty poll waits; a full batch does not wait
METADATA_MS = 30_000  # a topic made after the start is found within this
ATTEMPTS = 3  # of a fact that stands alone, before it is parked: some clashes are flukes
BACKOFF_SECONDS = (0.1, 0.5, 1.0, 2.0, 5.0)
BEHIND = "waits behind an earlier parked fact of the same customer"

logger = log.get("consumer")


class Consumer:
    """One service's subscription to the topics of the facts it handles."""

    def __init__(self, service: str, sessions: Sessions, handlers: Handlers) -> None:
        self.service = service
        self._sessions = sessions
        self._handlers = handlers
        self._wanted = frozenset(event.type for event in handlers)
        self._stopping = asyncio.Event()

    async def run(self, bootstrap_servers: str, prefix: str, stop: asyncio.Event) -> None:
        """Consume until `stop` is set; what is under way is finished or left uncommitted."""
        broker = self._broker(bootstrap_servers, prefix)
        async with broker:
            await broker.start()
            await stop.wait()
            self._stopping.set()

    def _broker(self, bootstrap_servers: str, prefix: str) -> KafkaBroker:
        broker = KafkaBroker(
            bootstrap_servers,
            client_id=f"farebox-{self.service}",
            consumer_only=True,
            allow_auto_create_topics=False,
            metadata_max_age_ms=METADATA_MS,
            logger=logging.getLogger("farebox.kafka"),
        )
        subscriber = broker.subscriber(
            *sorted({topic_name(prefix, event.topic) for event in self._handlers}),
            group_id=f"{prefix}-{self.service}",
            batch=True,
            max_records=BATCH_RECORDS,
            batch_timeout_ms=POLL_MS,
            auto_offset_reset="earliest",
            ack_policy=AckPolicy.MANUAL,
            no_reply=True,  # a reply_to header would let a sender name our output topic
            parser=_parse_records,
            decoder=_leave_undecoded,
        )

        async def receive(message: KafkaMessage) -> None:
            records = message.raw_message
            if await self.settle(records if isinstance(records, tuple) else (records,)):
                await message.ack()

        subscriber(receive)
        return broker

    async def settle(self, records: Sequence["ConsumerRecord[bytes, bytes]"]) -> bool:
        """Apply or park every record, however long the database is away.  False: stopped before that."""
        attempt = 0
        while not self._stopping.is_set():
            try:
                await self._apply_or_halve([decode(each, self._wanted) for each in records])
            except Exception as error:  # noqa: BLE001 - see below
                # Only transient faults arrive here; nothing may leave this loop with a record undone,
                # since the next batch's commit would cover it.
                delay = BACKOFF_SECONDS[min(attempt, len(BACKOFF_SECONDS) - 1)]
                attempt += 1
                logger.warning(
                    "batch waits", error=repr(error), attempt=attempt, delay_seconds=delay
                )
                await self._pause(delay)
            else:
                return True
        return False

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._stopping.wait(), seconds)
        except TimeoutError:
            return

    async def _apply_or_halve(self, deliveries: Sequence[Delivery]) -> None:
        try:
            async with self._sessions.begin() as session:
                await self._take_effect(session, deliveries)
        except Exception as error:
            if is_transient(error):
                raise
            if len(deliveries) == 1:
                await self._insist_or_park(deliveries[0])
                return
            middle = len(deliveries) // 2
            await self._apply_or_halve(deliveries[:middle])
            await self._apply_or_halve(deliveries[middle:])

    async def _insist_or_park(self, delivery: Delivery) -> None:
        for attempt in range(2, ATTEMPTS + 1):
            try:
                async with self._sessions.begin() as session:
                    await self._take_effect(session, [delivery])
            except Exception as error:
                if is_transient(error):
                    raise
                reason = f"{type(error).__name__}: {error}"
                if attempt < ATTEMPTS:
                    continue
            else:
                return
        async with self._sessions.begin() as session:
            await park(session, [parked_row(self.service, delivery, reason, ATTEMPTS)])
            await advance(session, self.service, _next_offsets([delivery]))
        trace = trace_id(delivery.event.traceparent) if delivery.event else None
        logger.error(
            "fact parked",
            event_id=delivery.event_id,
            key=delivery.key,
            trace_id=trace,
            error=reason,
        )

    async def _take_effect(self, session: AsyncSession, deliveries: Sequence[Delivery]) -> None:
        relevant = [d for d in deliveries if d.event is not None or d.error is not None]
        held = await keys_held_back(session, self.service, (d.key for d in relevant))
        if held or any(delivery.error for delivery in relevant):
            relevant = await self._unsettled(session, relevant)
        flowing: list[Event] = []
        parked: list[dict[str, Any]] = []
        for delivery in relevant:
            if delivery.event is not None and delivery.key not in held:
                flowing.append(delivery.event)
                continue
            held.add(delivery.key)
            reason, attempts = (delivery.error, 1) if delivery.error else (BEHIND, 0)
            parked.append(parked_row(self.service, delivery, reason, attempts))
        await park(session, parked)
        await claim_and_apply(session, self.service, self._handlers, flowing)
        await advance(session, self.service, _next_offsets(deliveries))

    async def _unsettled(
        self, session: AsyncSession, deliveries: Sequence[Delivery]
    ) -> list[Delivery]:
        """Without what a replay brings again: facts applied, retried or dropped before hold nobody back."""
        ids = [delivery.event.id for delivery in deliveries if delivery.event is not None]
        known = await applied(session, self.service, ids)
        resolved = await resolved_places(session, self.service, map(_place, deliveries))
        return [
            delivery
            for delivery in deliveries
            if _place(delivery) not in resolved
            and not (delivery.event is not None and delivery.event.id in known)
        ]


async def deliver(
    sessions: Sessions, consumer: str, handlers: Handlers, events: Sequence[Event]
) -> None:
    """Apply the facts that `consumer` has not applied yet: claims, rows and outbox commit as one."""
    async with sessions.begin() as session:
        await claim_and_apply(session, consumer, handlers, events)


async def claim_and_apply(
    session: AsyncSession, consumer: str, handlers: Handlers, events: Sequence[Event]
) -> None:
    fresh = await claim(session, consumer, [event.id for event in events])
    once = {event.id: event for event in events if event.id in fresh}
    await apply(session, handlers, list(once.values()))


async def apply(session: AsyncSession, handlers: Handlers, events: Sequence[Event]) -> None:
    for group in grouped(events):
        await handlers[type(group[0])](session, group)


def grouped(events: Sequence[Event]) -> list[list[Event]]:
    """Facts by type in as few groups as keep every customer's own order."""
    groups: list[list[Event]] = []
    latest_of_type: dict[type[Event], int] = {}
    latest_of_key: dict[str, int] = {}
    for event in events:
        at = latest_of_type.get(type(event), -1)
        if at < latest_of_key.get(event.key, 0):
            at = len(groups)
            groups.append([])
            latest_of_type[type(event)] = at
        groups[at].append(event)
        latest_of_key[event.key] = at
    return groups


def _place(delivery: Delivery) -> tuple[str, int, int]:
    record = delivery.record
    return record.topic, record.partition, record.offset


def _next_offsets(deliveries: Sequence[Delivery]) -> dict[tuple[str, int], int]:
    offsets: dict[tuple[str, int], int] = {}
    for delivery in deliveries:
        record = delivery.record
        place = (record.topic, record.partition)
        offsets[place] = max(offsets.get(place, 0), record.offset + 1)
    return offsets


async def _parse_records(
    records: "tuple[ConsumerRecord[bytes, bytes], ...]",
    original: Callable[[Any], Awaitable[KafkaMessage]],
) -> KafkaMessage:
    # FastStream decodes every header and skips the batch for good if one is not UTF-8: it is shown none,
    # and only the last record, since it need not know the others to commit behind them.
    message = await original((replace(records[-1], headers=()),))
    message.raw_message = records
    return message


async def _leave_undecoded(message: KafkaMessage) -> object:
    return message.raw_message
