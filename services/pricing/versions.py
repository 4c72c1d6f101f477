"""The life of a price version: draft, scheduled, active, retired.  Exactly one is in force at any instant.

Whoever prices a subscription holds `HOLD` shared until commit, whoever changes which version is active holds
it alone: nobody prices by a version that a rollout has just replaced, and is then not on its list.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from services.pricing.domain import Terms
from services.pricing.drafts import ConfigDraft, stored_terms
from services.pricing.models import PricingConfig, Rollout
from shared import log
from shared.errors import Conflict, InvalidInput, NotFound
from shared.events import ConfigPublished, derived_id
from shared.outbox import publish
from shared.trace import Cause

# Any number no other advisory lock of this database uses.
HOLD = 7_400_301
# A version further ahead is a slip of the pen.
SCHEDULE_AT_MOST = timedelta(days=3_660)
IN_FORCE = ("scheduled", "active", "retired")

logger = log.get("pricing")


class VersionNotFound(NotFound):
    title = "There is no such price version"


class AlreadyPublished(Conflict):
    title = "This price version was published before"


class EffectiveTimeTaken(Conflict):
    title = "Another price version takes effect at this instant"


class EffectiveTimeOutOfRange(InvalidInput):
    title = "A price version takes effect now or later"


class NoPriceInForce(Conflict):
    title = "No price version is in force"


@dataclass(frozen=True)
class Version:
    """A published version, as far as pricing a subscription needs it."""

    number: int
    effective_from: datetime
    terms: Terms
    reason: str
    published_by: str


@dataclass(frozen=True)
class Current:
    """The active version and those scheduled after it, oldest first."""

    active: Version | None
    scheduled: tuple[Version, ...]

    def at(self, instant: datetime) -> Version | None:
        """The one to price by at `instant`: never one older than the active."""
        due = [version for version in self.scheduled if version.effective_from <= instant]
        return due[-1] if due else self.active


@dataclass(frozen=True)
class Publication:
    """Who publishes a version, why, and from when; `now` is the time of doing so."""

    reason: str
    published_by: str
    effective_from: datetime | None
    now: datetime
    cause: Cause


async def create_draft(
    session: AsyncSession, draft: ConfigDraft, author: str, now: datetime
) -> PricingConfig:
    stored = draft.model_dump(mode="json")
    config = PricingConfig(
        admin_percentage=draft.admin_percentage,
        delivery_cost_minor=stored["delivery_cost_minor"],
        tax_rates=stored["tax_rates"],
        created_by=author,
        created_at=now,
        status="draft",
    )
    session.add(config)
    await session.flush()
    return config


async def get_config(session: AsyncSession, version: int) -> PricingConfig:
    config = await session.get(PricingConfig, version)
    if config is None:
        raise VersionNotFound(f"there is no price version {version}", version=version)
    return config


async def list_configs(session: AsyncSession, after: int, limit: int) -> Sequence[PricingConfig]:
    statement = select(PricingConfig).where(PricingConfig.version > after)
    return (await session.scalars(statement.order_by(PricingConfig.version).limit(limit))).all()


async def publish_version(
    session: AsyncSession, version: int, publication: Publication
) -> PricingConfig:
    """Put a draft in force, now or later, and say so.  One that is in force now starts its rollout.

    Raises VersionNotFound, AlreadyPublished, EffectiveTimeTaken, EffectiveTimeOutOfRange.
    """
    await session.execute(select(func.pg_advisory_xact_lock(HOLD)))
    await _activate_due(session, publication.now)
    config = await get_config(session, version)
    if config.status != "draft":
        raise AlreadyPublished(f"price version {version} is {config.status}", version=version)
    start = _start_of(publication)
    end = await _make_room(session, start, publication.now)
    config.status = "active" if start <= publication.now else "scheduled"
    config.reason, config.published_by = publication.reason, publication.published_by
    config.published_at = publication.now
    config.effective_from, config.effective_to = start, end
    if config.status == "active":
        session.add(Rollout(price_version=version, started_at=publication.now, status="listing"))
    await session.flush()
    await publish(session, [(_published(config, publication), publication.cause)])
    return config


async def activate_due(session: AsyncSession, now: datetime) -> int:
    """Activate the version whose time has come and start its rollout.  Returns how many."""
    due = select(PricingConfig.version).where(
        PricingConfig.status == "scheduled", PricingConfig.effective_from <= now
    )
    if await session.scalar(due.limit(1)) is None:
        return 0
    await session.execute(select(func.pg_advisory_xact_lock(HOLD)))
    return await _activate_due(session, now)


async def current_versions(session: AsyncSession) -> Current:
    """What to price by.  Nothing is activated or retired before the caller's transaction ends."""
    await session.execute(select(func.pg_advisory_xact_lock_shared(HOLD)))
    statement = select(PricingConfig).where(PricingConfig.status.in_(("active", "scheduled")))
    rows = (await session.scalars(statement.order_by(PricingConfig.effective_from))).all()
    active = [as_version(row) for row in rows if row.status == "active"]
    scheduled = tuple(as_version(row) for row in rows if row.status == "scheduled")
    return Current(active[0] if active else None, scheduled)


