"""What a preview shows, as a terminal shows it: outcomes, sums before and after, the largest changes, a histogram."""

from collections.abc import Iterator

from cli.edge import show
from cli.pricing.door import Json
from services.pricing.campaign import OUTCOMES
from services.pricing.pricing_sql import STEPS
from shared.money import format_minor

SUMS_MOST = 15  # of a dimension, those with most subscriptions
EXTREMES_MOST = 5  # of a currency
BAR_WIDTH = 40

Row = dict[str, object]


def print_totals(found: Json) -> None:
    """A finished preview; `--json` has all of it."""
    totals: Json = found["totals"]
    print(f"preview of price version {found['price_version']}: {found['counted']:,} subscriptions")
    print_outcomes(totals["outcomes"], totals.get("codes", {}))
    sums = [*_sums("currency", {"": totals.get("by_currency", {})})]
    for dimension, values in sorted(totals.get("by", {}).items()):
        sums += _sums(dimension.replace("_", " "), values)
    show(sums, as_json=False, empty="nobody would have a price")
    for title, sides in (
        ("largest rises", "largest_rises"),
        ("largest falls", "largest_falls"),
    ):
        rows = [row for _, side in sorted(totals.get(sides, {}).items()) for row in _extremes(side)]
        if rows:
            print(f"\n{title}")
            show(rows, as_json=False, empty="")
    for currency, buckets in sorted(totals.get("histogram", {}).items()):
        print(f"\nsubscriptions by what changes for them, {currency}")
        for line in _histogram(buckets, currency):
            print(line)
    print(f"\nhash {found['hash']}")


def print_outcomes(outcomes: dict[str, int], codes: dict[str, dict[str, int]]) -> None:
    """How many of each, always in the same order, and why."""
    for outcome in OUTCOMES:
        why = ", ".join(f"{code} {n:,}" for code, n in sorted(codes.get(outcome, {}).items()))
        print(f"  {outcome:9} {outcomes.get(outcome, 0):>10,}" + (f"  ({why})" if why else ""))


def _sums(dimension: str, values: dict[str, Json]) -> Iterator[Row]:
    """A line for each value and currency: the largest first, the rest only counted."""
    found = [(value, *each) for value, sums in values.items() for each in sums.items()]
    found.sort(key=lambda each: (-each[2]["count"], each[0], each[1]))
    for value, currency, sums in sorted(found[:SUMS_MOST], key=lambda each: each[:2]):
        yield {
            "by": dimension,
            "of": value or currency,
            "subscriptions": f"{sums['count']:,}",
            "moved": f"{sums['moved']:,}",
            "rise": f"{sums['rises']:,}",
            "fall": f"{sums['falls']:,}",
            "before": format_minor(sums["old_minor"], currency),
            "after": format_minor(sums["new_minor"], currency),
        }
    if len(found) > SUMS_MOST:
        rest = f"{len(found) - SUMS_MOST:,} more: --json"
        blank = dict.fromkeys(("subscriptions", "moved", "rise", "fall", "before", "after"))
        yield {"by": dimension, "of": rest, **blank}


def _extremes(side: list[Json]) -> Iterator[Row]:
    for each in side[:EXTREMES_MOST]:
        currency, old, new = each["currency"], each["old_minor"], each["new_minor"]
        yield {
            "subscription": each["subscription_id"],
            "before": format_minor(old, currency),
            "after": format_minor(new, currency),
            "difference": _signed(new - old, currency),
        }


def _histogram(buckets: dict[str, int], currency: str) -> Iterator[str]:
    """From the largest fall to the largest rise; a bucket is named by its ends."""
    most = max(buckets.values())
    found = [
        (_ends(int(begins), currency), count)
        for begins, count in sorted(buckets.items(), key=lambda each: int(each[0]))
    ]
    width = max(len(ends) for ends, _ in found)
    for ends, count in found:
        bar = "#" * max(1, round(BAR_WIDTH * count / most))
        yield f"  {ends:>{width}}  {bar} {count:,}"


def _ends(begins: int, currency: str) -> str:
    """`+0.50 to +0.99 EUR`; falls from the larger one, so that the lines go upwards."""
    if not begins:
        return _signed(0, currency)
    sign = 1 if begins > 0 else -1
    larger = [step for step in STEPS if step > abs(begins)]
    if not larger:
        return f"{_signed(begins, currency)} and more"
    ends = sorted((begins, sign * (larger[0] - 1)))
    if ends[0] == ends[1]:
        return _signed(begins, currency)
    return " to ".join(_signed(end, currency) for end in ends)


def _signed(amount_minor: int, currency: str) -> str:
    return ("+" if amount_minor > 0 else "") + format_minor(amount_minor, currency)
