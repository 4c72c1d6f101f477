"""The configuration a fresh system starts with: enough to price a box, for an administrator to replace."""

from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from services.pricing.decisions import Decision
from services.pricing.drafts import ConfigDraft
from services.pricing.life import approve_unseen, create_draft
from services.pricing.models import PricingConfig
from services.pricing.versions import publish_version
from shared.trace import Cause

AUTHOR = "migration"
REASON = "default configuration"
CAUSE = Cause("migration:default-configuration")

DEFAULT = {
    "admin_percentage": "10",
    "delivery_cost_minor": {
        "EUR": {"standard": 450, "express": 1_250, "pickup": 0},
        "GBP": {"standard": 399, "express": 999, "pickup": 0},
        "JPY": {"standard": 600, "express": 1_500, "pickup": 0},
        "USD": {"standard": 500, "express": 1_500, "pickup": 0},
    },
    # Standard rates; a box of groceries may fall under another: publish what your accountant says.
    "tax_rates": {
        "AT": "0.2",
        "BE": "0.21",
        "CH": "0.081",
        "DE": "0.19",
        "ES": "0.21",
        "FR": "0.2",
        "GB": "0.2",
        "IE": "0.23",
        "IT": "0.22",
        "JP": "0.1",
        "NL": "0.21",
        "US-CA": "0.0725",
        "US-NY": "0.04",
        "US-OR": "0",
        "US-TX": "0.0625",
        "US-WA": "0.065",
    },
}


async def create_default_config(session: AsyncSession, now: datetime) -> int | None:
    """Publish the default configuration, in force from `now`; None where any version exists already."""
    if await session.scalar(select(func.count()).select_from(PricingConfig)):
        return None
    author = Decision(AUTHOR, REASON, now, CAUSE)
    config = await create_draft(session, ConfigDraft.model_validate(DEFAULT), author)
    # Nobody is priced yet: there is nothing to preview, and nobody else who could approve it.
    digest = await approve_unseen(session, config, author)
    await publish_version(session, config.version, digest, author)
    return config.version
