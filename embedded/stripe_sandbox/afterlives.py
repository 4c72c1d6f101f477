"""What becomes of a payment after it succeeded: refunds and disputes, as scripts."""

from collections.abc import Iterator

from embedded.stripe_sandbox import disputes, refunds, reviews
from embedded.stripe_sandbox.ledger import Dispute, Refund
from embedded.stripe_sandbox.lifecycles import (
    Scene,
    Script,
    card_success,
    manual_capture,
    three_ds_success,
)

# Several refunds of one payment are made within a day, some within one second.
DAY_OF_REFUNDS_SECONDS = 86_400
MADE_BY_PRODUCT = ("requested_by_customer", {"made_by": "product"})
MADE_IN_DASHBOARD: tuple[None, dict[str, str]] = (None, {})


def paid(scene: Scene) -> Iterator[int]:
    yield from scene.rng.choice((card_success, three_ds_success, manual_capture))(scene)
    yield scene.later(3)


def give_back(scene: Scene, amount_minor: int | None, status: str = "succeeded") -> Refund:
    labels = scene.rng.choice((MADE_BY_PRODUCT, MADE_IN_DASHBOARD))
    return refunds.refund(scene.ledger, scene.intent, amount_minor, status, labels)


def full_refund(scene: Scene) -> Iterator[int]:
    yield from paid(scene)
    made = give_back(scene, None)
    yield scene.seconds(5)
    refunds.annotate(scene.ledger, scene.intent, made)


def partial_refund(scene: Scene) -> Iterator[int]:
    yield from paid(scene)
    give_back(scene, scene.part())


def partial_refunds(scene: Scene) -> Iterator[int]:
    yield from paid(scene)
    for _ in range(scene.rng.randint(2, 4)):
        if refunds.refundable_minor(scene.intent) == 0:
            break
        made = give_back(scene, scene.part())
        yield scene.seconds(5)
        refunds.annotate(scene.ledger, scene.intent, made)
        yield scene.seconds(DAY_OF_REFUNDS_SECONDS)


def dashboard_refund(scene: Scene) -> Iterator[int]:
    """Made by hand at Stripe: nothing in it names the product."""
    yield from paid(scene)
    amount_minor = scene.rng.choice((None, scene.part()))
    refunds.refund(scene.ledger, scene.intent, amount_minor, "succeeded", MADE_IN_DASHBOARD)


def refund_step(scene: Scene, first: str, *then: str) -> Iterator[int]:
    yield from paid(scene)
    made = give_back(scene, scene.rng.choice((None, scene.part())), first)
    for status in then:
        yield scene.seconds(86_400)
        refunds.move(scene.ledger, scene.intent, made, status)


def refund_pending(scene: Scene) -> Iterator[int]:
    yield from refund_step(scene, "pending")


def refund_pending_then_succeeded(scene: Scene) -> Iterator[int]:
    yield from refund_step(scene, "pending", "succeeded")


def refund_pending_then_failed(scene: Scene) -> Iterator[int]:
    yield from refund_step(scene, "pending", "failed")


def refund_failed_after_success(scene: Scene) -> Iterator[int]:
    yield from refund_step(scene, "succeeded", "failed")


def refund_pending_succeeded_failed(scene: Scene) -> Iterator[int]:
    yield from refund_step(scene, "pending", "succeeded", "failed")


def refund_canceled(scene: Scene) -> Iterator[int]:
    yield from refund_step(scene, "pending", "canceled")


def refund_awaits_customer(scene: Scene) -> Iterator[int]:
    then = scene.rng.choice((("pending", "succeeded"), ("canceled",), ()))
    yield from refund_step(scene, "requires_action", *then)


def refund_failed_then_again(scene: Scene) -> Iterator[int]:
    yield from refund_step(scene, "succeeded", "failed")
    yield scene.later(2)
    give_back(scene, None)


def disputed(scene: Scene, amount_minor: int | None = None) -> Iterator[int]:
    disputes.open_dispute(scene.ledger, scene.intent, amount_minor)
    yield scene.later(10)
    if scene.rng.random() < 0.7:
        disputes.submit_evidence(scene.ledger, scene.intent, last_dispute(scene))
        yield scene.later(20)


def last_dispute(scene: Scene) -> Dispute:
    return scene.intent.disputes[-1]


def dispute_open(scene: Scene) -> Iterator[int]:
    yield from paid(scene)
    yield from disputed(scene)


def dispute_lost(scene: Scene) -> Iterator[int]:
    yield from dispute_open(scene)
    disputes.lose(scene.ledger, scene.intent, last_dispute(scene))


def dispute_won(scene: Scene) -> Iterator[int]:
    yield from dispute_open(scene)
    disputes.win(scene.ledger, scene.intent, last_dispute(scene))


