"""`farebox explain subscription ID --at DAY`: what it cost then, component by component, and why."""

from datetime import UTC, date, datetime, time, timedelta
from uuid import UUID
from zoneinfo import ZoneInfo

from cli.database import transaction_of
from cli.edge import UsageFault
from cli.trail import Row, Section
from services.pricing.explaining import Explained, explain
from shared.money import format_minor
from shared.settings import Settings

# Whatever is recorded is known by then.
FOR_EVER = datetime(2200, 1, 1, tzinfo=UTC)
A_MOMENT = timedelta(microseconds=1)


async def cost_at(
    settings: Settings, subscription_id: UUID, at: str, as_known_at: str | None
) -> list[Section]:
    """Raises UsageFault, NoCostKnown."""
    zone = settings.time_zone
    moment = moment_of("--at", at, zone)
    known = moment_of("--as-known-at", as_known_at, zone) if as_known_at else FOR_EVER
    async with transaction_of(settings, "pricing") as session:
        return sections(await explain(session, subscription_id, moment, known))


def moment_of(option: str, text: str, zone: ZoneInfo) -> datetime:
    """A day of the business stands for its last moment.  Raises UsageFault."""
    try:
        if len(text) == len("2026-03-01"):
            following = date.fromisoformat(text) + timedelta(days=1)
            return datetime.combine(following, time(), zone) - A_MOMENT
        moment = datetime.fromisoformat(text)
    except (ValueError, OverflowError) as error:
        raise UsageFault(
            f"{option} {text}: write a day such as 2026-03-01, or a time such as 2026-03-01T12:00:00Z"
        ) from error
    return moment if moment.tzinfo else moment.replace(tzinfo=zone)


def sections(found: Explained) -> list[Section]:
    line, currency = found.line, found.line.currency
    cost: Row = {
        "total": format_minor(line.new_total_minor, currency),
        "in effect since": line.effective_at,
        "recorded at": line.recorded_at,
        "why": line.reason,
        "by": line.changed_by,
        "price versions": ", ".join(map(str, found.price_versions)),
        "recomputed": "the same cents" if found.recomputed else "DIFFERS",
    }
    parts: list[Row] = [
        {
            "component": each.part,
            "amount": format_minor(each.amount_minor, currency),
            "of": each.detail,
            "price version": each.price_version,
            "variant": each.variant_id,
        }
        for each in found.components
    ]
    parts.append(
        {
            "component": "total",
            "amount": format_minor(line.new_total_minor, currency),
            "of": "",
            "price version": line.price_version,
            "variant": None,
        }
    )
    causes: list[Row] = [
        {"id": each.id, "type": each.type, "occurred at": each.occurred_at} for each in found.causes
    ]
    return [Section("cost", [cost]), Section("components", parts), Section("caused by", causes)]
