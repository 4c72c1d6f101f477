"""What requests and answers of pricing's API are made of."""

from datetime import date
from typing import Annotated, Generic, TypeVar
from uuid import UUID

from fastapi import Query
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictInt,
    StringConstraints,
)

from services.pricing.scopes import DATED
from services.pricing.scopes import Instant as BoundedInstant
from shared.events import BoxLine

T = TypeVar("T")

DEFAULT_LIMIT = 50
MAX_LIMIT = 500  # a page that a browser and a log line still carry
MAX_LINES = 100  # of a box; one basket, not a catalogue


def _written(value: object) -> object:
    match value:
        case str() if DATED.match(value):
            return value
        case _:
            raise ValueError("write it as a string, such as 2026-03-01 or 2026-03-01T12:00:00Z")


Instant = Annotated[BoundedInstant, BeforeValidator(_written)]
Day = Annotated[date, BeforeValidator(_written)]
# One line of text that PostgreSQL can hold and a log line shows as it is.
Text = Annotated[
    str,
    StringConstraints(
        strip_whitespace=True, min_length=1, max_length=500, pattern=r"^[^\x00-\x1f\x7f]*$"
    ),
]
Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT)]
AfterVersion = Annotated[int, Query(ge=0, le=2**31 - 1, description="`next` of the page before")]
AfterLine = Annotated[int, Query(ge=0, le=2**63 - 1, description="`next` of the page before")]
AfterId = Annotated[UUID | None, Query(description="`next` of the page before")]


PROBLEM = {
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "examples": ["urn:farebox:problem:already-published"]},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
    },
}
# RFC 9457, as shared.problem answers.
PROBLEMS: dict[int | str, dict[str, object]] = {
    status: {"description": title, "content": {"application/problem+json": {"schema": PROBLEM}}}
    for status, title in (
        (400, "The request cannot be read"),
        (401, "An API key is needed"),
        (403, "The API key's scopes do not cover this"),
        (404, "There is no such thing"),
        (409, "This is not possible in the present state"),
        (422, "The input breaks a rule"),
    )
}


class Input(BaseModel):
    """A field farebox does not know is a mistake, not noise."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class View(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class Page(BaseModel, Generic[T]):
    """`next` is the `after` of the following page; none on the last."""

    items: list[T]
    next: str | None


class Line(Input):
    """A product variant, at its current price."""

    variant_id: UUID
    quantity: StrictInt = Field(ge=1, le=10_000)


def _each_once(lines: tuple[Line, ...]) -> tuple[Line, ...]:
    if len({line.variant_id for line in lines}) < len(lines):
        raise ValueError("a variant stands in the box twice; add up the quantities")
    return lines


Lines = Annotated[
    tuple[Line, ...], Field(min_length=1, max_length=MAX_LINES), AfterValidator(_each_once)
]


def box_lines(lines: tuple[Line, ...]) -> tuple[BoxLine, ...]:
    return tuple(BoxLine(variant_id=line.variant_id, quantity=line.quantity) for line in lines)
