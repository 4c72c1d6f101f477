"""The bodies of `/_sandbox/…`: what may be asked of the sandbox, with its bounds.

POST forget                          everything, as a restart does
PUT  endpoints        Endpoints      where webhooks go
POST play             PlayOrder      lives of payments from a seed, delivered with faults
POST advance          Advance        one thing more happens to one payment
GET  deliveries                      counts of what was delivered, failed, dropped
POST drain            Drain          wait until nothing is pending
POST send-raw         RawBody        any body, any signature
POST redeliver        {events: []}   those, or all that are awaited
POST outage           OutageOrder    the API fails by this one rule
POST outages          OutagesOrder   or by several; GET shows what is left of them
POST silence          SilenceOrder   the next events are never made, or never delivered
POST clock            ClockOrder     what time it is at Stripe
POST customers        CustomerOrder  a customer whose charges end as told
POST payouts          PayoutOrder    an automatic payout; payouts/advance: PayoutStep
GET  truth            ?stripe_id= &details=true
GET  calls                           how often the API was called, by method
"""

import re
from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    HttpUrl,
    PositiveInt,
    field_validator,
    model_validator,
)

from embedded.stripe_sandbox.exchange import WORTH
from embedded.stripe_sandbox.ledger import API_VERSION
from embedded.stripe_sandbox.outcomes import is_outcome

Probability = float
# A play is held in memory: a payment with its events takes some 27 kB, so this many stay under a gigabyte.
MOST_PAYMENTS = 30_000


def _has_a_zone(moment: int | datetime) -> int | datetime:
    if isinstance(moment, datetime) and moment.tzinfo is None:
        raise ValueError("a time zone is needed")
    return moment


# An epoch second, or a time with its zone.
Moment = Annotated[int | datetime, AfterValidator(_has_a_zone)]


def epoch_of(moment: int | datetime) -> int:
    return int(moment.timestamp()) if isinstance(moment, datetime) else moment


class Asked(BaseModel):
    """A field that is not known is a mistake, not a wish."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class EndpointOrder(Asked):
    url: str
    secrets: list[str] = Field(min_length=1)
    api_version: str = API_VERSION
    # Thin events say which object to fetch, and nothing of it.
    thin: bool = False

    @field_validator("url")
    @classmethod
    def _is_a_url(cls, url: str) -> str:
        HttpUrl(url)
        return url


class PatienceOrder(Asked):
    concurrency: int = Field(default=32, ge=1, le=256)
    answer_within_seconds: float = Field(default=20.0, gt=0)
    first_retry_after_seconds: float = Field(default=0.5, gt=0)
    longest_retry_after_seconds: float = Field(default=10.0, gt=0)
    give_up_after_seconds: float = Field(default=600.0, ge=0)


class Endpoints(Asked):
    endpoints: list[EndpointOrder]
    patience: PatienceOrder = PatienceOrder()


class PaymentOrder(Asked):
    user_id: str | None = None
    subscription_id: str | None = None
    amount_minor: PositiveInt
    currency: str = Field(pattern="^[A-Za-z]{3}$")
    lifecycle: str | None = None
    account: str | None = None
    livemode: bool = False
    settles_in: Literal["usd", "eur", "gbp", "jpy"] | None = None

    @model_validator(mode="after")
    def _can_be_exchanged(self) -> Self:
        if self.settles_in is not None and self.currency.lower() not in WORTH:
            raise ValueError(f"there is no rate for {self.currency}")
        return self


class FaultsOrder(Asked):
    duplicates: Probability = Field(default=0.0, ge=0, le=1)
    reorder: int | Literal["all"] = 0
    delay_ms: int = Field(default=0, ge=0)
    tie_seconds: Probability = Field(default=0.0, ge=0, le=1)
    drop: Probability = Field(default=0.0, ge=0, le=1)
    never_made: Probability = Field(default=0.0, ge=0, le=1)


class PlayOrder(Asked):
    """`start_at` is an epoch second or a time with its zone; payments begin within the spread."""

    seed: int | str
    start_at: Moment
    spread_seconds: int = Field(default=30 * 86_400, ge=0)
    payments: list[PaymentOrder] = Field(max_length=MOST_PAYMENTS)
    faults: FaultsOrder = FaultsOrder()

    @property
    def start_epoch(self) -> int:
        return epoch_of(self.start_at)


class Advance(Asked):
    """`after_seconds` of simulated time after the payment's last event."""

    stripe_id: str
    action: str
    amount_minor: PositiveInt | None = None
    object_id: str | None = None
    after_seconds: int = Field(default=1, ge=0)


class Drain(Asked):
    timeout_seconds: float = Field(default=60.0, ge=0, le=3_600)


class RawBody(Asked):
    """`signature` overrides the one made from `secrets` and `timestamp`; empty sends none."""

    body: str = ""
    body_base64: str | None = None
    url: str | None = None
    secrets: list[str] = []
    timestamp: int | None = None
    signature: str | None = None


class OutageOrder(Asked):
    """Of the calls whose method and path (a regular expression, searched for) match, `skip` pass, then `count` fail.

    `disconnect` closes the connection instead of answering; `garbage` answers 200 with no JSON of Stripe's.
    """

    status: Literal[401, 403, 409, 429, 500, 502, 503, "timeout", "disconnect", "garbage"]
    count: int = Field(ge=0)
    skip: int = Field(default=0, ge=0)
    method: Literal["GET", "POST"] | None = None
    path: str = ""
    hang_seconds: float = Field(default=90.0, ge=0)
    retry_after_seconds: int | None = Field(default=None, ge=0)
    garbage: Literal["html", "truncated", "empty", "array", "bytes"] = "html"
    after_effect: bool = False
    kept: bool = False

    @field_validator("path")
    @classmethod
    def _is_a_pattern(cls, path: str) -> str:
        try:
            re.compile(path)
        except re.error as error:
            raise ValueError(f"no regular expression: {error}") from error
        return path


class OutagesOrder(Asked):
    outages: list[OutageOrder]


class ClockOrder(Asked):
    """None is the wall's time again; a clock that is set stands still unless it is told to tick."""

    now: Moment | None
    ticking: bool = False
    # Stripe's list of events goes back 30; none forgets nothing.
    events_kept_days: int | None = Field(default=None, gt=0)


class SilenceOrder(Asked):
    """The next `count` events, of `types` if any are given, are in no list at all or only never delivered."""

    fate: Literal["never_made", "undelivered"]
    count: int = Field(ge=0)
    types: list[str] = []


class CustomerOrder(Asked):
    """A customer with a saved method, or new outcomes for the one that `customer` has."""

    customer: str | None = None
    outcomes: list[str] = Field(min_length=1)
    type: Literal["card", "sepa_debit"] | None = None
    metadata: dict[str, str] = {}

    @field_validator("outcomes")
    @classmethod
    def _are_known(cls, outcomes: list[str]) -> list[str]:
        unknown = [each for each in outcomes if not is_outcome(each)]
        if unknown:
            raise ValueError(f"unknown outcomes: {', '.join(unknown)}")
        return outcomes


class PayoutOrder(Asked):
    """An automatic payout of what is available; `skew_minor` makes it differ from its lines."""

    currency: str = Field(pattern="^[A-Za-z]{3}$")
    skew_minor: int = 0
    fee_minor: int | None = Field(default=None, gt=0)
    account: str | None = None


class PayoutStep(Asked):
    payout: str
    action: Literal["in_transit", "paid", "failed", "canceled", "reconciled"]
