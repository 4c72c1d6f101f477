"""What may be asked of a payment: values in, the amount or a refusal out.  Amounts in its currency's minor units."""

from dataclasses import dataclass

from services.payments.domain import Fold, untold_refunds
from shared.errors import Conflict, InvalidInput

# An inquiry moves no money and allows refunds; what was won, prevented or lost is no longer fought over.
SETTLED_DISPUTES = ("won", "lost", "prevented")
INQUIRY = "warning_"
# Refunds that will take nothing any more.
COME_TO_NOTHING = ("failed", "canceled")


class RefundExceedsPayment(Conflict):
    title = "More than is left of the payment"


class PaymentDisputed(Conflict):
    title = "The payment is under dispute"


class CaptureExceedsAuthorized(Conflict):
    title = "More than was authorised"


class PaymentState(Conflict):
    title = "The payment's state does not allow this"


class AmountNotTold(Conflict):
    title = "The customer was told another amount"


class PriceChanged(AmountNotTold):
    title = "The price has changed since"


@dataclass(frozen=True, slots=True)
class Given:
    """What a payment has, and what of it is gone or about to go."""

    received_minor: int
    refunded_minor: int
    disputed_minor: int
    untold_minor: (
        int  # leaves it though no refund that is known here has moved it: see untold_minor()
    )
    ordered_minor: int  # refunds that were ordered here and that no fact has told of yet
    disputes: tuple[str, ...]  # their statuses

    @property
    def left_minor(self) -> int:
        """Rather too little for the moments in which a refund is ordered and also told of already."""
        gone = self.refunded_minor + self.untold_minor + self.ordered_minor + self.disputed_minor
        return max(0, self.received_minor - gone)


def untold_minor(fold: Fold) -> int:
    """What leaves the payment, or is promised, beyond the refunds that have moved money.

    Made in Stripe's dashboard, mostly, or waiting for the customer's bank details (`requires_action`).  A charge
    that tells of the latter counts them too: the larger of both.
    """
    untold = untold_refunds(fold)
    claimed = untold.claimed_minor - untold.known_minor if untold else 0
    promised = sum(
        refund.amount_minor
        for refund in fold.refunds.values()
        if not refund.held and refund.status not in COME_TO_NOTHING
    )
    return max(claimed, promised)


def is_disputed(given: Given) -> bool:
    return any(_is_fought_over(each) for each in given.disputes)


def refund_minor(given: Given, wanted_minor: int | None) -> int:
    """What is to be given back, all that is left by default."""
    disputed = [each for each in given.disputes if _is_fought_over(each)]
    if disputed:
        raise PaymentDisputed(
            f"a dispute is {disputed[0]}: the bank decides where the money goes",
            dispute=disputed[0],
        )
    if given.received_minor == 0:
        raise RefundExceedsPayment(
            "nothing was received: what is not paid is canceled, not refunded", received_minor=0
        )
    left = given.left_minor
    minor = left if wanted_minor is None else wanted_minor
    if not 0 < minor <= left:
        raise RefundExceedsPayment(
            f"{minor} cannot be given back: {left} of the {given.received_minor} received is left",
            left_minor=left,
            received_minor=given.received_minor,
        )
    return minor


def capture_minor(status: str, capturable_minor: int, wanted_minor: int | None) -> int:
    """What is to be taken, all that was authorised by default."""
    if status != "requires_capture":
        raise PaymentState(f"it is {status}: only an authorised payment is captured", status=status)
    minor = capturable_minor if wanted_minor is None else wanted_minor
    if not 0 < minor <= capturable_minor:
        raise CaptureExceedsAuthorized(
            f"{minor} cannot be captured: {capturable_minor} can", capturable_minor=capturable_minor
        )
    return minor


def require_cancelable(status: str) -> None:
    match status:
        case "succeeded":
            raise PaymentState("it is succeeded: refund what was paid", status=status)
        case "canceled":
            raise PaymentState("it is canceled already", status=status)


def require_confirmable(status: str) -> None:
    if status not in ("requires_payment_method", "requires_confirmation"):
        raise PaymentState(f"it is {status}: there is nothing to confirm", status=status)


def require_told(told: tuple[int, str], amount_minor: int, currency: str) -> None:
    """The customer agreed to `told` (amount, currency) and to nothing else."""
    if told != (amount_minor, currency):
        raise AmountNotTold(
            f"the payment is over {amount_minor} {currency}, the customer was told {told[0]} {told[1]}",
            amount_minor=amount_minor,
            currency=currency,
        )


def require_currency(given: str | None, currency: str) -> None:
    if given is not None and given != currency:
        raise InvalidInput(f"the payment is in {currency}, not in {given}", currency=currency)


def _is_fought_over(status: str) -> bool:
    return status not in SETTLED_DISPUTES and not status.startswith(INQUIRY)
