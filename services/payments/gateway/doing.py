"""Asking Stripe to do something: one key, one effect, however often it is asked."""

from collections.abc import Mapping
from dataclasses import dataclass

import orjson
import stripe

from services.payments.gateway.away import StripeAway, away, bar_of
from services.payments.gateway.client import StripeClient

# Somebody else is at work with the same key or on the same object: what came of it is not known yet.
BUSY = 409


@dataclass(frozen=True, slots=True)
class Done:
    """Stripe did it; `body` is the object as it is now."""

    body: bytes


@dataclass(frozen=True, slots=True)
class Refused:
    """Stripe did not do it and says why; `body` is the PaymentIntent as it is now, where Stripe shows it."""

    code: str
    decline_code: str | None
    message: str
    http_status: int
    body: bytes | None
    advice: str | None = (
        None  # the card network's: do_not_try_again, try_again_later, confirm_card_data
    )

    @property
    def reason(self) -> str:
        """The issuer's word where there is one: `card_declined` alone tells nobody what to do."""
        return self.decline_code or self.code


async def do(
    client: StripeClient, path: str, parameters: Mapping[str, object], key: str, account: str | None
) -> Done | Refused:
    """POST `parameters` (form-encoded by stripe-python) under the idempotency key `key`.

    Raises StripeAway where the outcome is not known, or nothing was decided: asking again with the same key is right;
    StripeBarred where it is of no use before somebody has mended what is in the way.
    """
    try:
        body = await client.post(path, parameters, key, account)
        told = orjson.loads(body)
    except (stripe.CardError, stripe.InvalidRequestError) as error:
        if error.http_status == BUSY or bar_of(error) is not None:
            raise away(error) from error
        return _refused(error)
    except stripe.StripeError as error:
        raise away(error) from error
    except (UnicodeDecodeError, orjson.JSONDecodeError) as error:
        raise StripeAway("Stripe answered with no JSON") from error
    if not isinstance(told, dict) or not isinstance(told.get("id"), str):
        raise StripeAway("Stripe answered with no object")
    return Done(body)


def _refused(error: stripe.CardError | stripe.InvalidRequestError) -> Refused:
    told = error.json_body.get("error") if isinstance(error.json_body, dict) else None
    said: dict[str, object] = told if isinstance(told, dict) else {}
    intent = said.get("payment_intent")
    decline, advice = said.get("decline_code"), said.get("advice_code")
    return Refused(
        code=error.code or str(said.get("type") or "invalid_request_error"),
        decline_code=decline if isinstance(decline, str) else None,
        message=error.user_message or str(error),
        http_status=error.http_status or 400,
        body=orjson.dumps(intent) if isinstance(intent, dict) else None,
        advice=advice if isinstance(advice, str) else None,
    )
