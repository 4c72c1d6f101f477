"""How a price version comes into force and goes: of each scope exactly one is in force at any instant.

Whoever prices a subscription holds `HOLD` shared until commit, whoever changes which version is active holds
it alone: nobody prices by a version that a rollout has just replaced, and is then not on its list.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal

from sqlalchemy import func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from services.pricing.composition import Layer, compose
from services.pricing.decisions import Decision, note
from services.pricing.layers import HOLD, IN_FORCE, NoPriceInForce, as_layer, layers
from services.pricing.models import Preview, PriceScope, PricingConfig, Rollout
from shared.errors import Conflict, InvalidInput, NotFound
from shared.events import ConfigPublished, derived_id
from shared.outbox import publish

# A version further ahead is a slip of the pen.
SCHEDULE_AT_MOST = timedelta(days=3_660)
# So few turn out otherwise in any business that goes on while a preview is read.
DRIFT_AT_LEAST = 10
# Clocks of processes differ: somebody may be priced by it already.
WITHDRAW_BEFORE = timedelta(minutes=1)
# Who "approved" what farebox wrote itself, and what was published before there were approvals.
UNSEEN = "farebox defaults"
WITHOUT_PREVIEW = frozenset({UNSEEN, "published before approvals"})


class VersionNotFound(NotFound):
    title = "There is no such price version"


class AlreadyPublished(Conflict):
    title = "This price version was published before"


class NotApproved(Conflict):
    title = "Only what was previewed and approved is published"


class OtherHash(Conflict):
    title = "This is not what the preview showed"


class PreviewGone(Conflict):
    title = "The preview that was approved is not there any more"


class NothingToRevert(Conflict):
    title = "Only the version in force is reverted, to the one before it"


class RevertWaits(Conflict):
    title = "A revert waits in this scope"


class PreviewOvertaken(Conflict):
    title = "Prices changed since the preview"


class TooLateToWithdraw(Conflict):
    title = "The price version is about to be in force"


class EffectiveTimeTaken(Conflict):
    title = "Another price version takes effect at this instant"


class EffectiveTimeOutOfRange(InvalidInput):
    title = "A price version takes effect now or later"


async def get_config(session: AsyncSession, version: int) -> PricingConfig:
    config = await session.get(PricingConfig, version, populate_existing=True)
    if config is None:
        raise VersionNotFound(f"there is no price version {version}", version=version)
    return config


async def locked_config(session: AsyncSession, version: int) -> PricingConfig:
    """As it is now; nobody else changes it before the caller's transaction ends."""
    statement = select(PricingConfig).where(PricingConfig.version == version).with_for_update()
    config = await session.scalar(statement.execution_options(populate_existing=True))
    if config is None:
        raise VersionNotFound(f"there is no price version {version}", version=version)
    return config


async def list_configs(session: AsyncSession, after: int, limit: int) -> Sequence[PricingConfig]:
    statement = select(PricingConfig).where(PricingConfig.version > after)
    return (await session.scalars(statement.order_by(PricingConfig.version).limit(limit))).all()


async def scope_of(session: AsyncSession, config: PricingConfig) -> dict[str, object]:
    """The definition of whom it is for; empty: everything."""
    statement = select(PriceScope.definition).where(PriceScope.id == config.scope_id)
    found: dict[str, object] = (await session.scalars(statement)).one()
    return found


async def publish_version(
    session: AsyncSession, version: int, approved_hash: str, decision: Decision
) -> PricingConfig:
    """Put what was approved in force, now or later, and say so.  One that is in force now starts its rollout.

    Raises VersionNotFound, AlreadyPublished, NotApproved, OtherHash, PreviewGone, PreviewOvertaken,
    NothingToRevert, RevertWaits, EffectiveTimeTaken, EffectiveTimeOutOfRange, NoPriceInForce.
    """
    await session.execute(select(func.pg_advisory_xact_lock(HOLD)))
    await _activate_due(session, decision.at)
    config = await locked_config(session, version)
    _check_approval(config, approved_hash)
    await check_preview(session, config)
    start = _start_of(config, decision.at)
    await check_revert(session, config, start)
    fact = await _published(session, config, start, decision)
    end = await _make_room(session, config.scope_id, start, decision.at)
    config.reason, config.published_by = decision.why, decision.by
    config.published_at = decision.at
    config.effective_from, config.effective_to = start, end
    config.status = "active" if start <= decision.at else "scheduled"
    if config.status == "active":
        await _start_rollout(session, config, decision.at)
    await session.flush()
    await note(session, version, "published", decision)
    await publish(session, [(fact, decision.cause)])
    return config


