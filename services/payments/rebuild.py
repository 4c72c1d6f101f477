"""The proof that payments are a fold: every row computed again from the raw events, compared byte for byte."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import orjson
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from services.payments.domain import Fold, StripeFact, encode, is_foreign, merge, state
from services.payments.fold_records import COLUMNS, Row, columns_of
from services.payments.gateway import translate
from services.payments.models import PaymentIntent, StripeEvent
from shared.errors import FareboxError

# Payments held in memory at once, with all their events' bodies: some ten of 5 kB each.
CHUNK_PAYMENTS = 200
ROWLESS = "applied to no row"
NOTHING: dict[str, object] = orjson.loads(encode(Fold()))
NAMELESS = "no event says what it is"


@dataclass(frozen=True, slots=True)
class Applied:
    """An event that was applied to a payment."""

    position: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Stray:
    """An applied event that is not this payment's; `charge` where it names only that, which none of its facts shows."""

    position: int
    why: str
    charge: str | None = None


@dataclass(frozen=True)
class Refolded:
    """What a payment's events add up to, but for the `strays`; `unread` is why it cannot be said."""

    fold: Fold
    facts: tuple[StripeFact, ...] = ()
    strays: tuple[Stray, ...] = ()
    unread: str | None = None


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
        applied = await _applied_to(session, [payment.stripe_id for payment in payments])
        rebuilt.events += sum(map(len, applied.values()))
        for payment in payments:
            refolded = refold(payment.stripe_id, applied.get(payment.stripe_id, ()))
            difference = compare(payment, refolded)
            if difference is None:
                rebuilt.agreed += 1
            else:
                rebuilt.differed.append((payment.stripe_id, difference))
        if on_progress is not None:
            on_progress(rebuilt)
    rebuilt.differed += [(name, ROWLESS) for name in await _rowless(session)]
    return rebuilt


def refold(stripe_id: str, applied: Iterable[Applied]) -> Refolded:
    """Join all that was applied to the payment, in the order in which it came."""
    folded = Fold()
    understood: list[tuple[int, StripeFact]] = []
    for event in applied:
        try:
            fact = translate(event.body)
        except FareboxError as error:
            return Refolded(folded, unread=f"an event is not understood: {error.detail}")
        if isinstance(fact, StripeFact):  # a thin event's answer is a fact of its own
            understood.append((event.position, fact))
    own_charges = {c for _, fact in understood if fact.payment == stripe_id for c in fact.charges}
    facts: list[StripeFact] = []
    strays: list[Stray] = []
    for position, fact in understood:
        if fact.payment is None and fact.charge not in own_charges:
            why = f"{fact.event_id} is about {fact.charge}, which is not known as its charge"
            strays.append(Stray(position, why, fact.charge))
        elif fact.payment not in (None, stripe_id):
            strays.append(Stray(position, f"{fact.event_id} is about {fact.payment}"))
        elif is_foreign(folded, fact):
            strays.append(Stray(position, f"{fact.event_id} is of another mode or account"))
        else:
            folded = merge(folded, fact)
            facts.append(fact)
    return Refolded(folded, tuple(facts), tuple(strays), None if folded.is_known else NAMELESS)


def compare(payment: PaymentIntent, refolded: Refolded) -> str | None:
    """In what the row differs from its facts; None when it does not."""
    if refolded.strays:
        return refolded.strays[0].why
    if refolded.unread is not None:
        return refolded.unread
    return ", ".join(changes(payment, refolded.fold)) or None


def changes(payment: PaymentIntent, folded: Fold) -> dict[str, tuple[object, object]]:
    """The columns that are not what the fold says: what each is, and what it should be."""
    row = Row(payment.id, payment.stripe_id, payment.revision, folded, state(folded), is_new=False)
    wanted = dict(zip(COLUMNS, columns_of(row), strict=True)) | {
        "fold": orjson.loads(encode(folded))
    }
    return {
        name: (is_now, wanted[name])
        for name in COLUMNS
        if not _is_alike(name, is_now := getattr(payment, name), wanted[name])
    }


def _is_alike(name: str, one: object, other: object) -> bool:
    if name != "fold" or not isinstance(one, dict):
        return one == other
    # What a fold says nothing of, because no release knew it when it was written, it reads as nothing.
    return _canonical({**NOTHING, **one}) == _canonical(other)


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


async def _applied_to(session: AsyncSession, stripe_ids: Sequence[str]) -> dict[str, list[Applied]]:
    rows = await session.execute(
        select(StripeEvent.stripe_payment_id, StripeEvent.position, StripeEvent.body)
        .where(StripeEvent.stripe_payment_id.in_(stripe_ids), StripeEvent.status == "applied")
        .order_by(StripeEvent.position)
    )
    applied: dict[str, list[Applied]] = {}
    for stripe_id, position, body in rows:
        applied.setdefault(stripe_id or "", []).append(Applied(position, body))
    return applied


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
