"""Schemathesis against the real web process: whatever it sends, the answers are those the OpenAPI page promises."""

from pathlib import Path

from shared.api_keys import SCOPES, create_key
from shared.db import create_engine, create_sessions
from tests.conftest import Database
from tests.openapi import assert_promises_kept, web
from tests.payments.conftest import Service
from tests.payments.lives import every_life, played
from tests.payments.proof import openapi_hooks
from tests.payments.proof.openapi_hooks import AMOUNT_MINOR, CURRENCY
from tests.sandbox.conftest import RunningSandbox, sandbox

__all__ = ["sandbox"]

# The second of each three is in the hooks' currency.
SUBJECTS = [*["card_success"] * 3, *["authorized_only"] * 3, *["left_unpaid"] * 3]


async def test_the_api_keeps_what_its_openapi_page_promises(
    database: Database, service: Service, sandbox: RunningSandbox, tmp_path: Path
) -> None:
    await service.receive([*every_life(2).events, *played(3, SUBJECTS).events])
    await service.fold_all()
    engine = create_engine(database.url_for("payments"), "payments")
    async with create_sessions(engine).begin() as session:
        key = await create_key(session, "payments", "all", list(SCOPES["payments"]))
    await engine.dispose()
    (tmp_path / "schemathesis.toml").write_text(await subjects(service))
    environment = {
        "DATABASE_URL": database.url,
        "STRIPE_API_KEY": "sk_test_openapi",
        "STRIPE_API_BASE": sandbox.url,
        # Without it the reading routes ask for no key, and then ignore a wrong one.
        "FAREBOX_REQUIRE_KEYS": "true",
    }
    with web("payments", environment) as url:
        await assert_promises_kept(url, key, tmp_path, hooks=openapi_hooks.__name__)
    placed = {row["kind"] for row in await service.rows("SELECT kind FROM stripe_orders")}
    assert placed == {"create", "confirm", "capture", "cancel", "refund"}


async def subjects(service: Service) -> str:
    """What is asked and written is about payments that there are: an id that nobody knows ends before any rule is looked at."""
    rows = await service.rows(
        "SELECT status, id FROM payment_intents WHERE currency = $1 AND amount_minor = $2"
        " AND refunded_minor = 0 AND fold->'disputes' = '{}'",
        CURRENCY,
        AMOUNT_MINOR,
    )
    by_status = {str(row["status"]): row["id"] for row in rows}
    [event] = await service.rows("SELECT id FROM stripe_events ORDER BY position LIMIT 1")
    wanted = {
        "/payments/{payment_id}": by_status["succeeded"],
        "/payments/{payment_id}/refund": by_status["succeeded"],
        "/payments/{payment_id}/capture": by_status["requires_capture"],
        "/payments/{payment_id}/cancel": by_status["requires_payment_method"],
        "/payments/{payment_id}/confirm": by_status["requires_payment_method"],
        "/stripe-events/{event_id}": event["id"],
    }
    return "".join(
        f'[[operations]]\ninclude-path = "{path}"\n'
        f'parameters = {{ {path.partition("{")[2].partition("}")[0]} = "{name}" }}\n'
        for path, name in wanted.items()
    )
