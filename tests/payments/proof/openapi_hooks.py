"""What the page cannot say of a request that gets past the first rules: its key is new, and it is about this payment's money."""

import re
from typing import Any
from uuid import UUID, uuid4

import schemathesis

KEY = "Idempotency-Key"
CURRENCY, AMOUNT_MINOR = "EUR", 9_000
LARGEST_MINOR = 999_999_999_999
AD_HOC: dict[str, Any] = {
    "user_id": str(UUID(int=3)),
    "amount_minor": AMOUNT_MINOR,
    "currency": CURRENCY,
}


@schemathesis.hook
def before_call(
    context: schemathesis.HookContext, case: schemathesis.Case[Any], kwargs: dict[str, Any]
) -> None:
    """Only what the page allows is made another that it allows; what it forbids stays as it is."""
    headers, body = case.headers, case.body
    if headers and _is_to_lack(case, "Authorization"):
        # The one that the command line gives to every request.
        headers.pop("Authorization", None)
    if headers and re.fullmatch("[ -~]{1,255}", str(headers.get(KEY, ""))):
        headers[KEY] = str(uuid4())
    if not isinstance(body, dict):
        return
    if (case.method, case.path) == ("POST", "/payments") and not body.get("subscription_id"):
        # One of two ways to say what is paid for; a schema says neither.
        case.body = body = {**AD_HOC, **body}
    if re.fullmatch("[A-Za-z]{3}", str(body.get("currency"))):
        body["currency"] = CURRENCY
    amount = body.get("amount_minor")
    if case.path.endswith("/confirm") and type(amount) is int and 0 < amount <= LARGEST_MINOR:
        body["amount_minor"] = AMOUNT_MINOR


def _is_to_lack(case: schemathesis.Case[Any], header: str) -> bool:
    data = case.meta.phase.data if case.meta else None
    return getattr(data, "description", None) == f"Missing `{header}` at header"
