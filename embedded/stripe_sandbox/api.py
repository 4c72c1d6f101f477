"""The part of Stripe's API that the product calls: `/v1/…`, form-encoded in, JSON out."""

import itertools
import re
from collections.abc import Callable, Sequence

from starlette.routing import Route

from embedded.stripe_sandbox import customers, money, payments, refunds, shapes
from embedded.stripe_sandbox.calls import Call, Handler, endpoint, fetch
from embedded.stripe_sandbox.customers import kept_for_later, require_customer
from embedded.stripe_sandbox.errors import declined, invalid, missing
from embedded.stripe_sandbox.finding import found, page_of
from embedded.stripe_sandbox.ledger import Charge, Dispute, Intent, JsonObject, Refund
from embedded.stripe_sandbox.listing import (
    PAGE_PARAMETERS,
    created_in,
    cursors_of,
    limit_of,
)
from embedded.stripe_sandbox.outcomes import attempt, require_usable
from embedded.stripe_sandbox.records import Record
from embedded.stripe_sandbox.sandbox import Sandbox

CURRENCY = re.compile(
    "aed|aud|bgn|bhd|brl|cad|chf|clp|cny|czk|dkk|eur|gbp|hkd|huf|idr|ils|inr|isk|jod|jpy|krw|kwd|"
    "mxn|myr|nok|nzd|omr|php|pln|ron|sek|sgd|thb|tnd|try|twd|usd|vnd|xaf|xof|zar"
)
# With the test card of that name.
REFUND_FAILS_AFTER_SECONDS = 5 * 86_400
CAPTURE_METHODS = ("automatic", "automatic_async", "manual")
REFUND_REASONS = ("duplicate", "fraudulent", "requested_by_customer")
CANCEL_REASONS = (*REFUND_REASONS, "abandoned")
CREATE_PARAMETERS = (
    "amount", "currency", "metadata", "payment_method", "confirm", "capture_method", "customer",
    "description", "payment_method_types", "automatic_payment_methods", "off_session",
    "return_url", "expand", "setup_future_usage", "statement_descriptor",
    "statement_descriptor_suffix", "receipt_email", "confirmation_method",
    "payment_method_options", "error_on_requires_action", "shipping", "mandate_data",
)  # fmt: skip
UPDATE_PARAMETERS = ("amount", "metadata", "payment_method", "customer", "description", "expand")
FUTURE_USAGES = ("off_session", "on_session")
CONFIRM_PARAMETERS = (
    "payment_method", "off_session", "return_url", "expand", "mandate_data",
    "error_on_requires_action", "setup_future_usage", "payment_method_options", "receipt_email",
)  # fmt: skip

# Their amounts are taken in tens (docs.stripe.com/currencies#three-decimal); the error's words are ours.
THREE_DECIMALS = frozenset({"bhd", "jod", "kwd", "omr", "tnd"})


def create_intent(call: Call) -> JsonObject:
    form = call.form
    form.require_known(CREATE_PARAMETERS)
    amount_minor = form.amount("amount")
    if amount_minor is None:
        raise invalid("Missing required param: amount.", "parameter_missing", "amount")
    currency = form.required("currency").lower()
    if not CURRENCY.fullmatch(currency):
        raise invalid(f"Invalid currency: {currency}", "parameter_invalid_string", "currency")
    if currency in THREE_DECIMALS and amount_minor % 10:
        raise invalid(
            f"Invalid amount: the last digit of one in {currency} is 0.",
            "parameter_invalid_integer",
            "amount",
        )
    method, customer = form.text("payment_method"), form.text("customer")
    require_customer(call, customer)
    if method is not None:
        require_usable(call.ledger, method, customer)
    confirm = form.boolean("confirm", default=False)
    if confirm and method is None:
        raise invalid("A payment method is needed to confirm.", "parameter_missing")
    order = payments.Order(
        amount_minor=amount_minor,
        currency=currency,
        capture_method=form.choice("capture_method", CAPTURE_METHODS) or "automatic_async",
        method=method,
        method_types=form.listed("payment_method_types") or ("card",),
        metadata=form.mapping("metadata"),
        customer=customer,
        description=form.text("description"),
        setup_future_usage=form.choice("setup_future_usage", FUTURE_USAGES),
        may_redirect=form.text("automatic_payment_methods[allow_redirects]") == "always",
        account=call.account,
    )
    intent = payments.create(call.ledger, order)
    return _confirmed(call, intent, method) if confirm and method else shapes.intent_json(intent)


def update_intent(call: Call) -> JsonObject:
    """Change what is not final.  Stripe tells no event of it."""
    form = call.form
    form.require_known(UPDATE_PARAMETERS)
    intent = _intent(call)
    amount_minor, method = form.amount("amount"), form.text("payment_method")
    customer = form.text("customer") or intent.customer
    require_customer(call, customer)
    if method is not None:
        require_usable(call.ledger, method, customer)
    if amount_minor is not None or method is not None:
        payments.require_open(intent)
    intent.amount_minor = amount_minor or intent.amount_minor
    intent.method, intent.customer = method or intent.method, customer
    if method is not None and intent.status == "requires_payment_method":
        intent.status = "requires_confirmation"
    intent.description = form.text("description") or intent.description
    intent.metadata = form.changed("metadata", intent.metadata)
    return shapes.intent_json(intent)


