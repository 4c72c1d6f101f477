"""The head of a Stripe event: what its row says before anybody looks at what it is about."""

from dataclasses import dataclass
from datetime import UTC, datetime

import orjson

from shared.errors import FareboxError

THIN = "v2.core.event"
OBJECTS = ("event", THIN)
# Stripe's ids are at most 255 characters; so are its types and versions by a wide margin.
MAX_LENGTH = 255


class NotAnEvent(FareboxError):
    title = "The body is not a Stripe event"


@dataclass(frozen=True, slots=True)
class Envelope:
    id: str
    type: str
    api_version: str | None
    livemode: bool
    account: str | None
    created_at: datetime


def open_envelope(body: bytes) -> Envelope:
    """Raises NotAnEvent for anything that could not become a row."""
    try:
        head = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise NotAnEvent(f"not JSON: {error}") from error
    if not isinstance(head, dict) or head.get("object") not in OBJECTS:
        raise NotAnEvent("no event: `object` must be `event` or `v2.core.event`")
    return Envelope(
        id=_text(head.get("id"), "id"),
        type=_text(head.get("type"), "type"),
        api_version=_optional(head.get("api_version"), "api_version"),
        livemode=head.get("livemode") is True,
        account=account_of(
            _optional(head.get("account"), "account"), _optional(head.get("context"), "context")
        ),
        created_at=_moment(head.get("created")),
    )


def account_of(account: str | None, context: str | None) -> str | None:
    """The account an event is about, none for our own; of a context, such as org_…/acct_…, the innermost."""
    return account or (context.rpartition("/")[2] if context else None)


def _text(value: object, name: str) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= MAX_LENGTH or not value.isprintable():
        raise NotAnEvent(f"`{name}` is no printable text of 1 to {MAX_LENGTH} characters")
    return value


def _optional(value: object, name: str) -> str | None:
    return None if value is None else _text(value, name)


def _moment(value: object) -> datetime:
    """Whole seconds in a v1 event, RFC 3339 in a thin one."""
    try:
        if isinstance(value, int) and not isinstance(value, bool):
            return datetime.fromtimestamp(value, UTC)
        if isinstance(value, str):
            return datetime.fromisoformat(value).astimezone(UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise NotAnEvent(f"`created` is no time: {error}") from error
    raise NotAnEvent("`created` is missing or no time")
