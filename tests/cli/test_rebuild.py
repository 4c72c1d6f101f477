"""`farebox payments rebuild`: everything refolded, compared or put right, and said how much of it agreed."""

import asyncio
import json
from collections.abc import Sequence

import asyncpg
import orjson
import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from cli import rebuild as command
from services.payments import fold, rebuild
from services.payments.gateway import open_envelope
from services.payments.rebuild import Applied
from services.payments.store import Arrival, insert
from shared.clock import utc_now
from shared.db import raw_pool
from tests.cli.conftest import Farebox
from tests.conftest import Database
from tests.payments.lives import every_life

PROVE = ("payments", "rebuild", "--prove")
MEND = ("payments", "rebuild", "--mend")


def live(database: Database, *then: str) -> tuple[int, int]:
    """Play every life, then run the statements; returns how many payments and events there are."""

    async def run() -> tuple[int, int]:
        async with raw_pool(database.url_for("payments"), "payments", size=2) as pool:
            told = [orjson.dumps(each) for each in every_life(12).events]
            async with pool.acquire() as connection:
                await insert(connection, [Arrival(open_envelope(b), b, None) for b in told])
            while await fold.run_once(pool, "test", utc_now):
                pass
            for statement in then:
                await pool.execute(statement)
            counted: asyncpg.Record = await pool.fetchrow(
                "SELECT (SELECT count(*) FROM payment_intents) AS payments,"
                " (SELECT count(*) FROM stripe_events WHERE status = 'applied') AS events"
            )
            return counted["payments"], counted["events"]

    return asyncio.run(run())


def test_everything_agrees_and_it_is_said_how_much(
    farebox: Farebox, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    payments, events = live(database)
    monkeypatch.setattr(command, "TELL_SECONDS", 0.0)
    proven = farebox(*PROVE)
    assert (proven.code, proven.out) == (
        0,
        f"{payments} payments rebuilt from {events} raw events, byte for byte the same; 0 not\n",
    )
    assert proven.err.startswith(f"{payments} payments agree so far, 0 differ")
    shown = json.loads(farebox(*PROVE, "--json").out)
    assert shown == {"agreed": payments, "events": events, "differed": [], "unread": 0}


def test_a_difference_is_named_and_ends_with_1(farebox: Farebox, database: Database) -> None:
    payments, _ = live(
        database, "UPDATE payment_intents SET net_minor = 7, review = 'x' WHERE currency = 'JPY'"
    )
    proven = farebox(*PROVE)
    assert proven.code == 1
    assert "net_minor, review" in proven.out
    shown = json.loads(farebox(*PROVE, "--json").out)
    assert shown["agreed"] + len(shown["differed"]) == payments
    assert shown["differed"][0][1] == "net_minor, review"


def test_what_is_folded_meanwhile_is_no_difference(
    farebox: Farebox, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    payments, _ = live(database)
    statement = "UPDATE payments.payment_intents SET net_minor = 7, fold = '{}'"
    reading = rebuild._applied_to

    async def meanwhile(session: AsyncSession, ids: Sequence[str]) -> dict[str, list[Applied]]:
        owner = await asyncpg.connect(database.url)
        await owner.execute("UPDATE payments.stripe_events SET status = 'ignored'")
        await owner.execute(statement)
        await owner.close()
        return await reading(session, ids)

    monkeypatch.setattr(rebuild, "_applied_to", meanwhile)
    shown = json.loads(farebox(*PROVE, "--json").out)
    assert (shown["agreed"], shown["differed"]) == (payments, [])
    assert farebox(*PROVE).code == 1


def test_a_mend_says_what_it_changed_and_then_everything_agrees(
    farebox: Farebox, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    payments, _ = live(
        database,
        "UPDATE payment_intents SET review = 'x', fold = '{}' WHERE currency = 'JPY'",
        "UPDATE stripe_events SET status = 'ignored', stripe_payment_id = NULL"
        " WHERE type = 'review.closed'",
    )
    monkeypatch.setattr(command, "TELL_SECONDS", 0.0)
    assert "are read today\n`farebox payments rebuild --mend`" in farebox(*PROVE).out
    mended = farebox(*MEND)
    assert mended.code == 0
    assert f"{payments} payments agreed" not in mended.out
    assert "review x -> None; nothing to announce" in mended.out
    assert "events given back to the fold so far" in mended.err
    again = json.loads(farebox(*MEND, "--json").out)
    assert (again["ok"], again["agreed"], again["mended"]) == (True, payments, 0)
    proven = json.loads(farebox(*PROVE, "--json").out)
    assert (proven["agreed"], proven["differed"], proven["unread"]) == (payments, [], 0)


def test_what_a_mend_cannot_put_right_ends_with_1(farebox: Farebox, database: Database) -> None:
    live(
        database,
        "UPDATE payment_intents SET review = 'x' WHERE currency = 'JPY'",
        "UPDATE stripe_events SET body = 'null' WHERE position = 1",
    )
    mended = farebox(*MEND, "--json")
    assert mended.code == 1
    shown = json.loads(mended.out)
    assert (shown["ok"], len(shown["left"])) == (False, 1)
    assert shown["mended"] == len(shown["payments"]) == shown["columns"]["review"]
    assert shown["payments"][0]["changed"]["review"] == ["x", None]
    assert "left: pi_" in farebox(*MEND).out


@pytest.mark.parametrize("said", [(), ("--prove", "--mend")])
def test_without_one_of_its_words_nothing_is_done(farebox: Farebox, said: tuple[str, ...]) -> None:
    assert farebox("payments", "rebuild", *said).code == 2
