"""Objects as a call may see them: by id, or a page of them, and only those of its own account."""

from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar

from embedded.stripe_sandbox.calls import Call, fetch
from embedded.stripe_sandbox.errors import missing
from embedded.stripe_sandbox.ledger import JsonObject
from embedded.stripe_sandbox.listing import created_in, page


class Listed(Protocol):
    """Anything with an id that was made at some time."""

    id: str
    created: int


V = TypeVar("V", bound=Listed)


def found(call: Call, objects: Mapping[str, V], kind: str) -> V:
    one = objects.get(call.object_id)
    if one is None or call.ledger.account_of(one.id) != call.account:
        raise missing(kind, call.object_id)
    return one


def page_of(call: Call, objects: Sequence[Listed], url: str) -> JsonObject:
    """Newest first, a page at a time, as the call asks for."""
    wanted = created_in(call.form)
    # Of one second the one made last comes first.
    newest = sorted(objects, key=lambda each: each.created)[::-1]
    seen = [
        each
        for each in newest
        if wanted(each.created) and call.ledger.account_of(each.id) == call.account
    ]
    items, has_more = page(seen, call.form, lambda each: each.id)
    data = [fetch(call.ledger, each.id) for each in items]
    return {"object": "list", "url": url, "has_more": has_more, "data": data}
