"""The door every price goes through: draft, preview, approve by somebody else, publish, or withdraw."""

from dataclasses import replace
from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Query, status
from pydantic import JsonValue, StringConstraints

from services.pricing.api.access import PRICING_READ, PricingApprover, PricingWriter
from services.pricing.api.shapes import DEFAULT_LIMIT, AfterId, Input, Limit, Page, Text, View
from services.pricing.api.versions import Because, ConfigView, Number, view
from services.pricing.campaign import Outcome
from services.pricing.drafts import ConfigDraft
from services.pricing.life import (
    approve,
    create_draft,
    latest_preview,
    preview_items,
    revise_draft,
    start_preview,
    withdraw,
)
from services.pricing.versions import publish_version
from shared.web import Session

router = APIRouter(prefix="/drafts", tags=["drafts"])

Hash = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
PreviewStatus = Literal["running", "hashing", "done", "stale", "failed"]


class Approval(Input):
    """What is approved, by the hash that its preview ended with."""

    hash: Hash
    reason: Text | None = None


class Publish(Input):
    """What is published, by the hash it was approved with, and why; customers may come to read this."""

    hash: Hash
    reason: Text


class PreviewView(View):
    """What a draft would do.  `hash` and the whole of `totals` are there once `status` is done.

    `counted` of about `expected` subscriptions are computed; stale: the draft was changed, or previewed again.
    """

    id: int
    price_version: int
    draft_revision: int
    status: PreviewStatus
    requested_by: str
    effective_from: datetime
    started_at: datetime
    finished_at: datetime | None
    counted: int
    expected: int
    hash: str | None
    totals: dict[str, JsonValue]
    detail: str | None


class PreviewLine(View):
    """What would become of one subscription, and when; totals are of one billing interval."""

    subscription_id: UUID
    outcome: Outcome
    code: str | None
    reason: str | None
    currency: str | None
    old_total_minor: int | None
    new_total_minor: int | None
    due_at: datetime | None


@router.post("", status_code=status.HTTP_201_CREATED)
async def create(draft: ConfigDraft, session: Session, author: PricingWriter) -> ConfigView:
    """Write a draft.  It prices nothing until it is previewed, approved by another key and published."""
    return await view(session, await create_draft(session, draft, author))


@router.put("/{version}")
async def revise(
    version: Number, draft: ConfigDraft, session: Session, author: PricingWriter
) -> ConfigView:
    """Write it anew.  Its preview and its approval count no more; you are one of its authors."""
    return await view(session, await revise_draft(session, version, draft, author))


@router.post("/{version}/preview", status_code=status.HTTP_202_ACCEPTED)
async def preview(version: Number, session: Session, author: PricingWriter) -> PreviewView:
    """Compute what it would do to every subscription; read on at GET on the same path.  An approval counts no more."""
    return PreviewView.model_validate(await start_preview(session, version, author))


@router.get("/{version}/preview", dependencies=[PRICING_READ])
async def read_preview(version: Number, session: Session) -> PreviewView:
    """The newest preview: how far it is, its totals and its hash."""
    return PreviewView.model_validate(await latest_preview(session, version))


@router.get("/{version}/preview/subscriptions", dependencies=[PRICING_READ])
async def read_preview_lines(
    version: Number,
    session: Session,
    limit: Limit = DEFAULT_LIMIT,
    after: AfterId = None,
    outcome: Annotated[Outcome | None, Query(description="only those")] = None,
) -> Page[PreviewLine]:
    """Subscription by subscription, in order of id."""
    newest = await latest_preview(session, version)
    found = await preview_items(session, newest, outcome, after, limit)
    following = str(found[-1].subscription_id) if len(found) == limit else None
    return Page(items=[PreviewLine.model_validate(item) for item in found], next=following)


@router.post("/{version}/approve")
async def approve_it(
    version: Number, body: Approval, session: Session, approver: PricingApprover
) -> ConfigView:
    """Approve what the preview with this hash showed; not by a key that wrote any of it."""
    decision = replace(approver, why=body.reason)
    return await view(session, await approve(session, version, body.hash, decision))


@router.post("/{version}/publish")
async def publish(
    version: Number, body: Publish, session: Session, publisher: PricingWriter
) -> ConfigView:
    """Put what was approved in force.  Follow its rollout at /configs/{version}/rollout."""
    decision = replace(publisher, why=body.reason)
    return await view(session, await publish_version(session, version, body.hash, decision))


@router.post("/{version}/withdraw")
async def withdraw_it(
    version: Number, body: Because, session: Session, author: PricingWriter
) -> ConfigView:
    """Give it up, also one that was published for later; what is in force is reverted instead."""
    decision = replace(author, why=body.reason)
    return await view(session, await withdraw(session, version, decision))
