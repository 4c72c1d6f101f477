"""Stripe did not answer, or would not listen: what is known of why."""

from datetime import timedelta
from typing import Literal

import stripe

from shared.errors import Unavailable

# What Stripe, or a proxy before it, may ask us to wait at most.
LONGEST_RETRY_AFTER_SECONDS = 3_600
# Most of Stripe's troubles pass in seconds; a longer one is not made worse by everybody asking.
BACKOFF = (
    timedelta(seconds=2),
    timedelta(seconds=10),
    timedelta(minutes=1),
    timedelta(minutes=10),
    timedelta(hours=1),
)
# What Stripe says of an object of live mode to a key of test mode, and the other way round.
OF_THE_OTHER_MODE = "a similar object exists in"
Bar = Literal["api_key_refused", "permission_refused", "wrong_mode", "idempotency_error"]
OF_ALL = (stripe.APIConnectionError, stripe.RateLimitError)


class StripeAway(Unavailable):
    """`data` holds `retry_after_seconds` where Stripe said when to come again.

    `is_replayed`: it is the answer to an earlier request of the same key, and will be for a day.
    """

    title = "Stripe did not answer"

    @property
    def is_of_all(self) -> bool:
        """Whether Stripe would not answer anything else either: it is away, busy, or the key is refused."""
        return bool(self.data.get("is_of_all"))

    @property
    def retry_after(self) -> timedelta:
        """Zero where Stripe did not say when to come again."""
        said = self.data.get("retry_after_seconds")
        return timedelta(seconds=said if isinstance(said, int) else 0)

    @property
    def is_replayed(self) -> bool:
        return bool(self.data.get("is_replayed"))


class StripeBarred(StripeAway):
    """Stripe did nothing, and will not before somebody has mended what is in the way."""

    title = "Stripe does not listen"

    def __init__(self, detail: str, bar: Bar) -> None:
        super().__init__(detail, is_of_all=bar == "api_key_refused")
        self.bar: Bar = bar


def patience(failures: int, away: StripeAway) -> timedelta:
    """How long to wait after the `failures`-th time (from 1) without an answer; no shorter than Stripe said."""
    return max(away.retry_after, BACKOFF[min(failures, len(BACKOFF)) - 1])


def away(error: stripe.StripeError) -> StripeAway:
    """What `error` is to somebody whose request it does not decide."""
    detail = f"Stripe: {error.user_message or repr(error)}"
    bar = bar_of(error)
    if bar is not None:
        return StripeBarred(detail, bar)
    headers = error.headers or {}
    # A refused request is about itself; whoever cannot be reached, is busy or broken is so for everybody.
    is_of_all = isinstance(error, OF_ALL) or (error.http_status or 0) >= 500
    data: dict[str, object] = {"is_of_all": is_of_all}
    if headers.get("idempotent-replayed") == "true":
        data["is_replayed"] = True
    said = headers.get("retry-after", "")
    if said.isascii() and said.isdecimal():
        data["retry_after_seconds"] = min(int(said), LONGEST_RETRY_AFTER_SECONDS)
    return StripeAway(detail, **data)


def bar_of(error: stripe.StripeError) -> Bar | None:
    """None for whatever passes by itself, and for what Stripe refuses for the request's own sake."""
    match error:
        case stripe.AuthenticationError():
            return "api_key_refused"
        case stripe.PermissionError():
            return "permission_refused"
        case stripe.IdempotencyError():
            return "idempotency_error"
        case stripe.InvalidRequestError() if OF_THE_OTHER_MODE in (error.user_message or ""):
            return "wrong_mode"
        case _:
            return None