def confirm_intent(call: Call) -> JsonObject:
    call.form.require_known(CONFIRM_PARAMETERS)
    intent = _intent(call)
    method = call.form.text("payment_method") or intent.method
    if method is None:
        raise invalid(
            "This PaymentIntent has no payment method; give one to confirm it.",
            "payment_intent_unexpected_state",
            "payment_method",
        )
    require_usable(call.ledger, method, intent.customer)
    return _confirmed(call, intent, method)


def _confirmed(call: Call, intent: Intent, method: str) -> JsonObject:
    payments.require_confirmable(intent)
    if intent.may_redirect and call.form.text("return_url") is None:
        raise invalid(
            "A return_url is needed: this PaymentIntent may send the customer elsewhere to pay.",
            param="return_url",
        )
    alone = call.form.boolean("off_session", default=False)
    alone = alone or call.form.boolean("error_on_requires_action", default=False)
    if intent.setup_future_usage and intent.customer:
        method = kept_for_later(call.ledger, intent.customer, method)
    accepted = attempt(call.ledger, intent, method, alone)
    shape = shapes.intent_json(intent)
    if not accepted:
        raise declined(shape["last_payment_error"], shape)
    return shape


def capture_intent(call: Call) -> JsonObject:
    call.form.require_known(("amount_to_capture", "final_capture", "metadata", "expand"))
    intent = _intent(call)
    amount_minor = call.form.amount("amount_to_capture")
    final = call.form.boolean("final_capture", default=True)
    intent.metadata = {**intent.metadata, **call.form.mapping("metadata")}
    payments.capture(call.ledger, intent, amount_minor, final)
    return shapes.intent_json(intent)


def increment_intent(call: Call) -> JsonObject:
    call.form.require_known(("amount", "description", "metadata", "expand"))
    intent = _intent(call)
    amount_minor = call.form.amount("amount")
    if amount_minor is None:
        raise invalid("Missing required param: amount.", "parameter_missing", "amount")
    payments.increase_authorization(call.ledger, intent, amount_minor)
    return shapes.intent_json(intent)


def cancel_intent(call: Call) -> JsonObject:
    call.form.require_known(("cancellation_reason", "expand"))
    reason = call.form.choice("cancellation_reason", CANCEL_REASONS)
    intent = _intent(call)
    payments.cancel(call.ledger, intent, reason)
    return shapes.intent_json(intent)


def list_intents(call: Call) -> JsonObject:
    call.form.require_known((*PAGE_PARAMETERS, "customer"))
    customer = call.form.text("customer")
    found = [each for each in call.ledger.intents.values() if customer in (None, each.customer)]
    return page_of(call, found, "/v1/payment_intents")


def create_refund(call: Call) -> JsonObject:
    call.form.require_known(("payment_intent", "charge", "amount", "reason", "metadata", "expand"))
    intent = _refunded_intent(call)
    amount_minor = call.form.amount("amount")
    reason = call.form.choice("reason", REFUND_REASONS)
    call.sandbox.touch(intent)
    status = "pending" if intent.method == "pm_card_pendingRefund" else "succeeded"
    labels = (reason, call.form.mapping("metadata"))
    made = refunds.refund(call.ledger, intent, amount_minor, status, labels)
    if intent.method == "pm_card_refundFail":
        call.ledger.later(intent, "refund_fail", REFUND_FAILS_AFTER_SECONDS)
    return shapes.refund_json(made)


def _refunded_intent(call: Call) -> Intent:
    intent_id, charge_id = call.form.text("payment_intent"), call.form.text("charge")
    if charge_id is not None:
        charge = call.ledger.charges.get(charge_id)
        if charge is None:
            raise invalid(f"No such charge: '{charge_id}'", "resource_missing", "charge")
        return call.ledger.intents[charge.intent_id]
    if intent_id is None:
        raise invalid("One of payment_intent and charge is required.", "parameter_missing")
    if intent_id not in call.ledger.intents:
        message = f"No such payment_intent: '{intent_id}'"
        raise invalid(message, "resource_missing", "payment_intent")
    return call.ledger.intents[intent_id]


def cancel_refund(call: Call) -> JsonObject:
    made = found(call, call.ledger.refunds, "refund")
    intent = call.ledger.intents[made.intent_id]
    call.sandbox.touch(intent)
    refunds.move(call.ledger, intent, made, "canceled")
    return shapes.refund_json(made)


def list_refunds(call: Call) -> JsonObject:
    one = _one_payment(call)
    made = one.refunds if one else list(call.ledger.refunds.values())
    return _of_payment(call, made, "/v1/refunds")


def list_charges(call: Call) -> JsonObject:
    one = _one_payment(call)
    made = one.charges if one else list(call.ledger.charges.values())
    return _of_payment(call, made, "/v1/charges")


