"""Where our rows, facts and raw events differ from what is true at Stripe."""

from collections.abc import Iterator, Mapping

import asyncpg
import orjson

from cli.prove.lives import Lives
from embedded.stripe_sandbox.ledger import JsonObject
from embedded.stripe_sandbox.truth import details_of, truth_of

# What the fact says besides, in the row's own words.
SAID = (
    "status", "currency", "amount_minor", "capturable_minor", "received_minor", "refunded_minor",
    "disputed_minor", "fee_minor", "net_minor", "failure_code", "decline_code",
    "payment_method_type", "revision",
)  # fmt: skip
FACTS = """
SELECT payload->>'stripe_id' AS stripe_id,
    array_agg((payload->>'revision')::bigint ORDER BY position) AS revisions,
    (array_agg(payload::text ORDER BY position DESC))[1] AS last
FROM outbox WHERE type = 'payments.payment_changed' GROUP BY 1
"""
LEFT = """
SELECT id, status, coalesce(detail, '') AS detail FROM stripe_events
WHERE status NOT IN ('applied', 'ignored') ORDER BY id LIMIT 20
"""


async def differences(connection: asyncpg.Connection, lives: Lives) -> list[str]:
    """One line for each; none is what is to be proven."""
    rows = {r["stripe_id"]: r for r in await connection.fetch("SELECT * FROM payment_intents")}
    facts = {fact["stripe_id"]: fact for fact in await connection.fetch(FACTS)}
    found = [*_untrue(rows, lives), *_unsaid(rows, facts)]
    for left in await connection.fetch(LEFT):
        found.append(f"{left['id']} is {left['status']}: {left['detail']}")
    stored = {row["id"] for row in await connection.fetch("SELECT id FROM stripe_events")}
    lost = {delivery.record.id for delivery in lives.deliveries} - stored
    found += [f"{event_id} was delivered and is not stored" for event_id in sorted(lost)]
    return found


def _untrue(rows: Mapping[str, asyncpg.Record], lives: Lives) -> Iterator[str]:
    ledger = lives.sandbox.ledger
    for stripe_id, intent in ledger.intents.items():
        life = lives.lifecycles[stripe_id]
        row = rows.get(stripe_id)
        if row is None:
            yield f"{stripe_id} ({life}) has no row"
            continue
        truth: JsonObject = {**truth_of(intent), **details_of(ledger, intent)}
        for name, true in truth.items():
            ours = row[name]
            if (str(ours) if name.endswith("_id") and ours is not None else ours) != true:
                yield f"{stripe_id} ({life}): {name} is {true!r} at Stripe and {ours!r} here"
        if row["anomaly"] is not None:
            yield f"{stripe_id} ({life}) is said to contradict itself: {row['anomaly']}"
    for stripe_id in rows.keys() - ledger.intents.keys():
        yield f"{stripe_id} has a row and is not Stripe's"


def _unsaid(
    rows: Mapping[str, asyncpg.Record], facts: Mapping[str, asyncpg.Record]
) -> Iterator[str]:
    """Revisions are told once each, in order; the last fact says what the row says."""
    for stripe_id, row in rows.items():
        fact = facts.get(stripe_id)
        revisions = list(fact["revisions"]) if fact else []
        if fact is None or revisions != list(range(1, row["revision"] + 1)):
            yield f"{stripe_id} is at revision {row['revision']} and told {revisions}"
            continue
        said = orjson.loads(fact["last"])
        wrong = [f"{name} {said[name]!r}" for name in SAID if said[name] != row[name]]
        if wrong:
            yield f"{stripe_id} was told as {', '.join(wrong)}, which its row is not"
