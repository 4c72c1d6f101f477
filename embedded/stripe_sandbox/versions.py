"""Events in the shapes of older API versions, and as thin events: what one endpoint sees of what another sees today.

Each step takes an object one version back.  What came before 2019 is as bodies recorded then show it.
"""

from collections.abc import Callable
from datetime import UTC, datetime

from embedded.stripe_sandbox import shapes
from embedded.stripe_sandbox.ledger import API_VERSION, Event, JsonObject, Ledger

# What an endpoint of thin events is known by in the place of a version.
THIN = "thin"
# The event's own `request` was only an id before this version.
REQUEST_WAS_AN_ID_UNTIL = "2017-05-25"
STATUSES = {
    "requires_payment_method": "requires_source",
    "requires_action": "requires_source_action",
}
PATHS = {
    "payment_intent": "payment_intents",
    "charge": "charges",
    "refund": "refunds",
    "dispute": "disputes",
    "review": "reviews",
    "invoice": "invoices",
    "invoice_payment": "invoice_payments",
    "payout": "payouts",
}
TWO_ANSWERS = {"authenticated": True, "attempt_acknowledged": False}


def event_json(event: Event, version: str, ledger: Ledger, pending_webhooks: int = 1) -> JsonObject:
    """The event as an endpoint of `version` gets it; the ledger is as it was when the event was told."""
    data: JsonObject = {"object": older(event.snapshot, version, ledger)}
    if event.previous is not None:
        data["previous_attributes"] = event.previous
    account: JsonObject = {} if event.account is None else {"account": event.account}
    request: JsonObject | str | None = {
        "id": event.request.id,
        "idempotency_key": event.request.idempotency_key,
    }
    return {
        "id": event.id,
        "object": "event",
        **account,
        "api_version": version,
        "created": event.created,
        "data": data,
        "livemode": event.livemode,
        "pending_webhooks": pending_webhooks,
        "request": event.request.id if version < REQUEST_WAS_AN_ID_UNTIL else request,
        "type": event.type,
    }


def thin_json(event: Event) -> JsonObject:
    """Says what happened to which object, and nothing of the object; its id is not the snapshot event's."""
    kind, object_id = event.snapshot["object"], event.snapshot["id"]
    created = datetime.fromtimestamp(event.created, UTC)
    return {
        "id": event.id.replace("evt_", "evt_65", 1),
        "object": "v2.core.event",
        "type": f"v1.{event.type}",
        "context": event.account,
        "created": created.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "livemode": event.livemode,
        "reason": None,
        "related_object": {
            "id": object_id,
            "type": kind,
            "url": f"/v1/{PATHS[kind]}/{object_id}",
        },
    }


def older(told: JsonObject, version: str, ledger: Ledger) -> JsonObject:
    if version >= API_VERSION:
        return told
    for since, changes in CHANGES:
        change = changes.get(told["object"])
        if version < since and change is not None:
            told = change(told, version, ledger)
    return told


Change = Callable[[JsonObject, str, Ledger], JsonObject]


def _name_invoice(told: JsonObject, version: str, ledger: Ledger) -> JsonObject:
    is_payment = told["object"] == "payment_intent"
    intent = ledger.intents[told["id"] if is_payment else told["payment_intent"]]
    return {**told, "invoice": intent.invoice_id}


def _invoice_names_payment(told: JsonObject, version: str, ledger: Ledger) -> JsonObject:
    paid_by = ledger.invoices[told["id"]].paid_by
    charge = paid_by.latest_charge if paid_by else None
    about = told["parent"]["subscription_details"]
    return {
        **{key: value for key, value in told.items() if key != "parent"},
        "charge": charge.id if charge else None,
        "paid": told["status"] == "paid",
        "payment_intent": paid_by.id if paid_by else None,
        "subscription": about["subscription"],
        "subscription_details": {"metadata": about["metadata"]},
    }


def _with_charges(told: JsonObject, version: str, ledger: Ledger) -> JsonObject:
    intent = ledger.intents[told["id"]]
    made = [older(shapes.charge_json(each, intent), version, ledger) for each in intent.charges]
    return {**told, "charges": _list(made[::-1], f"/v1/charges?payment_intent={intent.id}")}


def _with_refunds(told: JsonObject, version: str, ledger: Ledger) -> JsonObject:
    intent = ledger.intents[told["payment_intent"]]
    made = [
        older(shapes.refund_json(each), version, ledger)
        for each in intent.refunds
        if each.charge_id == told["id"]
    ]
    return {**told, "refunds": _list(made[::-1], f"/v1/charges/{told['id']}/refunds")}


def _one_transaction(told: JsonObject, version: str, ledger: Ledger) -> JsonObject:
    moved = told["balance_transactions"]
    return {**told, "balance_transaction": moved[0]["id"] if moved else None}


def _two_answers(told: JsonObject, version: str, ledger: Ledger) -> JsonObject:
    """3-D Secure was told as two answers, yes or no each."""
    details = told["payment_method_details"]
    card = details.get("card") or {}
    secured = card.get("three_d_secure")
    if secured is None or secured["result"] not in TWO_ANSWERS:
        return told
    answers = {"authenticated": TWO_ANSWERS[secured["result"]], "succeeded": True}
    card = {**card, "three_d_secure": {**answers, "version": "1.0.2"}}
    return {**told, "payment_method_details": {**details, "card": card}}


def _sources(told: JsonObject, version: str, ledger: Ledger) -> JsonObject:
    """Payment methods were sources, and statuses were named for them."""
    left_out = ("payment_method", "payment_method_types", "payment_method_options", "latest_charge")
    error = told["last_payment_error"]
    if error is not None:
        error = {key: value for key, value in error.items() if key != "payment_method"}
        error["source"] = {"object": "source", "type": told["payment_method_types"][0]}
    automatic = told["capture_method"] != "manual"
    return {
        **{key: value for key, value in told.items() if key not in left_out},
        "allowed_source_types": told["payment_method_types"],
        "capture_method": "automatic" if automatic else "manual",
        "last_payment_error": error,
        "status": STATUSES.get(told["status"], told["status"]),
    }


def _without(*names: str) -> Change:
    def change(told: JsonObject, version: str, ledger: Ledger) -> JsonObject:
        return {key: value for key, value in told.items() if key not in names}

    return change


# What a version changed, newest first: an endpoint of an older one gets it undone.
CHANGES: tuple[tuple[str, dict[str, Change]], ...] = (
    (
        "2025-03-31",
        {
            "payment_intent": _name_invoice,
            "charge": _name_invoice,
            "invoice": _invoice_names_payment,
        },
    ),
    ("2022-11-15", {"payment_intent": _with_charges, "charge": _with_refunds}),
    ("2020-08-27", {"charge": _two_answers, "dispute": _one_transaction}),
    ("2019-02-11", {"payment_intent": _sources, "charge": _without("amount_captured")}),
    (
        "2018-02-28",
        {
            "dispute": _without("payment_intent", "payment_method_details"),
            "refund": _without("payment_intent", "destination_details"),
        },
    ),
)


def _list(data: list[JsonObject], url: str) -> JsonObject:
    return {
        "object": "list",
        "data": data,
        "has_more": False,
        "total_count": len(data),
        "url": url,
    }
