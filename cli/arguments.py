"""Arguments and options that several commands share."""

from enum import StrEnum
from typing import Annotated

import typer


class ServiceName(StrEnum):
    PRICING = "pricing"
    PAYMENTS = "payments"
    LOYALTY = "loyalty"
    ANALYTICS = "analytics"


AsJson = Annotated[bool, typer.Option("--json", help="For a script to read.")]
