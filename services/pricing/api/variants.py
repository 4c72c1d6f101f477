"""What a variant was sold for, over HTTP."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query

from services.pricing.api.access import PRICING_READ
from services.pricing.api.shapes import Instant, View
from services.pricing.fields import CurrencyCode
from services.pricing.price_log import Asked, lowest_price
from shared.web import Configured, Now, Session

router = APIRouter(prefix="/variants", tags=["variants"])


class LowestPrice(View):
    """The lowest unit price that was in force between `since` and `at`, 30 days of the business's calendar.

    It was in force from `in_force_from` to `in_force_until` (none: still is, as far as is known `at`), said by
    `price_version`, or by the storefront's catalogue where that is none.  Prices are known since `known_since`;
    `complete`: that is the whole window.  `price_minor` is what is in force `at`; none: nothing is.
    """

    variant_id: UUID
    currency: str
    at: datetime
    since: datetime
    known_since: datetime
    complete: bool
    lowest_price_minor: int
    in_force_from: datetime
    in_force_until: datetime | None
    price_version: int | None
    price_minor: int | None


def asked(
    now: Now,
    settings: Configured,
    at: Annotated[
        Instant | None,
        Query(
            description="When a reduction begins: its own price does not count;"
            " by default when the one that runs now began, else now"
        ),
    ] = None,
) -> Asked:
    return Asked(at, now, settings.time_zone)


@router.get("/{variant_id}/lowest-price", dependencies=[PRICING_READ])
async def lowest(
    variant_id: UUID,
    currency: CurrencyCode,
    asked: Annotated[Asked, Depends(asked)],
    session: Session,
) -> LowestPrice:
    """The lowest price of the last 30 days, as the European Union wants it shown beside a reduced one."""
    answer = await lowest_price(session, variant_id, currency, asked)
    window = answer.window
    return LowestPrice(
        variant_id=variant_id,
        currency=currency,
        at=window.at,
        since=window.since,
        known_since=answer.known_since,
        complete=answer.known_since <= window.since,
        lowest_price_minor=answer.found.price_minor,
        in_force_from=answer.found.since,
        in_force_until=answer.found.until,
        price_version=answer.found.price_version,
        price_minor=answer.price_minor,
    )
