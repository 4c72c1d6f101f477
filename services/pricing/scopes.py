"""Whom a price version is for: everything, or the cohort that a definition describes.  Pure."""

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

import orjson
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
)

from services.pricing.fields import CurrencyCode, DeliveryType, Place
from shared.events import TierName

EVERYTHING = "everything"
# More than a list is for: a cohort of so many has something else in common to be named by.
SUBSCRIPTIONS_MAX = 10_000

DATED = re.compile(r"\d{4}-\d{2}-\d{2}")

# Outside these an instant is a slip, and calendars that count on from it come to an end.
FIRST = datetime(2000, 1, 1, tzinfo=UTC)
LAST = datetime(2200, 1, 1, tzinfo=UTC)


def _sane(at: datetime) -> datetime:
    if not FIRST <= at <= LAST:
        raise ValueError(f"write a time between {FIRST.year} and {LAST.year}")
    return at.astimezone(UTC)


def _written(value: object) -> object:
    match value:
        # A number in quotes would be taken for seconds, or for milliseconds, since 1970.
        case str() if DATED.match(value):
            return value
        case datetime():
            return value
        case _:
            raise ValueError("write it as a string, such as 2026-03-01T12:00:00Z")


# One way to write an instant, whatever offset it came with.
Instant = Annotated[AwareDatetime, BeforeValidator(_written), AfterValidator(_sane)]


@dataclass(frozen=True)
class Member:
    """What a scope may ask of a subscription."""

    subscription_id: UUID
    currency: str
    place: str  # of the delivery address: "US-CA" or "DE"
    delivery_type: str
    variants: frozenset[UUID]
    tier: TierName
    created_at: datetime


class Scope(BaseModel):
    """Every key that is given must hold, within a key any value does; none given is everything."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    currencies: Annotated[frozenset[CurrencyCode], Field(min_length=1, max_length=200)] | None = (
        None
    )
    places: Annotated[frozenset[Place], Field(min_length=1, max_length=5_000)] | None = None
    delivery_types: (
        Annotated[frozenset[DeliveryType], Field(min_length=1, max_length=50)] | None
    ) = None
    variants: Annotated[frozenset[UUID], Field(min_length=1, max_length=5_000)] | None = None
    tiers: Annotated[frozenset[TierName], Field(min_length=1, max_length=4)] | None = None
    signed_up_before: Instant | None = None
    subscriptions: (
        Annotated[frozenset[UUID], Field(min_length=1, max_length=SUBSCRIPTIONS_MAX)] | None
    ) = None

    @property
    def everything(self) -> bool:
        return not self.definition()

    def covers(self, member: Member) -> bool:
        """`US` covers `US-CA`; a box is covered by any of its variants."""
        country = member.place.partition("-")[0]
        return (
            (self.currencies is None or member.currency in self.currencies)
            and (self.places is None or not self.places.isdisjoint((member.place, country)))
            and (self.delivery_types is None or member.delivery_type in self.delivery_types)
            and (self.variants is None or not self.variants.isdisjoint(member.variants))
            and (self.tiers is None or member.tier in self.tiers)
            and (self.signed_up_before is None or member.created_at < self.signed_up_before)
            and (self.subscriptions is None or member.subscription_id in self.subscriptions)
        )

    def definition(self) -> dict[str, object]:
        """As pricing.scopes keeps it: the given keys, lists sorted, so that equal scopes are equal text."""
        given = self.model_dump(mode="json", exclude_none=True)
        return {
            key: sorted(value) if isinstance(value, list) else value for key, value in given.items()
        }

    def key(self) -> str:
        """The same for the same definition, however it was written; short enough for a unique index."""
        if self.everything:
            return EVERYTHING
        canonical = orjson.dumps(self.definition(), option=orjson.OPT_SORT_KEYS)
        return f"cohort:{hashlib.sha256(canonical).hexdigest()}"
