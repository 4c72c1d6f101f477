"""What follows a refusal is decided by its reason and the time since the first one."""

from datetime import UTC, datetime, timedelta

import pytest

from services.payments.renewals import dunning
from services.payments.renewals.dunning import (
    AskCustomer,
    AskForMethod,
    Decision,
    GiveUp,
    Retry,
    after_refusal,
)

FIRST = datetime(2026, 3, 1, tzinfo=UTC)
DAYS = (7, 1, 3)


def day(number: float) -> datetime:
    return FIRST + timedelta(days=number)


@pytest.mark.parametrize(
    ("reason", "after", "decision"),
    [
        ("insufficient_funds", 0, Retry(day(1))),
        ("insufficient_funds", 1, Retry(day(3))),
        ("insufficient_funds", 2.5, Retry(day(3))),
        ("insufficient_funds", 3, Retry(day(7))),
        ("insufficient_funds", 7, GiveUp()),
        ("insufficient_funds", 90, GiveUp()),
        ("a_word_nobody_knows_yet", 0, Retry(day(1))),
        ("expired_card", 0, AskForMethod()),
        ("transaction_not_allowed", 0, AskForMethod()),
        ("resource_missing", 3, AskForMethod()),
        ("expired_card", 7, GiveUp()),
        ("authentication_required", 0, AskCustomer()),
        ("authentication_required", 7, GiveUp()),
        ("stolen_card", 0, GiveUp()),
        ("lost_card", 1, GiveUp()),
        ("amount_too_small", 0, GiveUp()),
    ],
)
def test_a_refusal_is_followed_by(reason: str, after: float, decision: Decision) -> None:
    assert after_refusal(reason, FIRST, day(after), DAYS) == decision


@pytest.mark.parametrize(
    ("reason", "advice", "decision"),
    [
        ("do_not_honor", "do_not_try_again", AskForMethod()),
        ("do_not_honor", "confirm_card_data", AskForMethod()),
        ("do_not_honor", "try_again_later", Retry(day(1))),
        ("authentication_required", "do_not_try_again", AskCustomer()),
        ("stolen_card", "try_again_later", GiveUp()),
    ],
)
def test_the_card_networks_advice_is_taken(reason: str, advice: str, decision: Decision) -> None:
    assert after_refusal(reason, FIRST, FIRST, DAYS, advice) == decision


def test_no_reason_is_of_two_kinds() -> None:
    kinds = (
        dunning.STOPS,
        dunning.NEEDS_ANOTHER_METHOD,
        dunning.NEEDS_THE_CUSTOMER,
        dunning.POINTLESS,
    )
    assert len(frozenset[str]().union(*kinds)) == sum(map(len, kinds))
