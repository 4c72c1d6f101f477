"""`farebox payments prove`: as many seeds as one likes, on a PostgreSQL of its own."""

import asyncio
import logging
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import psycopg
import structlog
import typer
from psycopg import sql
from sqlalchemy.engine import make_url

from cli.edge import Exit, UsageFault
from cli.prove.seed import Plan, Verdict, prove
from cli.stack import one_line_faults
from embedded.postgres import EmbeddedPostgres
from embedded.processes import interrupt_on_termination

ROOT = Path(__file__).resolve().parent.parent.parent
TEMPLATE = "farebox_proof_template"
SHOWN = 10


def prove_payments(
    seeds: Annotated[int, typer.Option(min=1, help="How many, one after the other.")] = 10,
    payments: Annotated[int, typer.Option(min=1, max=30_000, help="Lives in each seed.")] = 1_000,
    seed: Annotated[int, typer.Option(help="The first of them; a seed replays.")] = 1,
    losses: Annotated[
        bool, typer.Option(help="Events that never come, or were never made, mended by reconcile.")
    ] = True,
) -> None:
    """Play payments' lives, deliver them badly, compare every row with the truth; exits 1 where one differs.

    On an embedded PostgreSQL of its own, thrown away afterwards: no database of yours is touched.
    """
    interrupt_on_termination()
    # The service's own lines would drown the verdicts; what matters in them is compared.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    failed: list[Verdict] = []
    with one_line_faults(), _server() as server:
        for number in range(seed, seed + seeds):
            with _database(server) as url:
                verdict = asyncio.run(prove(Plan(number, payments, losses), url))
            _show(verdict)
            if verdict.differences:
                failed.append(verdict)
    if failed:
        raise typer.Exit(Exit.FAILED)


def _show(verdict: Verdict) -> None:
    plan, wrong = verdict.plan, verdict.differences
    print(
        f"seed {plan.seed}: {verdict.deliveries} deliveries of {verdict.events} events"
        f" ({verdict.dropped} lost, {verdict.mended} gaps mended, {verdict.posted} by webhook,"
        f" Stripe asked {verdict.asked} times),"
        f" {verdict.rebuilt} payments rebuilt byte for byte: {len(wrong)} differences,"
        f" {verdict.seconds:.1f} s",
        flush=True,
    )
    if not wrong:
        return
    print(f"  {verdict.faults}")
    for each in wrong[:SHOWN]:
        print(f"  {each}")
    option = "--losses" if plan.losses else "--no-losses"
    again = f"--seed {plan.seed} --seeds 1 --payments {plan.payments} {option}"
    print(f"  replay: farebox payments prove {again}", flush=True)


@contextmanager
def _server() -> Iterator[str]:
    """Its superuser's URL; holds one migrated database, to be copied for each seed."""
    with tempfile.TemporaryDirectory(prefix="farebox-proof-") as folder:
        Path(folder).chmod(0o711)  # PostgreSQL may have to run as another user
        server = EmbeddedPostgres(Path(folder) / "postgres", durable=False)
        try:
            url = server.start()
            _execute(url, "CREATE DATABASE {}", TEMPLATE)
            _migrate(_url_of(url, TEMPLATE))
            yield url
        finally:
            server.remove()


@contextmanager
def _database(server: str) -> Iterator[str]:
    name = f"farebox_proof_{secrets.token_hex(4)}"
    _execute(server, "CREATE DATABASE {} TEMPLATE {}", name, TEMPLATE)
    try:
        yield _url_of(server, name)
    finally:
        _execute(server, "DROP DATABASE {} WITH (FORCE)", name)


def _migrate(url: str) -> None:
    """Raises UsageFault where this installation has no migrations."""
    done = subprocess.run(
        [sys.executable, "-m", "alembic", "upgrade", "head"],
        check=False,
        cwd=ROOT,
        env=os.environ | {"DATABASE_URL": url},
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no word"])[-1]
        raise UsageFault(f"the proof's own database could not be migrated: {last}")


def _execute(url: str, statement: str, *names: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))


def _url_of(server: str, database: str) -> str:
    return make_url(server).set(database=database).render_as_string(hide_password=False)
