"""Who may use a route, and what a change made through it says of who made it."""

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends

from services.pricing.costs import Why
from services.pricing.decisions import Decision
from shared.api_keys import Caller
from shared.auth import require
from shared.web import Now, RequestCause


def acts(scope: str) -> Callable[..., Awaitable[Why]]:
    """A dependency that admits callers with `scope` and says who changes something, when and by which request."""

    async def why(
        caller: Annotated[Caller, Depends(require(scope))], now: Now, cause: RequestCause
    ) -> Why:
        return Why(caller.name, cause, now)

    return why


def decides(scope: str) -> Callable[..., Awaitable[Decision]]:
    """A dependency that admits callers with `scope` to a step of a price version's life; the route says why."""

    async def decision(
        caller: Annotated[Caller, Depends(require(scope))], now: Now, cause: RequestCause
    ) -> Decision:
        return Decision(caller.name, None, now, cause)

    return decision


PRICING_READ = Depends(require("pricing:read"))
SUBSCRIPTIONS_READ = Depends(require("subscriptions:read"))
PricingWriter = Annotated[Decision, Depends(decides("pricing:write"))]
PricingApprover = Annotated[Decision, Depends(decides("pricing:approve"))]
Notifier = Annotated[Decision, Depends(decides("pricing:notify"))]
SubscriptionsWriter = Annotated[Why, Depends(acts("subscriptions:write"))]
