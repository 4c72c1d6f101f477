"""What is true of a payment: the join of every fact heard about it, whatever their order.

`Fold` is what the facts add up to, `join` adds two up, `state` reads what is true from it.
"""

from services.payments.domain.fold import (
    ANSWER_RANK,
    Dispute,
    Fee,
    Fold,
    Link,
    Method,
    Payout,
    Refund,
    Review,
    Snapshot,
    StripeFact,
    Told,
    decode,
    encode,
    is_foreign,
    is_undecided,
    join,
    merge,
    phase_of,
    type_rank,
)
from services.payments.domain.state import (
    Movement,
    PaymentState,
    Untold,
    state,
    unlinked_reasons,
    untold_refunds,
)

__all__ = [
    "ANSWER_RANK",
    "Dispute",
    "Fee",
    "Fold",
    "Link",
    "Method",
    "Movement",
    "PaymentState",
    "Payout",
    "Refund",
    "Review",
    "Snapshot",
    "StripeFact",
    "Told",
    "Untold",
    "decode",
    "encode",
    "is_foreign",
    "is_undecided",
    "join",
    "merge",
    "phase_of",
    "state",
    "type_rank",
    "unlinked_reasons",
    "untold_refunds",
]
