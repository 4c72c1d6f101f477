"""`farebox payments reconcile` and `payouts`: what Stripe knows and we did not, and what reached the bank."""

import asyncio
import json
import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Annotated

import structlog
import typer
from sqlalchemy import select

from cli.arguments import AsJson
from cli.database import transaction_of
from cli.edge import Exit, UsageFault, current_settings, show
from services.payments.gateway import StripeBarred
from services.payments.reconcile.loop import walker_of
from services.payments.reconcile.models import Payout
from services.payments.reconcile.report import Report
from services.payments.reconcile.work import reconcile
from shared.clock import utc_now
from shared.money import format_minor
from shared.settings import Settings

SHOWN = 20
AGE = re.compile(r"(\d{1,4})([dh])", re.ASCII)
ACCOUNT = re.compile(r"acct_[A-Za-z0-9]{1,250}", re.ASCII)
# A list for people ends somewhere; the route pages on.
MOST_PAYOUTS = 500


def reconcile_payments(
    since: Annotated[
        str | None,
        typer.Option(
            help="30d, 12h, or a time such as 2026-07-01 (UTC); default: the last run's end."
        ),
    ] = None,
    account: Annotated[str | None, typer.Option(help="A connected account, acct_….")] = None,
    as_json: AsJson = False,
) -> None:
    """Walk Stripe's lists for what never came, mend it, take payouts apart; exits 1 where something stays open."""
    settings = current_settings()
    if not settings.stripe_api_key:
        raise UsageFault("STRIPE_API_KEY is not set: only Stripe knows what never came")
    if account is not None and not ACCOUNT.fullmatch(account):
        raise UsageFault(f"--account {account!r}: a connected account's id, such as acct_1Abc")
    begin = None if since is None else moment_of(since, utc_now())
    with warnings_on_stderr():
        report = asyncio.run(_reconcile(settings, begin, account))
    if as_json:
        print(json.dumps({**asdict(report), "ok": report.ok}, default=_text))
    else:
        _print(report)
    if not report.ok:
        raise typer.Exit(Exit.FAILED)


def list_payouts(as_json: AsJson = False) -> None:
    """The newest payouts, and whether their lines and our payments explain them to the cent."""
    rows = asyncio.run(_payouts(current_settings()))
    show(
        rows, as_json=as_json, empty="no payout is known; `farebox payments reconcile` asks Stripe"
    )


def moment_of(text: str, now: datetime) -> datetime:
    """Raises UsageFault for what is neither an age nor a time, or lies ahead."""
    age = AGE.fullmatch(text)
    if age:
        number = int(age[1])
        return now - (timedelta(days=number) if age[2] == "d" else timedelta(hours=number))
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageFault(
            f"--since {text!r}: use 30d, 12h, or a time such as 2026-07-01T12:00:00+02:00"
        ) from error
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    if moment >= now:
        raise UsageFault(f"--since {text} lies ahead")
    return moment


def _text(value: object) -> str:
    """Times as every route writes them, not as Python shows them."""
    return value.isoformat() if isinstance(value, datetime) else str(value)


@contextmanager
def warnings_on_stderr() -> Iterator[None]:
    """What the walk logs on its way, such as that Stripe is waited for, is not part of the answer."""
    before = structlog.get_config()
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    try:
        yield
    finally:
        structlog.configure(**before)


async def _reconcile(settings: Settings, since: datetime | None, account: str | None) -> Report:
    async with walker_of(settings) as walker:
        try:
            return await reconcile(walker, since, account)
        except StripeBarred as barred:
            raise UsageFault(f"STRIPE_API_KEY does not open this: {barred.detail}") from barred


async def _payouts(settings: Settings) -> list[dict[str, object]]:
    newest = select(Payout).order_by(Payout.created_at.desc(), Payout.id.desc()).limit(MOST_PAYOUTS)
    async with transaction_of(settings, "payments") as session:
        return [
            {
                "payout": each.id,
                "account": each.account,
                "created": f"{each.created_at:%Y-%m-%d}",
                "arrives": f"{each.arrival_on:%Y-%m-%d}",
                "status": each.status,
                "amount": format_minor(each.amount_minor, each.currency),
                "amount_minor": each.amount_minor,
                "verdict": each.verdict,
                "detail": each.detail,
            }
            for each in await session.scalars(newest)
        ]


def _print(report: Report) -> None:
    looked = ", ".join(f"{count} {what}" for what, count in sorted(report.looked.items()))
    print(
        f"from {report.since:%Y-%m-%d %H:%M} to {report.until:%Y-%m-%d %H:%M} UTC: {looked or 'nothing'}"
    )
    print(
        f"{report.found} gaps found, {report.mended} mended, {report.found - report.mended} left to you"
    )
    for gap in report.gaps[:SHOWN]:
        print(f"  {'mended' if gap.mended_at else 'open  '} {gap.subject}: {gap.detail}")
    if report.found > SHOWN:
        print(f"  and {report.found - SHOWN} more: --json names the first {len(report.gaps)}")
