"""What the sandbox withholds: int arithmetic, rates like Stripe's published ones."""

# Per mille of the amount, and a fixed part in minor units.
RATES = {"usd": (29, 30), "eur": (15, 25), "gbp": (15, 20), "jpy": (36, 0)}
OTHER_RATE = (29, 30)
DISPUTE_FEES = {"usd": 1_500, "eur": 2_000, "gbp": 2_000, "jpy": 1_500}
OTHER_DISPUTE_FEE = 1_500


def charge_fee(amount_minor: int, currency: str) -> int:
    """Never more than the amount itself, so that `net` is not negative for tiny payments."""
    per_mille, fixed_minor = RATES.get(currency, OTHER_RATE)
    return min(amount_minor, (amount_minor * per_mille + 500) // 1_000 + fixed_minor)


def dispute_fee(currency: str) -> int:
    return DISPUTE_FEES.get(currency, OTHER_DISPUTE_FEE)