async def version_at(session: AsyncSession, at: datetime) -> Version:
    """The version in force at `at`, past or future, as published so far.  Raises NoPriceInForce."""
    statement = select(PricingConfig).where(
        PricingConfig.status.in_(IN_FORCE),
        PricingConfig.effective_from <= at,
        or_(PricingConfig.effective_to.is_(None), PricingConfig.effective_to > at),
    )
    config = await session.scalar(statement)
    if config is None:
        raise NoPriceInForce(f"no price version is in force at {at.isoformat()}; publish one")
    return as_version(config)


def as_version(config: PricingConfig) -> Version:
    if config.effective_from is None or config.reason is None or config.published_by is None:
        raise ValueError(f"price version {config.version} was never published")
    return Version(
        config.version,
        config.effective_from,
        stored_terms(config.admin_percentage, config.delivery_cost_minor, config.tax_rates),
        config.reason,
        config.published_by,
    )


async def _activate_due(session: AsyncSession, now: datetime) -> int:
    statement = select(PricingConfig).where(
        PricingConfig.status == "scheduled", PricingConfig.effective_from <= now
    )
    due = (await session.scalars(statement.order_by(PricingConfig.effective_from))).all()
    if not due:
        return 0
    *missed, newest = due
    for config in missed:
        logger.warning("price version was never rolled out", version=config.version)
    replaced = PricingConfig.status.in_(("active", "scheduled"))
    await session.execute(
        update(PricingConfig)
        .where(replaced, PricingConfig.effective_from < newest.effective_from)
        .values(status="retired")
    )
    newest.status = "active"
    session.add(Rollout(price_version=newest.version, started_at=now, status="listing"))
    await session.flush()
    return 1


async def _make_room(session: AsyncSession, start: datetime, now: datetime) -> datetime | None:
    """End the version in force at `start` there; returns when the next one begins, if one does."""
    in_force = PricingConfig.status.in_(IN_FORCE)
    covering = await session.scalar(
        select(PricingConfig).where(
            in_force,
            PricingConfig.effective_from <= start,
            or_(PricingConfig.effective_to.is_(None), PricingConfig.effective_to > start),
        )
    )
    if covering is None:
        later = select(func.min(PricingConfig.effective_from)).where(
            in_force, PricingConfig.effective_from > start
        )
        return await session.scalar(later)
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


def _start_of(publication: Publication) -> datetime:
    start = publication.effective_from or publication.now
    if not publication.now <= start <= publication.now + SCHEDULE_AT_MOST:
        raise EffectiveTimeOutOfRange(
            f"{start.isoformat()} is past or more than {SCHEDULE_AT_MOST.days} days ahead;"
            " leave effective_from out for now"
        )
    return start


def _published(config: PricingConfig, publication: Publication) -> ConfigPublished:
    version = as_version(config)
    return ConfigPublished(
        id=derived_id(ConfigPublished.type, version.number),
        occurred_at=publication.now,
        price_version=version.number,
        effective_from=version.effective_from,
        admin_percentage=version.terms.admin_percentage,
        delivery_cost_minor={c: dict(t) for c, t in version.terms.delivery_cost_minor.items()},
        tax_rates=dict(version.terms.tax_rates),
        reason=version.reason,
        published_by=version.published_by,
    )
