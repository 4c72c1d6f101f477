"""Stripe's events in our words: what each tells of one payment, its amounts in minor units."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from uuid import UUID

import orjson
from pydantic import ValidationError

from services.payments.domain import (
    ANSWER_RANK,
    Dispute,
    Fee,
    Fold,
    Link,
    Payout,
    Refund,
    Snapshot,
    StripeFact,
    Told,
    phase_of,
    type_rank,
)
from services.payments.domain.fold import REFUND_RANKS
from services.payments.domain.state import HOLDING
from services.payments.gateway import shapes
from services.payments.gateway.envelope import THIN, Envelope, open_envelope
from services.payments.gateway.question import Question, is_subject, listed_payment
from shared.errors import InvalidInput, NotUnderstood
from shared.events import PaymentStatus
from shared.money import currency_code, from_stripe

STATUSES: dict[str, PaymentStatus] = {
    "requires_payment_method": "requires_payment_method",
    "requires_confirmation": "requires_confirmation",
    "requires_action": "requires_action",
    "processing": "processing",
    "requires_capture": "requires_capture",
    "succeeded": "succeeded",
    "canceled": "canceled",
    # What the first and third were called until 2019-02-11.
    "requires_source": "requires_payment_method",
    "requires_source_action": "requires_action",
}
LINKS = ("user_id", "subscription_id")
PAYMENT_LINK_RANK = 1
CHARGE_LINK_RANK = 0
NUL_IN_JSON = b"\\u0000"
# Metadata may be 500 characters long; an operator needs to recognise it, not to read it all.
MAX_LINK_LENGTH = 100
# A payment's facts name the same two within seconds of each other: 2 MB at most.
NAMES_REMEMBERED = 8_192


@dataclass(frozen=True, slots=True)
class Nothing:
    """An event that says nothing about a payment's money; `lonely_charge` belongs to no payment at all."""

    reason: str
    lonely_charge: str | None = None


@dataclass(frozen=True, slots=True)
class Thin:
    """An event that only says which object to ask Stripe about."""

    question: Question


Understood = StripeFact | Nothing | Thin


def translate(body: bytes) -> Understood:
    """Raises NotUnderstood, UnknownCurrency or InvalidInput: then the event is parked."""
    raw = _parsed(body)
    if raw.get("object") == THIN:
        return _thin(open_envelope(body), raw.get("related_object"))
    content = _content(raw)
    try:
        event = shapes.Event.model_validate(raw)
        match content.get("object"):
            case "payment_intent":
                return _intent_fact(event, shapes.PaymentIntent.model_validate(content))
            case "charge":
                is_lonely = content.get("payment_intent", "unsaid") is None
                return _charge_fact(event, shapes.Charge.model_validate(content), is_lonely)
            case "refund":
                return _refund_fact(event, shapes.Refund.model_validate(content))
            case "dispute":
                return _dispute_fact(event, shapes.Dispute.model_validate(content))
            case "list" if event.asked and event.asked.about:
                return _list_fact(event, event.asked, shapes.RefundList.model_validate(content))
            case other:
                return Nothing(f"a {other or 'nameless object'} says nothing of a payment's money")
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise NotUnderstood(f"{error.title}.{place}: {first['msg']}") from error


def _parsed(body: bytes) -> dict[str, object]:
    try:
        raw = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise NotUnderstood(f"not JSON: {error}") from error
    if not isinstance(raw, dict):
        raise NotUnderstood("the event is no JSON object")
    # Looked for first: to walk through every body would double the fold's work.
    return {key: _storable(value) for key, value in raw.items()} if NUL_IN_JSON in body else raw


def _storable(value: object) -> object:
    """The same with every NUL, which PostgreSQL's text and jsonb cannot hold, written out as `\\x00`."""
    match value:
        case str():
            return value.replace("\x00", "\\x00")
        case list():
            return [_storable(each) for each in value]
        case dict():
            return {str(_storable(key)): _storable(each) for key, each in value.items()}
        case _:
            return value


def _content(raw: dict[str, object]) -> dict[str, object]:
    data = raw.get("data")
    content = data.get("object") if isinstance(data, dict) else None
    if not isinstance(content, dict):
        raise NotUnderstood("the event carries no object")
    return content


