"""The facts services tell each other: past tense, immutable, only ever added to.

A fact carries the whole state it is about and a `revision` that rises by one, so that a consumer computes
its target and books the difference; a duplicate or an old revision books nothing.
"""

from decimal import Decimal
from typing import Any, ClassVar, Literal
from uuid import UUID, uuid5

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

# Every deterministic id of farebox is a UUIDv5 below this one; it must never change.
NAMESPACE = UUID("6d0a6b1e-6f0c-5c1f-9a0b-fa7eb0c5a001")


def derived_id(*parts: object) -> UUID:
    """The same id for the same parts, for ever: a re-emission is the same event."""
    return uuid5(NAMESPACE, ":".join(str(part) for part in parts))


class Event(BaseModel):
    """A fact.  Unknown fields are ignored: a publisher may add one before its readers know it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    topic: ClassVar[str]  # after the prefix: `payments` is published to `farebox.payments`
    type: ClassVar[str]
    version: ClassVar[int] = 1

    id: UUID
    occurred_at: AwareDatetime
    # W3C trace context of what caused this; travels as a header, never in the body.
    traceparent: str | None = Field(default=None, exclude=True, repr=False)

    @property
    def key(self) -> str:
        """Partition key: facts with the same key arrive in order."""
        raise NotImplementedError

    @classmethod
    def dataschema(cls) -> str:
        return f"urn:farebox:{cls.type}:v{cls.version}"

    def body(self) -> dict[str, Any]:
        return self.model_dump(mode="json")


class CustomerEvent(Event):
    """A fact about one customer; all of a customer's facts share a partition."""

    customer_id: UUID

    @property
    def key(self) -> str:
        return str(self.customer_id)


class ConfigPublished(Event):
    """A price version was published; it is in force from `effective_from`."""

    topic = "pricing.configs"
    type = "pricing.config_published"

    price_version: int
    effective_from: AwareDatetime
    admin_percentage: Decimal
    delivery_cost_minor: dict[str, dict[str, int]]  # currency -> delivery type -> cost
    tax_rates: dict[str, Decimal]  # place -> fraction: 0.19 is 19 %
    reason: str
    published_by: str
    # Whom it is for, none: everything.  Of a cohort's version the terms above are those it amounts to, laid over
    # the version for everything that is in force then.
    scope: dict[str, Any] | None = None
    scope_id: int = 1
    variant_prices_minor: dict[str, dict[UUID, int]] = {}  # currency -> variant -> unit price
    tax_inclusive: tuple[str, ...] = ()  # places whose prices contain the tax
    timing: dict[str, Any] | None = None  # who moves when; none: everybody at once
    approved_by: str | None = None
    reverts: int | None = None  # the version that this one takes back
    withdrawn: bool = False  # it was published for later, and is never going to be in force

    @property
    def key(self) -> str:
        return "configs"


class BoxLine(BaseModel):
    """One product variant in a box; the storefront leaves the unit price to pricing."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    variant_id: UUID
    quantity: int = Field(ge=1, le=10_000)
    unit_price_minor: int | None = Field(default=None, ge=0)


class VariantLine(BaseModel):
    """One product variant in a box, at the unit price it was priced at."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    variant_id: UUID
    quantity: int = Field(ge=1, le=10_000)
    unit_price_minor: int = Field(ge=0)


SubscriptionStatus = Literal["active", "paused", "canceled"]
BillingInterval = Literal["week", "month", "quarter", "year"]


class SubscriptionChanged(CustomerEvent):
    """A subscription was created or changed in any way but its price, through the API or the storefront's SQL."""

    topic = "pricing"
    type = "pricing.subscription_changed"

    subscription_id: UUID
    revision: int = Field(ge=1)  # of the subscription; shared with SubscriptionCostChanged
    status: SubscriptionStatus
    currency: str
    billing_interval: BillingInterval
    period_start: AwareDatetime | None = None
    period_end: AwareDatetime | None = None
    variants: tuple[BoxLine, ...] = ()
    delivery_type: str | None = None
    delivery_address_id: UUID | None = None
    total_minor: int | None = None  # of one billing interval; none until it is priced
    created_at: AwareDatetime
    canceled_at: AwareDatetime | None = None


