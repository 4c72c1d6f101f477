"""Legal lives of a payment, as scripts: each step happens, then says how long to wait (seconds)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random

from embedded.stripe_sandbox import disputes, invoices, payments, refunds
from embedded.stripe_sandbox.ledger import Intent, Ledger, PaymentError
from embedded.stripe_sandbox.payments import AUTHENTICATION_FAILED, Order

HOUR_SECONDS = 3_600
DAY_SECONDS = 86_400
DECLINES = {
    "generic_decline": "Your card was declined.",
    "insufficient_funds": "Your card has insufficient funds.",
    "lost_card": "Your card was declined.",
    "do_not_honor": "Your card was declined.",
    "card_velocity_exceeded": "Your card was declined for too many attempts.",
}


@dataclass
class Scene:
    """One payment on its way: where it is written, what was ordered, its own dice."""

    ledger: Ledger
    order: Order
    rng: Random
    made: Intent | None = None

    @property
    def intent(self) -> Intent:
        if self.made is None:
            raise LookupError("the script has not created its PaymentIntent yet")
        return self.made

    def part(self) -> int:
        """Some of what is left to give back, and at least one minor unit."""
        return self.rng.randint(1, max(1, refunds.refundable_minor(self.intent) // 2))

    def seconds(self, most: int) -> int:
        """Ties in one second are common, so nothing at all is a common wait."""
        return 0 if self.rng.random() < 0.25 else self.rng.randint(1, most)

    def later(self, days: int) -> int:
        """Long enough that no two of these share a second by chance."""
        return self.rng.randint(HOUR_SECONDS, days * DAY_SECONDS)


Script = Callable[[Scene], Iterator[int]]


def declined(rng: Random) -> PaymentError:
    """One of the issuer's answers, or one of Stripe's own codes without a decline code."""
    if rng.random() < 0.2:
        return PaymentError("expired_card", "Your card has expired.", "expired_card")
    if rng.random() < 0.1:
        return PaymentError("processing_error", "An error occurred while processing your card.")
    code = rng.choice(list(DECLINES))
    return PaymentError("card_declined", DECLINES[code], code)


def open_intent(
    scene: Scene,
    manual: bool = False,
    method: str | None = None,
    invoice_id: str | None = None,
) -> Iterator[int]:
    asked = scene.order
    capture = "manual" if manual else scene.rng.choice(("automatic", "automatic_async"))
    order = Order(
        amount_minor=asked.amount_minor,
        currency=asked.currency,
        capture_method=capture,
        method=method,
        metadata=asked.metadata,
        invoice_id=invoice_id,
        livemode=asked.livemode,
        account=asked.account,
        settles_in=asked.settles_in,
    )
    scene.made = payments.create(scene.ledger, order)
    yield scene.seconds(20)


def pay(scene: Scene) -> Iterator[int]:
    payments.succeed(scene.ledger, scene.intent)
    yield scene.seconds(4)
    payments.settle(scene.ledger, scene.intent)
    yield scene.later(5)


def decline(scene: Scene) -> Iterator[int]:
    payments.fail(scene.ledger, scene.intent, declined(scene.rng))
    # A person types another card, or dunning waits for days: never within the same second.
    yield scene.rng.choice((scene.rng.randint(2, 90), scene.later(4)))


def challenge(scene: Scene) -> Iterator[int]:
    payments.require_action(scene.ledger, scene.intent)
    yield scene.rng.randint(1, 120)


def card_success(scene: Scene) -> Iterator[int]:
    yield from open_intent(scene, method=scene.rng.choice((None, "pm_card_visa")))
    yield from pay(scene)


def three_ds_success(scene: Scene) -> Iterator[int]:
    yield from open_intent(scene)
    yield from challenge(scene)
    yield from pay(scene)


def three_ds_frictionless(scene: Scene) -> Iterator[int]:
    """The bank knew enough, or an exemption was claimed: nobody was challenged."""
    yield from open_intent(scene)
    results = ("authenticated", "attempt_acknowledged", "exempted", "not_supported")
    scene.intent.three_d_secure = scene.rng.choice(results)
    yield from pay(scene)


def three_ds_failed(scene: Scene) -> Iterator[int]:
    yield from open_intent(scene)
    yield from challenge(scene)
    payments.fail(scene.ledger, scene.intent, AUTHENTICATION_FAILED)


def three_ds_abandoned(scene: Scene) -> Iterator[int]:
    yield from open_intent(scene)
    payments.require_action(scene.ledger, scene.intent)


def left_unpaid(scene: Scene) -> Iterator[int]:
    yield from open_intent(scene)


def declined_for_good(scene: Scene) -> Iterator[int]:
    yield from open_intent(scene)
    for _ in range(scene.rng.randint(1, 3)):
        yield from decline(scene)


def declined_then_succeeded(scene: Scene) -> Iterator[int]:
    yield from open_intent(scene)
    for _ in range(scene.rng.randint(1, 4)):
        yield from decline(scene)
    yield from pay(scene)


def declined_then_challenged(scene: Scene) -> Iterator[int]:
    yield from open_intent(scene)
    for _ in range(scene.rng.randint(1, 2)):
        yield from decline(scene)
        yield from challenge(scene)
        payments.fail(scene.ledger, scene.intent, AUTHENTICATION_FAILED)
        yield scene.rng.randint(2, 90)
    yield from challenge(scene)
    if scene.rng.random() < 0.5:
        yield from pay(scene)


def invoiced(scene: Scene) -> Iterator[int]:
    """Stripe's own billing made the payment; an attempt or two may fail before."""
    invoice = invoices.draw_up(scene.ledger)
    yield from open_intent(scene, invoice_id=invoice.id)
    for _ in range(scene.rng.randint(0, 2)):
        yield from decline(scene)
    yield from pay(scene)
    invoices.pay(scene.ledger, invoice, scene.intent)


