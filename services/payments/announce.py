"""What a change of a payment's state is called to others."""

from datetime import datetime
from uuid import UUID

from services.payments.fold_records import Row, moment, optional_moment
from shared.events import MoneyMovement, PaymentChanged, derived_id


def change_id(payment_id: UUID, revision: int) -> UUID:
    """One fact for each revision, whoever says it."""
    return derived_id(PaymentChanged.type, payment_id, revision)


def change(row: Row, now: datetime) -> PaymentChanged:
    """The fact with the row's revision."""
    now_true = row.state
    return PaymentChanged(
        id=change_id(row.id, row.revision),
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
        account=row.fold.account or None,
        livemode=row.fold.livemode,
    )