def _thin(event: Envelope, related: object) -> Thin | Nothing:
    url = related.get("url") if isinstance(related, dict) else None
    if isinstance(url, str) and is_subject(url):
        second = int(event.created_at.timestamp())
        return Thin(Question(url, 0, second, event.livemode, event.account))
    return Nothing("a thin event about nothing of a payment's money")


def _intent_fact(event: shapes.Event, intent: shapes.PaymentIntent) -> StripeFact:
    snapshot = _snapshot(intent)
    asked = event.asked
    rank = ANSWER_RANK if asked else type_rank(event.type)
    ended_at = (int(asked is not None), event.created)
    if intent.canceled_at is not None:
        ended_at = (0, intent.canceled_at)
    ended = snapshot.status in ("succeeded", "canceled")
    tells = Fold(
        phase=max(phase_of(snapshot.status), asked.phase if asked else 0),
        second=asked.second if asked else event.created,
        told={event.id: Told(rank, asked.at if asked else 0, snapshot)},
        received_minor=_received(intent),
        created=intent.created,
        ended={snapshot.status: ended_at} if ended else {},
        livemode=event.livemode,
        account=event.account or "",
        links=_links(event, intent.metadata, PAYMENT_LINK_RANK),
        refunds=_refunds(event, (r for c in intent.charges if c.captured for r in c.refunds)),
        fees=_fees(intent.charges),
        claims=_claims(event, intent.charges),
    )
    named = {charge.id for charge in intent.charges}
    if intent.latest_charge:
        named.add(intent.latest_charge)
    return StripeFact(
        event.id,
        event.type,
        event.created,
        intent.id,
        None,
        tuple(sorted(named)),
        tells,
        is_answer=asked is not None,
    )


def _snapshot(intent: shapes.PaymentIntent) -> Snapshot:
    if intent.status not in STATUSES:
        raise NotUnderstood(f"a payment's status is {intent.status!r}, which is not known here")
    status = STATUSES[intent.status]
    capturable = intent.amount_capturable
    if capturable is None:
        capturable = intent.amount if status == "requires_capture" else 0
    error = intent.last_payment_error
    return Snapshot(
        status=status,
        currency=currency_code(intent.currency),
        amount_minor=from_stripe(intent.amount, intent.currency),
        capturable_minor=from_stripe(capturable, intent.currency),
        # The issuer's word where there is one: `card_declined` alone tells nobody what to do.
        failure_code=(error.decline_code or error.code or error.type) if error else None,
    )


def _received(intent: shapes.PaymentIntent) -> int:
    received = intent.amount_received
    if received is None:
        taken = [c.amount_captured or c.amount for c in intent.charges if c.captured and c.paid]
        received = sum(taken) if taken else intent.amount if intent.status == "succeeded" else 0
    return from_stripe(received, intent.currency)


def _charge_fact(
    event: shapes.Event, charge: shapes.Charge, is_lonely: bool
) -> StripeFact | Nothing:
    if is_lonely:
        return Nothing("a charge made without a PaymentIntent", charge.id)
    tells = Fold(
        livemode=event.livemode,
        account=event.account or "",
        links=_links(event, charge.metadata, CHARGE_LINK_RANK),
        # A charge that was never captured is "refunded" when its authorisation is released.
        refunds=_refunds(event, charge.refunds if charge.captured else ()),
        fees=_fees([charge]),
        claims=_claims(event, [charge]),
    )
    return _of_charge(event, charge.payment_intent, charge.id, tells)


def _refund_fact(event: shapes.Event, refund: shapes.Refund) -> StripeFact | Nothing:
    if refund.payment_intent is None and refund.charge is None:
        return Nothing("a refund of neither a payment nor a charge")
    tells = Fold(
        livemode=event.livemode, account=event.account or "", refunds=_refunds(event, [refund])
    )
    return _of_charge(event, refund.payment_intent, refund.charge, tells)


def _list_fact(
    event: shapes.Event, asked: shapes.Asked, listed: shapes.RefundList
) -> StripeFact | Nothing:
    payment = listed_payment(asked.about or "")
    if payment is None:
        return Nothing("a list of something else than a payment's refunds")
    tells = Fold(
        livemode=event.livemode,
        account=event.account or "",
        refunds=_refunds(event, listed.data),
        listed=asked.second,
    )
    charges = tuple(sorted({refund.charge for refund in listed.data if refund.charge}))
    return StripeFact(
        event.id, event.type, event.created, payment, None, charges, tells, is_answer=True
    )


