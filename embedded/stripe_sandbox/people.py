"""Customers, saved payment methods and mandates as JSON in today's shape."""

from embedded.stripe_sandbox.ledger import Customer, JsonObject, Method

NO_ADDRESS = dict.fromkeys(("city", "country", "line1", "line2", "postal_code", "state"))


def customer_json(customer: Customer) -> JsonObject:
    return {
        "id": customer.id,
        "object": "customer",
        "address": None,
        "balance": 0,
        "created": customer.created,
        "currency": None,
        "default_source": None,
        "delinquent": False,
        "description": None,
        "email": None,
        "invoice_settings": {
            "custom_fields": None,
            "default_payment_method": customer.method_id,
            "footer": None,
            "rendering_options": None,
        },
        "livemode": False,
        "metadata": dict(customer.metadata),
        "name": None,
        "phone": None,
        "preferred_locales": [],
        "shipping": None,
        "tax_exempt": "none",
        "test_clock": None,
    }


def method_json(method: Method) -> JsonObject:
    return {
        "id": method.id,
        "object": "payment_method",
        "allow_redisplay": "unspecified",
        "billing_details": {
            "address": dict(NO_ADDRESS),
            "email": None,
            "name": None,
            "phone": None,
        },
        "created": method.created,
        "customer": method.customer_id,
        "livemode": False,
        "metadata": {},
        "type": method.kind,
        method.kind: _details(method),
    }


def _details(method: Method) -> JsonObject:
    if method.kind != "card":
        return {"bank_code": "TEST", "country": "DE", "last4": "3000"}
    return {
        "brand": "visa",
        "country": "US",
        "exp_month": 8,
        "exp_year": 2034,
        "funding": "credit",
        "last4": "4242",
        "three_d_secure_usage": {"supported": True},
        "wallet": None,
    }
