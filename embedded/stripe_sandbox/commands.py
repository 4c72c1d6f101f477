"""The bodies of `/_sandbox/…`: what may be asked of the sandbox, with its bounds."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, HttpUrl, PositiveInt, field_validator

from embedded.stripe_sandbox.ledger import API_VERSION

Probability = float
# A play is held in memory: a payment with its events takes some 27 kB, so this many stay under a gigabyte.
MOST_PAYMENTS = 30_000


class Asked(BaseModel):
    """A field that is not known is a mistake, not a wish."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class EndpointOrder(Asked):
    url: str
    secrets: list[str] = Field(min_length=1)
    api_version: str = API_VERSION

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


class FaultsOrder(Asked):
    duplicates: Probability = Field(default=0.0, ge=0, le=1)
    reorder: int | Literal["all"] = 0
    delay_ms: int = Field(default=0, ge=0)
    tie_seconds: Probability = Field(default=0.0, ge=0, le=1)
    drop: Probability = Field(default=0.0, ge=0, le=1)


class PlayOrder(Asked):
    """`start_at` is an epoch second or a time with its zone; payments begin within the spread."""

    seed: int | str
    start_at: int | datetime
    spread_seconds: int = Field(default=30 * 86_400, ge=0)
    payments: list[PaymentOrder] = Field(max_length=MOST_PAYMENTS)
    faults: FaultsOrder = FaultsOrder()

    @field_validator("start_at")
    @classmethod
    def _has_a_zone(cls, start_at: int | datetime) -> int | datetime:
        if isinstance(start_at, datetime) and start_at.tzinfo is None:
            raise ValueError("start_at needs a time zone")
        return start_at

    @property
    def start_epoch(self) -> int:
        if isinstance(self.start_at, datetime):
            return int(self.start_at.timestamp())
        return self.start_at


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
    status: Literal[429, 500, 502, 503, "timeout"]
    count: int = Field(ge=0)
    hang_seconds: float = Field(default=90.0, ge=0)
    after_effect: bool = False
