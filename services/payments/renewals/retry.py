"""An operator has a renewal tried again: now, with the method the customer has.  Callers own the transaction."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from services.payments.renewals.dunning import STOPS
from services.payments.renewals.methods import take_up_again
from services.payments.renewals.models import PaymentMethod, Renewal
from services.payments.renewals.outcomes import known_now, still_wanted
from shared.errors import Conflict, NotFound


class NotToBeTried(Conflict):
    title = "The renewal is not to be tried again"


async def retry(session: AsyncSession, renewal_id: UUID, now: datetime) -> str:
    """What becomes of it, in a sentence; the worker does it.  Raises NotFound or NotToBeTried."""
    renewal = await session.get(Renewal, renewal_id, with_for_update=True)
    if renewal is None:
        raise NotFound(f"there is no renewal {renewal_id}", renewal_id=str(renewal_id))
    method = await session.get(PaymentMethod, renewal.user_id)
    if renewal.status not in ("due", "past_due", "given_up"):
        raise NotToBeTried(f"it is {renewal.status}", status=renewal.status)
    if method is None:
        raise NotToBeTried("its customer has no payment method: PUT one, that tries it by itself")
    if renewal.failure_code in STOPS and method.revision == renewal.method_revision:
        raise NotToBeTried(
            f"{renewal.failure_code}: card networks fine whoever asks that card again; another one is needed",
            failure_code=renewal.failure_code,
        )
    if not still_wanted(await known_now(session, renewal), renewal):
        raise NotToBeTried("its subscription is paused, canceled or in another period by now")
    if renewal.status != "given_up":
        renewal.next_attempt_at, renewal.needs_new_method = now, False
        return "it is charged now"
    await take_up_again(session, renewal, now)
    match renewal.status:
        case "past_due":
            return "it is charged now"
        case "charging":
            return "a payment that the API was asked for is followed"
        case _:
            return "its period is over: a new one begins now, and is charged"


async def past_due(session: AsyncSession) -> list[UUID]:
    """Those that wait for their day, and for nothing of the customer's."""
    waiting = select(Renewal.id).where(
        Renewal.status == "past_due", Renewal.next_attempt_at.is_not(None)
    )
    return list(await session.scalars(waiting.order_by(Renewal.next_attempt_at, Renewal.id)))
