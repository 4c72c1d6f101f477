"""The `Stripe-Signature` header, made the way Stripe makes it."""

import hashlib
import hmac
from collections.abc import Sequence


def sign(body: bytes, secrets: Sequence[str], timestamp: int) -> str:
    """`t=…,v1=…`, with one `v1` per secret (several while a secret is being rolled).

    `timestamp` is in whole seconds, by the sender's wall clock.
    """
    signed = b"%d." % timestamp + body
    parts = [f"t={timestamp}"]
    for secret in secrets:
        parts.append("v1=" + hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest())
    return ",".join(parts)
