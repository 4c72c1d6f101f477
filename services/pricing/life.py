"""A price version before it is in force: drafted, edited, previewed, approved by somebody else, or withdrawn.

Any change makes it a draft again: what was shown and approved was another price.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from uuid import UUID

import orjson
from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from services.pricing.counting import about_how_many
from services.pricing.decisions import Decision, note
from services.pricing.domain import UnknownVariant, plain
from services.pricing.drafts import ConfigDraft, RevertDraft
from services.pricing.layers import HOLD, IN_FORCE
from services.pricing.models import Preview, PreviewItem, PriceScope, PricingConfig
from services.pricing.scopes import Scope
from services.pricing.versions import (
    UNSEEN,
    WITHOUT_PREVIEW,
    AlreadyPublished,
    NothingToRevert,
    OtherHash,
    activate_due,
    check_effective_from,
    check_preview,
    get_config,
    locked_config,
    scope_of,
    withdraw_scheduled,
)
from shared.errors import Conflict, FareboxError, InvalidInput, NotFound
from shared.storefront import ProductVariant, Subscription

# pricing.scopes has it from its migration on.
EVERYTHING_ID = 1
COUNTS = ("running", "hashing", "done")


class VersionWithdrawn(Conflict):
    title = "This price version was withdrawn"


class NotPreviewed(Conflict):
    title = "This price version has no preview that counts"


class PreviewNotFound(NotFound):
    title = "There is no preview of this price version"


class ApprovedByItsAuthor(FareboxError):
    status = 403
    title = "Somebody else approves than those who wrote it"


class UnknownSubscription(InvalidInput):
    title = "The scope names a subscription that is not there"


class RevertsNothingElse(Conflict):
    title = "A draft that reverts a version changes nothing else"


async def create_draft(
    session: AsyncSession, draft: ConfigDraft, decision: Decision
) -> PricingConfig:
    """Raises UnknownVariant, UnknownSubscription, EffectiveTimeOutOfRange."""
    check_effective_from(draft.effective_from, decision.at)
    await _check_variants(session, draft)
    await _check_subscriptions(session, draft)
    scope_id = await _scope_id(session, draft.scope)
    return await _add(session, PricingConfig(**draft.stored(), scope_id=scope_id), decision)


async def draft_revert(
    session: AsyncSession, version: int, wishes: RevertDraft, decision: Decision
) -> PricingConfig:
    """A draft that gives everybody whom `version` moved what they had before.

    Raises VersionNotFound, NothingToRevert, EffectiveTimeOutOfRange.
    """
    check_effective_from(wishes.effective_from, decision.at)
    config = await get_config(session, version)
    if config.status != "active":
        raise NothingToRevert(
            f"price version {version} is {config.status}", version_status=config.status
        )
    before = await session.scalar(
        select(PricingConfig).where(
            PricingConfig.status.in_(IN_FORCE),
            PricingConfig.scope_id == config.scope_id,
            PricingConfig.effective_to == config.effective_from,
        )
    )
    if before is None and config.scope_id == EVERYTHING_ID:
        raise NothingToRevert(f"price version {version} is the first for everything")
    draft = PricingConfig(
        admin_percentage=before.admin_percentage if before else None,
        delivery_cost_minor=before.delivery_cost_minor if before else None,
        tax_rates=before.tax_rates if before else None,
        tax_inclusive=before.tax_inclusive if before else None,
        variant_prices_minor=before.variant_prices_minor if before else {},
        timing=wishes.timing.model_dump(mode="json"),
        effective_from=wishes.effective_from,
        drift_limit_percent=wishes.drift_limit_percent,
        scope_id=config.scope_id,
        reverts=version,
    )
    return await _add(session, draft, decision)


async def revise_draft(
    session: AsyncSession, version: int, draft: ConfigDraft, decision: Decision
) -> PricingConfig:
    """Write it anew; whoever does is one of its authors from now on.

    Raises VersionNotFound, AlreadyPublished, VersionWithdrawn, RevertsNothingElse, UnknownVariant,
    UnknownSubscription, EffectiveTimeOutOfRange.
    """
    check_effective_from(draft.effective_from, decision.at)
    await _check_variants(session, draft)
    await _check_subscriptions(session, draft)
    config = await _editable(session, version)
    if config.reverts is not None:
        raise RevertsNothingElse(
            f"price version {version} reverts {config.reverts}; withdraw it and revert anew"
        )
    config.scope_id = await _scope_id(session, draft.scope)
    for name, value in draft.stored().items():
        setattr(config, name, value)
    config.draft_revision += 1
    config.authors = sorted({*config.authors, decision.by})
    await _back_to_draft(session, config)
    await note(session, version, "edited", decision)
    return config


async def start_preview(session: AsyncSession, version: int, decision: Decision) -> Preview:
    """Begin to compute what it would do; the worker does it.  One that is under way goes on.

    Raises VersionNotFound, AlreadyPublished, VersionWithdrawn.
    """
    config = await _editable(session, version)
    under_way = select(Preview).where(
        Preview.price_version == version, Preview.status.in_(("running", "hashing"))
    )
    running = await session.scalar(under_way)
    if running is not None:
        return running
    await _back_to_draft(session, config)
    definition = await scope_of(session, config)
    preview = Preview(
        price_version=version,
        draft_revision=config.draft_revision,
        status="running",
        requested_by=decision.by,
        effective_from=config.effective_from or decision.at,
        started_at=decision.at,
        expected=await about_how_many(session, Scope.model_validate(definition)),
        chain=content_digest(config, definition),
        totals={},
    )
    session.add(preview)
    await session.flush()
    await note(session, version, "preview asked for", decision)
    return preview


async def latest_preview(session: AsyncSession, version: int) -> Preview:
    """The newest of a version, also one that counts no more.  Raises VersionNotFound, PreviewNotFound."""
    await get_config(session, version)
    of_version = select(Preview).where(Preview.price_version == version)
    found = await session.scalar(of_version.order_by(Preview.id.desc()).limit(1))
    if found is None:
        raise PreviewNotFound(f"price version {version} was never previewed", version=version)
    return found


async def preview_items(
    session: AsyncSession, preview: Preview, outcome: str | None, after: UUID | None, limit: int
) -> Sequence[PreviewItem]:
    statement = select(PreviewItem).where(PreviewItem.preview_id == preview.id)
    if outcome is not None:
        statement = statement.where(PreviewItem.outcome == outcome)
    if after is not None:
        statement = statement.where(PreviewItem.subscription_id > after)
    found = await session.scalars(statement.order_by(PreviewItem.subscription_id).limit(limit))
    return found.all()


async def approve(
    session: AsyncSession, version: int, preview_hash: str, decision: Decision
) -> PricingConfig:
    """Say that what the preview with this hash showed is to be published.

    Raises VersionNotFound, AlreadyPublished, VersionWithdrawn, NotPreviewed, OtherHash, ApprovedByItsAuthor,
    PreviewOvertaken.
    """
    config = await _editable(session, version)
    _check_approver(config, decision.by)
    _check_seen(config, preview_hash)
    await check_preview(session, config)
    await _approve(session, config, decision)
    return config


async def approve_unseen(session: AsyncSession, config: PricingConfig, decision: Decision) -> str:
    """Approve what farebox itself wrote, with nobody there yet to be shown a preview to.  Returns the hash.

    Whoever decides, the approval is said to be UNSEEN: only such a version is published without a preview.
    """
    preview = await start_preview(session, config.version, decision)
    digest = preview.chain.hex()
    preview.status, preview.hash, preview.finished_at = "done", digest, decision.at
    preview.detail = "nobody was looked at"
    await session.flush()
    config.status, config.preview_hash = "previewed", digest
    await session.flush()
    await _approve(session, config, replace(decision, by=UNSEEN))
    return digest


async def withdraw(session: AsyncSession, version: int, decision: Decision) -> PricingConfig:
    """Give it up, unless it is in force or about to be.

    Raises VersionNotFound, AlreadyPublished, VersionWithdrawn, TooLateToWithdraw.
    """
    await session.execute(select(func.pg_advisory_xact_lock(HOLD)))
    # Whose time has come is in force, whether or not the worker has noticed: customers are priced by it.
    await activate_due(session, decision.at)
    config = await locked_config(session, version)
    if config.status == "scheduled":
        await withdraw_scheduled(session, config, decision)
    else:
        config = await _editable(session, version)
        await _no_preview(session, version)
        config.status = "withdrawn"
        await session.flush()
    await note(session, version, "withdrawn", decision)
    return config


def content_digest(config: PricingConfig, definition: Mapping[str, object]) -> bytes:
    """SHA-256 of what a version says, the same however it was written: a preview's chain begins with it."""
    percentage = config.admin_percentage
    said = {
        "scope": definition,
        "admin_percentage": None if percentage is None else str(plain(percentage)),
        "delivery_cost_minor": config.delivery_cost_minor,
        "tax_rates": config.tax_rates,
        "tax_inclusive": config.tax_inclusive,
        "variant_prices_minor": config.variant_prices_minor,
        "timing": config.timing,
        "effective_from": config.effective_from,
        "drift_limit_percent": str(plain(config.drift_limit_percent)),
        "reverts": config.reverts,
    }
    return hashlib.sha256(orjson.dumps(said, option=orjson.OPT_SORT_KEYS)).digest()


