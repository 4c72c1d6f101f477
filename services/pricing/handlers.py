"""Load, decide, record.  Callers own the transaction; nothing here commits."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession

from services.pricing.costs import Why
from services.pricing.layers import current_versions
from services.pricing.reprice import asks_for_tiers, planned_versions, reprice
from services.pricing.rollout_sql import RECONSIDER, REOPEN
from shared.consumer import Handlers
from shared.events import PointsChanged, RenewalChanged, SubscriptionChanged, TierChanged
from shared.outbox import say_why
from shared.storefront import Subscription
from shared.trace import Cause

STOREFRONT = "storefront"
LOYALTY = "loyalty"
OTHER_TIER = "the loyalty tier changed"
# A batch lets go of its rows sooner than wait longer for one that a slow transaction of the storefront holds: it
# comes again, and the storefront neither waits for us meanwhile nor is a deadlock's victim, which is looked for
# after a second.
PATIENCE = text("SET LOCAL lock_timeout = '250ms'")


async def price_changed_subscriptions(
    session: AsyncSession, facts: Sequence[SubscriptionChanged]
) -> None:
    """Price what the storefront wrote.

    The row decides, not the fact: whatever pricing's own API or a rollout has priced meanwhile matches
    already, and of several facts about one subscription the last is the reason.
    """
    whys = {
        fact.subscription_id: Why(STOREFRONT, Cause.of(fact), fact.occurred_at) for fact in facts
    }
    versions = await current_versions(session)
    await session.execute(PATIENCE)
    await reprice(session, versions, whys)
    # After their rows are locked, as a rollout does it.
    ids = {"ids": sorted(whys)}
    await session.execute(RECONSIDER, ids)
    if planned := planned_versions(versions):
        await session.execute(REOPEN, ids | {"planned": planned})


async def note_points(session: AsyncSession, facts: Sequence[PointsChanged]) -> None:
    """Keep on each subscription what its payments' points add up to; an older state changes nothing."""
    newest: dict[str, tuple[int, int]] = {}
    for fact in sorted(facts, key=lambda fact: fact.revision):
        if fact.subscription_id is not None and fact.subscription_points is not None:
            newest[str(fact.subscription_id)] = (fact.revision, fact.subscription_points)
    if not newest:
        return
    await session.execute(PATIENCE)
    ids = sorted(newest)
    noted = {"ids": ids, "revisions": [newest[i][0] for i in ids]}
    fresh = [str(i) for i in await session.scalars(_NOTE, noted)]
    points = [newest[i][1] for i in fresh]
    await session.execute(_EARNED, {"ids": fresh, "points": points})


async def follow_tiers(session: AsyncSession, facts: Sequence[TierChanged]) -> None:
    """Remember customers' tiers, and price anew whom a tier's prices now cover, or cover no more."""
    newest: dict[str, TierChanged] = {}
    for fact in sorted(facts, key=lambda fact: fact.revision):
        newest[str(fact.customer_id)] = fact
    # Before any row is locked, as everybody does who prices.
    layers = await current_versions(session)
    await session.execute(PATIENCE)
    users = sorted(newest)
    heard = {
        "users": users,
        "tiers": [newest[user].new_tier for user in users],
        "revisions": [newest[user].revision for user in users],
    }
    fresh = list(await session.scalars(_TIERS, heard))
    if not fresh or not asks_for_tiers(layers):
        return
    theirs = select(Subscription.id, Subscription.user_id).where(
        Subscription.user_id.in_(fresh), Subscription.status != "canceled"
    )
    whys: dict[UUID, Why] = {}
    for subscription_id, user_id in await session.execute(theirs):
        fact = newest[str(user_id)]
        whys[subscription_id] = Why(LOYALTY, Cause.of(fact), fact.occurred_at, OTHER_TIER)
    await reprice(session, layers, whys)


async def follow_renewals(session: AsyncSession, facts: Sequence[RenewalChanged]) -> None:
    """The next period begins when it is paid; who never paid is paused where the business wants that.

    A period never goes back: what was paid twice over, or heard again, changes nothing.
    """
    await session.execute(PATIENCE)
    # Locked in order of id, as everybody locks subscriptions here.
    for fact in sorted(facts, key=lambda fact: (fact.subscription_id, fact.revision)):
        match fact.status:
            case "paid" | "recovered" if fact.resume:
                statement = _RESUME
            case "paid" | "recovered":
                statement = _ADVANCE
            case "given_up" if fact.pause:
                statement = _PAUSE
            case _:
                continue
        await say_why(session, Cause.of(fact), fact.occurred_at)
        period = {"start": fact.period_start, "end": fact.period_end}
        await session.execute(statement, {"id": fact.subscription_id, **period})


# Whoever canceled in the meantime has paid for the period all the same, but gets no next one.  A period whose end
# somebody put off while its successor was being paid ends there all the same, unless that is later still.
_ADVANCE = text("""
UPDATE public.subscriptions SET period_start = :start, period_end = :end
WHERE id = :id AND status <> 'canceled' AND period_end < :end
""")
_RESUME = text("""
UPDATE public.subscriptions SET status = 'active', period_start = :start, period_end = :end
WHERE id = :id AND status = 'paused' AND period_end < :end
""")
# Only for the period that nobody paid: a subscription that went on without us is none of ours.
_PAUSE = text("""
UPDATE public.subscriptions SET status = 'paused'
WHERE id = :id AND status = 'active' AND period_end <= :start AND period_end < :end
""")

_NOTE = text("""
INSERT INTO points_noted AS n (subscription_id, account_revision)
SELECT * FROM unnest(CAST(:ids AS uuid[]), CAST(:revisions AS bigint[])) ORDER BY 1
ON CONFLICT (subscription_id) DO UPDATE SET account_revision = excluded.account_revision
WHERE n.account_revision < excluded.account_revision
RETURNING subscription_id
""")

# Locked in order of id, as everybody locks subscriptions here.
_EARNED = text("""
UPDATE public.subscriptions AS s SET loyalty_points_earned = t.points
FROM (
    SELECT s.id, p.points
    FROM unnest(CAST(:ids AS uuid[]), CAST(:points AS bigint[])) AS p (id, points)
    JOIN public.subscriptions AS s ON s.id = p.id
    ORDER BY s.id FOR NO KEY UPDATE OF s
) AS t
WHERE s.id = t.id
""")

_TIERS = text("""
INSERT INTO user_tiers AS t (user_id, tier, revision)
SELECT * FROM unnest(CAST(:users AS uuid[]), CAST(:tiers AS text[]), CAST(:revisions AS bigint[])) ORDER BY 1
ON CONFLICT (user_id) DO UPDATE SET tier = excluded.tier, revision = excluded.revision
WHERE t.revision < excluded.revision
RETURNING user_id
""")

HANDLERS: Handlers = {
    SubscriptionChanged: price_changed_subscriptions,
    PointsChanged: note_points,
    TierChanged: follow_tiers,
    RenewalChanged: follow_renewals,
}