def debit(scene: Scene) -> Iterator[int]:
    yield from open_intent(scene)
    payments.start_debit(scene.ledger, scene.intent)
    yield scene.later(4)


def bank_debit_processing(scene: Scene) -> Iterator[int]:
    yield from debit(scene)


def bank_debit_succeeded(scene: Scene) -> Iterator[int]:
    yield from debit(scene)
    payments.succeed(scene.ledger, scene.intent)


def fail_debit(scene: Scene) -> None:
    code = scene.rng.choice(("insufficient_funds", "debit_not_authorized"))
    error = PaymentError("payment_intent_payment_attempt_failed", "The debit was returned.", code)
    payments.fail(scene.ledger, scene.intent, error)


def bank_debit_failed(scene: Scene) -> Iterator[int]:
    yield from debit(scene)
    fail_debit(scene)


def bank_debit_failed_then_card(scene: Scene) -> Iterator[int]:
    yield from debit(scene)
    fail_debit(scene)
    yield scene.later(2)
    scene.intent.method_types = ["card"]
    yield from pay(scene)


def bank_debit_disputed(scene: Scene) -> Iterator[int]:
    """A debit that fails after it succeeded comes as a dispute, lost at once."""
    yield from debit(scene)
    payments.succeed(scene.ledger, scene.intent)
    yield scene.later(30)
    dispute = disputes.open_dispute(scene.ledger, scene.intent, None, "debit_not_authorized")
    yield scene.seconds(3)
    disputes.lose(scene.ledger, scene.intent, dispute)


def bank_transfer(scene: Scene) -> Iterator[int]:
    """Comes in parts, or not at all."""
    yield from open_intent(scene)
    payments.await_transfer(scene.ledger, scene.intent)
    yield scene.later(5)
    for _ in range(scene.rng.randint(0, 2)):
        payments.fund_partly(scene.ledger, scene.intent)
        yield scene.later(2)
    if scene.rng.random() < 0.7:
        yield from pay(scene)


def authorize(scene: Scene) -> Iterator[int]:
    yield from open_intent(scene, manual=True)
    payments.succeed(scene.ledger, scene.intent)
    yield scene.later(3)


def authorized_only(scene: Scene) -> Iterator[int]:
    yield from authorize(scene)


def manual_capture(scene: Scene) -> Iterator[int]:
    yield from authorize(scene)
    payments.capture(scene.ledger, scene.intent, None)


