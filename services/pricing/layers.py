"""The price versions that were ever in force, and which of them hold at an instant, scope by scope."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import NamedTuple

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from services.pricing.composition import Layer
from services.pricing.drafts import stored_changes
from services.pricing.models import PriceScope, PricingConfig
from services.pricing.scopes import Scope
from services.pricing.timing import Timing
from shared.errors import Conflict

# Any number no other advisory lock of this database uses.
HOLD = 7_400_301
IN_FORCE = ("scheduled", "active", "retired")
KNOWN_MOST = 2_000  # versions remembered by a process; a cohort of 10,000 ids takes a megabyte


class NoPriceInForce(Conflict):
    title = "No price version is in force"


@dataclass(frozen=True)
class Version:
    """A published version: what it says, to whom, and its time."""

    layer: Layer
    status: str
    effective_to: datetime | None
    timing: Timing
    reason: str
    published_by: str
    reverts: int | None = None

    @property
    def number(self) -> int:
        return self.layer.number

    @property
    def effective_from(self) -> datetime:
        return self.layer.effective_from


@dataclass(frozen=True)
class Layers:
    """Every version that was ever in force, or is going to be, by its number."""

    versions: Mapping[int, Version]

    @cached_property
    def all(self) -> Mapping[int, Layer]:
        return {number: version.layer for number, version in self.versions.items()}

    def in_force(self, at: datetime) -> tuple[Layer, ...]:
        """Of each scope the version whose time `at` lies in, past or future, as published so far."""
        return _newest(
            version
            for version in self.versions.values()
            if version.effective_from <= at
            and (version.effective_to is None or at < version.effective_to)
        )

    def current(self, at: datetime) -> tuple[Layer, ...]:
        """Of each scope what to price by when something is written at `at`: never one older than the active."""
        return _newest(
            version
            for version in self.versions.values()
            if version.status == "active"
            or (version.status == "scheduled" and version.effective_from <= at)
        )


class _Key(NamedTuple):
    """Enough to tell what a published version says: its hash binds the content, the times those of early releases."""

    version: int
    approved_hash: str | None
    created_at: datetime
    published_at: datetime | None
    scope: str


_KNOWN: dict[_Key, Version] = {}


async def layers(session: AsyncSession) -> Layers:
    """As published so far.  What a version says is read once in a process: from its approval on it stands."""
    config = PricingConfig
    said_by = (config.version, config.approved_hash, config.created_at, config.published_at)
    states = await session.execute(
        select(*said_by, PriceScope.key, config.status, config.effective_to)
        .join(PriceScope, PriceScope.id == config.scope_id)
        .where(config.status.in_(IN_FORCE))
    )
    rows = {_Key(*row[:5]): (row.status, row.effective_to) for row in states}
    if len(_KNOWN) + len(rows) > KNOWN_MOST:
        _KNOWN.clear()
    unknown = {key.version: key for key in rows if key not in _KNOWN}
    if unknown:
        found = await _stored(session, PricingConfig.version.in_(unknown))
        _KNOWN.update({unknown[version.number]: version for version in found})
    return Layers(
        {
            key.version: replace(_KNOWN[key], status=status, effective_to=effective_to)
            for key, (status, effective_to) in rows.items()
        }
    )


async def stored_layers(session: AsyncSession) -> Layers:
    """As the table says at this moment, whatever this process has read before: what an audit looks at."""
    found = await _stored(session, PricingConfig.status.in_(IN_FORCE))
    return Layers({version.number: version for version in found})


async def _stored(session: AsyncSession, which: ColumnElement[bool]) -> list[Version]:
    statement = (
        select(PricingConfig, PriceScope.definition)
        .join(PriceScope, PriceScope.id == PricingConfig.scope_id)
        .where(which)
        # Read anew: whoever waited for the lock may have loaded the rows before it.
        .execution_options(populate_existing=True)
    )
    return [as_version(row[0], row[1]) for row in await session.execute(statement)]


async def current_versions(session: AsyncSession) -> Layers:
    """What to price by.  Nothing is activated or retired before the caller's transaction ends."""
    await session.execute(select(func.pg_advisory_xact_lock_shared(HOLD)))
    return await layers(session)


def as_version(config: PricingConfig, definition: Mapping[str, object]) -> Version:
    if config.effective_from is None or config.reason is None or config.published_by is None:
        raise ValueError(f"price version {config.version} was never published")
    return Version(
        as_layer(config, definition, config.effective_from),
        config.status,
        config.effective_to,
        Timing.model_validate(config.timing),
        config.reason,
        config.published_by,
        config.reverts,
    )


def as_layer(
    config: PricingConfig, definition: Mapping[str, object], effective_from: datetime
) -> Layer:
    """A version, or a draft as if it took effect then."""
    return Layer(
        config.version,
        effective_from,
        config.scope_id,
        Scope.model_validate(definition),
        stored_changes(
            config.admin_percentage,
            config.delivery_cost_minor,
            config.tax_rates,
            config.tax_inclusive,
            config.variant_prices_minor,
        ),
    )


def _newest(versions: Iterable[Version]) -> tuple[Layer, ...]:
    """The one that begins last of each scope, in order of scope."""
    begins = sorted(versions, key=lambda version: version.effective_from)
    newest = {version.layer.scope_id: version.layer for version in begins}
    return tuple(newest[scope_id] for scope_id in sorted(newest))
