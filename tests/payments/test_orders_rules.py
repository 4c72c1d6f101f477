"""What may be given back, captured or canceled: values in, an amount or a refusal in words out."""

from dataclasses import replace

import pytest

from services.payments.domain import Fold, Refund
from services.payments.orders import rules
from services.payments.orders.rules import (
    Given,
    PaymentState,
    RefundExceedsPayment,
    require_cancelable,
    untold_minor,
)

WHOLE = Given(1_000, 0, 0, 0, 0, ())


@pytest.mark.parametrize(
    ("status", "held", "promised"),
    [
        ("requires_action", False, 400),
        ("pending", True, 0),  # counted as refunded
        ("succeeded", True, 0),
        ("failed", False, 0),
        ("canceled", False, 0),
    ],
)
def test_a_refund_that_waits_for_its_customer_is_promised(
    status: str, held: bool, promised: int
) -> None:
    fold = Fold(refunds={"re_1": Refund(1, status, 400, 5, held)})
    assert untold_minor(fold) == promised


def test_what_is_promised_cannot_be_given_back_again() -> None:
    promised = replace(WHOLE, untold_minor=400)
    with pytest.raises(RefundExceedsPayment, match="600 of the 1000"):
        rules.refund_minor(promised, 601)
    assert rules.refund_minor(promised, None) == 600


def test_of_an_unpaid_payment_nothing_is_refunded_and_it_says_what_to_do() -> None:
    with pytest.raises(RefundExceedsPayment, match="canceled, not refunded"):
        rules.refund_minor(replace(WHOLE, received_minor=0), None)


@pytest.mark.parametrize(
    ("status", "says"), [("succeeded", "refund what was paid"), ("canceled", "canceled already")]
)
def test_what_is_over_is_not_canceled_and_the_refusal_says_why(status: str, says: str) -> None:
    with pytest.raises(PaymentState, match=says):
        require_cancelable(status)
