"""The proof that payments are a fold: every row computed again from the raw events, compared byte for byte."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import orjson
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from services.payments.domain import Fold, StripeFact, encode, merge, state
from services.payments.fold_records import COLUMNS, Row, columns_of
from services.payments.gateway import translate
from services.payments.models import PaymentIntent, StripeEvent
from shared.errors import FareboxError

# Payments held in memory at once, with all their events' bodies: some ten of 5 kB each.
CHUNK_PAYMENTS = 200


@dataclass
class Rebuilt:
    """How many payments agreed, from how many events, and what differs: (Stripe's id, in what)."""

    agreed: int = 0
    events: int = 0
    differed: list[tuple[str, str]] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.differed


async def rebuild(
    session: AsyncSession, on_progress: Callable[[Rebuilt], None] | None = None
) -> Rebuilt:
    """Fold every payment anew from the events that were applied to it; nothing is written.

    `on_progress` is called between chunks with what was found so far.
    """
    rebuilt = Rebuilt()
    after = ""
    while payments := await _payments_after(session, after):
        after = payments[-1].stripe_id
        bodies = await _bodies_of(session, [payment.stripe_id for payment in payments])
        rebuilt.events += sum(map(len, bodies.values()))
        for payment in payments:
            difference = compare(payment, bodies.get(payment.stripe_id, []))
            if difference is None:
                rebuilt.agreed += 1
            else:
                rebuilt.differed.append((payment.stripe_id, difference))
        if on_progress is not None:
            on_progress(rebuilt)
    rebuilt.differed += [(name, "applied to no row") for name in await _rowless(session)]
    return rebuilt


def compare(payment: PaymentIntent, bodies: Iterable[bytes]) -> str | None:
    """In what the row differs from its facts; None when it does not."""
    folded = Fold()
    for body in bodies:
        try:
            fact = translate(body)
        except FareboxError as error:
            return f"an event is not understood: {error.detail}"
        if not isinstance(fact, StripeFact):
            continue  # a thin event: its answer is a fact of its own
        if fact.payment not in (None, payment.stripe_id):
            return f"{fact.event_id} is about {fact.payment}"
        folded = merge(folded, fact)
    if not folded.is_known:
        return "no event says what it is"
    row = Row(payment.id, payment.stripe_id, payment.revision, folded, state(folded), is_new=False)
    expected = dict(zip(COLUMNS, columns_of(row), strict=True))
    if _canonical(payment.fold) != _canonical(orjson.loads(encode(folded))):
        return "fold"
    wrong = [n for n in COLUMNS if n != "fold" and getattr(payment, n) != expected[n]]
    return ", ".join(wrong) or None


def _canonical(fold: object) -> bytes:
    return orjson.dumps(fold, option=orjson.OPT_SORT_KEYS)


async def _payments_after(session: AsyncSession, after: str) -> Sequence[PaymentIntent]:
    found = await session.scalars(
        select(PaymentIntent)
        .where(PaymentIntent.stripe_id > after)
        .order_by(PaymentIntent.stripe_id)
        .limit(CHUNK_PAYMENTS)
    )
    return found.all()


async def _bodies_of(session: AsyncSession, stripe_ids: Sequence[str]) -> dict[str, list[bytes]]:
    rows = await session.execute(
        select(StripeEvent.stripe_payment_id, StripeEvent.body).where(
            StripeEvent.stripe_payment_id.in_(stripe_ids), StripeEvent.status == "applied"
        )
    )
    bodies: dict[str, list[bytes]] = {}
    for stripe_id, body in rows:
        bodies.setdefault(stripe_id or "", []).append(body)
    return bodies


async def _rowless(session: AsyncSession) -> Sequence[str]:
    """Payments that events were applied to and that have no row."""
    known = select(PaymentIntent.id).where(PaymentIntent.stripe_id == StripeEvent.stripe_payment_id)
    found = await session.scalars(
        select(StripeEvent.stripe_payment_id)
        .where(StripeEvent.status == "applied", StripeEvent.stripe_payment_id.is_not(None))
        .where(~known.exists())
        .distinct()
    )
    return [stripe_id for stripe_id in found if stripe_id is not None]
