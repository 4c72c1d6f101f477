"""How a charge was paid: card, 3-D Secure, bank debit and its mandate, in today's shape."""

from embedded.stripe_sandbox.ledger import Charge, JsonObject

CHALLENGE, FRICTIONLESS = "challenge", "frictionless"


def outcome_json(charge: Charge) -> JsonObject | None:
    if charge.status == "pending":
        return None
    declined = charge.error is not None
    shape: JsonObject = {
        "advice_code": None,
        "network_advice_code": None,
        "network_decline_code": None,
        "network_status": "declined_by_network" if declined else "approved_by_network",
        "reason": charge.error.decline_code or charge.error.code if charge.error else None,
        "risk_level": "normal",
        "seller_message": "The bank declined." if declined else "Payment complete.",
        "type": "issuer_declined" if declined else "authorized",
    }
    if charge.review_id is not None:
        shape |= {"risk_level": "elevated", "type": "manual_review", "rule": "rule_sandbox"}
    return shape


def details_json(charge: Charge) -> JsonObject:
    if charge.method == "card":
        return {"type": "card", "card": _card(charge)}
    return {
        "type": charge.method,
        charge.method: {
            "bank_code": "TEST",
            "last4": "3000",
            "mandate": charge.mandate_id,
        },
    }


def _card(charge: Charge) -> JsonObject:
    return {
        "amount_authorized": charge.amount_minor,
        "brand": "visa",
        "country": "US",
        "exp_month": 8,
        "exp_year": 2034,
        "funding": "credit",
        "last4": "4242",
        "mandate": None,
        "network": "visa",
        "three_d_secure": _three_d_secure(charge),
        "wallet": None,
    }


def _three_d_secure(charge: Charge) -> JsonObject | None:
    if charge.three_d_secure is None:
        return None
    authenticated = charge.three_d_secure == "authenticated"
    return {
        "authentication_flow": CHALLENGE if authenticated else FRICTIONLESS,
        "electronic_commerce_indicator": "05" if authenticated else "06",
        "exemption_indicator": "low_risk" if charge.three_d_secure == "exempted" else None,
        "result": charge.three_d_secure,
        "result_reason": None,
        "transaction_id": None,
        "version": "2.2.0",
    }
