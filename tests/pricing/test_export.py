"""The cost history as CSV: every line once, whole, in order, whoever writes meanwhile; and nothing a spreadsheet runs."""

import asyncio
import csv
import io
from uuid import UUID, uuid4

import asyncpg
import pytest

from services.pricing import export
from shared.db import Sessions
from shared.spreadsheet import FORMULA_STARTS
from tests.conftest import Database
from tests.pricing.conftest import Api, Customer, Shop, Ticking, publish_config
from tests.servers import ROOT

PATH = "/cost-history.csv"
SCOPE = "subscriptions:read"
# As a trigger or an old release might have written it: copied from the newest line, said by somebody else.
COPY = """
INSERT INTO pricing.subscription_cost_history (subscription_id, user_id, price_version, kind, currency,
    old_breakdown, new_breakdown, old_total_minor, new_total_minor, effective_at, reason, changed_by, cause_id)
SELECT subscription_id, user_id, price_version, kind, currency, old_breakdown, new_breakdown,
    old_total_minor, new_total_minor, effective_at, reason, $1, cause_id
FROM pricing.subscription_cost_history ORDER BY id LIMIT 1 RETURNING id
"""
WORDS = (
    "=1+1",
    "+1",
    "-1",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "\n=1",
    'a "b", c',
    "a\r\nb",
    "a;=1;",
    "plain",
)
WRITTEN = (
    *("'=1+1", "'+1", "'-1", "'@SUM(A1)", "'\t'=1"),
    *("' =1", "' =1", 'a "b", c', "a b", "a;'=1;", "plain"),
)


async def lines(api: Api, query: str = "") -> list[dict[str, str]]:
    answer = await api.ask("GET", f"{PATH}{query}", scope=SCOPE)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    found = list(csv.DictReader(io.StringIO(answer.text, newline=""), strict=True))
    assert answer.text.count("\r\n") == len(answer.text.splitlines()) == len(found) + 1
    assert answer.headers["farebox-lines"] == str(len(found))
    return found


@pytest.fixture
async def subscribed(api: Api, sessions: Sessions, clock: Ticking, customer: Customer) -> UUID:
    await publish_config(sessions, clock.now)
    made = await api.done("POST", "/subscriptions", customer.order())
    return UUID(str(made["id"]))


async def test_a_line_says_all_that_the_history_does(
    api: Api, shop: Shop, customer: Customer, subscribed: UUID
) -> None:
    [line] = await shop.history(subscribed)
    [found] = await lines(api)
    assert tuple(found) == export.COLUMNS
    assert found == {
        "id": "1",
        "subscription_id": str(subscribed),
        "user_id": str(customer.user),
        "effective_at": line["effective_at"].isoformat(),
        "recorded_at": line["recorded_at"].isoformat(),
        "kind": "created",
        "price_version": "1",
        "price_versions": "1",
        "currency": "USD",
        "old_total_minor": "",
        "new_total_minor": "5253",
        "subtotal_minor": "3998",
        "admin_percentage": "10",
        "fee_minor": "400",
        "delivery_type": "standard",
        "delivery_minor": "500",
        "loyalty_discount_minor": "0",
        "taxable_minor": "4898",
        "place": "US-CA",
        "tax_rate": "0.0725",
        "tax_inclusive": "false",
        "tax_minor": "355",
        "rounding_minor": "0",
        "variants": f"{customer.coffee}*2@1999",
        "reason": "the subscription was priced for the first time",
        "changed_by": "subscriptions:write",
        "cause_id": line["cause_id"],
        "line_hash": line["line_hash"].hex(),
    }
    assert f"`{'`, `'.join(export.COLUMNS)}`" in (ROOT / "docs" / "pricing.md").read_text()


@pytest.mark.usefixtures("subscribed")
async def test_no_text_is_a_formula_and_every_line_is_one(api: Api, shop: Shop) -> None:
    for word in WORDS:
        await shop.storefront.fetchval(COPY, word)
    found = await lines(api)
    assert [line["changed_by"] for line in found[1:]] == list(WRITTEN)
    cells = [cell for line in found for cell in line.values()]
    assert [cell for cell in cells if cell.startswith(FORMULA_STARTS)] == []


async def test_an_export_goes_on_after_any_line(
    api: Api, shop: Shop, customer: Customer, subscribed: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "PAGE_ROWS", 2)
    for word in "abcd":
        await shop.storefront.fetchval(COPY, word)
    another = await api.done("POST", "/subscriptions", customer.order())
    whole = await lines(api)
    assert [line["id"] for line in whole] == ["1", "2", "3", "4", "5", "6"]
    for n in range(7):
        assert await lines(api, f"?after={n}") == whole[n:]
    assert await lines(api, f"?subscription_id={another['id']}") == whole[5:]
    assert await lines(api, f"?subscription_id={subscribed}&after=3") == whole[3:5]
    nobody = await api.ask("GET", f"{PATH}?subscription_id={uuid4()}", scope=SCOPE)
    assert (nobody.status_code, nobody.headers["content-type"]) == (404, "application/problem+json")


@pytest.mark.usefixtures("subscribed")
async def test_a_line_that_is_committed_late_is_not_passed_over(
    api: Api, shop: Shop, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = await asyncpg.connect(database.url)
    await slow.execute("BEGIN")
    assert await slow.fetchval(COPY, "slow") == 2
    assert await shop.storefront.fetchval(COPY, "quick") == 3
    reading = asyncio.create_task(lines(api, "?after=1"))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(reading), 0.3)
    await slow.execute("COMMIT")
    assert [line["changed_by"] for line in await reading] == ["slow", "quick"]

    monkeypatch.setattr(export, "SETTLE_SECONDS", 0.0)
    await slow.execute("BEGIN")
    await slow.fetchval(COPY, "slow")
    refused = await api.ask("GET", PATH, scope=SCOPE)
    assert (refused.status_code, refused.json()["title"]) == (503, export.StillWriting.title)
    await slow.close()
