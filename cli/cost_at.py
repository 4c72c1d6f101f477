"""`farebox explain subscription ID --at DAY`: what it cost then, component by component, and why."""

from uuid import UUID

from cli.database import transaction_of
from cli.moments import last_moment
from cli.trail import Row, Section
from services.pricing.explaining import Explained, explain
from services.pricing.scopes import LAST
from shared.money import format_minor
from shared.settings import Settings


async def cost_at(
    settings: Settings, subscription_id: UUID, at: str, as_known_at: str | None
) -> list[Section]:
    """Raises UsageFault, NoCostKnown."""
    zone = settings.time_zone
    moment = last_moment("--at", at, zone)
    known = last_moment("--as-known-at", as_known_at, zone) if as_known_at else LAST
    async with transaction_of(settings, "pricing") as session:
        return sections(await explain(session, subscription_id, moment, known))


def sections(found: Explained) -> list[Section]:
    line, currency = found.line, found.line.currency
    numbers = {each.id: n for n, each in enumerate(found.causes, start=1)}
    cost: Row = {
        "total": format_minor(line.new_total_minor, currency),
        "in effect since": line.effective_at,
        "recorded at": line.recorded_at,
        "why": line.reason,
        "by": line.changed_by,
        "price versions": ", ".join(map(str, found.price_versions)),
        "recomputed": "the same cents" if found.fault is None else f"DIFFERS: it {found.fault}",
    }
    if found.canceled_at is not None:
        cost["canceled at"] = found.canceled_at
    parts: list[Row] = [
        {
            "component": each.part,
            "amount": format_minor(each.amount_minor, currency),
            "of": each.detail,
            "price version": each.price_version,
            "variant": each.variant_id,
            "cause": numbers.get(each.cause_id or ""),
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
            "cause": numbers.get(line.cause_id),
        }
    )
    causes: list[Row] = [
        {"cause": numbers[each.id], "id": each.id, "type": each.type}
        | {"occurred at": each.occurred_at}
        for each in found.causes
    ]
    return [Section("cost", [cost]), Section("components", parts), Section("caused by", causes)]
