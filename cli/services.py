"""The four services as commands see them: which facts each handles and which checks it brings."""

from collections.abc import Awaitable, Callable, Sequence

from sqlalchemy.ext.asyncio import AsyncSession

from services.analytics import audit as analytics_audit
from services.analytics.handlers import HANDLERS as ANALYTICS
from services.loyalty import audit as loyalty_audit
from services.loyalty.handlers import HANDLERS as LOYALTY
from services.payments import audit as payments_audit
from services.payments.handlers import HANDLERS as PAYMENTS
from services.pricing import audit as pricing_audit
from services.pricing.handlers import HANDLERS as PRICING
from shared.audit import CheckResult
from shared.consumer import Handlers

Checks = Callable[[AsyncSession], Awaitable[Sequence[CheckResult]]]

HANDLERS: dict[str, Handlers] = {
    "pricing": PRICING,
    "payments": PAYMENTS,
    "loyalty": LOYALTY,
    "analytics": ANALYTICS,
}
CHECKS: dict[str, Checks] = {
    "pricing": pricing_audit.checks,
    "payments": payments_audit.checks,
    "loyalty": loyalty_audit.checks,
    "analytics": analytics_audit.checks,
}