def _claims(event: shapes.Event, charges: Iterable[shapes.Charge]) -> dict[str, int]:
    """What captured charges say was given back.  Which refunds that were, they stopped saying in 2022-11-15."""
    said = ((c.amount_refunded, c.currency) for c in charges if c.captured and c.amount_refunded)
    try:
        claimed = sum(from_stripe(amount, currency) for amount, currency in said)
    except InvalidInput:  # only a question hangs on it
        return {}
    return {str(event.created): claimed} if claimed else {}


def _dispute_fact(event: shapes.Event, dispute: shapes.Dispute) -> StripeFact | Nothing:
    # The oldest disputes had no id of their own: there was one for a charge.
    dispute_id = dispute.id or dispute.charge
    if dispute_id is None or (dispute.payment_intent is None and dispute.charge is None):
        return Nothing("a dispute of neither a payment nor a charge")
    moved = {
        each.id: Payout(each.created, minor)
        for each in dispute.balance_transactions
        if (minor := _withdrawn(each, dispute))
    }
    costly = [each for each in dispute.balance_transactions if each.fee]
    tells = Fold(
        livemode=event.livemode,
        account=event.account or "",
        disputes={dispute_id: Dispute((event.created, event.id, dispute.status), moved)},
        fees=_known_fees(costly, is_charge=False),
    )
    return _of_charge(event, dispute.payment_intent, dispute.charge, tells)


def _withdrawn(transaction: shapes.BalanceTransaction, dispute: shapes.Dispute) -> int:
    """What left the payment, in the payment's currency; a balance may be held in another one."""
    if transaction.currency == dispute.currency:
        return -from_stripe(transaction.amount, transaction.currency)
    sign = (transaction.amount < 0) - (transaction.amount > 0)
    return sign * from_stripe(dispute.amount, dispute.currency)


def _of_charge(
    event: shapes.Event, payment: str | None, charge: str | None, tells: Fold
) -> StripeFact:
    charges = (charge,) if charge and payment else ()
    return StripeFact(event.id, event.type, event.created, payment, charge, charges, tells)


def _refunds(event: shapes.Event, refunds: Iterable[shapes.Refund]) -> dict[str, Refund]:
    return {refund.id: _refund(event, refund) for refund in refunds}


def _refund(event: shapes.Event, refund: shapes.Refund) -> Refund:
    status = refund.status or "succeeded"
    if status not in REFUND_RANKS:
        raise NotUnderstood(f"a refund's status is {status!r}, which is not known here")
    return Refund(
        rank=REFUND_RANKS[status],
        status=status,
        amount_minor=from_stripe(refund.amount, refund.currency),
        created=refund.created,
        held=status in HOLDING or refund.balance_transaction is not None,
        returned_at=event.created if status in ("failed", "canceled") else None,
    )


def _fees(charges: Iterable[shapes.Charge]) -> dict[str, Fee]:
    settled = (charge.balance_transaction for charge in charges)
    return _known_fees((each for each in settled if each is not None), is_charge=True)


def _known_fees(
    transactions: Iterable[shapes.BalanceTransaction], *, is_charge: bool
) -> dict[str, Fee]:
    return {each.id: fee for each in transactions if (fee := _fee(each, is_charge=is_charge))}


def _fee(transaction: shapes.BalanceTransaction, *, is_charge: bool) -> Fee | None:
    """None where our minor units cannot say it, such as 29.50 ISK: no reason to refuse the payment's own money."""
    try:
        currency = currency_code(transaction.currency)
        return Fee(
            is_charge=is_charge,
            currency=currency,
            fee_minor=from_stripe(transaction.fee, currency),
            net_minor=from_stripe(transaction.net, currency),
        )
    except InvalidInput:
        return None


def _links(event: shapes.Event, metadata: dict[str, str], rank: int) -> dict[str, Link]:
    return {
        key: _link(event, metadata[key].strip(), rank)
        for key in LINKS
        if metadata.get(key, "").strip()
    }


def _link(event: shapes.Event, text: str, rank: int) -> Link:
    name = _uuid_text(text)
    if name is None:
        return Link(False, rank, event.created, event.id, text[:MAX_LINK_LENGTH])
    return Link(True, rank, event.created, event.id, name)


@lru_cache(maxsize=NAMES_REMEMBERED)
def _uuid_text(text: str) -> str | None:
    """In the one way of writing a UUID; None where it is none."""
    try:
        return str(UUID(text))
    except ValueError:
        return None
