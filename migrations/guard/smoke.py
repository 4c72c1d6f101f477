"""The main flows once, in a transaction that is rolled back: a customer, a subscription, its fact; each role at work.

A flow that does not work fails the job: nothing should be deployed on it.  What cannot be tried from here does not:
a table stays busy, a storefront asks more of a customer than our models know.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal
from uuid import uuid4

import psycopg
from psycopg import Connection, sql

from migrations.faults import MigrationFault
from migrations.guard.apply import BUSY
from migrations.guard.exits import ExitCode
from migrations.models import target_metadata
from shared.db import SERVICES

CUSTOMER = "INSERT INTO public.users (email) VALUES (%s) RETURNING id"
SUBSCRIPTION = """
INSERT INTO public.subscriptions (user_id, currency, billing_interval, period_start, period_end)
VALUES (%s, 'USD', 'month', now(), now() + interval '1 month') RETURNING id
"""
STAGED = "SELECT count(*) FROM pricing.outbox WHERE aggregateid = %s"
CLAIM = "INSERT INTO {}.inbox (consumer, message_id) VALUES ('smoke', %s)"


# Touches no row; whether the role may, and whether the column is there, PostgreSQL checks all the same.
WORK = {
    "pricing": "UPDATE public.subscriptions SET total_minor = total_minor WHERE false",
    "payments": "UPDATE payments.payment_intents SET status = status WHERE false",
    "loyalty": "UPDATE loyalty.loyalty_accounts SET balance_points = balance_points WHERE false",
    "analytics": "UPDATE analytics.payment_analytics SET gross_minor = gross_minor WHERE false",
}


class SmokeFailed(MigrationFault):
    """The schema was found good, and yet a flow does not work on it."""

    exit_code = ExitCode.SMOKE_FAILED

    def __init__(self, failed: list["Flow"]) -> None:
        super().__init__(
            f"the schema is migrated and valid, but {'; '.join(map(str, failed))}: deploy nothing on it yet"
        )


@dataclass(frozen=True)
class Flow:
    """`reason` is empty where it works."""

    name: str
    outcome: Literal["works", "fails", "not tried"]
    reason: str = ""

    def __str__(self) -> str:
        if self.outcome == "works":
            return f"smoke test: {self.name}"
        return f"smoke test {self.outcome}: {self.name}: {self.reason}"


def smoke(connection: Connection) -> Iterator[Flow]:
    """Each flow, whether it went or not; nothing of it stays."""
    flows: list[tuple[str, Callable[[Connection], bool]]] = [
        ("a new subscription is staged as a fact", _subscription)
    ]
    flows += [(f"{service} works as its own role", _as_role(service)) for service in SERVICES]
    for name, flow in flows:
        try:
            with connection.transaction(force_rollback=True):
                connection.execute("SET LOCAL lock_timeout = '1s'")
                well = flow(connection)
        except _NotTried as error:
            yield Flow(name, "not tried", str(error))
        except BUSY as error:
            yield Flow(name, "not tried", _reason(error))
        except psycopg.OperationalError:
            raise
        except psycopg.Error as error:
            yield Flow(name, "fails", _reason(error))
        else:
            yield Flow(name, "works") if well else Flow(name, "fails", "it is not so")


class _NotTried(Exception):
    """It cannot be seen from here; the service's own /readyz tells."""


def _subscription(connection: Connection) -> bool:
    try:
        user = _value(connection, CUSTOMER, f"smoke-{uuid4()}@example.invalid")
        _value(connection, SUBSCRIPTION, user)
    except psycopg.errors.NotNullViolation as error:
        if _is_ours(error):
            raise
        raise _NotTried(_reason(error)) from error
    return _value(connection, STAGED, str(user)) == 1


def _is_ours(error: psycopg.Error) -> bool:
    """A column that our models name has no business to be missing in an old storefront's INSERT."""
    table = target_metadata().tables.get(f"{error.diag.schema_name}.{error.diag.table_name}")
    return table is not None and (error.diag.column_name or "") in table.columns


def _as_role(service: str) -> Callable[[Connection], bool]:
    def flow(connection: Connection) -> bool:
        try:
            _become(connection, sql.Identifier(f"{service}_app"))
        except psycopg.errors.InsufficientPrivilege as error:
            raise _NotTried(_reason(error)) from error
        connection.execute(sql.SQL(CLAIM).format(sql.Identifier(service)), (uuid4(),))
        connection.execute(WORK[service].encode())
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
