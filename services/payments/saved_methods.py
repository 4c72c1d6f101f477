"""What a customer may be charged with off-session, learnt from what they paid with and had saved for that.

Stripe attaches a payment's method to its customer where the payment said `setup_future_usage: off_session`.  The latest
such payment counts, and not against what was given later over HTTP.  What a customer has saved with another account is
that account's: it is learnt only where their renewals are charged there already.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

import asyncpg

from services.payments.domain import Fold, PaymentState

# These are charged again as they are.  What sends the customer to their bank (ideal, bancontact, …) leaves a debit of
# another id behind, which only its charge tells: that is given by the storefront.
CHARGED_AGAIN = frozenset(
    {
        "acss_debit",
        "amazon_pay",
        "au_becs_debit",
        "bacs_debit",
        "card",
        "cashapp",
        "link",
        "paypal",
        "revolut_pay",
        "sepa_debit",
        "us_bank_account",
    }
)

# Told twice, or again after something newer: nothing changes.
LEARN = """
INSERT INTO payment_methods AS m (user_id, stripe_customer_id, stripe_payment_method_id, account,
    updated_at, learnt_from, is_news)
SELECT *, true FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::timestamptz[], $6::text[])
    AS new (user_id, customer, method, account, at, payment)
WHERE account IS NOT DISTINCT FROM
    (SELECT known.account FROM payment_methods known WHERE known.user_id = new.user_id)
ORDER BY user_id
ON CONFLICT (user_id) DO UPDATE SET
    stripe_customer_id = excluded.stripe_customer_id,
    stripe_payment_method_id = excluded.stripe_payment_method_id,
    updated_at = excluded.updated_at,
    learnt_from = CASE WHEN {is_other} THEN excluded.learnt_from ELSE m.learnt_from END,
    revision = m.revision + ({is_other})::int,
    is_news = m.is_news OR {is_other}
WHERE m.updated_at < excluded.updated_at AND m.account IS NOT DISTINCT FROM excluded.account
""".format(
    is_other="(m.stripe_customer_id, m.stripe_payment_method_id)"
    " IS DISTINCT FROM (excluded.stripe_customer_id, excluded.stripe_payment_method_id)"
)


@dataclass(frozen=True, slots=True, order=True)
class Learnt:
    """Stripe's names of a customer and a method, and the payment (`pi_…`) that was paid with it."""

    at: datetime
    payment: str
    user_id: UUID
    customer: str
    method: str
    account: str | None


def learnt(payment: str, folded: Fold, seen: PaymentState) -> Learnt | None:
    """None while anything of it is not known: whose payment it is, or what it was paid with."""
    if not folded.saved or seen.user_id is None or seen.succeeded_at is None:
        return None
    if seen.payment_method_type not in CHARGED_AGAIN:
        return None
    customer, method = folded.saved
    at = datetime.fromtimestamp(seen.succeeded_at, UTC)
    return Learnt(at, payment, seen.user_id, customer, method, folded.account or None)


async def learn(connection: asyncpg.Connection, news: Collection[Learnt]) -> None:
    if not news:
        return
    ordered = sorted(news, key=lambda each: (each.at, each.payment))
    latest = {(each.user_id, each.account): each for each in ordered}
    rows = list(latest.values())
    await connection.execute(
        LEARN,
        [each.user_id for each in rows],
        [each.customer for each in rows],
        [each.method for each in rows],
        [each.account for each in rows],
        [each.at for each in rows],
        [each.payment for each in rows],
    )