async def _add(session: AsyncSession, config: PricingConfig, decision: Decision) -> PricingConfig:
    config.status, config.draft_revision = "draft", 1
    config.created_by, config.created_at = decision.by, decision.at
    config.authors = [decision.by]
    session.add(config)
    await session.flush()
    await note(session, config.version, "drafted", decision)
    return config


def _check_seen(config: PricingConfig, preview_hash: str) -> None:
    number = config.version
    if config.status == "draft" or config.preview_hash is None:
        raise NotPreviewed(f"price version {number} has no finished preview of its present content")
    if config.preview_hash != preview_hash:
        raise OtherHash(
            f"the preview of price version {number} has the hash {config.preview_hash}",
            version=number,
        )


def _check_approver(config: PricingConfig, name: str) -> None:
    """Neither one of its authors, in whatever letters, nor a name that stands for nobody."""
    own = {each.strip().lower() for each in (*config.authors, *WITHOUT_PREVIEW)}
    if name.strip().lower() in own:
        raise ApprovedByItsAuthor(
            f"{name} wrote a part of price version {config.version}; another key approves it",
            version=config.version,
        )


async def _approve(session: AsyncSession, config: PricingConfig, decision: Decision) -> None:
    config.status, config.approved_hash = "approved", config.preview_hash
    config.approved_by, config.approved_at = decision.by, decision.at
    await session.flush()
    await note(session, config.version, "approved", decision)


