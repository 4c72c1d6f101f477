"""S9: what analytics counts is what payments said, payment by payment, while both go on."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from services.analytics.models import PaymentFact
from services.payments.models import PaymentIntent
from shared.audit import CheckResult
from shared.events import PaymentChanged, derived_id
from shared.outbox import OutboxMessage

PAGE_PAYMENTS = 2_000  # of each side held in memory at once
SHOWN = 3  # offenders named in a line
MONEY = ("currency", "received_minor", "refunded_minor", "disputed_minor")


@dataclass
class Agreement:
    """Fed with snapshots; `awaited` are the payments whose revision analytics does not have yet."""

    counted: int = 0
    came_later: int = 0
    awaited: dict[UUID, int] = field(default_factory=dict)
    _wrong: dict[UUID | None, str] = field(default_factory=dict)

    async def look(self, analytics: AsyncSession, payments: AsyncSession) -> None:
        """Every payment.  Both must be in snapshots that no statement has opened yet."""
        heard = await _opened_first(analytics)
        found = 0
        async for rows in _pages(payments):
            self.counted += len(rows)
            found += await self._compare(rows, analytics, payments)
        if heard > found:
            self._wrong[None] = f"analytics counts {heard - found} payments that payments has not"

    async def look_again(self, analytics: AsyncSession, payments: AsyncSession) -> None:
        """Those that were under way at the last look, in new snapshots."""
        await _opened_first(analytics)
        under_way = sorted(self.awaited)
        for start in range(0, len(under_way), PAGE_PAYMENTS):
            page = under_way[start : start + PAGE_PAYMENTS]
            statement = select(PaymentIntent).where(PaymentIntent.id.in_(page))
            rows = (await payments.scalars(statement)).all()
            await self._compare(rows, analytics, payments)
            payments.expunge_all()
        self.came_later += len(under_way) - len(self.awaited)

    async def _compare(
        self, rows: Sequence[PaymentIntent], analytics: AsyncSession, payments: AsyncSession
    ) -> int:
        """How many of these payments analytics has, in whatever revision."""
        facts = (PaymentFact.payment_id, PaymentFact.revision, PaymentFact.state)
        ids = [row.id for row in rows]
        found = await analytics.execute(select(*facts).where(PaymentFact.payment_id.in_(ids)))
        heard = {row[0]: (row[1], row[2]) for row in found}
        names = [fact_id(payment, revision) for payment, (revision, _) in heard.items()]
        outbox = select(OutboxMessage.id, OutboxMessage.payload).where(OutboxMessage.id.in_(names))
        said = {row[0]: row[1] for row in await payments.execute(outbox)}
        for row in rows:
            revision, state = heard.get(row.id, (0, {}))
            self._await(row, revision)
            if revision and (wrong := fault_of(row, revision, state, said)):
                self._wrong[row.id] = wrong
        return len(heard)

    def _await(self, row: PaymentIntent, revision: int) -> None:
        wanted = self.awaited.setdefault(row.id, row.revision)
        if revision >= wanted:
            del self.awaited[row.id]

    def result(self) -> CheckResult:
        wrong = list(self._wrong.values())
        late = [f"{payment} revision {revision}" for payment, revision in self.awaited.items()]
        parts = [f"{len(wrong)} wrong: {'; '.join(wrong[:SHOWN])}"] if wrong else []
        if late:
            shown = ", ".join(late[:SHOWN])
            parts.append(f"{len(late)} payments have not reached analytics, such as {shown}")
        fine = "payments: analytics holds each as payments said it"
        if self.came_later:
            fine += f", {self.came_later} that were under way came"
        return CheckResult("S9", not parts, self.counted, "; ".join(parts) or fine)


def fact_id(payment: UUID, revision: int) -> UUID:
    """Of the fact that payments said at this revision."""
    return derived_id(PaymentChanged.type, payment, revision)


def fault_of(
    row: PaymentIntent, revision: int, state: Mapping[str, Any], said: Mapping[UUID, Any]
) -> str | None:
    """What is wrong with the revision that analytics holds of a payment, or None."""
    fact = said.get(fact_id(row.id, revision))
    if fact is None:
        return f"{row.stripe_id}: payments never said the revision {revision} that analytics holds"
    ours, theirs = _money(fact), _money(state)
    if ours != theirs:
        return f"{row.stripe_id} revision {revision}: payments {ours}, analytics {theirs}"
    own = tuple(getattr(row, name) for name in MONEY)
    if revision == row.revision and own != ours:
        return f"{row.stripe_id} revision {revision}: payments holds {own} and said {ours}"
    return None


def _money(state: Mapping[str, Any]) -> tuple[object, ...]:
    return tuple(state[name] for name in MONEY)


async def _opened_first(analytics: AsyncSession) -> int:
    """How many payments analytics has, in the snapshot it takes by being asked.

    Payments' comes after it: whatever analytics knows then, payments has said.
    """
    return await analytics.scalar(select(func.count()).select_from(PaymentFact)) or 0


async def _pages(payments: AsyncSession) -> AsyncIterator[Sequence[PaymentIntent]]:
    statement = select(PaymentIntent).order_by(PaymentIntent.id).limit(PAGE_PAYMENTS)
    rows = (await payments.scalars(statement)).all()
    while rows:
        last = rows[-1].id
        yield rows
        payments.expunge_all()
        rows = (await payments.scalars(statement.where(PaymentIntent.id > last))).all()
