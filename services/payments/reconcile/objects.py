"""Stripe's objects beside what is known of them: what an event was never made for is found here alone.

What differs is noted first, and told as a fact only where nothing that was on its way has said it meanwhile.
"""

from collections.abc import Collection
from typing import assert_never

import asyncpg

from services.payments.domain import Fold, StripeFact
from services.payments.fold_records import load
from services.payments.gateway import (
    Kind,
    Listing,
    Nothing,
    Seen,
    Thin,
    open_envelope,
    translate,
)
from services.payments.reconcile.compare import Difference, difference
from services.payments.reconcile.runs import Cursor, Run, advance
from services.payments.reconcile.walker import Walker, following
from services.payments.store import Arrival, insert
from shared import log
from shared.errors import FareboxError

BATCH_SUSPECTS = 100

SUSPECT = """
INSERT INTO reconcile_gaps (run_id, kind, subject, detail, body, found_at)
SELECT $1, 'object', new.subject, new.detail, new.body, $5
FROM unnest($2::text[], $3::text[], $4::bytea[]) AS new (subject, detail, body)
ON CONFLICT (run_id, subject) DO NOTHING
"""
HAS_SUSPECTS = "SELECT EXISTS (SELECT FROM reconcile_gaps WHERE run_id = $1 AND body IS NOT NULL)"
SUSPECTS = """
SELECT id, subject, body FROM reconcile_gaps WHERE run_id = $1 AND body IS NOT NULL
ORDER BY id LIMIT $2
"""
LOCK = "SELECT FROM reconcile_runs WHERE id = $1 FOR UPDATE"
CLEAR = "DELETE FROM reconcile_gaps WHERE id = $1"
SETTLE = "UPDATE reconcile_gaps SET body = NULL, detail = $2, mended_at = $3 WHERE id = $1"

logger = log.get("reconcile")


async def walk_objects(walker: Walker, run: Run, kind: Kind, after_last: Cursor) -> Cursor:
    """Compare one page of a list of objects; returns where to go on."""
    listing = Listing(kind, run.account, run.objects_since, run.until)
    page = await walker.page(listing, run.cursor.after)
    at = walker.clock()
    seen = [Seen(kind, item, run.account, run.until, at) for item in page.items]
    async with walker.pool.acquire() as connection, connection.transaction():
        folds = await _folds(connection, {each.payment for each in seen if each.payment})
        found = [(each, *_suspected(each, folds, walker)) for each in seen if each.payment]
        differing = [(each, body, what) for each, body, what in found if what]
        await connection.execute(
            SUSPECT,
            run.id,
            [each.subject for each, _, _ in differing],
            [what.detail for _, _, what in differing],
            [body for _, body, _ in differing],
            walker.clock(),
        )
        next_cursor = following(run, page, after_last)
        await advance(connection, run, next_cursor, len(seen))
    return next_cursor


async def has_suspects(connection: asyncpg.Connection, run: Run) -> bool:
    found: bool = await connection.fetchval(HAS_SUSPECTS, run.id)
    return found


async def settle_suspects(walker: Walker, run: Run) -> int:
    """Look again at what differed, a batch; tell as facts what still does.  Returns how many were looked at."""
    async with walker.pool.acquire() as connection, connection.transaction():
        # Nobody else settles the same ones meanwhile.
        await connection.execute(LOCK, run.id)
        rows = await connection.fetch(SUSPECTS, run.id, BATCH_SUSPECTS)
        await advance(connection, run, run.cursor, len(rows))
        facts = {row["id"]: _read(row["body"]) for row in rows}
        payments = {f.payment for f in facts.values() if isinstance(f, StripeFact) and f.payment}
        folds = await _folds(connection, payments)
        mended: list[Arrival] = []
        for row in rows:
            fact = facts[row["id"]]
            what = fact if isinstance(fact, Difference) else _differs(fact, folds)
            if what is None:
                await connection.execute(CLEAR, row["id"])
                continue
            if what.is_detail:
                await connection.execute(CLEAR, row["id"])
            else:
                at = walker.clock() if what.is_mendable else None
                await connection.execute(SETTLE, row["id"], what.detail, at)
                _tell(row["subject"], what)
            if what.is_mendable:
                mended.append(Arrival(open_envelope(row["body"]), row["body"], None))
        await insert(connection, mended)
    return len(rows)


def _tell(subject: str, what: Difference) -> None:
    if what.is_mendable:
        logger.warning("stripe never told", subject=subject, detail=what.detail)
    else:
        logger.error("stripe says otherwise", subject=subject, detail=what.detail)


def _suspected(
    seen: Seen, folds: dict[str, Fold], walker: Walker
) -> tuple[bytes, Difference | None]:
    folded = folds.get(seen.payment or "")
    body = seen.body(folded.livemode if folded else walker.livemode or False)
    fact = _read(body)
    return body, fact if isinstance(fact, Difference) else _differs(fact, folds)


def _differs(fact: StripeFact | None, folds: dict[str, Fold]) -> Difference | None:
    return None if fact is None else difference(folds.get(fact.payment or ""), fact)


def _read(body: bytes) -> StripeFact | Difference | None:
    """None for what says nothing of a payment; a difference for what we cannot read."""
    try:
        said = translate(body)
    except FareboxError as error:
        return Difference(f"it is not understood: {error.detail}", is_mendable=False)
    match said:
        case StripeFact():
            return said
        case Nothing() | Thin():
            return None
        case _:
            assert_never(said)


async def _folds(connection: asyncpg.Connection, payments: Collection[str]) -> dict[str, Fold]:
    return {name: each.fold for name, each in (await load(connection, payments)).items()}