def partial_capture(scene: Scene) -> Iterator[int]:
    yield from authorize(scene)
    payments.capture(scene.ledger, scene.intent, scene.rng.randint(1, scene.order.amount_minor))


def partial_capture_refunded(scene: Scene) -> Iterator[int]:
    """By a request of before 2025-03-31."""
    yield from authorize(scene)
    taken_minor = scene.rng.randint(1, scene.order.amount_minor)
    payments.capture_and_refund(scene.ledger, scene.intent, taken_minor)
    yield scene.later(2)
    if scene.rng.random() < 0.5:
        refunds.refund(scene.ledger, scene.intent, None)


def multi_capture(scene: Scene) -> Iterator[int]:
    yield from authorize(scene)
    for _ in range(scene.rng.randint(1, 2)):
        if scene.intent.capturable_minor < 2:
            break
        half_minor = scene.intent.capturable_minor // 2
        payments.capture(scene.ledger, scene.intent, half_minor, final=False)
        yield scene.later(2)
    payments.capture(scene.ledger, scene.intent, None)


def incremental_authorization(scene: Scene) -> Iterator[int]:
    yield from authorize(scene)
    more_minor = scene.order.amount_minor + scene.rng.randint(1, scene.order.amount_minor)
    payments.increase_authorization(scene.ledger, scene.intent, more_minor)
    yield scene.later(1)
    if scene.rng.random() < 0.8:
        payments.capture(scene.ledger, scene.intent, None)


def cancel_now(scene: Scene, reason: str | None = "requested_by_customer") -> None:
    payments.cancel(scene.ledger, scene.intent, reason)


def authorization_canceled(scene: Scene) -> Iterator[int]:
    yield from authorize(scene)
    cancel_now(scene)


def authorization_expired(scene: Scene) -> Iterator[int]:
    yield from authorize(scene)
    yield 7 * DAY_SECONDS
    payments.expire(scene.ledger, scene.intent)


def canceled_unpaid(scene: Scene) -> Iterator[int]:
    yield from open_intent(scene)
    cancel_now(scene, "abandoned")


def canceled_unconfirmed(scene: Scene) -> Iterator[int]:
    yield from open_intent(scene, method="pm_card_visa")
    cancel_now(scene)


def canceled_after_decline(scene: Scene) -> Iterator[int]:
    yield from open_intent(scene)
    yield from decline(scene)
    cancel_now(scene, None)


def canceled_during_action(scene: Scene) -> Iterator[int]:
    yield from open_intent(scene)
    yield from challenge(scene)
    cancel_now(scene, "abandoned")


def canceled_during_processing(scene: Scene) -> Iterator[int]:
    yield from debit(scene)
    cancel_now(scene)


LIVES: dict[str, Script] = {
    "card_success": card_success,
    "three_ds_success": three_ds_success,
    "three_ds_failed": three_ds_failed,
    "three_ds_abandoned": three_ds_abandoned,
    "three_ds_frictionless": three_ds_frictionless,
    "left_unpaid": left_unpaid,
    "declined": declined_for_good,
    "declined_then_succeeded": declined_then_succeeded,
    "declined_then_challenged": declined_then_challenged,
    "invoiced": invoiced,
    "bank_debit_processing": bank_debit_processing,
    "bank_debit_succeeded": bank_debit_succeeded,
    "bank_debit_failed": bank_debit_failed,
    "bank_debit_failed_then_card": bank_debit_failed_then_card,
    "bank_debit_disputed": bank_debit_disputed,
    "bank_transfer": bank_transfer,
    "authorized_only": authorized_only,
    "manual_capture": manual_capture,
    "partial_capture": partial_capture,
    "partial_capture_refunded": partial_capture_refunded,
    "multi_capture": multi_capture,
    "incremental_authorization": incremental_authorization,
    "authorization_canceled": authorization_canceled,
    "authorization_expired": authorization_expired,
    "canceled_unpaid": canceled_unpaid,
    "canceled_unconfirmed": canceled_unconfirmed,
    "canceled_after_decline": canceled_after_decline,
    "canceled_during_action": canceled_during_action,
    "canceled_during_processing": canceled_during_processing,
}