def dispute_won_then_lost(scene: Scene) -> Iterator[int]:
    yield from dispute_won(scene)
    yield scene.seconds(86_400)
    disputes.lose(scene.ledger, scene.intent, last_dispute(scene))


def dispute_lost_then_won(scene: Scene) -> Iterator[int]:
    yield from dispute_lost(scene)
    yield scene.seconds(86_400)
    disputes.win(scene.ledger, scene.intent, last_dispute(scene))


def dispute_won_then_refunded(scene: Scene) -> Iterator[int]:
    yield from dispute_won(scene)
    yield scene.later(4)
    give_back(scene, scene.rng.choice((None, scene.part())))


def refunded_then_disputed(scene: Scene) -> Iterator[int]:
    yield from partial_refund(scene)
    yield scene.later(9)
    if refunds.refundable_minor(scene.intent) == 0:
        return
    yield from disputed(scene)
    outcome = scene.rng.choice((disputes.win, disputes.lose))
    outcome(scene.ledger, scene.intent, last_dispute(scene))


def several_disputes(scene: Scene) -> Iterator[int]:
    yield from paid(scene)
    for _ in range(scene.rng.randint(2, 3)):
        if refunds.refundable_minor(scene.intent) == 0:
            return
        yield from disputed(scene, scene.part())
        outcome = scene.rng.choice((disputes.win, disputes.lose))
        outcome(scene.ledger, scene.intent, last_dispute(scene))
        yield scene.later(5)


def dispute_prevented(scene: Scene) -> Iterator[int]:
    """Settled with the bank before it was filed."""
    yield from paid(scene)
    amount_minor = scene.rng.choice((None, scene.part()))
    disputes.open_prevented(scene.ledger, scene.intent, amount_minor)


def reviewed(scene: Scene) -> Iterator[int]:
    yield from paid(scene)
    reviews.open_review(scene.ledger, scene.intent)
    yield scene.later(2)


def review_approved(scene: Scene) -> Iterator[int]:
    yield from reviewed(scene)
    reviews.close_review(scene.ledger, scene.intent)


def review_refunded(scene: Scene) -> Iterator[int]:
    """Refunding all of it, as fraud or not, closes the review."""
    yield from reviewed(scene)
    reason = scene.rng.choice(("fraudulent", "requested_by_customer"))
    refunds.refund(scene.ledger, scene.intent, None, "succeeded", (reason, {}))


def review_disputed(scene: Scene) -> Iterator[int]:
    yield from reviewed(scene)
    yield from disputed(scene)


def inquiry(scene: Scene) -> Iterator[int]:
    yield from paid(scene)
    disputes.open_inquiry(scene.ledger, scene.intent, None)
    yield scene.later(5)
    if scene.rng.random() < 0.5:
        disputes.submit_evidence(scene.ledger, scene.intent, last_dispute(scene))
        yield scene.later(5)


def inquiry_closed(scene: Scene) -> Iterator[int]:
    """An inquiry moves no money and leaves the charge refundable."""
    yield from inquiry(scene)
    if scene.rng.random() < 0.3:
        give_back(scene, scene.part())
        yield scene.seconds(86_400)
    disputes.close_inquiry(scene.ledger, scene.intent, last_dispute(scene))


def inquiry_escalated(scene: Scene) -> Iterator[int]:
    yield from inquiry(scene)
    disputes.escalate(scene.ledger, scene.intent, last_dispute(scene))
    yield scene.later(9)
    outcome = scene.rng.choice((disputes.win, disputes.lose))
    outcome(scene.ledger, scene.intent, last_dispute(scene))


AFTERLIVES: dict[str, Script] = {
    "full_refund": full_refund,
    "partial_refund": partial_refund,
    "partial_refunds": partial_refunds,
    "dashboard_refund": dashboard_refund,
    "refund_pending": refund_pending,
    "refund_pending_then_succeeded": refund_pending_then_succeeded,
    "refund_pending_then_failed": refund_pending_then_failed,
    "refund_failed_after_success": refund_failed_after_success,
    "refund_pending_succeeded_failed": refund_pending_succeeded_failed,
    "refund_canceled": refund_canceled,
    "refund_awaits_customer": refund_awaits_customer,
    "refund_failed_then_again": refund_failed_then_again,
    "dispute_open": dispute_open,
    "dispute_lost": dispute_lost,
    "dispute_won": dispute_won,
    "dispute_won_then_lost": dispute_won_then_lost,
    "dispute_lost_then_won": dispute_lost_then_won,
    "dispute_won_then_refunded": dispute_won_then_refunded,
    "refunded_then_disputed": refunded_then_disputed,
    "several_disputes": several_disputes,
    "dispute_prevented": dispute_prevented,
    "review_open": reviewed,
    "review_approved": review_approved,
    "review_refunded": review_refunded,
    "review_disputed": review_disputed,
    "inquiry_closed": inquiry_closed,
    "inquiry_escalated": inquiry_escalated,
}
