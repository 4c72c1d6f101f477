"""What a price change would do to a million subscriptions, computed and hashed."""

import sys

from bench.ground import Ground
from bench.price_rollout import measure, preview_result
from bench.pricing_shop import ROWS, make_shop
from bench.result import Result


async def run(ground: Ground) -> Result:
    print(f"  filling {ROWS:,} subscriptions", file=sys.stderr)
    return preview_result(await measure(ground, make_shop(ground), roll_out=False))
