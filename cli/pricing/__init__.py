"""`farebox pricing`: the door every price goes through, from a terminal, each step with the key of whoever does it."""

import typer

from cli.pricing.drafts import (
    approve,
    draft,
    lines,
    list_versions,
    preview,
    publish,
    revert,
    show_version,
    withdraw,
)
from cli.pricing.history import history
from cli.pricing.rollouts import notices, rollout, told
from cli.pricing.variants import lowest_price

pricing = typer.Typer(
    help="Prices: draft, preview, approve by another key, publish, and follow the rollout.",
    epilog="FAREBOX_API_KEY is the key of whoever does it, FAREBOX_PRICING_URL where pricing listens.",
    no_args_is_help=True,
)
pricing.command("list")(list_versions)
pricing.command("show")(show_version)
for command in (draft, preview, lines, approve, publish, withdraw, revert, notices, told):
    pricing.command()(command)
pricing.command("lowest-price")(lowest_price)
pricing.add_typer(rollout, name="rollout")
pricing.add_typer(history, name="history")
