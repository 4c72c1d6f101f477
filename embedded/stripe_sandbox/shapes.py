"""The ledger's objects as JSON in the shapes of API version 2026-08-26.dahlia."""

from embedded.stripe_sandbox.ledger import (
    Charge,
    Dispute,
    Intent,
    JsonObject,
    Ledger,
    PaymentError,
    Refund,
    Transaction,
)
from embedded.stripe_sandbox.method_details import details_json, outcome_json

DAY_SECONDS = 86_400
# What the card network advises where a card was declined; which it does for which reason is its own affair.
ADVICE = {"call_issuer": "do_not_try_again", "try_again_later": "try_again_later"}
EVIDENCE_FIELDS = (
    "access_activity_log",
    "billing_address",
    "cancellation_policy",
    "customer_communication",
    "customer_email_address",
    "customer_name",
    "customer_purchase_ip",
    "product_description",
    "receipt",
    "refund_policy",
    "service_date",
    "shipping_documentation",
    "uncategorized_file",
    "uncategorized_text",
)


def intent_json(intent: Intent) -> JsonObject:
    latest = intent.latest_charge
    return {
        "id": intent.id,
        "object": "payment_intent",
        "allowed_payment_method_types": None,
        "amount": intent.amount_minor,
        "amount_capturable": intent.capturable_minor,
        "amount_details": {"tip": {}},
        "amount_received": intent.received_minor,
        "application": None,
        "application_fee_amount": None,
        "automatic_payment_methods": None,
        "canceled_at": intent.canceled_at,
        "cancellation_reason": intent.cancellation_reason,
        "capture_method": intent.capture_method,
        "client_secret": f"{intent.id}_secret_sandbox",
        "confirmation_method": "automatic",
        "created": intent.created,
        "currency": intent.currency,
        "customer": intent.customer,
        "customer_account": None,
        "description": intent.description,
        "excluded_payment_method_types": None,
        "last_payment_error": error_json(intent, intent.error),
        "latest_charge": latest.id if latest else None,
        "livemode": intent.livemode,
        "metadata": dict(intent.metadata),
        "next_action": _next_action(intent),
        "on_behalf_of": None,
        "payment_method": intent.method,
        "payment_method_configuration_details": None,
        "payment_method_options": {},
        "payment_method_types": list(intent.method_types),
        "processing": _processing(intent),
        "receipt_email": None,
        "review": intent.review.id if intent.review else None,
        "setup_future_usage": intent.setup_future_usage,
        "shipping": None,
        "source": None,
        "statement_descriptor": None,
        "statement_descriptor_suffix": None,
        "status": intent.status,
        "transfer_data": None,
        "transfer_group": None,
    }


def _next_action(intent: Intent) -> JsonObject | None:
    if intent.status != "requires_action":
        return None
    if intent.method_types[0] == "customer_balance":
        return {
            "type": "display_bank_transfer_instructions",
            "display_bank_transfer_instructions": {"currency": intent.currency},
        }
    return {
        "type": "use_stripe_sdk",
        "use_stripe_sdk": {"type": "three_d_secure_redirect", "source": intent.method},
    }


def _processing(intent: Intent) -> JsonObject | None:
    if intent.status != "processing":
        return None
    return {"type": intent.method_types[0]}


def error_json(intent: Intent, error: PaymentError | None) -> JsonObject | None:
    if error is None:
        return None
    shape: JsonObject = {"code": error.code, "message": error.message, "type": error.kind}
    if error.decline_code is not None:
        shape["decline_code"] = error.decline_code
    if error.decline_code in ADVICE:
        shape["advice_code"] = ADVICE[error.decline_code]
    if error.charge_id is not None:
        shape["charge"] = error.charge_id
    shape["payment_method"] = {
        "id": f"pm_{intent.id.removeprefix('pi_')}",
        "object": "payment_method",
        "type": intent.method_types[0],
    }
    return shape


def charge_json(charge: Charge, intent: Intent) -> JsonObject:
    refunded_minor = _amount_refunded(charge, intent)
    failed = charge.error
    return {
        "id": charge.id,
        "object": "charge",
        "amount": charge.amount_minor,
        "amount_captured": charge.captured_minor,
        "amount_refunded": refunded_minor,
        "application": None,
        "application_fee": None,
        "application_fee_amount": None,
        "balance_transaction": charge.transaction_id,
        "billing_details": {"address": None, "email": None, "name": None, "phone": None},
        "calculated_statement_descriptor": "STRIPE SANDBOX" if charge.captured else None,
        "captured": charge.captured,
        "created": charge.created,
        "currency": charge.currency,
        "customer": intent.customer,
        "description": intent.description,
        "disputed": any(dispute.charge_id == charge.id for dispute in intent.disputes),
        "failure_balance_transaction": None,
        "failure_code": failed.code if failed else None,
        "failure_message": failed.message if failed else None,
        "fraud_details": {},
        "livemode": intent.livemode,
        "metadata": dict(charge.metadata),
        "on_behalf_of": None,
        "outcome": outcome_json(charge),
        "paid": charge.status in ("succeeded", "pending"),
        "payment_intent": intent.id,
        "payment_method": intent.method,
        "payment_method_details": details_json(charge),
        "receipt_email": None,
        "receipt_number": None,
        "receipt_url": None,
        "refunded": charge.status == "succeeded" and refunded_minor == charge.amount_minor,
        "review": charge.review_id,
        "shipping": None,
        "source": None,
        "source_transfer": None,
        "statement_descriptor": None,
        "statement_descriptor_suffix": None,
        "status": charge.status,
        "transfer_data": None,
        "transfer_group": None,
    }


