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
CLAIM = "INSERT INTO {}.inbox (consumer, message_id) VALUES ('smoke', %s)"


def smoke(connection: Connection) -> Iterator[str]:
    """A line for each flow, whether it went or not; nothing of it stays."""
    flows: list[tuple[str, Callable[[Connection], bool]]] = [
        ("a new subscription is staged as a fact", _subscription)
    ]
    flows += [(f"{service} works as its own role", _as_role(service)) for service in SERVICES]
    for name, flow in flows:
        line = f"smoke test: {name}"
        try:
            with connection.transaction(force_rollback=True):
                connection.execute("SET LOCAL lock_timeout = '1s'")
                well = flow(connection)
        except _NotTried as error:
            yield f"smoke test: not tried: {name}: {error}"
        except psycopg.Error as error:
            yield f"WARNING: {line}: {_reason(error)}"
        else:
            yield line if well else f"WARNING: smoke test: not so: {name}"


class _NotTried(Exception):
    """It cannot be seen from here; the service's own /readyz tells."""


def _subscription(connection: Connection) -> bool:
    user = _value(connection, CUSTOMER, f"smoke-{uuid4()}@example.invalid")
    _value(connection, SUBSCRIPTION, user)
    return _value(connection, STAGED, str(user)) == 1


def _as_role(service: str) -> Callable[[Connection], bool]:
    def flow(connection: Connection) -> bool:
        try:
            _become(connection, sql.Identifier(f"{service}_app"))
        except psycopg.errors.InsufficientPrivilege as error:
            raise _NotTried(_reason(error)) from error
        connection.execute(sql.SQL(CLAIM).format(sql.Identifier(service)), (uuid4(),))
        return True

    return flow


def _become(connection: Connection, role: sql.Identifier) -> None:
    become = sql.SQL("SET LOCAL ROLE {}").format(role)
    try:
        with connection.transaction():
            connection.execute(become)
    except psycopg.errors.InsufficientPrivilege:
        # Who may make roles is not by that one of them; what is given here is rolled back.
        connection.execute(sql.SQL("GRANT {} TO CURRENT_USER").format(role))
        connection.execute(become)


def _reason(error: psycopg.Error) -> str:
    return " ".join(str(error.diag.message_primary or error).split())


def _value(connection: Connection, query: str, value: object) -> object:
    row = connection.execute(query.encode(), (value,)).fetchone()
    return row[0] if row else None
