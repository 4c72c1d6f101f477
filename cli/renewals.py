"""`farebox payments renewals`: who is charged for which period, how that went, and trying it again."""

import asyncio
import json
from typing import Annotated, get_args
from uuid import UUID

import typer
from sqlalchemy import or_, select

from cli.arguments import AsJson
from cli.database import sessions_of, transaction_of
from cli.edge import Exit, UsageFault, current_settings, show
from services.payments.orders.models import StripeOrder
from services.payments.renewals import api
from services.payments.renewals.models import Renewal
from services.payments.renewals.retry import NotToBeTried, past_due, retry
from shared.clock import utc_now
from shared.errors import NotFound
from shared.money import format_minor
from shared.settings import Settings

LIMIT = 100
MOST = 10_000  # a table longer than this is read by nobody

renewals = typer.Typer(help="Subscriptions' periods and their charges.", no_args_is_help=True)

RenewalId = Annotated[UUID, typer.Argument(help="As `farebox payments renewals list` shows it.")]


@renewals.command("list")
def list_renewals(
    status: Annotated[
        str | None, typer.Option(help=f"Only these: {', '.join(get_args(api.Status))}.")
    ] = None,
    subscription: Annotated[UUID | None, typer.Option(help="Only this subscription's.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=MOST, help="So many at most.")] = LIMIT,
    as_json: AsJson = False,
) -> None:
    """Renewals, the latest period first; `--status past_due` are those that wait for money."""
    if status is not None and status not in get_args(api.Status):
        raise UsageFault(f"--status {status}: use one of {', '.join(get_args(api.Status))}")
    statement = select(Renewal).order_by(Renewal.period_start.desc(), Renewal.id.desc())
    if status is not None:
        statement = statement.where(Renewal.status == status)
    if subscription is not None:
        statement = statement.where(Renewal.subscription_id == subscription)

    async def read(settings: Settings) -> list[Renewal]:
        async with transaction_of(settings, "payments") as session:
            return list(await session.scalars(statement.limit(limit)))

    found = asyncio.run(read(current_settings()))
    rows = [api.view(each).model_dump(mode="json") if as_json else _row(each) for each in found]
    show(rows, as_json=as_json, empty="there are no such renewals")


@renewals.command("show")
def show_renewal(renewal_id: RenewalId, as_json: AsJson = False) -> None:
    """One renewal and what Stripe was asked for it."""
    shown, orders = asyncio.run(_shown(current_settings(), renewal_id))
    if as_json:
        print(json.dumps({**shown, "orders": orders}, default=str))
        return
    for name, value in shown.items():
        print(f"{name}: {'' if value is None else value}")
    show(orders, as_json=False, empty="Stripe was asked for nothing")


@renewals.command("retry")
def retry_renewal(
    renewal_id: Annotated[UUID | None, typer.Argument(help="One renewal.")] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Every one that waits for its next attempt.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Try again now, not on its day; exits 1 where one is not to be tried."""
    if (renewal_id is None) is not everything:
        raise UsageFault("say which renewal, or --all")
    rows = asyncio.run(_retried(current_settings(), renewal_id))
    show(rows, as_json=as_json, empty="no renewal waits for its next attempt")
    if not all(row["ok"] for row in rows):
        raise typer.Exit(Exit.FAILED)


async def _retried(settings: Settings, renewal_id: UUID | None) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    async with sessions_of(settings, "payments") as sessions:
        async with sessions.begin() as session:
            chosen = [renewal_id] if renewal_id else await past_due(session)
        for each in chosen:
            try:
                async with sessions.begin() as session:
                    told, ok = await retry(session, each, utc_now()), True
            except NotToBeTried as refused:
                told, ok = refused.detail, False
            rows.append({"renewal": str(each), "ok": ok, "detail": told})
    return rows


async def _shown(
    settings: Settings, renewal_id: UUID
) -> tuple[dict[str, object], list[dict[str, object]]]:
    async with transaction_of(settings, "payments") as session:
        renewal = await session.get(Renewal, renewal_id)
        if renewal is None:
            raise NotFound(f"there is no renewal {renewal_id}")
        asked = select(StripeOrder).where(
            or_(StripeOrder.renewal_id == renewal_id, StripeOrder.id == renewal.order_id)
        )
        orders = await session.scalars(asked.order_by(StripeOrder.created_at, StripeOrder.id))
        return api.view(renewal).model_dump(mode="json"), [_order(each) for each in orders]


def _row(renewal: Renewal) -> dict[str, object]:
    return {
        "renewal": renewal.id,
        "subscription": renewal.subscription_id,
        "from": f"{renewal.period_start:%Y-%m-%d}",
        "to": f"{renewal.period_end:%Y-%m-%d}",
        "status": renewal.status,
        "amount": format_minor(renewal.total_minor, renewal.currency),
        "attempts": renewal.attempts,
        "next": f"{renewal.next_attempt_at:%Y-%m-%d %H:%M}" if renewal.next_attempt_at else None,
        "reason": renewal.failure_code,
    }


def _order(order: StripeOrder) -> dict[str, object]:
    amount, currency = order.amount_minor, order.currency
    return {
        "order": str(order.id),
        "at": f"{order.created_at:%Y-%m-%d %H:%M}",
        "kind": order.kind,
        "status": order.status,
        "amount": format_minor(amount, currency) if amount is not None and currency else None,
        "payment": order.stripe_payment_id,
        "reason": order.failure_code,
        "advice": order.advice_code,
        "detail": order.last_error,
    }
