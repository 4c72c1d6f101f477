"""Rules that legal lives seldom touch: contradictions, clocks that run backwards, currencies that differ."""

from dataclasses import replace

import pytest

from services.payments.domain import (
    Dispute,
    Fee,
    Fold,
    Link,
    Payout,
    Refund,
    Snapshot,
    Told,
    Untold,
    join,
    phase_of,
    state,
    type_rank,
    unlinked_reasons,
    untold_refunds,
)
from services.payments.domain.fold import UNKNOWN_TYPE_RANK
from shared.events import PaymentStatus


def told(status: PaymentStatus, second: int = 5, received: int = 0, **more: object) -> Fold:
    code = more.get("failure_code")
    snapshot = Snapshot(status, "USD", 1_000, 0, str(code) if code else None)
    ended: dict[str, tuple[int, int]] = {status: (0, second)} if phase_of(status) == 2 else {}
    return Fold(
        phase=phase_of(status),
        second=second,
        told={f"evt_{status}_{second}": Told(3, 0, snapshot)},
        received_minor=received,
        created=1,
        ended=ended,
    )


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        (told("succeeded", 3, 1_000), told("requires_action", 9)),
        (told("requires_capture", 3), told("processing", 9)),
        (told("canceled", 3), told("requires_capture", 9)),
    ],
)
def test_a_phase_is_never_left_whatever_the_seconds_say(earlier: Fold, later: Fold) -> None:
    [furthest] = [told_there.snapshot.status for told_there in earlier.told.values()]
    assert state(join(earlier, later)).status == furthest
    assert state(join(later, earlier)).status == furthest


def test_a_payment_that_succeeded_has_no_failure_code_left() -> None:
    assert state(told("succeeded", 5, 1_000, failure_code="lost_card")).failure_code is None
    assert state(told("canceled", 5, failure_code="lost_card")).failure_code == "lost_card"


REFUND = Refund(2, "succeeded", 600, 7, held=True)


@pytest.mark.parametrize(
    ("fold", "anomaly"),
    [
        (told("succeeded", 5, 1_000), None),
        (replace(told("succeeded", 5, 1_000), refunds={"re_1": REFUND}), None),
        (join(told("succeeded", 5, 1_000), told("canceled", 6)), "succeeded and canceled"),
        (told("succeeded", 5, 1_001), "received 1001 of 1000"),
        (
            replace(told("succeeded", 5, 1_000), refunds={"re_1": REFUND, "re_2": REFUND}),
            "refunded 1200 and disputed 0 of 1000 received",
        ),
        (
            replace(
                told("succeeded", 5, 1_000),
                refunds={"re_1": REFUND},
                disputes={"dp_1": Dispute((8, "evt_9", "lost"), {"txn_1": Payout(8, 500)})},
            ),
            "refunded 600 and disputed 500 of 1000 received",
        ),
    ],
)
def test_what_contradicts_itself_is_said_and_not_resolved(fold: Fold, anomaly: str | None) -> None:
    assert state(fold).anomaly == anomaly


FAILED = Refund(3, "failed", 600, 7, held=True, returned_at=20)


@pytest.mark.parametrize(
    ("claims", "refunds", "untold"),
    [
        ({"8": 600}, {}, Untold(8, 600, 0)),
        ({"8": 600}, {"re_1": REFUND}, None),
        ({"6": 600}, {"re_1": REFUND}, Untold(6, 600, 0)),  # it was made only afterwards
        ({"8": 600}, {"re_1": FAILED}, None),
        ({"8": 600, "30": 600}, {"re_1": FAILED}, Untold(30, 600, 0)),  # another one, unheard of
        ({"8": 600, "30": 900}, {"re_1": REFUND}, Untold(30, 900, 600)),
        ({"8": 600}, {"re_1": replace(REFUND, held=False)}, Untold(8, 600, 0)),
    ],
)
def test_a_refund_that_only_its_charge_tells_of_is_missed(
    claims: dict[str, int], refunds: dict[str, Refund], untold: Untold | None
) -> None:
    fold = replace(told("succeeded", 5, 1_000), claims=claims, refunds=refunds)
    assert untold_refunds(fold) == untold
    assert (state(fold).anomaly is None) == (untold is None)
    settled = join(fold, Fold(listed=30))
    assert untold_refunds(settled) is None
    assert state(settled).anomaly is None


def test_the_first_success_is_when_it_succeeded_and_stripes_answer_only_if_nothing_else_says() -> (
    None
):
    answered = replace(told("succeeded", 9, 1_000), ended={"succeeded": (1, 4)})
    assert state(answered).succeeded_at == 4
    assert state(join(answered, told("succeeded", 7, 1_000))).succeeded_at == 7


@pytest.mark.parametrize(
    ("fees", "fee_minor"),
    [
        ({}, None),
        ({"txn_1": Fee(True, "USD", 59, 941)}, 59),
        ({"txn_1": Fee(True, "USD", 59, 941), "txn_2": Fee(False, "USD", 1_500, -2_500)}, 1_559),
        ({"txn_2": Fee(False, "USD", 1_500, -2_500)}, None),
        ({"txn_1": Fee(True, "EUR", 50, 850)}, None),
    ],
)
def test_a_fee_is_known_once_the_charges_own_is(
    fees: dict[str, Fee], fee_minor: int | None
) -> None:
    assert state(replace(told("succeeded", 5, 1_000), fees=fees)).fee_minor == fee_minor


def test_a_link_that_is_no_uuid_says_so_and_yields_to_one_that_is() -> None:
    bad = replace(told("succeeded"), links={"user_id": Link(False, 1, 9, "evt_2", "")})
    good = replace(
        told("succeeded"),
        links={"user_id": Link(True, 0, 1, "evt_1", "11111111-1111-4111-8111-111111111111")},
    )
    assert unlinked_reasons(bad) == ["metadata user_id is no UUID: look at it at Stripe"]
    assert unlinked_reasons(join(bad, good)) == []
    assert state(join(bad, good)).user_id is not None


def test_a_state_needs_something_that_says_what_the_payment_is() -> None:
    with pytest.raises(ValueError, match="no fact"):
        state(Fold(refunds={"re_1": REFUND}))


def test_kinds_of_news_nobody_knows_yet_come_after_creation() -> None:
    assert type_rank("payment_intent.created") < UNKNOWN_TYPE_RANK
    assert type_rank("payment_intent.something_new") == UNKNOWN_TYPE_RANK


def test_a_dispute_told_with_and_without_its_id_has_withdrawn_once() -> None:
    first, second = Payout(5, 600), Payout(6, 600)
    for one, other in ((first, second), (second, first)):
        fold = replace(
            told("succeeded", 5, 1_000),
            disputes={
                "ch_1": Dispute((5, "evt_1", "lost"), {"txn_1": one}),
                "dp_1": Dispute((6, "evt_2", "lost"), {"txn_1": other, "txn_2": Payout(7, -100)}),
            },
        )
        seen = state(fold)
        assert seen.disputed_minor == 500
        assert [(each.id, each.at) for each in seen.movements] == [("txn_1", 6), ("txn_2", 7)]
