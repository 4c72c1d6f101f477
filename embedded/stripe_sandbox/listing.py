"""Lists in Stripe's manner: newest first, a page at a time, cursors that are ids."""

from collections.abc import Callable, Container, Sequence
from typing import TypeVar

from embedded.stripe_sandbox.errors import invalid
from embedded.stripe_sandbox.forms import Form

T = TypeVar("T")
DEFAULT_LIMIT = 10
LARGEST_LIMIT = 100
PAGE_PARAMETERS = ("limit", "starting_after", "ending_before", "expand", "created")
COMPARED: dict[str, Callable[[int, int], bool]] = {
    "": lambda second, bound: second == bound,
    "[gte]": lambda second, bound: second >= bound,
    "[gt]": lambda second, bound: second > bound,
    "[lte]": lambda second, bound: second <= bound,
    "[lt]": lambda second, bound: second < bound,
}


def seconds_in(form: Form, name: str) -> Callable[[int], bool]:
    """Whether an epoch second lies within what the parameter `name` asks for."""
    bounds = [(compare, form.integer(name + suffix)) for suffix, compare in COMPARED.items()]
    given = [(compare, bound) for compare, bound in bounds if bound is not None]
    return lambda second: all(compare(second, bound) for compare, bound in given)


def created_in(form: Form) -> Callable[[int], bool]:
    return seconds_in(form, "created")


def limit_of(form: Form) -> int:
    limit = form.integer("limit")
    limit = DEFAULT_LIMIT if limit is None else limit
    if not 1 <= limit <= LARGEST_LIMIT:
        raise invalid(
            f"Limit must be from 1 to {LARGEST_LIMIT}.", "parameter_invalid_integer", "limit"
        )
    return limit


def cursors_of(form: Form, known: Container[str]) -> tuple[str | None, str | None]:
    """`starting_after` and `ending_before`: one of them at most, and an id that is known."""
    after, before = form.text("starting_after"), form.text("ending_before")
    if after is not None and before is not None:
        raise invalid("Only one of starting_after and ending_before may be given.")
    for param, cursor in (("starting_after", after), ("ending_before", before)):
        if cursor is not None and cursor not in known:
            raise invalid(f"No such object: '{cursor}'", "resource_missing", param)
    return after, before


def page(items: Sequence[T], form: Form, id_of: Callable[[T], str]) -> tuple[Sequence[T], bool]:
    """The page asked for of `items` (newest first), and whether there are more beyond it."""
    limit = limit_of(form)
    places = {id_of(item): index for index, item in enumerate(items)}
    after, before = cursors_of(form, places)
    if before is not None:
        end = places[before]
        start = max(0, end - limit)
        return items[start:end], start > 0
    start = 0 if after is None else places[after] + 1
    return items[start : start + limit], start + limit < len(items)