async def withdraw_scheduled(
    session: AsyncSession, config: PricingConfig, decision: Decision
) -> None:
    """Take back what was published for later: whatever was to end then goes on, and a fact says so.

    Raises TooLateToWithdraw.
    """
    if config.effective_from is None:
        raise ValueError(f"price version {config.version} was never published")
    start, end = config.effective_from, config.effective_to
    if start <= decision.at + WITHDRAW_BEFORE:
        raise TooLateToWithdraw(
            f"price version {config.version} takes effect at {start.isoformat()}; revert it then"
        )
    fact = await _published(session, config, start, decision)
    config.status = "withdrawn"
    # Before the one before it is written: the constraint looks at each row as it comes.
    await session.flush()
    before = await session.scalar(
        select(PricingConfig).where(
            PricingConfig.status.in_(IN_FORCE),
            PricingConfig.scope_id == config.scope_id,
            PricingConfig.effective_to == start,
        )
    )
    if before is not None:
        before.effective_to = end
    withdrawn = fact.model_copy(
        update={"id": derived_id(fact.type, config.version, "withdrawn"), "withdrawn": True}
    )
    await publish(session, [(withdrawn, decision.cause)])


async def activate_due(session: AsyncSession, now: datetime) -> int:
    """Activate the versions whose time has come and start their rollouts.  Returns how many."""
    due = select(PricingConfig.version).where(
        PricingConfig.status == "scheduled", PricingConfig.effective_from <= now
    )
    if await session.scalar(due.limit(1)) is None:
        return 0
    await session.execute(select(func.pg_advisory_xact_lock(HOLD)))
    return await _activate_due(session, now)


def drift_limit(moved: int, percent: Decimal) -> int:
    """How many subscriptions may turn out otherwise than the preview says before the rollout stops."""
    return max(DRIFT_AT_LEAST, int(moved * percent / 100))


async def check_preview(session: AsyncSession, config: PricingConfig) -> None:
    """Whether what it showed is still what would happen.  Raises PreviewGone, PreviewOvertaken."""
    if config.approved_by in WITHOUT_PREVIEW:
        return
    preview = await _preview_of(session, config)
    if preview is None:
        raise PreviewGone(f"preview price version {config.version} again, and have it approved")
    other = await overtaken_by(session, preview)
    if other is not None:
        raise PreviewOvertaken(
            f"price version {other} was published after the preview of {config.version} had begun;"
            " preview it again, and have it approved",
            version=config.version,
            overtaken_by=other,
        )


async def overtaken_by(session: AsyncSession, preview: Preview) -> int | None:
    """The version that was published since a preview began, of whatever scope: it showed another world."""
    return await session.scalar(
        select(func.max(PricingConfig.version)).where(
            PricingConfig.status.in_(IN_FORCE), PricingConfig.published_at > preview.started_at
        )
    )


async def _activate_due(session: AsyncSession, now: datetime) -> int:
    """Each gets its rollout, also one that another of its scope has replaced before anybody looked: none is lost."""
    statement = select(PricingConfig).where(
        PricingConfig.status == "scheduled", PricingConfig.effective_from <= now
    )
    found = await session.scalars(
        statement.order_by(PricingConfig.effective_from, PricingConfig.version).execution_options(
            populate_existing=True
        )
    )
    due = found.all()
    newest = {config.scope_id: config for config in due}
    replaced = await session.scalars(
        select(PricingConfig).where(
            PricingConfig.status == "active", PricingConfig.scope_id.in_(newest)
        )
    )
    for config in replaced:
        config.status = "retired"
    for config in due:
        config.status = "active" if newest[config.scope_id] is config else "retired"
        await _start_rollout(session, config, now)
    await session.flush()
    return len(due)


async def _start_rollout(session: AsyncSession, config: PricingConfig, now: datetime) -> None:
    """Held to what its preview showed; a version that farebox made itself had none."""
    rollout = Rollout(price_version=config.version, status="listing", started_at=now)
    unseen = config.approved_by in WITHOUT_PREVIEW
    preview = None if unseen else await _preview_of(session, config)
    if preview is not None:
        moved = preview.totals["outcomes"]["moved"]
        rollout.preview_id = preview.id
        rollout.drift_limit = drift_limit(moved, config.drift_limit_percent)
    elif not unseen:
        # Published for later, and gone since: moved by nobody's approval it is not.
        rollout.status, rollout.resume_status = "stopped", "listing"
        rollout.detail = "the preview that was approved is not there any more"
        rollout.changed_by, rollout.changed_at = "farebox", now
    session.add(rollout)


async def _preview_of(session: AsyncSession, config: PricingConfig) -> Preview | None:
    """The one that was approved."""
    return await session.scalar(
        select(Preview).where(
            Preview.price_version == config.version,
            Preview.status == "done",
            Preview.hash == config.preview_hash,
        )
    )


