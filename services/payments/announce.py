"""What a change of a payment's state is called to others."""

from datetime import datetime

from services.payments.fold_records import RawEvent, Row, moment, optional_moment
from shared.events import MoneyMovement, PaymentChanged, derived_id
from shared.trace import Cause


def change(row: Row, last: RawEvent, now: datetime) -> tuple[PaymentChanged, Cause]:
    """The fact with the row's revision; `last` of what led to it is its cause."""
    now_true = row.state
    event = PaymentChanged(
        id=derived_id("payments.payment_changed", row.id, row.revision),
        occurred_at=now,
        customer_id=now_true.user_id,
        payment_id=row.id,
        stripe_id=row.stripe_id,
        subscription_id=now_true.subscription_id,
        revision=row.revision,
        status=now_true.status,
        currency=now_true.currency,
        amount_minor=now_true.amount_minor,
        capturable_minor=now_true.capturable_minor,
        received_minor=now_true.received_minor,
        refunded_minor=now_true.refunded_minor,
        disputed_minor=now_true.disputed_minor,
        fee_minor=now_true.fee_minor,
        net_minor=now_true.net_minor,
        failure_code=now_true.failure_code,
        decline_code=now_true.decline_code,
        payment_method_type=now_true.payment_method_type,
        created_at=moment(now_true.created_at),
        succeeded_at=optional_moment(now_true.succeeded_at),
        movements=tuple(
            MoneyMovement(
                kind=each.kind,
                id=each.id,
                amount_minor=each.amount_minor,
                at=moment(each.at),
            )
            for each in now_true.movements
        ),
    )
    return event, Cause(f"stripe:{last.id}", last.traceparent)
