"""Money on its way to the merchant's bank: automatic payouts take what is available, manual ones an amount."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from embedded.stripe_sandbox.ledger import (
    IllegalTransition,
    JsonObject,
    Ledger,
    Payout,
    Transaction,
)

ARRIVES_AFTER_SECONDS = 2 * 86_400
# From each state, where a payout may go.  The bank can send back what was paid, days later.
LEGAL = {
    "pending": ("in_transit", "paid", "failed", "canceled"),
    "in_transit": ("paid", "failed"),
    "paid": ("failed",),
    "failed": (),
    "canceled": (),
}


@dataclass(frozen=True)
class Wish:
    """What is to be paid out; `amount_minor` of none is an automatic payout of all that is available.

    `skew_minor` makes the payout differ from its lines by so much, which Stripe never does: for those who look.
    """

    currency: str
    amount_minor: int | None = None
    skew_minor: int = 0
    account: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


def pay_out(ledger: Ledger, wish: Wish) -> Payout:
    """Raises IllegalTransition when there is not so much."""
    lines = available(ledger, wish.currency, wish.account)
    balance_minor = sum(line.net_minor for line in lines)
    automatic = wish.amount_minor is None
    amount_minor = balance_minor if wish.amount_minor is None else wish.amount_minor
    if not 0 < amount_minor <= balance_minor:
        raise IllegalTransition(
            f"A payout of {amount_minor} is not within the balance, {balance_minor}.",
            "balance_insufficient",
        )
    amount_minor += wish.skew_minor
    payout_id = ledger.ids.new("po")
    payout = Payout(
        id=payout_id,
        created=ledger.now,
        amount_minor=amount_minor,
        currency=wish.currency,
        automatic=automatic,
        transaction_id="",
        arrival_date=ledger.now + ARRIVES_AFTER_SECONDS,
        reconciliation="in_progress" if automatic else "not_applicable",
        metadata=dict(wish.metadata),
        account=wish.account,
    )
    ledger.payouts[payout.id] = payout
    booked = _book(ledger, payout, "payout", -amount_minor)
    payout.transaction_id = booked.id
    if automatic:
        for line in (*lines, booked):
            line.payout_id = payout.id
    _tell(ledger, "created", payout)
    return payout


def available(ledger: Ledger, currency: str, account: str | None) -> Sequence[Transaction]:
    """Balance transactions that no automatic payout has taken yet and that have become available."""
    return [
        each
        for each in ledger.transactions.values()
        if each.payout_id is None
        and each.currency == currency
        and each.available_on <= ledger.now
        and ledger.account_of(each.source) == account
    ]


def move(ledger: Ledger, payout: Payout, status: str) -> None:
    if status not in LEGAL[payout.status]:
        raise IllegalTransition(
            f"Payout {payout.id} is {payout.status} and cannot become {status}.",
            "payout_unexpected_state",
        )
    payout.status = status
    if status in ("failed", "canceled"):
        kind = "payout_failure" if status == "failed" else "payout_cancel"
        returned = _book(ledger, payout, kind, payout.amount_minor)
        payout.failure_transaction_id = returned.id
    if status == "failed":
        payout.failure_code = "account_closed"
    _tell(ledger, "updated" if status == "in_transit" else status, payout)


def finish_reconciliation(ledger: Ledger, payout: Payout) -> None:
    """All lines of an automatic payout are known."""
    if payout.reconciliation != "in_progress":
        raise IllegalTransition(
            f"Payout {payout.id}'s lines are {payout.reconciliation}.", "payout_unexpected_state"
        )
    payout.reconciliation = "completed"
    _tell(ledger, "reconciliation_completed", payout)


def charge_fee(ledger: Ledger, wish: Wish) -> Transaction:
    """A line that belongs to no payment: Stripe's own fee, taken from the balance."""
    if wish.amount_minor is None:
        raise IllegalTransition("A fee has an amount.", "parameter_missing")
    source = (wish.currency, ledger.ids.new("fee"))
    return ledger.record("stripe_fee", "fee", (-wish.amount_minor, 0), source)


def _book(ledger: Ledger, payout: Payout, kind: str, amount_minor: int) -> Transaction:
    made = ledger.record(kind, kind, (amount_minor, 0), (payout.currency, payout.id))
    made.available_on = ledger.now
    return made


def _tell(ledger: Ledger, type_: str, payout: Payout) -> None:
    ledger.emit(f"payout.{type_}", payout, payout_json(payout))


def payout_json(payout: Payout) -> JsonObject:
    failed = payout.failure_code is not None
    return {
        "id": payout.id,
        "object": "payout",
        "amount": payout.amount_minor,
        "application_fee": None,
        "application_fee_amount": None,
        "arrival_date": payout.arrival_date,
        "automatic": payout.automatic,
        "balance_transaction": payout.transaction_id,
        "created": payout.created,
        "currency": payout.currency,
        "description": "STRIPE SANDBOX PAYOUT",
        "destination": "ba_sandbox",
        "failure_balance_transaction": payout.failure_transaction_id,
        "failure_code": payout.failure_code,
        "failure_message": "The bank account has been closed." if failed else None,
        "livemode": payout.livemode,
        "metadata": dict(payout.metadata),
        "method": "standard",
        "original_payout": None,
        "payout_method": None,
        "reconciliation_status": payout.reconciliation,
        "reversed_by": None,
        "source_type": "card",
        "statement_descriptor": None,
        "status": payout.status,
        "trace_id": None,
        "type": "bank_account",
    }
