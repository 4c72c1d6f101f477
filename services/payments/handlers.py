"""Facts of others that payments needs: whom to charge for what.  Callers own the transaction."""

from collections.abc import Sequence

from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from services.payments.models import SubscriptionCost
from services.payments.renewals.hearing import remember_costs, remember_subscriptions
from shared.consumer import Handlers
from shared.events import SubscriptionChanged, SubscriptionCostChanged

REPLACED = (
    "user_id",
    "revision",
    "currency",
    "total_minor",
    "price_version",
    "cost_history_id",
    "effective_at",
    "event_id",
)


async def remember_cost(session: AsyncSession, facts: Sequence[SubscriptionCostChanged]) -> None:
    """Keep what each subscription costs by its highest revision, and for its periods every cost it was told."""
    await remember_costs(session, facts)
    latest: dict[object, SubscriptionCostChanged] = {}
    for fact in facts:
        known = latest.get(fact.subscription_id)
        if known is None or fact.revision > known.revision:
            latest[fact.subscription_id] = fact
    statement = insert(SubscriptionCost)
    new = statement.excluded
    await session.execute(
        statement.on_conflict_do_update(
            index_elements=["subscription_id"],
            set_={name: new[name] for name in REPLACED},
            where=new.revision > SubscriptionCost.revision,
        ),
        [
            {
                "subscription_id": fact.subscription_id,
                "user_id": fact.customer_id,
                "revision": fact.revision,
                "currency": fact.currency,
                "total_minor": fact.new_total_minor,
                "price_version": fact.price_version,
                "cost_history_id": fact.cost_history_id,
                "effective_at": fact.effective_at,
                "event_id": fact.id,
            }
            for fact in latest.values()
        ],
    )


HANDLERS: Handlers = {
    SubscriptionCostChanged: remember_cost,
    SubscriptionChanged: remember_subscriptions,
}
