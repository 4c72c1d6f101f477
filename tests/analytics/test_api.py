import csv
import io
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import httpx
import pytest

from services.analytics.app import create_web
from services.analytics.handlers import HANDLERS
from services.analytics.spreadsheet import wants_csv
from shared.consumer import deliver
from shared.db import Sessions
from shared.settings import Settings
from shared.spreadsheet import cell
from tests.analytics.conftest import changed, on, payment, priced
from tests.conftest import Database


@pytest.fixture
async def client(database: Database) -> AsyncIterator[httpx.AsyncClient]:
    settings = Settings(analytics_database_url=database.url_for("analytics"))
    app = create_web(settings, clock=lambda: on(31))
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://analytics") as client:
            yield client


@pytest.fixture
async def counted(sessions: Sessions) -> None:
    one, other = uuid4(), uuid4()
    failed: dict[str, Any] = {"status": "requires_payment_method", "received_minor": 0}
    facts = [
        changed(one, 1),
        priced(one, 2, (None, 1_000)),
        changed(other, 3, total_minor=501),
        priced(one, 5, (1_000, 1_100)),
        changed(other, 6, "canceled"),
        payment(),
        payment(received_minor=1_001, refunded_minor=500),
        payment(**failed, failure_code="=HYPERLINK(1)"),
        payment(currency="JPY", created_at=on(12), succeeded_at=on(12)),
    ]
    await deliver(sessions, "analytics", HANDLERS, facts)


@pytest.mark.usefixtures("counted")
async def test_subscriptions_by_day_carry_their_levels_over_days_without_change(
    client: httpx.AsyncClient,
) -> None:
    answer = await client.get("/subscriptions/daily?from=2026-01-03&to=2026-01-06&currency=eur")

    assert answer.status_code == 200
    assert answer.json()["time_zone"] == "UTC"
    shown = [
        "active",
        "new",
        "canceled",
        "mrr_minor",
        "arpu_minor",
        "price_changes",
        "price_mrr_change_minor",
    ]
    assert [[item[name] for name in shown] for item in answer.json()["items"]] == [
        [2, 1, 0, 1_501, 750, 0, 0],
        [2, 0, 0, 1_501, 750, 0, 0],
        [2, 0, 0, 1_601, 800, 1, 100],
        [1, 0, 1, 1_100, 1_100, 0, 0],
    ]
    assert [item["day"][-2:] for item in answer.json()["items"]] == ["03", "04", "05", "06"]


@pytest.mark.usefixtures("counted")
async def test_payments_by_day_and_currency(client: httpx.AsyncClient) -> None:
    answer = await client.get("/payments/daily?from=2026-01-10&to=2026-01-11")

    items = answer.json()["items"]
    assert [(item["day"], item["currency"]) for item in items] == [
        ("2026-01-10", "JPY"),
        ("2026-01-10", "USD"),
        ("2026-01-11", "JPY"),
        ("2026-01-11", "USD"),
    ]
    assert items[1] == {
        "day": "2026-01-10",
        "currency": "USD",
        "attempts": 3,
        "succeeded": 2,
        "failed": 1,
        "failures": {"=HYPERLINK(1)": 1},
        "success_rate": "0.6667",
        "gross_minor": 3_501,
        "refunded_minor": 500,
        "disputed_minor": 0,
        "net_minor": 3_001,
        "average_minor": 1_750,
    }
    assert (items[2]["attempts"], items[2]["success_rate"], items[2]["average_minor"]) == (
        0,
        None,
        None,
    )


async def test_without_a_range_it_is_the_last_thirty_days_to_today(
    client: httpx.AsyncClient,
) -> None:
    items = (await client.get("/payments/daily?currency=USD")).json()["items"]

    assert (len(items), items[0]["day"], items[-1]["day"]) == (30, "2026-01-02", "2026-01-31")


async def test_where_nothing_was_counted_there_is_no_currency_to_show(
    client: httpx.AsyncClient,
) -> None:
    assert (await client.get("/subscriptions/daily")).json()["items"] == []


@pytest.mark.usefixtures("counted")
@pytest.mark.parametrize(
    ("query", "accept"), [("&format=csv", "application/json"), ("", "text/csv")]
)
@pytest.mark.parametrize("what", ["payments", "subscriptions"])
async def test_the_same_numbers_as_csv(
    client: httpx.AsyncClient, what: str, query: str, accept: str
) -> None:
    path = f"/{what}/daily?from=2026-01-01&to=2026-01-12"
    told = (await client.get(path)).json()["items"]

    answer = await client.get(path + query, headers={"Accept": accept})

    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert f'filename="{what}-2026-01-01-2026-01-12.csv"' in answer.headers["content-disposition"]
    lines = list(csv.DictReader(io.StringIO(answer.text)))
    assert [list(line) for line in lines[:1]] == [list(told[0])]
    assert len(lines) == len(told)
    plain = [name for name in told[0] if name != "failures"]
    for line, item in zip(lines, told, strict=True):
        assert [line[name] for name in plain] == [
            "" if item[name] is None else str(item[name]) for name in plain
        ]
        assert not any(text.startswith(("=", "+", "@")) for text in line.values())


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("=1+1", "'=1+1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("-2", "'-2"),
        ("+2", "'+2"),
        ("\t=1", "'\t'=1"),
        (" =1", "' =1"),
        ("\uff1d1+1", "'\uff1d1+1"),
        # Where a semicolon parts cells, this one would be a second.
        ("a;=1;b; -2", "a;'=1;b; '-2"),
        ("a; b", "a; b"),
        ("USD", "USD"),
        (-2, -2),
        (None, ""),
        ({"=1": 2}, '{"=1": 2}'),
    ],
)
def test_no_text_becomes_a_formula(value: object, shown: str | int) -> None:
    assert cell(value) == shown


@pytest.mark.parametrize(
    ("accept", "csv_wanted"),
    [
        ("text/csv", True),
        ("TEXT/CSV;q=0.9, application/json;q=0.8", True),
        ("text/*", True),
        ("*/*", False),
        ("", False),
        ("application/json", False),
        ("application/json, text/csv", False),
        ("text/csv;q=0.1, */*", False),
        ("text/csv;q=much", False),
    ],
)
def test_csv_is_sent_to_those_who_like_it_better(accept: str, csv_wanted: bool) -> None:
    assert wants_csv(accept) is csv_wanted


@pytest.mark.parametrize(
    ("query", "detail"),
    [
        ("from=2026-01-02&to=2026-01-01", "0 days; ask for 1 to 366"),
        ("from=2024-01-01&to=2025-01-01", "367 days; ask for 1 to 366"),
        ("from=0001-01-01", "ask for 1 to 366"),
        ("from=yesterday", "from"),
        ("currency=XYZ", "ISO 4217"),
        ("format=xml", "format"),
    ],
)
async def test_a_range_out_of_bounds_is_a_problem(
    client: httpx.AsyncClient, query: str, detail: str
) -> None:
    answer = await client.get(f"/payments/daily?{query}")

    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    assert detail in answer.json()["detail"]


@pytest.mark.parametrize(
    "query", ["to=0001-01-01", "to=9999-12-31", "from=2024-01-01&to=2024-12-31"]
)
async def test_the_ends_of_the_calendar_are_days_too(client: httpx.AsyncClient, query: str) -> None:
    assert (await client.get(f"/subscriptions/daily?{query}")).status_code == 200
