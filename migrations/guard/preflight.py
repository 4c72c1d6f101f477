"""What must be true before anything is tried: each failure names the cause and the remedy.

A `refusal` ends the run; a `warning` is said and written down (old faults do not stop a migration).
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psycopg
from psycopg import Connection

from migrations.faults import MigrationFault
from migrations.guard import ledger
from migrations.guard.backup import space_needed, table_bytes, unreadable_tables
from migrations.guard.statements import Chain, PlannedStep
from migrations.guard.tools import find_tools, server_major

OLDEST_SERVER = 150_000
# Younger transactions end before our last attempt does.
LONG_TRANSACTION_SECONDS = 300
REPLICA_LAG_SECONDS = 30
MEBIBYTE = 2**20

POOLED = "SELECT pg_backend_pid() <> %s"
STANDBY = "SELECT pg_is_in_recovery()"
VERSION = "SELECT current_setting('server_version_num')::int"
FOREIGN_OWNED = """
SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND n.nspname IN ('public', 'pricing', 'payments', 'loyalty', 'analytics')
    AND NOT pg_has_role(c.relowner, 'USAGE') ORDER BY 1
"""
RIGHTS = """
SELECT has_database_privilege(current_database(), 'CREATE'), r.rolcreatedb OR r.rolsuper,
    r.rolcreaterole OR r.rolsuper, current_user
FROM pg_roles r WHERE r.rolname = current_user
"""
MISSING_ROLES = """
SELECT array_agg(name) FROM unnest(ARRAY['pricing_app', 'payments_app', 'loyalty_app', 'analytics_app']) AS name
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name)
"""
INVALID = """
SELECT format('%I.%I', n.nspname, c.relname) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE NOT i.indisvalid AND n.nspname NOT LIKE 'pg\\_%'
    AND NOT EXISTS (SELECT FROM pg_stat_progress_create_index p WHERE p.index_relid = i.indexrelid)
"""
PREPARED = """
SELECT gid, owner, round(extract(epoch FROM now() - prepared))::int FROM pg_prepared_xacts
WHERE database = current_database()
"""
LONG = """
SELECT pid, usename, coalesce(nullif(application_name, ''), 'no name'), state,
    round(extract(epoch FROM clock_timestamp() - xact_start))::int
FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
    AND xact_start < clock_timestamp() - make_interval(secs => %s)
ORDER BY xact_start
"""
DUMPS = """
SELECT pid, usename FROM pg_stat_activity
WHERE datname = current_database() AND application_name LIKE 'pg\\_dump%' AND pid <> pg_backend_pid()
"""
REPLICAS = """
SELECT coalesce(nullif(application_name, ''), client_addr::text, 'a replica'),
    coalesce(round(extract(epoch FROM replay_lag)), 0)::int