def _amount_refunded(charge: Charge, intent: Intent) -> int:
    # A released authorisation reads as refunded in full, though no money ever came.
    if charge.status == "succeeded" and not charge.captured and intent.status == "canceled":
        return charge.amount_minor
    return sum(
        refund.amount_minor
        for refund in intent.refunds
        if refund.charge_id == charge.id and refund.status in ("pending", "succeeded")
    )


def refund_json(refund: Refund) -> JsonObject:
    shape: JsonObject = {
        "id": refund.id,
        "object": "refund",
        "amount": refund.amount_minor,
        "balance_transaction": refund.transaction_id,
        "charge": refund.charge_id,
        "created": refund.created,
        "currency": refund.currency,
        "customer": None,
        "customer_account": None,
        "destination_details": {"card": {"type": "refund"}, "type": "card"},
        "metadata": dict(refund.metadata),
        "payment_intent": refund.intent_id,
        "payment_method": None,
        "reason": refund.reason,
        "receipt_number": None,
        "source_transfer_reversal": None,
        "status": refund.status,
        "transfer_reversal": None,
    }
    # Stripe leaves these two out until a refund fails.
    if refund.failure_reason is not None:
        shape["failure_reason"] = refund.failure_reason
        shape["failure_balance_transaction"] = refund.failure_transaction_id
    return shape


def dispute_json(dispute: Dispute, refundable: bool) -> JsonObject:
    inquiry = dispute.status.startswith("warning_")
    return {
        "id": dispute.id,
        "object": "dispute",
        "amount": dispute.amount_minor,
        "balance_transactions": [
            # Told when it happened, so not available yet.
            transaction_json(each, each.created)
            for each in dispute.transactions
        ],
        "charge": dispute.charge_id,
        "created": dispute.created,
        "currency": dispute.currency,
        "enhanced_eligibility_types": [],
        "evidence": dict.fromkeys(EVIDENCE_FIELDS),
        "evidence_details": {
            "due_by": dispute.created + 7 * DAY_SECONDS,
            "enhanced_eligibility": {},
            "has_evidence": dispute.has_evidence,
            "past_due": False,
            "submission_count": int(dispute.has_evidence),
        },
        "is_charge_refundable": refundable,
        "livemode": dispute.livemode,
        "metadata": {},
        "payment_intent": dispute.intent_id,
        "payment_method_details": {
            "card": {
                "brand": "visa",
                "case_type": "inquiry" if inquiry else "chargeback",
                "network_reason_code": "10.4",
            },
            "type": "card",
        },
        "reason": dispute.reason,
        "status": dispute.status,
    }


def transaction_json(transaction: Transaction, now: int) -> JsonObject:
    return {
        "id": transaction.id,
        "object": "balance_transaction",
        "amount": transaction.amount_minor,
        "available_on": transaction.available_on,
        "balance_type": "payments",
        "created": transaction.created,
        "currency": transaction.currency,
        "description": None,
        "exchange_rate": transaction.exchange_rate,
        "fee": transaction.fee_minor,
        "fee_details": _fee_details(transaction),
        "net": transaction.net_minor,
        "reporting_category": transaction.category,
        "source": transaction.source,
        "status": "available" if transaction.available_on <= now else "pending",
        "type": transaction.kind,
    }


def _fee_details(transaction: Transaction) -> list[JsonObject]:
    if transaction.fee_minor == 0:
        return []
    return [
        {
            "amount": transaction.fee_minor,
            "application": None,
            "currency": transaction.currency,
            "description": "Stripe processing fees",
            "type": "stripe_fee",
        }
    ]


def tell_intent(ledger: Ledger, type_: str, intent: Intent) -> None:
    ledger.emit(f"payment_intent.{type_}", intent, intent_json(intent))


def tell_charge(ledger: Ledger, type_: str, intent: Intent, charge: Charge) -> None:
    ledger.emit(f"charge.{type_}", intent, charge_json(charge, intent))
