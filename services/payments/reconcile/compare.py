"""Stripe's object beside what we know: in what it would change the payment, if it were a fact.  Pure."""

from dataclasses import dataclass

from services.payments.domain import Fold, StripeFact, is_foreign, merge, state

# What a payment is, what money moved, how it was paid and who looks at it.  Fees are asked for elsewhere.
COMPARED = (
    "status",
    "currency",
    "amount_minor",
    "capturable_minor",
    "received_minor",
    "refunded_minor",
    "disputed_minor",
    "failure_code",
    "payment_method_type",
    "three_d_secure",
    "mandate_id",
    "review",
    "user_id",
    "subscription_id",
    "invoice_id",
)
# No money hangs on these: a shop that hears of no charges is told of them here, payment by payment, and alarmed by none.
DETAILS = ("payment_method_type", "three_d_secure", "mandate_id", "review", "invoice_id")
UNKNOWN = "nothing is known of it here"


@dataclass(frozen=True, slots=True)
class Difference:
    """`is_mendable` where Stripe's object, told as a fact, ends it; a contradiction is an operator's.

    `is_detail` where it is no gap, but told all the same.
    """

    detail: str
    is_mendable: bool
    is_detail: bool = False


def difference(folded: Fold | None, fact: StripeFact) -> Difference | None:
    """None where the fact would change nothing."""
    if folded is None or not folded.is_known:
        return Difference(UNKNOWN, is_mendable=True)
    if is_foreign(folded, fact):
        return Difference("it is of another account or mode here", is_mendable=False)
    told = fact.tells
    # Stripe was asked after all that is known here: it cannot have gone back.
    if told.told and told.phase < folded.phase and folded.second <= told.second:
        status = next(iter(told.told.values())).snapshot.status
        return Difference(f"status: {state(folded).status} here, {status} at Stripe", False)
    before, after = _shown(folded), _shown(merge(folded, fact))
    named = [name for name in sorted(before | after) if before.get(name) != after.get(name)]
    if not named:
        return None
    parts = [f"{name}: {before.get(name)} here, {after.get(name)} at Stripe" for name in named]
    is_detail = all(name in DETAILS for name in named)
    return Difference("; ".join(parts), is_mendable=True, is_detail=is_detail)


def _shown(fold: Fold) -> dict[str, object]:
    seen = state(fold)
    shown: dict[str, object] = {name: getattr(seen, name) for name in COMPARED}
    shown |= {f"refund {name}": refund.status for name, refund in fold.refunds.items()}
    shown |= {f"dispute {name}": dispute.told[2] for name, dispute in fold.disputes.items()}
    return shown