def list_disputes(call: Call) -> JsonObject:
    one = _one_payment(call)
    made = one.disputes if one else list(call.ledger.disputes.values())
    return _of_payment(call, made, "/v1/disputes")


def _one_payment(call: Call) -> Intent | None:
    """The payment asked about: its own few are looked through, not everybody's."""
    return call.ledger.intents.get(call.form.text("payment_intent") or "")


def _of_payment(call: Call, made: Sequence[Refund | Charge | Dispute], url: str) -> JsonObject:
    call.form.require_known((*PAGE_PARAMETERS, "payment_intent", "charge"))
    intent_id, charge_id = call.form.text("payment_intent"), call.form.text("charge")
    asked_for = [
        each
        for each in made
        if intent_id in (None, each.intent_id)
        and charge_id in (None, each.id if isinstance(each, Charge) else each.charge_id)
    ]
    return page_of(call, asked_for, url)


def list_events(call: Call) -> bytes:
    """Newest first.  Stripe's own list goes back 30 days; this one only as told (`ClockOrder`)."""
    form = call.form
    form.require_known((*PAGE_PARAMETERS, "type", "types", "delivery_success"))
    limit = limit_of(form)
    records, wanted = call.sandbox.records, _wanted(call)
    after, before = cursors_of(form, records.by_id)
    if before is None:
        candidates = records.older_than(records.by_id[after] if after else None)
    else:
        candidates = records.newer_than(records.by_id[before])
    # One more than asked for tells whether there are more.
    found = list(itertools.islice(filter(wanted, candidates), limit + 1))
    shown = found[:limit] if before is None else found[:limit][::-1]
    more = b"true" if len(found) > limit else b"false"
    bodies = b",".join(each.body("") for each in shown)
    return b'{"object":"list","url":"/v1/events","has_more":%b,"data":[%b]}' % (more, bodies)


def _wanted(call: Call) -> Callable[[Record], bool]:
    in_time = created_in(call.form)
    types = set(call.form.listed("types"))
    pattern = call.form.text("type")
    taken = call.form.boolean("delivery_success", default=False)
    filtered = call.form.text("delivery_success") is not None
    kept_since = call.sandbox.events_kept_since()

    def wanted(record: Record) -> bool:
        return (
            in_time(record.created)
            and record.created >= kept_since
            and record.account == call.account
            and (not types or record.type in types)
            and (pattern is None or _matches(record.type, pattern))
            and (not filtered or (not record.awaiting) == taken)
        )

    return wanted


def _matches(type_: str, pattern: str) -> bool:
    if pattern.endswith("*"):
        return type_.startswith(pattern[:-1])
    return type_ == pattern


def get_event(call: Call) -> bytes:
    record = call.sandbox.records.by_id.get(call.object_id)
    if record is None or record.account != call.account:
        raise missing("event", call.object_id)
    return record.body("")


def get_intent(call: Call) -> JsonObject:
    return shapes.intent_json(found(call, call.ledger.intents, "payment_intent"))


def get_refund(call: Call) -> JsonObject:
    return fetch(call.ledger, found(call, call.ledger.refunds, "refund").id)


def get_charge(call: Call) -> JsonObject:
    return fetch(call.ledger, found(call, call.ledger.charges, "charge").id)


def get_dispute(call: Call) -> JsonObject:
    return fetch(call.ledger, found(call, call.ledger.disputes, "dispute").id)


def _intent(call: Call) -> Intent:
    """The PaymentIntent that is about to change; its clock never runs backwards."""
    intent = found(call, call.ledger.intents, "payment_intent")
    call.sandbox.touch(intent)
    return intent


HANDLERS: list[tuple[str, str, Handler]] = [
    ("POST", "/v1/payment_intents", create_intent),
    ("GET", "/v1/payment_intents", list_intents),
    ("GET", "/v1/payment_intents/{id}", get_intent),
    ("POST", "/v1/payment_intents/{id}", update_intent),
    ("POST", "/v1/payment_intents/{id}/confirm", confirm_intent),
    ("POST", "/v1/payment_intents/{id}/capture", capture_intent),
    ("POST", "/v1/payment_intents/{id}/increment_authorization", increment_intent),
    ("POST", "/v1/payment_intents/{id}/cancel", cancel_intent),
    ("POST", "/v1/refunds", create_refund),
    ("GET", "/v1/refunds", list_refunds),
    ("GET", "/v1/refunds/{id}", get_refund),
    ("POST", "/v1/refunds/{id}/cancel", cancel_refund),
    ("GET", "/v1/charges", list_charges),
    ("GET", "/v1/charges/{id}", get_charge),
    ("GET", "/v1/disputes", list_disputes),
    ("GET", "/v1/disputes/{id}", get_dispute),
    ("GET", "/v1/events", list_events),
    ("GET", "/v1/events/{id}", get_event),
]


def routes(sandbox: Sandbox) -> list[Route]:
    return [
        Route(path, endpoint(sandbox, handler), methods=[method])
        for method, path, handler in (*HANDLERS, *customers.HANDLERS, *money.HANDLERS)
    ]
