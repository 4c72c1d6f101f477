"""Stripe's events in our words: what each tells of one payment, its amounts in minor units."""

from dataclasses import dataclass

import orjson
from pydantic import ValidationError

from services.payments.domain import (
    ANSWER_RANK,
    ASKED,
    BOOKED,
    TOLD,
    Fold,
    Snapshot,
    StripeFact,
    Told,
    phase_of,
    type_rank,
)
from services.payments.gateway import parts, shapes
from services.payments.gateway.afterwards import (
    Nothing,
    dispute_fact,
    invoice_fact,
    invoice_payment_fact,
    list_fact,
    of_charge,
    refund_fact,
    refunds,
    review_fact,
    settled_fact,
)
from services.payments.gateway.envelope import THIN, Envelope, open_envelope
from services.payments.gateway.question import Question, subject_of
from shared.errors import NotUnderstood
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
NUL_IN_JSON = b"\\u0000"
# Why what a payment is not made of is left alone, by the kind of object; other kinds are told by their name.
LEFT_ALONE = {
    "payout": "a payout is of no one payment: its lines are taken apart on their own",
    "subscription": "a subscription of Stripe's own: its invoices name their payments",
}


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
        return _understand(shapes.Event.model_validate(raw), content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise NotUnderstood(f"{error.title}.{place}: {first['msg']}") from error


def _understand(event: shapes.Event, content: dict[str, object]) -> StripeFact | Nothing:
    match content.get("object"):
        case "payment_intent":
            return _intent_fact(event, shapes.PaymentIntent.model_validate(content))
        case "charge":
            is_lonely = content.get("payment_intent", "unsaid") is None
            return _charge_fact(event, shapes.Charge.model_validate(content), is_lonely)
        case "refund":
            return refund_fact(event, shapes.Refund.model_validate(content))
        case "dispute":
            return dispute_fact(event, shapes.Dispute.model_validate(content))
        case "review":
            return review_fact(event, shapes.Review.model_validate(content))
        case "invoice":
            return invoice_fact(event, shapes.Invoice.model_validate(content))
        case "invoice_payment":
            return invoice_payment_fact(event, shapes.InvoicePayment.model_validate(content))
        case "balance_transaction":
            return settled_fact(event, shapes.BalanceTransaction.model_validate(content))
        case "list" if event.asked and event.asked.about:
            return list_fact(event, event.asked, content)
        case str(other) if other in LEFT_ALONE:
            return Nothing(LEFT_ALONE[other])
        case other:
            return Nothing(
                f"nothing of a payment's money is said by {other or 'a nameless object'}"
            )


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
    subject = subject_of(url) if isinstance(url, str) else None
    if subject is not None:
        second = int(event.created_at.timestamp())
        return Thin(Question(subject, 0, second, event.livemode, event.account))
    return Nothing("a thin event about nothing of a payment's money")


def _intent_fact(event: shapes.Event, intent: shapes.PaymentIntent) -> StripeFact:
    snapshot = _snapshot(intent)
    asked = event.asked
    charges = _charges(intent)
    fees = parts.fees(charges)
    rank = ANSWER_RANK if asked else type_rank(event.type)
    ended = snapshot.status in ("succeeded", "canceled")
    phase = phase_of(snapshot.status)
    # Nothing comes back from a later phase: an answer that says so is no news, but an operator's.
    is_denial = asked is not None and phase < asked.phase
    tells = Fold(
        phase=phase,
        second=asked.second if asked else event.created,
        told={event.id: Told(rank, asked.at if asked else 0, snapshot)},
        received_minor=_received(intent),
        created=intent.created,
        ended={snapshot.status: _ended_at(event, intent)} if ended else {},
        denied={snapshot.status: asked.at} if asked and is_denial else {},
        livemode=event.livemode,
        account=event.of_account,
        links=parts.links(event, intent.metadata, parts.PAYMENT_LINK_RANK),
        refunds=refunds(event, (r for c in charges if c.captured for r in c.refunds)),
        fees=fees,
        unsettled=parts.unsettled(charges, fees),
        method=parts.method(charges) or parts.failed_method(event, intent.last_payment_error),
        reviews=parts.reviews(charge.review for charge in charges),
        invoice=intent.invoice or "",
        saved=_saved(intent),
        claims=parts.claims(event, charges),
    )
    named = {charge.id for charge in charges}
    if isinstance(intent.latest_charge, str):
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


def _ended_at(event: shapes.Event, intent: shapes.PaymentIntent) -> tuple[int, int]:
    """Whose word it is, and when the payment ended."""
    if intent.canceled_at is not None:
        return TOLD, intent.canceled_at
    if event.asked is None:
        return TOLD, event.created
    paid_at = _paid_at(intent)
    return (ASKED, event.created) if paid_at is None else (BOOKED, paid_at)


def _saved(intent: shapes.PaymentIntent) -> tuple[str, str] | tuple[()]:
    """The customer and the method that Stripe attached to them, to be charged without them."""
    if intent.status != "succeeded" or intent.setup_future_usage != "off_session":
        return ()
    if intent.customer is None or intent.payment_method is None:
        return ()
    return intent.customer, intent.payment_method


def _charges(intent: shapes.PaymentIntent) -> list[shapes.Charge]:
    """Those that it shows, each once: all until 2022-11-15, the latest where that is asked for, at times both."""
    latest = intent.latest_charge
    if not isinstance(latest, shapes.Charge):
        return intent.charges
    return [*(each for each in intent.charges if each.id != latest.id), latest]


def _paid_at(intent: shapes.PaymentIntent) -> int | None:
    """When the money was booked, where the answer shows it: Stripe may be asked a month later."""
    charge = intent.latest_charge
    if not isinstance(charge, shapes.Charge) or not (charge.captured and charge.paid):
        return None
    booked = charge.balance_transaction
    return booked.created if isinstance(booked, shapes.BalanceTransaction) else charge.created


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
        decline_code=error.decline_code if error else None,
    )


def _received(intent: shapes.PaymentIntent) -> int:
    received = intent.amount_received
    if received is None:
        taken = [c.amount_captured or c.amount for c in _charges(intent) if c.captured and c.paid]
        received = sum(taken) if taken else intent.amount if intent.status == "succeeded" else 0
    return from_stripe(received, intent.currency)


def _charge_fact(
    event: shapes.Event, charge: shapes.Charge, is_lonely: bool
) -> StripeFact | Nothing:
    if is_lonely:
        return Nothing("a charge made without a PaymentIntent", charge.id)
    fees = parts.fees([charge])
    tells = Fold(
        livemode=event.livemode,
        account=event.of_account,
        links=parts.links(event, charge.metadata, parts.CHARGE_LINK_RANK),
        # A charge that was never captured is "refunded" when its authorisation is released.
        refunds=refunds(event, charge.refunds if charge.captured else ()),
        fees=fees,
        unsettled=parts.unsettled([charge], fees),
        method=parts.method([charge]),
        reviews=parts.reviews([charge.review]),
        invoice=charge.invoice or "",
        claims=parts.claims(event, [charge]),
    )
    return of_charge(event, charge.payment_intent, charge.id, tells)
