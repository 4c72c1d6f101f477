"""The rehearsal on a copy: locks as they were really taken, rewrites, limits."""

import secrets
from collections.abc import Iterator

import pytest
from psycopg import Connection

from migrations.guard.made_roles import drop_left_roles, drop_new_roles, roles
from migrations.guard.policy import Policy
from migrations.guard.rehearse import Rehearsal, RehearsalRefused, rehearse
from migrations.guard.statements import PlannedStep
from migrations.guard.trail import Trail
from tests.conftest import Database
from tests.guard.conftest import IMPATIENT, Write
from tests.guard.test_apply import HEAD, UNIQUE, fill


def of(database: Database, steps: tuple[PlannedStep, ...], trail: Trail) -> Rehearsal:
    return rehearse(database.url, steps, policy=IMPATIENT, trail=trail, say=print)


def test_locks_are_those_really_taken(database: Database, on_top: Write, trail: Trail) -> None:
    up = """
    op.execute("CREATE TABLE public.x (id uuid REFERENCES public.users (id))")
    op.execute("ALTER TABLE public.subscriptions ADD COLUMN x int")
    op.execute("ALTER TABLE public.subscriptions ADD CONSTRAINT ck_x CHECK (x > 0) NOT VALID")
    with op.get_context().autocommit_block():
        op.execute("ALTER TABLE public.subscriptions VALIDATE CONSTRAINT ck_x")
        op.execute("CREATE INDEX CONCURRENTLY ix_x ON public.subscriptions (x)")
    """
    told = of(database, on_top(up).upgrade(HEAD), trail).statements
    assert ("public.users", "ShareRowExclusiveLock") in told[0].locks
    assert told[1].locks == (("public.subscriptions", "AccessExclusiveLock"),)
    assert told[2].locks == ()  # held already
    assert told[3].locks == (("public.subscriptions", "ShareUpdateExclusiveLock"),)
    assert ("public.subscriptions", "ShareUpdateExclusiveLock") in told[4].locks
    assert {mode for _, mode in told[4].locks} <= {"ShareUpdateExclusiveLock", "RowExclusiveLock"}
    assert told[4].ms < 1000


def test_a_rewrite_is_seen_and_counted_and_too_large_a_one_refused(
    database: Database, on_top: Write, trail: Trail
) -> None:
    fill(database.url, 30)
    up = """
    op.execute("ALTER TABLE public.subscriptions ADD COLUMN x int DEFAULT 1")
    op.execute("ALTER TABLE public.subscriptions ADD COLUMN y float DEFAULT random()")
    """
    told = of(database, on_top(up).upgrade(HEAD), trail)
    assert [each.rewrites for each in told.statements[:2]] == [(), (("public.subscriptions", 30),)]
    assert told.problems(IMPATIENT) == []
    problems = told.problems(Policy(rewrite_limit_rows=10, block_limit_ms=20_000))
    assert len(problems) == 1
    assert "rewrites 30 rows of public.subscriptions" in problems[0]


def test_a_lock_held_too_long_is_refused(database: Database, on_top: Write, trail: Trail) -> None:
    up = """
    op.execute("ALTER TABLE public.subscriptions ADD COLUMN x int")
    op.execute("SELECT pg_sleep(0.4)")
    """
    told = of(database, on_top(up).upgrade(HEAD), trail)
    assert told.problems(IMPATIENT) == []
    assert (
        "stops the writers of public.subscriptions" in told.problems(Policy(block_limit_ms=300))[0]
    )
    [(_, table, ms)] = told.blocks()
    assert table == "public.subscriptions"
    assert ms > 390


def test_what_fails_on_the_copy_is_refused(database: Database, on_top: Write, trail: Trail) -> None:
    fill(database.url)
    with pytest.raises(RehearsalRefused, match="could not create unique index"):
        of(database, on_top(UNIQUE).upgrade(HEAD), trail)


@pytest.fixture
def role(job: Connection) -> Iterator[str]:
    name = f"t_{secrets.token_hex(4)}"
    yield name
    for each in (name, f"{name}_alice"):
        job.execute(f"DROP ROLE IF EXISTS {each}".encode())


@pytest.mark.parametrize("fails", [False, True])
def test_roles_that_the_rehearsal_made_go_and_nobody_elses(
    database: Database, on_top: Write, trail: Trail, job: Connection, role: str, fails: bool
) -> None:
    before = roles(job)
    up = f"""
    op.execute("CREATE ROLE {role}")
    with op.get_context().autocommit_block():
        op.execute("SELECT 1 / {0 if fails else 1}")
    """
    # While the job is at work somebody makes one too.
    job.execute(f"CREATE ROLE {role}_alice".encode())
    try:
        of(database, on_top(up).upgrade(HEAD), trail)
    except RehearsalRefused:
        assert fails
    assert {role, f"{role}_alice"} <= roles(job)
    drop_new_roles(job, before, trail)
    assert roles(job) & {role, f"{role}_alice"} == {f"{role}_alice"}
    # Another run's rehearsal is not this one's.
    job.execute(f"CREATE ROLE {role}".encode())
    drop_new_roles(job, before, Trail(trail.folder))
    assert role in roles(job)


def test_roles_of_a_killed_rehearsal_are_taken_away_before_the_next(
    database: Database, on_top: Write, trail: Trail, job: Connection, role: str
) -> None:
    trail.record("run_started", url=database.url)
    of(database, on_top(f'op.execute("CREATE ROLE {role}")').upgrade(HEAD), trail)
    other, again = Trail(trail.folder), Trail(trail.folder)
    other.record("run_started", url=database.url + "_other")
    drop_left_roles(job, database.url, other)
    assert role in roles(job)
    again.record("run_started", url=database.url)
    drop_left_roles(job, database.url, again)
    assert role not in roles(job)
    job.execute(f"CREATE ROLE {role}".encode())
    drop_left_roles(job, database.url, again)
    assert role in roles(job), "somebody's own by now"
