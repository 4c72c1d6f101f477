"""Errors say what is true, carry their data, and know their HTTP status."""

from typing import ClassVar


class FareboxError(Exception):
    """A rule said no.  `title` is the class of problem, the message is this case, `data` its facts."""

    status: ClassVar[int] = 400
    title: ClassVar[str] = "The request cannot be carried out"

    def __init__(self, detail: str, **data: object) -> None:
        super().__init__(detail)
        self.detail = detail
        self.data = data

    @property
    def slug(self) -> str:
        """`RefundExceedsPayment` is problem type `refund-exceeds-payment`."""
        name = type(self).__name__
        return "".join(f"-{c.lower()}" if c.isupper() else c for c in name).lstrip("-")


class NotFound(FareboxError):
    status = 404
    title = "There is no such thing"


class Conflict(FareboxError):
    status = 409
    title = "This is not possible in the present state"


class InvalidInput(FareboxError):
    status = 422
    title = "The input breaks a rule"


class UnknownCurrency(InvalidInput):
    title = "This is not a currency farebox knows"


class Unauthorized(FareboxError):
    status = 401
    title = "An API key is needed"


class ScopeMissing(FareboxError):
    status = 403
    title = "The API key's scopes do not cover this"


class Unavailable(FareboxError):
    status = 503
    title = "Try again later"


class NotUnderstood(FareboxError):
    """A fact that no retry can make readable: park it."""
