"""The facts about one payment as a join-semilattice: order, duplication and delay change nothing.

Every part of a `Fold` is a maximum, a minimum or a union over what was heard, so `join` is commutative, associative
and idempotent, and one set of facts has one encoding.  Times are whole seconds since 1970, as Stripe tells them.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import orjson
from pydantic import TypeAdapter

from shared.events import PaymentStatus

T = TypeVar("T")

# How far a payment has come.  It never goes back from one phase to an earlier one.
_PHASES: dict[PaymentStatus, int] = {"requires_capture": 1, "succeeded": 2, "canceled": 2}
FINAL_PHASE = 2
# Which of two facts of one phase and one second came later, by what they are about.
_TYPE_RANKS = {
    "created": 0,
    "requires_action": 1,
    "processing": 2,
    "payment_failed": 3,
    "partially_funded": 4,
    "amount_capturable_updated": 4,
    "canceled": 5,
    "succeeded": 5,
}
# A kind of news that is not known yet tells more than `created` and less than any that is.
UNKNOWN_TYPE_RANK = 1
# Stripe's answer, when it was asked: it was given after all that happened in the second it was asked about.
ANSWER_RANK = 9
# Whose word on when it ended counts: its own event's, else when its money was booked, else when Stripe was asked.
TOLD, BOOKED, ASKED = 0, 1, 2
METHOD_RANKS = {"failed": 0, "pending": 1, "succeeded": 2, "paid": 2}
REFUND_RANKS = {"requires_action": 0, "pending": 1, "succeeded": 2, "failed": 3, "canceled": 3}


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What one fact says of the payment itself; amounts in minor units."""

    status: PaymentStatus
    currency: str
    amount_minor: int
    capturable_minor: int
    failure_code: str | None = None
    decline_code: str | None = None  # the issuer's own reason


@dataclass(frozen=True, slots=True)
class Told:
    """A snapshot and its place among those of its phase and second; `asked_at` is 0 unless it is an answer."""

    rank: int
    asked_at: int
    snapshot: Snapshot


@dataclass(frozen=True, slots=True, order=True)
class Link:
    """A name of a user or subscription; a payment's own word outranks its charges', a later one an earlier.

    `text` is the UUID, and empty where it is none.
    """

    is_uuid: bool
    rank: int
    created: int
    event_id: str
    text: str


@dataclass(frozen=True, slots=True)
class Refund:
    rank: int
    status: str
    amount_minor: int
    created: int
    held: bool = False  # the money had left, or was on its way, at some time
    returned_at: int | None = None  # failed or canceled


@dataclass(frozen=True, slots=True, order=True)
class Payout:
    """One movement of a dispute's money; positive when it left us."""

    created: int
    amount_minor: int


@dataclass(frozen=True, slots=True)
class Dispute:
    """`told` (second, event id, status) is for people; the money stands in `moved`, by balance transaction."""

    told: tuple[int, str, str]
    moved: dict[str, Payout] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, order=True)
class Fee:
    """What Stripe kept of one balance transaction, in the currency it was settled in."""

    is_charge: bool
    currency: str
    fee_minor: int
    net_minor: int


@dataclass(frozen=True, slots=True, order=True)
class Method:
    """What one attempt was paid with; the latest attempt counts, and none follows the one that succeeded.

    Empty text where it was not said: an issuer not asked for 3-D Secure, no mandate but for a bank debit.
    """

    created: int
    rank: int  # of those made in one second the one that succeeded; see METHOD_RANKS
    attempt: str  # its charge, or the event that tells of an attempt without one
    type: str
    three_d_secure: str = ""
    mandate_id: str = ""


@dataclass(frozen=True, slots=True, order=True)
class Review:
    """Somebody looks, or looked, whether the payment is fraud; a closed one stays closed."""

    is_closed: bool
    created: int
    reason: str


@dataclass(frozen=True, slots=True)
class Fold:
    """All that was heard of one payment.  `told` are the snapshots of the furthest (phase, second)."""

    phase: int = -1
    second: int = 0
    told: dict[str, Told] = field(default_factory=dict)
    received_minor: int = 0
    created: int | None = None
    ended: dict[str, tuple[int, int]] = field(default_factory=dict)  # status: (who says so, second)
    # What Stripe answered that it had come back to, and when: nothing comes back from where this one is.
    denied: dict[str, int] = field(default_factory=dict)
    livemode: bool = False
    account: str = ""
    links: dict[str, Link] = field(default_factory=dict)
    refunds: dict[str, Refund] = field(default_factory=dict)
    disputes: dict[str, Dispute] = field(default_factory=dict)
    fees: dict[str, Fee] = field(default_factory=dict)
    # Balance transactions that captured charges name, each with its charge, whose fee nothing has said yet.
    unsettled: dict[str, str] = field(default_factory=dict)
    method: Method | None = None
    reviews: dict[str, Review] = field(default_factory=dict)
    invoice: str = ""
    # Stripe's customer and the method that this payment saved for later; none while it has not succeeded.
    saved: tuple[str, str] | tuple[()] = ()
    # By second: what a captured charge then said was given back in all.  No money is booked from it.
    claims: dict[str, int] = field(default_factory=dict)
    # Stripe was asked for all refunds after this second: what was claimed until then is told.
    listed: int = 0

    @property
    def is_known(self) -> bool:
        """Whether any fact said what the payment itself is; a refund or a charge alone does not."""
        return bool(self.told)