FROM pg_stat_replication WHERE state = 'streaming'
"""
DATA_FOLDER = "SELECT current_setting('data_directory', true)"


class PreflightRefused(MigrationFault):
    exit_code = 20

    def __init__(self, problems: Sequence["Problem"]) -> None:
        super().__init__("; ".join(map(str, problems)))
        self.problems = tuple(problems)


@dataclass(frozen=True)
class Problem:
    """`check` is a stable word for scripts."""

    check: str
    severity: Literal["refusal", "warning"]
    cause: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.cause}: {self.remedy}"


@dataclass(frozen=True)
class Subject:
    """What is looked at: a connection in autocommit, the plan, and the folders that will be written."""

    connection: Connection
    chain: Chain
    current: Sequence[str]
    steps: Sequence[PlannedStep]
    backup_folder: Path
    # There is no table yet: nothing that could be lost.
    bare: bool = False


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
            said = " ".join(str(error).split())
            found.append(
                _warn(check.__name__.strip("_"), f"could not be checked: {said}", "as the owner")
            )
    return found


def known(chain: Chain, current: Sequence[str]) -> Iterator[Problem]:
    """Whether there is one way from where the database stands; the rest can only be judged if there is."""
    heads = chain.heads()
    if len(heads) != 1:
        yield _refuse(
            "heads",
            f"the chain of revisions ends in {', '.join(heads)}",
            "merge them: alembic merge heads",
        )
    for revision in current:
        if not chain.knows(revision):
            yield _refuse(
                "revision",
                f"the database stands at {revision}, a revision this release does not know",
                "run the release that made it, or a newer one",
            )


def models() -> Iterator[Problem]:
    """Every model can be imported: else nobody could say what the schema should be."""
    try:
        from migrations.models import target_metadata

        target_metadata()
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        yield _refuse(
            "models", f"the models cannot be imported: {error}", "repair this installation"
        )


def _server(subject: Subject) -> Iterator[Problem]:
    if _one(subject, POOLED, subject.connection.info.backend_pid):
        yield _refuse(
            "pooler",
            "a pooler stands in front of the database: locks and settings would belong to somebody else",
            "give the URL of PostgreSQL itself",
        )
    if _one(subject, STANDBY):
        yield _refuse("standby", "this is a standby, it only reads", "give the URL of the primary")
    version = _number(subject, VERSION)
    if version < OLDEST_SERVER:
        yield _refuse(
            "version", f"PostgreSQL {version // 10_000} is too old", "15 or later is needed"
        )


def _rights(subject: Subject) -> Iterator[Problem]:
    row = subject.connection.execute(RIGHTS).fetchone()
    create, create_database, create_role, user = row if row else (False, False, False, "?")
    if not create:
        yield _refuse(
            "privileges",
            f"{user} may not create schemas here",
            f"GRANT CREATE ON DATABASE … TO {user}",
        )
    if not create_database:
        yield _refuse(
            "privileges",
            f"{user} may not create the database that the backup is tested in",
            f"ALTER ROLE {user} CREATEDB",
        )
    missing = _one(subject, MISSING_ROLES)
    if isinstance(missing, list) and missing and not create_role and subject.steps:
        yield _refuse(
            "privileges",
            f"{user} may not create the roles {', '.join(map(str, missing))}",
            f"ALTER ROLE {user} CREATEROLE, or create them",
        )
    for table in unreadable_tables(subject.connection):
        yield _refuse(
            "privileges", f"{user} may not read {table}", f"GRANT SELECT ON {table} TO {user}"
        )
    for table in _names(subject, FOREIGN_OWNED):
        yield _refuse(
            "privileges", f"{user} does not own {table}", f"ALTER TABLE {table} OWNER TO {user}"
        )


def _programs(subject: Subject) -> Iterator[Problem]:
    try:
        find_tools(server_major(subject.connection))
    except MigrationFault as fault:
        judge = _warn if subject.bare else _refuse
        yield judge("programs", str(fault), "then run again")


def _space(subject: Subject) -> Iterator[Problem]:
    folder = subject.backup_folder
    if subject.bare:
        return
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        yield _refuse(
            "backup folder", f"cannot write to {folder}: {error.strerror}", "set FAREBOX_BACKUP_DIR"
        )
        return
    yield from _room(
        folder,
        space_needed(subject.connection),
        "the backup",
        "free some space, or set FAREBOX_BACKUP_DIR",
    )
    data = _one(subject, DATA_FOLDER)
    # Only where the server's own disk can be seen from here.
    local = subject.connection.info.host in ("", "127.0.0.1", "localhost", "::1")
    if local and isinstance(data, str) and Path(data).is_dir():
        yield from _room(
            Path(data),
            2 * table_bytes(subject.connection),
            "the rehearsal",
            "free some space on the server",
        )


def _room(folder: Path, needed: int, purpose: str, remedy: str) -> Iterator[Problem]:
    free = shutil.disk_usage(folder).free
    if free < needed:
        yield _refuse(
            "disk",
            f"{purpose} may need {needed // MEBIBYTE} MB, {folder} has {free // MEBIBYTE} MB",
            remedy,
        )


def _names_in_the_way(subject: Subject) -> Iterator[Problem]:
    believed, _ = ledger.done_already(ledger.open_entries(subject.connection), subject.steps)
    for step in subject.steps:
        entry = believed.get((step.revision, step.number))
        if entry is not None:
            continue
        for kind, name in step.creates:
            query = "SELECT to_regnamespace(%s)" if kind == "schema" else "SELECT to_regclass(%s)"
            if _one(subject, query, name) is not None:
                yield _refuse(
                    "names",
                    f'{kind} "{name}" already exists, and {step.revision} wants to create it',
                    "rename it, or drop it if nobody needs it",
                )


def _indexes(subject: Subject) -> Iterator[Problem]:
    ours = {step.built_index for step in subject.steps}
    for name in _names(subject, INVALID):
        if name not in ours:
            yield _warn(
                "indexes",
                f"index {name} is INVALID",
                f"REINDEX INDEX CONCURRENTLY {name}, or drop it",
            )


def _blockers(subject: Subject) -> Iterator[Problem]:
    for gid, owner, seconds in subject.connection.execute(PREPARED):
        yield _refuse(
            "prepared",
            f"prepared transaction {gid} of {owner} holds its locks since {seconds} s",
            f"COMMIT PREPARED or ROLLBACK PREPARED '{gid}'",
        )
    for pid, user, name, state, seconds in subject.connection.execute(
        LONG, (LONG_TRANSACTION_SECONDS,)
    ):
        yield _refuse(
            "long transaction",
            f"process {pid} of {user} ({name}), {state}, is in one transaction since {seconds} s",
            f"end it: SELECT pg_terminate_backend({pid})",
        )
    for pid, user in subject.connection.execute(DUMPS):
        yield _refuse(
            "dump",
            f"another dump runs (process {pid} of {user}), our locks would queue behind it",
            "wait for it",
        )
    for name, seconds in subject.connection.execute(REPLICAS):
        if seconds > REPLICA_LAG_SECONDS:
            yield _refuse(
                "replicas", f"replica {name} is {seconds} s behind", "wait until it has caught up"
            )


CHECKS: tuple[Check, ...] = (
    _server,
    _rights,
    _programs,
    _space,
    _names_in_the_way,
    _indexes,
    _blockers,
)


def _refuse(check: str, cause: str, remedy: str) -> Problem:
    return Problem(check, "refusal", cause, remedy)


def _warn(check: str, cause: str, remedy: str) -> Problem:
    return Problem(check, "warning", cause, remedy)


def _one(subject: Subject, query: str, *values: object) -> object:
    row = subject.connection.execute(query.encode(), values or None).fetchone()
    return row[0] if row else None


def _number(subject: Subject, query: str) -> int:
    return int(str(_one(subject, query)))


def _names(subject: Subject, query: str) -> list[str]:
    return [str(row[0]) for row in subject.connection.execute(query.encode())]
