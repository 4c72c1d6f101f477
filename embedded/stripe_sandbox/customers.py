"""Customers and their saved payment methods: enough of them to charge off-session."""

from embedded.stripe_sandbox.calls import Call, Handler
from embedded.stripe_sandbox.errors import invalid
from embedded.stripe_sandbox.finding import found, page_of
from embedded.stripe_sandbox.ledger import Customer, JsonObject, Ledger, Method
from embedded.stripe_sandbox.listing import PAGE_PARAMETERS
from embedded.stripe_sandbox.outcomes import is_outcome
from embedded.stripe_sandbox.people import customer_json, method_json

CUSTOMER_PARAMETERS = (
    "email", "name", "phone", "description", "metadata", "payment_method", "invoice_settings",
    "expand", "address", "shipping", "preferred_locales", "tax_exempt",
)  # fmt: skip


def require_customer(call: Call, customer: str | None) -> None:
    known = customer is None or customer in call.ledger.customers
    if not known or (customer and call.ledger.account_of(customer) != call.account):
        raise invalid(f"No such customer: '{customer}'", "resource_missing", "customer")


def new_customer(ledger: Ledger, metadata: dict[str, str], account: str | None = None) -> Customer:
    customer = Customer(ledger.ids.new("cus"), ledger.now, metadata, account=account)
    ledger.customers[customer.id] = customer
    return customer


def save_method(ledger: Ledger, customer: Customer, kind: str, outcomes: list[str]) -> Method:
    """A new method of the customer's, and the one it is charged with from now on."""
    method = Method(ledger.ids.new("pm"), ledger.now, kind, outcomes, customer.id)
    method.account = customer.account
    ledger.methods[method.id] = method
    customer.method_id = method.id
    return method


def kept_for_later(ledger: Ledger, customer_id: str, method: str) -> str:
    """A test token becomes a method of the customer's own, who is not charged with it by default."""
    if method in ledger.methods:
        return method
    customer = ledger.customers[customer_id]
    saved = Method(ledger.ids.new("pm"), ledger.now, kind_of(method), [method], customer.id)
    saved.account = customer.account
    ledger.methods[saved.id] = saved
    return saved.id


def create_customer(call: Call) -> JsonObject:
    call.form.require_known(CUSTOMER_PARAMETERS)
    token = call.form.text("payment_method")
    if token is not None:
        _require_token(token)
    customer = new_customer(call.ledger, dict(call.form.mapping("metadata")), call.account)
    if token is not None:
        save_method(call.ledger, customer, kind_of(token), [token])
    return customer_json(customer)


def update_customer(call: Call) -> JsonObject:
    call.form.require_known((*CUSTOMER_PARAMETERS, "default_source"))
    customer = found(call, call.ledger.customers, "customer")
    chosen = call.form.text("invoice_settings[default_payment_method]")
    if chosen is not None:
        method = call.ledger.methods.get(chosen)
        if method is None or method.customer_id != customer.id:
            raise invalid(f"No such PaymentMethod: '{chosen}'", "resource_missing")
        customer.method_id = chosen
    customer.metadata = call.form.changed("metadata", customer.metadata)
    return customer_json(customer)


def attach_method(call: Call) -> JsonObject:
    """A test token becomes a method of the customer's own, with an id of its own."""
    call.form.require_known(("customer", "expand"))
    customer_id = call.form.required("customer")
    require_customer(call, customer_id)
    customer = call.ledger.customers[customer_id]
    saved = call.ledger.methods.get(call.object_id)
    if saved is None:
        _require_token(call.object_id)
        default = customer.method_id
        saved = save_method(call.ledger, customer, kind_of(call.object_id), [call.object_id])
        # Attaching alone makes nothing the default.
        customer.method_id = default
    elif saved.customer_id not in (None, customer_id):
        raise invalid("The payment method is attached to another customer already.")
    saved.customer_id = customer_id
    return method_json(saved)


def detach_method(call: Call) -> JsonObject:
    call.form.require_known(("expand",))
    method = found(call, call.ledger.methods, "payment_method")
    for customer in call.ledger.customers.values():
        if customer.method_id == method.id:
            customer.method_id = None
    method.customer_id = None
    return method_json(method)


def kind_of(outcome: str) -> str:
    return "sepa_debit" if "sepa" in outcome.lower() else "card"


def _require_token(token: str) -> None:
    if not token.startswith("pm_") or not is_outcome(token):
        raise invalid(f"No such PaymentMethod: '{token}'", "resource_missing", "payment_method")


def get_customer(call: Call) -> JsonObject:
    return customer_json(found(call, call.ledger.customers, "customer"))


def list_customers(call: Call) -> JsonObject:
    call.form.require_known((*PAGE_PARAMETERS, "email"))
    return page_of(call, list(call.ledger.customers.values()), "/v1/customers")


def get_method(call: Call) -> JsonObject:
    return method_json(found(call, call.ledger.methods, "payment_method"))


def list_methods(call: Call) -> JsonObject:
    call.form.require_known((*PAGE_PARAMETERS, "type"))
    customer = found(call, call.ledger.customers, "customer")
    kind = call.form.text("type")
    saved = [
        each
        for each in call.ledger.methods.values()
        if each.customer_id == customer.id and kind in (None, each.kind)
    ]
    return page_of(call, saved, f"/v1/customers/{customer.id}/payment_methods")


HANDLERS: list[tuple[str, str, Handler]] = [
    ("POST", "/v1/customers", create_customer),
    ("GET", "/v1/customers", list_customers),
    ("GET", "/v1/customers/{id}", get_customer),
    ("POST", "/v1/customers/{id}", update_customer),
    ("GET", "/v1/customers/{id}/payment_methods", list_methods),
    ("GET", "/v1/payment_methods/{id}", get_method),
    ("POST", "/v1/payment_methods/{id}/attach", attach_method),
    ("POST", "/v1/payment_methods/{id}/detach", detach_method),
]
