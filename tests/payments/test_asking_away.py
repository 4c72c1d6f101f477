"""Stripe is away, busy, or does not answer us: which questions are put off, and until when."""

from services.payments.gateway import StripeClient
from tests.payments.conftest import Hands, Service
from tests.payments.test_asking import all_events, assert_true, client, life
from tests.sandbox.conftest import RunningSandbox, sandbox

__all__ = ["client", "sandbox"]


async def test_while_stripe_is_away_the_question_waits(
    service: Service, sandbox: RunningSandbox, client: StripeClient, hands: Hands
) -> None:
    stripe_id, events = life(sandbox, "full_refund")
    await service.receive(events[-1:])
    await service.fold_all()
    hands.later(61)
    # The client itself tries twice.
    sandbox.control("POST", "outage", {"status": 500, "count": 2})
    assert await service.ask_all(client) == 0
    [question] = await service.rows("SELECT attempts, last_error FROM stripe_questions")
    assert question["attempts"] == 1
    assert question["last_error"]
    assert await service.ask_all(client) == 0
    hands.later(5)
    assert await service.ask_all(client) >= 1
    await assert_true(service, sandbox, stripe_id)


async def test_who_is_told_to_come_later_asks_nothing_else_before(
    service: Service, sandbox: RunningSandbox, client: StripeClient, hands: Hands
) -> None:
    sandbox.play("full_refund", "full_refund", seed=3)
    for event in all_events(sandbox):
        if event["type"].startswith("refund."):
            await service.receive([event])
    await service.fold_all()
    hands.later(61)
    sandbox.control("POST", "outage", {"status": 429, "count": 1, "retry_after_seconds": 30})
    assert await service.ask_all(client) == 0
    questions = await service.rows("SELECT attempts, ask_after FROM stripe_questions")
    assert [question["attempts"] for question in questions] in ([0, 1], [1, 0])
    hands.later(29)
    assert await service.ask_all(client) == 0
    hands.later(2)
    assert await service.ask_all(client) == 2


async def test_a_question_that_stripe_does_not_answer_us_holds_up_no_other(
    service: Service, sandbox: RunningSandbox, client: StripeClient, hands: Hands
) -> None:
    sandbox.play("full_refund", "full_refund", seed=3)
    for event in all_events(sandbox):
        if event["type"].startswith("refund."):
            await service.receive([event])
    await service.fold_all()
    hands.later(61)
    # As a connected account answers that took its access back.
    sandbox.control("POST", "outage", {"status": 403, "count": 1})
    assert await service.ask_all(client) == 1
    hands.later(3)
    assert await service.ask_all(client) == 1
