"""What must come out, computed without a line of the services' own rules."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

from cli.demo.world import Subscription

Json = dict[str, Any]

# Percent of a point per hundred minor units; of JPY, which has no minor unit, per hundred yen.
TIER_PERCENT = {"bronze": 100, "silver": 125, "gold": 150, "platinum": 200}
MONTHLY = {
    "month": Decimal(1),
    "week": Decimal(52) / Decimal(12),
    "quarter": Decimal(1) / Decimal(3),
    "year": Decimal(1) / Decimal(12),
}
COMPARED = (
    *("status", "currency", "amount_minor", "capturable_minor", "received_minor"),
    *("refunded_minor", "disputed_minor", "failure_code", "user_id", "subscription_id"),
)


@dataclass(frozen=True)
class Prices:
    """A price version as an administrator reads it."""

    version: int
    admin_percentage: Decimal
    delivery_cost_minor: Mapping[str, Mapping[str, int]]
    tax_rates: Mapping[str, Decimal]

    @classmethod
    def of(cls, config: Json) -> "Prices":
        return cls(
            config["version"],
            Decimal(str(config["admin_percentage"])),
            config["delivery_cost_minor"],
            {place: Decimal(str(rate)) for place, rate in config["tax_rates"].items()},
        )


def total_minor(prices: Prices, subscription: Subscription) -> int:
    """The cost rule of the contract, once more: each line rounded once, half-even."""
    subtotal = sum(variant.price_minor * quantity for variant, quantity in subscription.lines)
    fee = _whole(subtotal * prices.admin_percentage / 100)
    delivery = prices.delivery_cost_minor[subscription.currency][subscription.delivery_type]
    place = subscription.customer.place
    rate = prices.tax_rates.get(place, prices.tax_rates.get(subscription.customer.country))
    if rate is None:
        raise LookupError(f"the demo's prices have no tax rate for {place}")
    taxable = subtotal + fee + delivery
    return taxable + _whole(taxable * rate)


def mrr_minor(total: int, interval: str) -> int:
    return _whole(total * MONTHLY[interval])


def wrong_costs(priced: Mapping[str, Json], expected: Mapping[str, tuple[int, int]]) -> list[str]:
    """`priced`: subscriptions as the API shows them; `expected`: version and total by id."""
    return [
        f"subscription {key}: {priced[key]['total_minor']} by version"
        f" {priced[key]['price_version']}, expected {total} by {version}"
        for key, (version, total) in expected.items()
        if (priced[key]["price_version"], priced[key]["total_minor"]) != (version, total)
    ]


def wrong_payments(shown: Mapping[str, Json], truth: Mapping[str, Json]) -> list[str]:
    """Every payment's whole money state against the sandbox's books."""
    missing = [f"payment {key} is missing" for key in truth.keys() - shown.keys()]
    return missing + [
        f"payment {key}: {name} is {shown[key][name]}, true is {truth[key][name]}"
        for key in truth.keys() & shown.keys()
        for name in COMPARED
        if shown[key][name] != truth[key][name]
    ]


def wrong_points(
    booked: Mapping[str, list[Json]], payments: Mapping[str, Json], truth: Mapping[str, Json]
) -> list[str]:
    """`booked`: a payment's ledger lines by its Stripe id."""
    wrong = []
    for stripe_id, state in truth.items():
        lines = booked.get(stripe_id, [])
        kept = state["received_minor"] - state["refunded_minor"] - state["disputed_minor"]
        rules = {line["rule"] for line in lines}
        sum_points = sum(line["points"] for line in lines)
        if len(rules) > 1 or (kept >= 100 and not rules):
            wrong.append(f"payment {stripe_id}: {kept} kept, booked by {sorted(rules) or 'nobody'}")
        percent = TIER_PERCENT[rules.pop().split(":")[1]] if rules else 0
        worth = max(0, kept) * percent // (100 * 100)
        if sum_points != worth:
            wrong.append(f"payment {stripe_id}: {sum_points} points booked, worth {worth}")
        known = payments[stripe_id]["revision"] if stripe_id in payments else 0
        if any(line["payment_revision"] > known for line in lines):
            wrong.append(f"payment {stripe_id}: points of a revision that was never")
    return wrong


def totals(truth: Iterable[Json]) -> dict[str, tuple[int, int, int]]:
    """Received, refunded and disputed by currency."""
    sums: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for state in truth:
        for place, name in enumerate(("received_minor", "refunded_minor", "disputed_minor")):
            sums[state["currency"]][place] += state[name]
    return {currency: (a, b, c) for currency, (a, b, c) in sums.items()}


def daily_totals(days: Iterable[Json]) -> dict[str, tuple[int, int, int]]:
    sums: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for day in days:
        for place, name in enumerate(("gross_minor", "refunded_minor", "disputed_minor")):
            sums[day["currency"]][place] += day[name]
    return {currency: (a, b, c) for currency, (a, b, c) in sums.items()}


def _whole(amount: Decimal) -> int:
    return int(amount.quantize(Decimal(1), rounding=ROUND_HALF_EVEN))
