"""What callers send and are answered.  Amounts are in minor units of their currency."""

from datetime import UTC, datetime
from typing import Annotated, Literal, Self
from uuid import UUID

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    StringConstraints,
    model_validator,
)

from shared.money import currency_code

# Stripe takes eight digits, of some currencies twelve; an amount beyond this is a mistake.
MAX_MINOR = 999_999_999_999
Amount = Annotated[StrictInt, Field(ge=1, le=MAX_MINOR)]
Currency = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z]{3}$"), AfterValidator(currency_code)
]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_]{1,255}$")]
Status = Literal["open", "done", "refused"]
Account = Annotated[str, StringConstraints(pattern=r"^acct_[A-Za-z0-9]{1,250}$")]
Address = Annotated[str, StringConstraints(pattern=r"^https?://[!-~]{1,2000}$")]
Words = Annotated[str, StringConstraints(pattern=r"^[^\x00]{1,500}$")]
# Outside these an instant is a slip, and PostgreSQL and Python disagree on how far they reach.
FIRST, LAST = datetime(2000, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)
Instant = Annotated[AwareDatetime, Field(ge=FIRST, le=LAST)]


class Asked(BaseModel):
    """A field that is not known is a mistake, not a wish."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class PaymentToCreate(Asked):
    """Of a subscription's period, at what it costs; or of any amount, for a user.

    `amount_minor` and `currency` are what the customer was shown: needed where the payment is confirmed at once.
    `save_method`: once it is paid, the customer's renewals are charged with what it was paid with.
    """

    subscription_id: UUID | None = None
    period_start: Instant | None = None
    user_id: UUID | None = None
    amount_minor: Amount | None = None
    currency: Currency | None = None
    capture: Literal["automatic", "manual"] = "automatic"
    customer: Name | None = None
    payment_method: Name | None = None
    confirm: StrictBool = False
    off_session: StrictBool = False
    save_method: StrictBool = False
    return_url: Address | None = None
    description: Words | None = None
    account: Account | None = None

    @property
    def shown(self) -> tuple[int, str] | None:
        if self.amount_minor is None or self.currency is None:
            return None
        return self.amount_minor, self.currency

    @model_validator(mode="after")
    def _says_for_what(self) -> Self:
        if (self.amount_minor is None) != (self.currency is None):
            raise ValueError("amount_minor and currency belong together")
        if self.subscription_id is None and (self.user_id is None or self.shown is None):
            raise ValueError("give subscription_id, or user_id with amount_minor and currency")
        if self.subscription_id is None and self.period_start is not None:
            raise ValueError("period_start is a subscription's")
        return self

    @model_validator(mode="after")
    def _says_with_what(self) -> Self:
        if self.confirm and self.shown is None:
            raise ValueError("to confirm, say the amount_minor and currency the customer was shown")
        if self.confirm and self.payment_method is None:
            raise ValueError("to confirm, give a payment_method")
        if self.off_session and not self.confirm:
            raise ValueError("off_session goes with confirm")
        if self.save_method and (self.customer is None or self.off_session):
            raise ValueError("save_method needs a customer, who is there: not off_session")
        return self


class PaymentToConfirm(Asked):
    """`amount_minor` and `currency` are what the customer was shown and agreed to."""

    amount_minor: Amount
    currency: Currency
    payment_method: Name | None = None
    return_url: Address | None = None


class PaymentToCapture(Asked):
    """All that was authorised by default; unless `final` is false, the rest is released."""

    amount_minor: Amount | None = None
    currency: Currency | None = None
    final: StrictBool = True


class PaymentToCancel(Asked):
    reason: Literal["duplicate", "fraudulent", "requested_by_customer", "abandoned"] | None = None


class PaymentToRefund(Asked):
    """All that is left by default."""

    amount_minor: Amount | None = None
    currency: Currency | None = None
    reason: Literal["duplicate", "fraudulent", "requested_by_customer"] | None = None


class OrderView(BaseModel):
    """`open`: Stripe has not answered yet and is asked again; with a failure_code, it does not listen before that is mended.

    `refused`: see failure_code and detail.
    """

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    kind: Literal["create", "confirm", "capture", "cancel", "refund"]
    status: Status
    payment_id: UUID | None
    stripe_payment_id: str | None
    stripe_object_id: str | None
    user_id: UUID | None
    subscription_id: UUID | None
    currency: str | None
    amount_minor: int | None
    failure_code: str | None
    detail: str | None = Field(validation_alias="last_error")
    ordered_by: str
    created_at: datetime
    ended_at: datetime | None


class OrderPage(BaseModel):
    """Newest first; `next` is the `after` of the following page, none on the last."""

    items: list[OrderView]
    next: UUID | None


class OrderAnswer(OrderView):
    """`stripe_status` is the payment's or refund's as Stripe answered; the secret and address are its customer's."""

    stripe_status: str | None = None
    client_secret: str | None = None
    next_action_url: str | None = None
