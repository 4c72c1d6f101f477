"""A raw event reduced to what is read of it here: every other word, a person's name or address among them, is gone.

What is left is understood as the whole was, to the byte of the fold.
"""

from collections.abc import Iterable

import orjson

from services.payments.gateway import shapes
from services.payments.gateway.parts import LINKS, uuid_text
from services.payments.gateway.question import list_of
from services.payments.gateway.translate import translate
from shared.errors import FareboxError

# What this product itself wrote into Stripe's metadata; a shop's own keys may name anybody.
OWN_KEYS = {
    *LINKS,
    "farebox_order",
    "farebox_capture",
    "farebox_renewal",
    "price_version",
    "cost_history_id",
    "period_start",
}
NO_UUID = "(no UUID)"
HEAD = ("id", "object", "type", "created", "livemode", "account", "context", "api_version", "asked")
RELATED = ("id", "type", "url")
# Of an object that nothing is read from: what it was.
NAMED = ("id", "object")
SHAPES: dict[str, type[shapes.Shape]] = {
    "payment_intent": shapes.PaymentIntent,
    "charge": shapes.Charge,
    "refund": shapes.Refund,
    "dispute": shapes.Dispute,
    "review": shapes.Review,
    "invoice": shapes.Invoice,
    "invoice_payment": shapes.InvoicePayment,
    "balance_transaction": shapes.BalanceTransaction,
}

LISTS: dict[str, type[shapes.Shape]] = {
    "/v1/refunds": shapes.RefundList,
    "/v1/disputes": shapes.DisputeList,
    "/v1/balance_transactions": shapes.BookedList,
}


class NotRedacted(FareboxError):
    title = "A body cannot be reduced to what is read of it"


def redact(body: bytes) -> bytes:
    """Raises NotRedacted where what is left would be understood otherwise than the whole."""
    try:
        whole = orjson.loads(body)
        meant = translate(body)
    except orjson.JSONDecodeError as error:
        raise NotRedacted(f"not JSON: {error}") from error
    except FareboxError:  # left alone by the fold as well, for its mode: nothing of it is read
        return orjson.dumps(_event(whole, is_read=False))
    left = orjson.dumps(_event(whole, is_read=True))
    try:
        is_alike = translate(left) == meant
    except FareboxError as error:
        raise NotRedacted(f"what is left is not understood: {error.detail}") from error
    if not is_alike:
        raise NotRedacted("what is left would be understood otherwise than the whole")
    return left


def _event(whole: dict[str, object], *, is_read: bool) -> dict[str, object]:
    left = _only(whole, HEAD)
    related, data = whole.get("related_object"), whole.get("data")
    if isinstance(related, dict):
        left["related_object"] = _only(related, RELATED)
    if isinstance(data, dict) and isinstance(data.get("object"), dict):
        content = data["object"]
        read = _object(content, whole.get("asked")) if is_read else _only(content, NAMED)
        left["data"] = {"object": read}
    return left


def _object(content: dict[str, object], asked: object) -> dict[str, object]:
    kind = content.get("object")
    shape = SHAPES.get(kind) if isinstance(kind, str) else None
    about = asked.get("about") if isinstance(asked, dict) else None
    if kind == "list" and isinstance(about, str) and (listed := list_of(about)):
        shape = LISTS[listed.path]
    if shape is None:
        return _only(content, NAMED)
    read = shape.model_validate(content).model_dump(mode="json", exclude_unset=True)
    own: dict[str, object] = _without_foreign_keys(read)
    return own


def _only(shape: dict[str, object], names: Iterable[str]) -> dict[str, object]:
    return {name: shape[name] for name in names if name in shape}


def _without_foreign_keys(value: dict[str, object]) -> dict[str, object]:
    return {name: _cleaned(name, each) for name, each in value.items()}


def _own(key: str, value: object) -> object:
    """Our own keys' values are ours, but where somebody put a name or an address in a UUID's place."""
    is_foreign = key in LINKS and isinstance(value, str) and uuid_text(value.strip()) is None
    return NO_UUID if is_foreign else value


def _cleaned(name: str, value: object) -> object:
    match value:
        case dict() if name == "metadata":
            return {key: _own(key, each) for key, each in value.items() if key in OWN_KEYS}
        case dict():
            return _without_foreign_keys(value)
        case list():
            return [_cleaned("", each) for each in value]
        case _:
            return value
