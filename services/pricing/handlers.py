"""Load, decide, record.  Callers own the transaction; nothing here commits."""

from collections.abc import Sequence

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from services.pricing.costs import Why, reprice
from services.pricing.versions import current_versions
from shared.consumer import Handlers
from shared.events import PointsChanged, RenewalChanged, SubscriptionChanged
from shared.outbox import say_why
from shared.trace import Cause

STOREFRONT = "storefront"


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
    await reprice(session, await current_versions(session), whys)


async def note_points(session: AsyncSession, facts: Sequence[PointsChanged]) -> None:
    """Keep on each subscription what its payments' points add up to; an older state changes nothing."""
    newest: dict[str, tuple[int, int]] = {}
    for fact in sorted(facts, key=lambda fact: fact.revision):
        if fact.subscription_id is not None and fact.subscription_points is not None:
            newest[str(fact.subscription_id)] = (fact.revision, fact.subscription_points)
    if not newest:
        return
    ids = sorted(newest)
    noted = {"ids": ids, "revisions": [newest[i][0] for i in ids]}
    fresh = [str(i) for i in await session.scalars(_NOTE, noted)]
    points = [newest[i][1] for i in fresh]
    await session.execute(_EARNED, {"ids": fresh, "points": points})


async def follow_renewals(session: AsyncSession, facts: Sequence[RenewalChanged]) -> None:
    """The next period begins when it is paid; who never paid is paused where the business wants that.

    A period never goes back: what was paid twice over, or heard again, changes nothing.
    """
    # Locked in order of id, as everybody locks subscriptions here.
    for fact in sorted(facts, key=lambda fact: (fact.subscription_id, fact.revision)):
        match fact.status:
            case "paid" | "recovered":
                statement = _ADVANCE
            case "given_up" if fact.pause:
                statement = _PAUSE
            case _:
                continue
        await say_why(session, Cause.of(fact), fact.occurred_at)
        period = {"start": fact.period_start, "end": fact.period_end}
        await session.execute(statement, {"id": fact.subscription_id, **period})


# Whoever canceled in the meantime has paid for the period all the same, but gets no next one.
_ADVANCE = text("""
UPDATE public.subscriptions SET period_start = :start, period_end = :end
WHERE id = :id AND status <> 'canceled' AND period_end <= :start AND period_end < :end
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

HANDLERS: Handlers = {
    SubscriptionChanged: price_changed_subscriptions,
    PointsChanged: note_points,
    RenewalChanged: follow_renewals,
}