async def _make_room(
    session: AsyncSession, scope_id: int, start: datetime, now: datetime
) -> datetime | None:
    """End the scope's version in force at `start` there; returns when its next one begins, if one does."""
    covering = await _covering(session, scope_id, start)
    if covering is None:
        return await session.scalar(
            select(func.min(PricingConfig.effective_from)).where(
                PricingConfig.status.in_(IN_FORCE),
                PricingConfig.scope_id == scope_id,
                PricingConfig.effective_from > start,
            )
        )
    if covering.effective_from == start:
        raise EffectiveTimeTaken(
            f"price version {covering.version} takes effect at {start.isoformat()} too",
            version=covering.version,
        )
    end = covering.effective_to
    covering.effective_to = start
    if start <= now:
        covering.status = "retired"
    # Before the new version is written: the constraint looks at each row as it comes.
    await session.flush()
    return end


async def _covering(session: AsyncSession, scope_id: int, start: datetime) -> PricingConfig | None:
    """The scope's version in force at `start`."""
    return await session.scalar(
        select(PricingConfig).where(
            PricingConfig.status.in_(IN_FORCE),
            PricingConfig.scope_id == scope_id,
            PricingConfig.effective_from <= start,
            or_(PricingConfig.effective_to.is_(None), PricingConfig.effective_to > start),
        )
    )


async def check_revert(session: AsyncSession, config: PricingConfig, start: datetime) -> None:
    """A revert takes back what is in force when it begins, and nothing comes between the two.

    Raises NothingToRevert, RevertWaits.
    """
    if config.reverts is not None:
        covering = await _covering(session, config.scope_id, start)
        if covering is None or covering.version != config.reverts:
            raise NothingToRevert(
                f"price version {config.reverts} is not in force any more at {start.isoformat()}",
                version=config.version,
            )
    following = await session.scalar(
        select(PricingConfig)
        .where(
            PricingConfig.status == "scheduled",
            PricingConfig.scope_id == config.scope_id,
            PricingConfig.effective_from > start,
        )
        .order_by(PricingConfig.effective_from)
        .limit(1)
    )
    if following is not None and following.reverts is not None:
        raise RevertWaits(
            f"price version {following.version} reverts {following.reverts} later: withdraw it first",
            version=following.version,
        )


def _check_approval(config: PricingConfig, approved_hash: str) -> None:
    number, status = config.version, config.status
    if status in IN_FORCE:
        raise AlreadyPublished(f"price version {number} is {status}", version=number)
    if status != "approved":
        raise NotApproved(
            f"price version {number} is {status}: preview it, and let somebody else approve it",
            version=number,
            version_status=status,
        )
    if config.approved_hash != approved_hash:
        raise OtherHash(
            f"price version {number} was approved with the hash {config.approved_hash}",
            version=number,
        )


def _start_of(config: PricingConfig, now: datetime) -> datetime:
    check_effective_from(config.effective_from, now)
    return config.effective_from or now


def check_effective_from(start: datetime | None, now: datetime) -> None:
    """Raises EffectiveTimeOutOfRange."""
    if start is not None and not now <= start <= now + SCHEDULE_AT_MOST:
        raise EffectiveTimeOutOfRange(
            f"{start.isoformat()} is past or more than {SCHEDULE_AT_MOST.days} days ahead;"
            " write another effective_from into the draft, or none for now"
        )


async def _published(
    session: AsyncSession, config: PricingConfig, start: datetime, decision: Decision
) -> ConfigPublished:
    """The fact; of a cohort's version it says the terms that the cohort is priced by.  Raises NoPriceInForce."""
    definition = await scope_of(session, config)
    layer = as_layer(config, definition, start)
    terms = compose([*await _below(session, layer), layer])
    return ConfigPublished(
        id=derived_id(ConfigPublished.type, config.version),
        occurred_at=decision.at,
        price_version=config.version,
        effective_from=start,
        admin_percentage=terms.admin_percentage,
        delivery_cost_minor={c: dict(t) for c, t in terms.delivery_cost_minor.items()},
        tax_rates=dict(terms.tax_rates),
        reason=decision.why or config.reason or "",
        published_by=config.published_by or decision.by,
        scope=definition or None,
        scope_id=config.scope_id,
        variant_prices_minor={c: dict(p) for c, p in layer.changes.variant_prices.items()},
        tax_inclusive=tuple(sorted(terms.tax_inclusive)),
        timing=config.timing,
        approved_by=config.approved_by,
        reverts=config.reverts,
    )


async def _below(session: AsyncSession, layer: Layer) -> Sequence[Layer]:
    """What a cohort's version is laid over: the version for everything in force when it begins."""
    if layer.scope.everything:
        return ()
    in_force = (await layers(session)).in_force(layer.effective_from)
    base = [each for each in in_force if each.scope.everything]
    if not base:
        raise NoPriceInForce("no version for everything is in force then; publish one first")
    return base