async def _editable(session: AsyncSession, version: int) -> PricingConfig:
    config = await locked_config(session, version)
    if config.status in IN_FORCE:
        raise AlreadyPublished(f"price version {version} is {config.status}", version=version)
    if config.status == "withdrawn":
        raise VersionWithdrawn(f"price version {version} was withdrawn", version=version)
    return config


async def _back_to_draft(session: AsyncSession, config: PricingConfig) -> None:
    config.status, config.preview_hash = "draft", None
    config.approved_by = config.approved_at = config.approved_hash = None
    await session.flush()
    await _no_preview(session, config.version)


async def _no_preview(session: AsyncSession, version: int) -> None:
    """What was shown of it counts no more."""
    await session.execute(
        update(Preview)
        .where(Preview.price_version == version, Preview.status.in_(COUNTS))
        .values(status="stale")
    )


async def _scope_id(session: AsyncSession, scope: Scope) -> int:
    """The row of this definition, made where it is new."""
    key = scope.key()
    values = {"key": key, "definition": scope.definition()}
    await session.execute(insert(PriceScope).values(values).on_conflict_do_nothing())
    return (await session.scalars(select(PriceScope.id).where(PriceScope.key == key))).one()


async def _check_variants(session: AsyncSession, draft: ConfigDraft) -> None:
    """A price for a variant that nobody sells is a slip of the pen."""
    named = {v for prices in draft.variant_prices_minor.values() for v in prices}
    named |= draft.scope.variants or frozenset()
    if not named:
        return
    known = await session.scalars(select(ProductVariant.id).where(ProductVariant.id.in_(named)))
    if unknown := sorted(str(each) for each in named - set(known)):
        raise UnknownVariant(
            f"there is no product variant {unknown[0]}"
            + (f" and {len(unknown) - 1} others" if len(unknown) > 1 else ""),
            variant_ids=unknown[:10],
        )


async def _check_subscriptions(session: AsyncSession, draft: ConfigDraft) -> None:
    """Whoever is named is meant: one that nobody finds would be forgotten without a word."""
    named = draft.scope.subscriptions or frozenset()
    if not named:
        return
    known = await session.scalars(select(Subscription.id).where(Subscription.id.in_(named)))
    if unknown := sorted(str(each) for each in named - set(known)):
        raise UnknownSubscription(
            f"there is no subscription {unknown[0]}"
            + (f" and {len(unknown) - 1} others" if len(unknown) > 1 else ""),
            subscription_ids=unknown[:10],
        )
