"""Every model there is, as one metadata: what the migrations must arrive at."""

from functools import cache

from sqlalchemy import MetaData
from sqlalchemy.orm import relationship

import services.analytics.models
import services.payments.orders.models
import services.payments.reconcile.models
import services.payments.renewals.models
import services.pricing.models  # noqa: F401
import shared.api_keys
import shared.inbox
import shared.lease
import shared.outbox
import shared.parking  # noqa: F401
from services.loyalty.models import LoyaltyAccount
from services.payments.models import PaymentIntent
from shared.db import NAMING, SERVICES, Base
from shared.storefront import User


def _relate() -> None:
    """Users have an account and payments: for commands that see every schema, never for a service."""
    loyalty_account = relationship(
        LoyaltyAccount,
        primaryjoin=lambda: User.id == LoyaltyAccount.user_id,
        foreign_keys=lambda: LoyaltyAccount.user_id,
        uselist=False,
        viewonly=True,
        lazy="raise",
    )
    payment_intents = relationship(
        PaymentIntent,
        primaryjoin=lambda: User.id == PaymentIntent.user_id,
        foreign_keys=lambda: PaymentIntent.user_id,
        order_by=lambda: PaymentIntent.created_at,
        viewonly=True,
        lazy="raise",
    )
    User.__mapper__.add_property("loyalty_account", loyalty_account)
    User.__mapper__.add_property("payment_intents", payment_intents)


@cache
def target_metadata() -> MetaData:
    """Models with a schema as they are; those of `shared` once for each service."""
    target = MetaData(naming_convention=NAMING)
    for table in Base.metadata.sorted_tables:
        if table.schema:
            table.to_metadata(target)
        else:
            for service in SERVICES:
                table.to_metadata(target, schema=service)
    return target


_relate()