class CostBreakdown(BaseModel):
    """What one billing interval costs, line by line, with the inputs it was computed from (minor units)."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    currency: str
    variants: tuple[VariantLine, ...]
    subtotal_minor: int
    admin_percentage: Decimal
    fee_minor: int
    delivery_type: str
    delivery_minor: int
    loyalty_discount_minor: int = 0
    taxable_minor: int
    place: str
    tax_rate: Decimal
    tax_minor: int
    total_minor: int
    # The versions it is composed of, in order; what was said before there were cohorts names one: price_version.
    price_versions: tuple[int, ...] = ()
    tax_inclusive: bool = False  # the prices include the tax: taxable + tax is what they add up to
    rounding_minor: int = 0  # to what can be paid: dinars in tens of fils, ariary whole


class SubscriptionCostChanged(CustomerEvent):
    """What a subscription costs changed: the first price, a new configuration, other variants, delivery or discount."""

    topic = "pricing"
    type = "pricing.subscription_cost_changed"

    subscription_id: UUID
    revision: int = Field(ge=1)
    status: SubscriptionStatus
    currency: str
    billing_interval: BillingInterval
    price_version: int
    cost_history_id: int
    history_hash: str | None = None  # of that line and all before it, in hexadecimal
    old_breakdown: CostBreakdown | None = None
    new_breakdown: CostBreakdown
    old_total_minor: int | None = None
    new_total_minor: int
    effective_at: AwareDatetime
    kind: Literal["created", "variants", "delivery", "config", "discount"]
    reason: str
    changed_by: str


class NoticeDue(CustomerEvent):
    """A customer is to be told of a higher price by `notify_by`; whoever was not told in time keeps the old one.

    Say that it was done by POST /notices/{notice_id}/told.
    """

    topic = "pricing"
    type = "pricing.notice_due"

    notice_id: UUID
    subscription_id: UUID
    price_version: int
    currency: str
    old_total_minor: int
    new_total_minor: int
    old_breakdown: CostBreakdown | None = None
    new_breakdown: CostBreakdown
    effective_at: AwareDatetime
    notify_by: AwareDatetime
    reason: str


PaymentStatus = Literal[
    "requires_payment_method",
    "requires_confirmation",
    "requires_action",
    "processing",
    "requires_capture",
    "succeeded",
    "canceled",
]


class MoneyMovement(BaseModel):
    """Money that left a payment again, or came back to it; `amount_minor` is positive when it left."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    kind: Literal["refund", "dispute"]
    id: str  # Stripe's id of the refund or of the balance transaction
    amount_minor: int
    at: AwareDatetime


class PaymentChanged(Event):
    """The whole money state of one payment, after the Stripe facts folded so far (minor units)."""

    topic = "payments"
    type = "payments.payment_changed"

    customer_id: UUID | None = None  # none while no Stripe fact names a user
    payment_id: UUID
    stripe_id: str
    subscription_id: UUID | None = None
    revision: int = Field(ge=1)
    status: PaymentStatus
    currency: str
    amount_minor: int
    capturable_minor: int = 0
    received_minor: int = 0
    refunded_minor: int = 0
    disputed_minor: int = 0
    fee_minor: int | None = None  # Stripe's fees, where its balance transactions are known
    net_minor: int | None = None  # what they leave
    failure_code: str | None = None
    decline_code: str | None = None  # the issuer's own reason
    payment_method_type: str | None = None
    created_at: AwareDatetime
    succeeded_at: AwareDatetime | None = None
    movements: tuple[MoneyMovement, ...] = ()
    account: str | None = None  # a connected account, whose money it is; none for our own
    livemode: bool = True  # not so in Stripe's test mode

    @property
    def key(self) -> str:
        return str(self.customer_id or self.payment_id)


RenewalStatus = Literal["paid", "past_due", "recovered", "given_up"]


class RenewalChanged(CustomerEvent):
    """A subscription's next period was paid, is past due, was paid after all, or is given up."""

    topic = "payments"
    type = "payments.renewal_changed"

    renewal_id: UUID
    subscription_id: UUID
    revision: int = Field(ge=1)
    status: RenewalStatus
    period_start: AwareDatetime
    period_end: AwareDatetime
    currency: str
    total_minor: int
    price_version: int
    cost_history_id: int
    payment_id: UUID | None = None  # of the latest attempt
    attempts: int = Field(ge=0)
    next_attempt_at: AwareDatetime | None = None
    failure_code: str | None = None
    needs_new_method: bool = False  # no attempt before the customer gives another one
    pause: bool = False  # the subscription is to be paused, nobody pays for it
    resume: bool = False  # it was paused for this renewal's sake, which is paid after all


TierName = Literal["bronze", "silver", "gold", "platinum"]


class PointsChanged(CustomerEvent):
    """A payment's points were booked or taken back."""

    topic = "loyalty"
    type = "loyalty.points_changed"

    revision: int = Field(ge=1)  # of the account
    payment_id: UUID
    payment_revision: int
    subscription_id: UUID | None = None
    points: int  # the difference booked now
    balance_points: int
    subscription_points: int | None = (
        None  # all points that this subscription's payments are worth now
    )
    rule: str


class TierChanged(CustomerEvent):
    """A customer moved to another tier."""

    topic = "loyalty"
    type = "loyalty.tier_changed"

    revision: int = Field(ge=1)
    old_tier: TierName
    new_tier: TierName
    points_12_months: int


EVENTS: dict[str, type[Event]] = {
    event.type: event
    for event in (
        ConfigPublished,
        SubscriptionChanged,
        SubscriptionCostChanged,
        NoticeDue,
        PaymentChanged,
        RenewalChanged,
        PointsChanged,
        TierChanged,
    )
}
TOPICS = tuple(sorted({event.topic for event in EVENTS.values()}))
