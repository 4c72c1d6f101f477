"""The main flows once, in a transaction that is rolled back: a customer, a subscription, its fact; each role at work.

It says what it found and decides nothing: a storefront may ask more of a customer than is known here.
"""

from collections.abc import Callable, Iterator
from uuid import uuid4

import psycopg
from psycopg import Connection, sql

from shared.db import SERVICES

CUSTOMER = "INSERT INTO public.users (email) VALUES (%s) RETURNING id"
SUBSCRIPTION = """
INSERT INTO public.subscriptions (user_id, currency, billing_interval, period_start, period_end)
VALUES (%s, 'USD', 'month', now(), now() + interval '1 month') RETURNING id
"""
STAGED = "SELECT count(*) FROM pricing.outbox WHERE aggregateid = %s"
MAY_BE = "SELECT pg_has_role(current_user, %s, 'MEMBER')"
CLAIM = "INSERT INTO {}.inbox (consumer, message_id) VALUES ('smoke', %s)"


def smoke(connection: Connection) -> Iterator[str]:
    """A line for each flow, whether it went or not; nothing of it stays."""
    flows: list[tuple[str, Callable[[Connection], bool]]] = [
        ("a new subscription is staged as a fact", _subscription)
    ]
    flows += [(f"{service} works as its own role", _as_role(service)) for service in SERVICES]
    for name, flow in flows:
        try:
            with connection.transaction(force_rollback=True):
                connection.execute("SET LOCAL lock_timeout = '1s'")
                well = flow(connection)
        except psycopg.Error as error:
            reason = " ".join(str(error.diag.message_primary or error).split())
            yield f"WARNING: smoke test: {name}: {reason}"
        else:
            yield f"smoke test: {name}" if well else f"WARNING: smoke test: not so: {name}"


def _subscription(connection: Connection) -> bool:
    user = _value(connection, CUSTOMER, f"smoke-{uuid4()}@example.invalid")
    _value(connection, SUBSCRIPTION, user)
    return _value(connection, STAGED, str(user)) == 1


def _as_role(service: str) -> Callable[[Connection], bool]:
    def flow(connection: Connection) -> bool:
        role = f"{service}_app"
        if not _value(connection, MAY_BE, role):
            return True  # nothing to see from here; its own /readyz tells
        connection.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(role)))
        connection.execute(sql.SQL(CLAIM).format(sql.Identifier(service)), (uuid4(),))
        return True

    return flow


def _value(connection: Connection, query: str, value: object) -> object:
    row = connection.execute(query.encode(), (value,)).fetchone()
    return row[0] if row else None