@dataclass(frozen=True, slots=True)
class StripeFact:
    """One Stripe event in our words.

    `payment` is none where the fact names only `charge`; `charges` are those it shows to be the payment's;
    `tells` is the least fold that knows this fact.
    """

    event_id: str
    type: str
    created: int
    payment: str | None
    charge: str | None
    charges: tuple[str, ...]
    tells: Fold
    is_answer: bool = False


_FOLDS = TypeAdapter(Fold)
EMPTY = Fold()


def merge(fold: Fold, fact: StripeFact) -> Fold:
    return join(fold, fact.tells)


def join(a: Fold, b: Fold) -> Fold:
    """The least fold that knows what both know."""
    phase, second = max((a.phase, a.second), (b.phase, b.second))
    listed = max(a.listed, b.listed)
    fees = _union(a.fees, b.fees, max)
    return Fold(
        phase=phase,
        second=second,
        told=_told_at(phase, second, a, b),
        received_minor=max(a.received_minor, b.received_minor),
        created=_earliest(a.created, b.created),
        ended=_union(a.ended, b.ended, min),
        denied=_union(a.denied, b.denied, max),
        livemode=a.livemode or b.livemode,
        account=max(a.account, b.account),
        links=_union(a.links, b.links, max),
        refunds=_union(a.refunds, b.refunds, _join_refunds),
        disputes=_union(a.disputes, b.disputes, _join_disputes),
        fees=fees,
        unsettled=_without(_union(a.unsettled, b.unsettled, max), fees),
        method=_latest(a.method, b.method),
        reviews=_union(a.reviews, b.reviews, max),
        invoice=max(a.invoice, b.invoice),
        saved=max(a.saved, b.saved),
        claims=_claims_after(listed, _union(a.claims, b.claims, max)),
        listed=listed,
    )


def is_foreign(fold: Fold, fact: StripeFact) -> bool:
    """Of another account or mode than what was folded so far: then it is another payment, whatever its name."""
    told = fact.tells
    return fold != EMPTY and (told.livemode, told.account) != (fold.livemode, fold.account)


def is_undecided(fold: Fold) -> bool:
    """Two states of one phase and second: which came last only Stripe knows.  No money hangs on it."""
    if fold.phase >= FINAL_PHASE or len(fold.told) < 2:
        return False
    if any(told.rank == ANSWER_RANK for told in fold.told.values()):
        return False
    # Nothing comes before a payment is created, so that never ties with what follows.
    return len({told.snapshot for told in fold.told.values() if told.rank > 0}) > 1


def encode(fold: Fold) -> bytes:
    """Canonical JSON: folds that know the same are the same bytes."""
    return orjson.dumps(fold, option=orjson.OPT_SORT_KEYS)


def decode(text: str | bytes) -> Fold:
    return _FOLDS.validate_json(text)


def phase_of(status: PaymentStatus) -> int:
    return _PHASES.get(status, 0)


def type_rank(event_type: str) -> int:
    return _TYPE_RANKS.get(event_type.rpartition(".")[2], UNKNOWN_TYPE_RANK)


def _told_at(phase: int, second: int, a: Fold, b: Fold) -> dict[str, Told]:
    told: dict[str, Told] = {}
    for fold in (a, b):
        if (fold.phase, fold.second) == (phase, second):
            told |= fold.told
    return told


def _without(unsettled: dict[str, str], fees: dict[str, Fee]) -> dict[str, str]:
    if not unsettled or not fees:
        return unsettled
    return {name: charge for name, charge in unsettled.items() if name not in fees}


def _latest(a: Method | None, b: Method | None) -> Method | None:
    if a is None or b is None:
        return b if a is None else a
    return max(a, b)


def _claims_after(listed: int, claims: dict[str, int]) -> dict[str, int]:
    if not listed or not claims:
        return claims
    return {second: claimed for second, claimed in claims.items() if int(second) > listed}


def _join_refunds(a: Refund, b: Refund) -> Refund:
    further = max(a, b, key=lambda each: (each.rank, each.status, each.amount_minor, each.created))
    return Refund(
        rank=further.rank,
        status=further.status,
        amount_minor=further.amount_minor,
        created=further.created,
        held=a.held or b.held,
        returned_at=_earliest(a.returned_at, b.returned_at),
    )


def _join_disputes(a: Dispute, b: Dispute) -> Dispute:
    return Dispute(max(a.told, b.told), _union(a.moved, b.moved, max))


def _earliest(a: int | None, b: int | None) -> int | None:
    if a is None or b is None:
        return b if a is None else a
    return min(a, b)


def _union(a: dict[str, T], b: dict[str, T], both: Callable[[T, T], T]) -> dict[str, T]:
    if not a or not b:
        return a or b
    joined = dict(a)
    for key, value in b.items():
        joined[key] = both(joined[key], value) if key in joined else value
    return joined
