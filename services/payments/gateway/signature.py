"""Whether a webhook's body is Stripe's: signed with a current secret, and neither stale nor from the future."""

from datetime import datetime

import stripe

from shared.errors import FareboxError

# Stripe's own tolerance; applied both ways, because Stripe's library takes any time in the future.
TOLERANCE_SECONDS = 300


class SignatureRefused(FareboxError):
    title = "The webhook's signature does not hold"


def verify(body: bytes, header: str, secrets: tuple[str, ...], now: datetime) -> None:
    """Raises SignatureRefused.  `secrets` are tried in turn: several are valid while one is rolled."""
    try:
        payload = body.decode()
    except UnicodeDecodeError as error:
        raise SignatureRefused("the body is not UTF-8") from error
    if not _is_signed(payload, header, secrets):
        raise SignatureRefused("no v1 signature matches this body and a current secret")
    age_seconds = now.timestamp() - _signed_at(header)
    if not -TOLERANCE_SECONDS <= age_seconds <= TOLERANCE_SECONDS:
        raise SignatureRefused(
            f"the signature is {age_seconds:.0f} s old; at most {TOLERANCE_SECONDS} s either way"
            " are taken (is this machine's clock right?)"
        )


def _is_signed(payload: str, header: str, secrets: tuple[str, ...]) -> bool:
    for secret in secrets:
        try:
            # Without a tolerance: its check reads the wall clock and takes any future time.
            stripe.WebhookSignature.verify_header(payload, header, secret)
        except stripe.SignatureVerificationError:
            continue
        except (ValueError, TypeError):
            continue
        return True
    return False


def _signed_at(header: str) -> int:
    """The `t=` that was signed; the signature has been checked, so there is one."""
    for item in header.split(","):
        name, *values = item.split("=", 2)
        if name == "t":
            return int(values[0])
    raise SignatureRefused("the header has no timestamp")
