"""Facts as they are in life: a payment says several, some with refunds, from a fixed seed."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from random import Random
from uuid import UUID

from shared.events import MoneyMovement, PaymentChanged, derived_id
from shared.trace import new_traceparent

START = datetime(2026, 1, 1, 8, tzinfo=UTC)
# Of one payment: made, confirmed, on its way, paid; one in eight is refunded in part after that.
STATUSES = ("requires_payment_method", "requires_action", "processing", "succeeded")
REFUNDED_SHARE = 0.125
CUSTOMERS = 5_000
# Payments under way at the same time, so that neighbours in the log are other customers'.
ABREAST = 500


def payment_facts(count: int, seed: int = 1) -> list[PaymentChanged]:
    """`count` facts; each payment's own are in order, with other payments' in between."""
    random = Random(seed)
    made: list[PaymentChanged] = []
    lives: list[Iterator[PaymentChanged]] = []
    number = 0
    while len(made) < count:
        while len(lives) < ABREAST:
            lives.append(_life(random, number))
            number += 1
        at = random.randrange(ABREAST)
        fact = next(lives[at], None)
        if fact is None:
            lives[at] = _life(random, number)
            number += 1
        else:
            made.append(fact)
    return made


def _life(random: Random, number: int) -> Iterator[PaymentChanged]:
    customer = derived_id("bench-customer", random.randrange(CUSTOMERS))
    payment = derived_id("bench-payment", number)
    amount_minor = random.randrange(500, 20_000)
    began = START + timedelta(seconds=number)
    for revision, status in enumerate(STATUSES, 1):
        paid = status == "succeeded"
        yield PaymentChanged(
            **_same(number, customer, payment, amount_minor, began),
            id=derived_id("bench-fact", number, revision),
            occurred_at=began + timedelta(seconds=revision),
            revision=revision,
            status=status,
            received_minor=amount_minor if paid else 0,
            succeeded_at=began + timedelta(seconds=revision) if paid else None,
        )
    if random.random() < REFUNDED_SHARE:
        at = began + timedelta(days=1)
        refund = MoneyMovement(kind="refund", id=f"re_{number:024}", amount_minor=100, at=at)
        yield PaymentChanged(
            **_same(number, customer, payment, amount_minor, began),
            id=derived_id("bench-fact", number, len(STATUSES) + 1),
            occurred_at=at,
            revision=len(STATUSES) + 1,
            status="succeeded",
            received_minor=amount_minor,
            refunded_minor=refund.amount_minor,
            succeeded_at=began + timedelta(seconds=len(STATUSES)),
            movements=(refund,),
        )


def _same(
    number: int, customer: UUID, payment: UUID, amount_minor: int, began: datetime
) -> dict[str, object]:
    return {
        "customer_id": customer,
        "payment_id": payment,
        "stripe_id": f"pi_{number:024}",
        "subscription_id": derived_id("bench-subscription", customer),
        "currency": "USD",
        "amount_minor": amount_minor,
        "created_at": began,
        "traceparent": new_traceparent(),
    }
