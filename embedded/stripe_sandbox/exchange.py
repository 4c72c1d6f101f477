"""What a movement is on a balance of another currency: int arithmetic at rates that drift by the day."""

DAY_SECONDS = 86_400
# What a minor unit is worth in millionths of a US cent; near enough to be told apart from a mistake.
WORTH = {"usd": 1_000_000, "eur": 1_100_000, "gbp": 1_300_000, "jpy": 670_000}
# The rate of one day is not that of the next: so many per mille more, over and over.
DRIFT_DAYS = 7


def exchanged(amount_minor: int, currencies: tuple[str, str], now: int) -> int:
    """`amount_minor` of the first currency in the second's minor units, halves away from zero."""
    numerator, denominator = _rate(currencies, now)
    whole = (2 * abs(amount_minor) * numerator + denominator) // (2 * denominator)
    return whole if amount_minor >= 0 else -whole


def told_rate(currencies: tuple[str, str], now: int) -> float:
    """As Stripe tells it; nothing is computed with it."""
    numerator, denominator = _rate(currencies, now)
    return round(numerator / denominator, 6)


def _rate(currencies: tuple[str, str], now: int) -> tuple[int, int]:
    source, target = currencies
    return WORTH[source] * (1_000 + now // DAY_SECONDS % DRIFT_DAYS), WORTH[target] * 1_000
