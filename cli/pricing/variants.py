"""`farebox pricing lowest-price`: what variants were sold for."""

import json
from typing import Annotated
from urllib.parse import urlencode
from uuid import UUID

import typer

from cli.arguments import AsJson
from cli.edge import current_settings
from cli.moments import first_moment
from cli.pricing.door import pricing_door
from shared.money import format_minor


def lowest_price(
    variant: UUID,
    currency: Annotated[str, typer.Option(help="ISO 4217, such as EUR.")],
    at: Annotated[
        str | None,
        typer.Option(
            help="When a reduction begins: a day (its first moment, in FAREBOX_TIME_ZONE) or a time;"
            " by default when the one that runs now began, else now."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """The lowest price of the 30 days before, as the European Union wants it shown beside a reduced one."""
    asked = {"currency": currency}
    if at:
        moment = first_moment("--at", at, current_settings().time_zone)
        asked["at"] = moment.isoformat()
    with pricing_door() as door:
        found = door.ask("GET", f"/variants/{variant}/lowest-price?{urlencode(asked)}")
    if as_json:
        print(json.dumps(found))
        return
    amount = format_minor(found["lowest_price_minor"], found["currency"])
    until = f" until {found['in_force_until']}" if found["in_force_until"] else ""
    said = f"price version {found['price_version']}" if found["price_version"] else "the catalogue"
    print(f"{amount} from {found['in_force_from']}{until}, said by {said}")
    print(f"the lowest between {found['since']} and {found['at']}")
    if not found["complete"]:
        print(f"prices are known since {found['known_since']} only")
