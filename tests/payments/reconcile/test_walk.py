"""What Stripe knows and we do not is found and mended, once, whatever happens on the way."""


from tests.payments.reconcile.conftest import Stripe

LIVES = ("card_success", "full_refund", "declined_then_paid", "dispute_lost", "canceled")


async def gaps(stripe: Stripe, kind: str) -> list[dict[str, object]]:
    return await stripe.service.rows("SELECT * FROM reconcile_gaps WHERE kind = $1", kind)


async def test_events_that_never_arrived_are_stored_and_folded(stripe: Stripe) -> None:
    payments = stripe.play("card_success", "full_refund")
    events = stripe.events()
    await stripe.deliver(events[::2])
    report = await stripe.walk()
    assert {gap.subject for gap in report.gaps} == {each["id"] for each in events[1::2]}
    assert report.ok
    await stripe.assert_true(payments)
