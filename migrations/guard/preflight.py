"""What must be true before anything is tried: each failure names the cause and the remedy.

A refusal ends the run; a warning is said and written down (old faults do not stop a migration).
"""

from collections.abc import Callable, Iterator, Sequence

import psycopg
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.orm import configure_mappers

from migrations.faults import MigrationFault
from migrations.guard import ledger
from migrations.guard.blockers import blockers, replicas
from migrations.guard.drift import unplanned
from migrations.guard.leftovers import left_by
from migrations.guard.rights import may_not, rights
from migrations.guard.room import room
from migrations.guard.scratch import scratch
from migrations.guard.statements import Chain
from migrations.guard.subject import Problem, Subject, one, refuse, shortened, warn
from migrations.guard.tools import find_tools, server_major
from migrations.guard.wanted import in_the_way
from migrations.models import target_metadata

OLDEST_SERVER = 150_000
# With one of these, every other answer would be another server's or no answer at all.
BLINDING = {"pooler", "standby"}

POOLED = "SELECT pg_backend_pid() <> %s"
STANDBY = "SELECT pg_is_in_recovery()"
VERSION = "SELECT current_setting('server_version_num')::int"
INVALID = """
SELECT n.nspname, c.relname, format('%I.%I', n.nspname, c.relname) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE NOT i.indisvalid AND c.relkind = 'i' AND n.nspname NOT LIKE 'pg\\_%'
    AND NOT EXISTS (SELECT FROM pg_stat_progress_create_index p WHERE p.index_relid = i.indexrelid)
"""

Check = Callable[[Subject], Iterator[Problem]]


def preflight(subject: Subject) -> list[Problem]:
    """Everything that is wrong, not only the first; a check that could not be made says so."""
    found: list[Problem] = []
    # Names then come out with their schemas.
    subject.connection.execute("SET search_path = pg_catalog")
    for check in CHECKS:
        try:
            found.extend(check(subject))
        except psycopg.errors.InsufficientPrivilege as error:
            found.append(may_not(error))
        if any(each.check in BLINDING for each in found):
            break
    return found


def known(chain: Chain, current: Sequence[str]) -> Iterator[Problem]:
    """Whether there is one way from where the database stands; the rest can only be judged if there is."""
    heads = chain.heads()
    if len(heads) != 1:
        yield refuse(
            "heads",
            f"the chain of revisions ends in {', '.join(heads)}",
            "merge them: alembic merge heads",
        )
    for revision in current:
        if not chain.knows(revision):
            yield refuse(
                "revision",
                f"the database stands at {revision}, a revision this release does not know",
                "run the release that made it, or a newer one",
            )


def models() -> Iterator[Problem]:
    """Every model fits every other: else nobody could say what the schema should be."""
    try:
        configure_mappers()
        target_metadata()
    except (SQLAlchemyError, LookupError, AttributeError, TypeError, ValueError) as error:
        yield refuse(
            "models", f"the models do not fit together: {error}", "repair this installation"
        )


def _server(subject: Subject) -> Iterator[Problem]:
    if one(subject, POOLED, subject.connection.info.backend_pid):
        yield refuse(
            "pooler",
            "a pooler stands in front of the database: locks and settings would belong to somebody else",
            "give the URL of PostgreSQL itself",
        )
    if one(subject, STANDBY):
        yield refuse("standby", "this is a standby, it only reads", "give the URL of the primary")
    version = int(str(one(subject, VERSION)))
    if version < OLDEST_SERVER:
        yield refuse(
            "version", f"PostgreSQL {version // 10_000} is too old", "15 or later is needed"
        )


def _programs(subject: Subject) -> Iterator[Problem]:
    try:
        find_tools(server_major(subject.connection))
    except MigrationFault as fault:
        judge = warn if subject.bare else refuse
        yield judge("programs", str(fault), "then run again")


def _names_in_the_way(subject: Subject) -> Iterator[Problem]:
    believed, _ = ledger.done_already(ledger.open_entries(subject.connection), subject.steps)
    there = list(in_the_way(subject.connection, subject.steps, believed))
    if there and not subject.current:
        yield refuse(
            "revision",
            f"there is {shortened([str(each) for each in there])}, and no record of the revision it stands at",
            "say which: python -m alembic stamp REVISION (the storefront's is d6d022bcff3b)",
        )
        return
    for each in there:
        yield refuse(
            "names",
            f'{each.kind} "{each}" already exists, and {each.revision} wants to create it',
            "rename it, or drop it if nobody needs it",
        )


def _drift(subject: Subject) -> Iterator[Problem]:
    """What the models want, the database has not, and no step brings; the rehearsal looks at the rest."""
    if subject.bare or not subject.current:
        return
    try:
        found = unplanned(subject.connection, subject.steps)
    except DBAPIError as error:
        said = " ".join(str(error.orig).split())
        yield warn("drift", f"the models could not be compared: {said}", "the rehearsal will")
        return
    for each in found:
        judge = refuse if subject.steps else warn
        yield judge(
            "drift",
            f"the database differs from the models, and no revision makes up for it: {each}",
            "undo what was changed by hand",
        )


def _indexes(subject: Subject) -> Iterator[Problem]:
    ours = {each for step in subject.steps for each in left_by(subject.connection, step)}
    for schema, index, name in subject.connection.execute(INVALID.encode()).fetchall():
        if (schema, index) not in ours:
            yield warn(
                "indexes",
                f"index {name} is INVALID",
                f"REINDEX INDEX CONCURRENTLY {name}, or drop it",
            )


CHECKS: tuple[Check, ...] = (
    _server,
    rights,
    _programs,
    room,
    scratch,
    _names_in_the_way,
    _drift,
    _indexes,
    blockers,
    replicas,
)
