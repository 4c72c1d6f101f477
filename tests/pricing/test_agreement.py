"""SQL over chunks and the pure rule agree on every subscription that SQL prices, whatever versions and baskets."""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, event, given, settings
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.engine import make_url

from services.pricing.alone import Beside, price_one
from services.pricing.campaign import Campaign, row_of
from services.pricing.chunk import ASKED, _as_asked, _prices, dumps, shape_of
from services.pricing.costs import Subject
from services.pricing.pricing_sql import left, priced
from tests.conftest import Database
from tests.pricing.worlds import World, fill, worlds


@pytest.fixture
def engine(database: Database) -> Iterator[Engine]:
    made = create_engine(make_url(database.url).set(drivername="postgresql+psycopg"))
    yield made
    made.dispose()


@given(worlds())
@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_sql_and_the_pure_rule_agree(engine: Engine, world: World) -> None:
    with engine.connect() as connection:
        connection.execute(
            text("SET session_replication_role = replica; SET search_path = pricing")
        )
        ids = fill(connection, world)
        said, alone = in_sql(connection, world.campaign, ids)
        rows = connection.execute(ROWS, {"ids": ids}).mappings().all()
        connection.rollback()
    assert len(said) + len(alone) == len(ids)
    for row in rows:
        result = price_one(world.campaign, Subject.model_validate(row), Beside({}, {}, {}))
        event("alone" if row["id"] in alone else f"in SQL: {result.outcome}")
        if row["id"] in alone:
            continue
        new, same, verdict, code = said[row["id"]]
        if result.new is None:
            assert (verdict, code) == (result.outcome, result.code)
        else:
            assert new == result.new.model_dump(mode="json")
            assert (verdict, same) == (None, result.outcome == "kept")


def in_sql(
    connection: Connection, campaign: Campaign, ids: object
) -> tuple[dict[object, tuple[object, ...]], set[object]]:
    """Each row as SQL prices it, asked as the worker asks; and whom it leaves alone."""
    shape = shape_of(campaign)
    statement = text(
        f"WITH {priced(shape)} SELECT (SELECT jsonb_agg(jsonb_build_array(id, new, same, verdict, code))"
        f" FROM priced) AS rows,{left(shape)}"
    )
    values = {"ids": ids, "prices": _prices(campaign)} if shape.prices else {"ids": ids}
    found: dict[object, tuple[object, ...]] = {}
    first = connection.execute(statement, values | {"groups": "[]"}).mappings().one()
    asked = ASKED.validate_python(first["unknown"] or [])
    groups = [row_of(campaign, each.group()) | _as_asked(each) for each in asked]
    again = connection.execute(statement, values | {"groups": dumps(groups)}).mappings().one()
    assert not again["unknown"]
    for row in again["rows"] or []:
        found[row[0]] = tuple(row[1:])
    alone = set(again["alone"] or [])
    return {each: found[str(each)] for each in ids if str(each) in found}, alone  # type: ignore[attr-defined]


ROWS = text("""
SELECT s.id, s.user_id, s.status, s.currency, s.billing_interval, s.variants, s.created_at,
    s.cost_breakdown, s.price_version, s.delivery_type, s.loyalty_discount_minor, a.country, a.region
FROM public.subscriptions s LEFT JOIN public.addresses a ON a.id = s.delivery_address_id
WHERE s.id = ANY (CAST(:ids AS uuid[]))
""")
