"""Refusals in the shape of Stripe's API errors."""

from embedded.stripe_sandbox.ledger import IllegalTransition, JsonObject


class StripeError(Exception):
    """An answer other than 200: its status, and what stands in its `error` object."""

    # Whether the call had begun to do its work: only then is the answer kept for its key.
    executed = False

    def __init__(self, status: int, kind: str, message: str, **more: object) -> None:
        super().__init__(message)
        self.status = status
        self.error: JsonObject = {"type": kind, "message": message, **more}


def invalid(message: str, code: str | None = None, param: str | None = None) -> StripeError:
    more = {"code": code, "param": param}
    named = {key: value for key, value in more.items() if value is not None}
    return StripeError(400, "invalid_request_error", message, **named)


def missing(kind: str, object_id: str) -> StripeError:
    return StripeError(
        404,
        "invalid_request_error",
        f"No such {kind}: '{object_id}'",
        code="resource_missing",
        param="id",
    )


def refused(error: IllegalTransition) -> StripeError:
    answer = invalid(str(error), error.code)
    answer.executed = True
    return answer


def declined(error: JsonObject, intent: JsonObject) -> StripeError:
    """402: the attempt failed; the answer carries the PaymentIntent as it is now."""
    more = {key: value for key, value in error.items() if key not in ("type", "message")}
    kind, message = error["type"], error["message"]
    answer = StripeError(402, kind, message, **more, payment_intent=intent)
    answer.executed = True
    return answer
