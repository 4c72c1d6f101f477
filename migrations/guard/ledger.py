"""What of an unfinished revision is done: a table of the job's own, written with the step itself.

Rows are open until their revision is whole.  A row that says done is believed only while what the step
created is still there: a `downgrade` by hand leaves no row that lies.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from psycopg import Connection, sql
from psycopg.rows import class_row

from migrations.faults import MigrationFault
from migrations.guard.statements import PlannedStep

State = Literal["started", "done"]

CREATE = """
CREATE SCHEMA IF NOT EXISTS farebox_migration;
CREATE TABLE IF NOT EXISTS farebox_migration.ledger (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run text NOT NULL,
    revision text NOT NULL,
    step integer NOT NULL,
    checksum text NOT NULL,
    kind text NOT NULL,
    state text NOT NULL CHECK (state IN ('started', 'done')),
    rows_changed bigint NOT NULL DEFAULT 0,
    created text[] NOT NULL DEFAULT '{}',
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at timestamptz,
    closed_at timestamptz
);
CREATE UNIQUE INDEX IF NOT EXISTS uq_ledger_open
    ON farebox_migration.ledger (revision, step) WHERE closed_at IS NULL;
CREATE TABLE IF NOT EXISTS farebox_migration.transactions (
    id bigint PRIMARY KEY DEFAULT pg_current_xact_id()::text::bigint,
    deleted jsonb NOT NULL,
    savepoints bigint[] NOT NULL DEFAULT '{}'
);
-- An earlier release's tables lack these.
ALTER TABLE farebox_migration.ledger ADD COLUMN IF NOT EXISTS created text[] NOT NULL DEFAULT '{}';
ALTER TABLE farebox_migration.transactions ADD COLUMN IF NOT EXISTS deleted jsonb NOT NULL DEFAULT '{}';
ALTER TABLE farebox_migration.transactions ADD COLUMN IF NOT EXISTS savepoints bigint[] NOT NULL DEFAULT '{}';
"""
# Looked at also where nothing may be changed yet: an earlier release's ledger lacks `created`.
OPEN = """
SELECT revision, step, checksum, state, rows_changed, names.created,
    (SELECT count(*) FROM unnest(names.created) AS name WHERE to_regclass(name) IS NOT NULL) AS standing
FROM farebox_migration.ledger,
    LATERAL (SELECT ARRAY(SELECT jsonb_array_elements_text(to_jsonb(ledger) -> 'created')) AS created) AS names
WHERE closed_at IS NULL ORDER BY id
"""
BEGIN = """
INSERT INTO farebox_migration.ledger (run, revision, step, checksum, kind, state)
VALUES (%s, %s, %s, %s, %s, 'started')
ON CONFLICT (revision, step) WHERE closed_at IS NULL
DO UPDATE SET run = excluded.run, started_at = clock_timestamp()
"""
DONE = """
INSERT INTO farebox_migration.ledger (run, revision, step, checksum, kind, state, created, finished_at)
VALUES (%s, %s, %s, %s, %s, 'done', %s, clock_timestamp())
ON CONFLICT (revision, step) WHERE closed_at IS NULL
DO UPDATE SET state = 'done', created = excluded.created, finished_at = clock_timestamp()
"""
COUNT = """
UPDATE farebox_migration.ledger SET rows_changed = rows_changed + %s
WHERE revision = %s AND step = %s AND closed_at IS NULL
"""
FORGET = """
DELETE FROM farebox_migration.ledger
WHERE revision = %s AND step = %s AND state = 'started' AND rows_changed = 0 AND closed_at IS NULL
"""
CLOSE = """
UPDATE farebox_migration.ledger SET closed_at = clock_timestamp()
WHERE revision = ANY(%s) AND closed_at IS NULL
"""
EXISTS = "SELECT to_regclass('farebox_migration.ledger') IS NOT NULL"
# The newest columns.
COMPLETE = """
SELECT count(*) = 3 FROM pg_attribute WHERE (attrelid, attname) IN (
    (to_regclass('farebox_migration.ledger'), 'created'),
    (to_regclass('farebox_migration.transactions'), 'deleted'),
    (to_regclass('farebox_migration.transactions'), 'savepoints'))
"""
# A transaction that is undone takes its note along.
# Deleted rows leave nothing behind to count; the server's own counters of this transaction know.
NOTE = """
INSERT INTO farebox_migration.transactions (deleted)
SELECT coalesce(jsonb_object_agg(format('%I.%I', schemaname, relname), n_tup_del), '{}')
FROM pg_stat_xact_user_tables WHERE n_tup_del > 0 AND schemaname <> 'farebox_migration'
"""
# Rows written after a savepoint, or in a block with EXCEPTION, carry an id of their own.
USED_SAVEPOINTS = """
SELECT coalesce(bool_or(s.subxact_count > 0 OR s.subxact_overflowed), true)
FROM pg_stat_get_backend_idset() b, pg_stat_get_backend_subxact(b) s
WHERE pg_stat_get_backend_pid(b) = pg_backend_pid()
"""
SAVEPOINTS_TOLD_SINCE = 160_000
WROTE = """
SELECT schemaname, relname FROM pg_stat_xact_user_tables
WHERE n_tup_ins + n_tup_upd > 0 AND schemaname <> 'farebox_migration'
"""
# Newer than this transaction, seen by it, and not committed yet: its own.
OWN_SAVEPOINTS = """
SELECT id FROM (SELECT DISTINCT pg_current_xact_id()::text::bigint - age(xmin) AS id FROM ONLY {} WHERE age(xmin) < 0) x
WHERE pg_xact_status(id::text::xid8) = 'in progress'
"""
NOTE_SAVEPOINTS = """
UPDATE farebox_migration.transactions SET savepoints = %s WHERE id = pg_current_xact_id()::text::bigint
"""
NOTED = "SELECT unnest(id || savepoints) FROM farebox_migration.transactions"
DELETED = """
SELECT key, sum(value::bigint)::bigint FROM farebox_migration.transactions, jsonb_each_text(deleted) GROUP BY key
"""
FORGET_NOTED = "DELETE FROM farebox_migration.transactions"


class OtherSql(MigrationFault):
    """A revision was begun by another release and is not finished."""

    exit_code = 20

    def __init__(self, step: PlannedStep) -> None:
        super().__init__(
            f"{step} was done with other SQL than this release has: finish with the release that began it,"
            f" or take it back with that release's `alembic downgrade`"
        )


@dataclass(frozen=True)
class Entry:
    revision: str
    step: int
    checksum: str
    state: State
    rows_changed: int
    created: list[str]
    standing: int


def create(connection: Connection) -> None:
    """Only where it is missing: even IF NOT EXISTS asks for rights that a second run may not need."""
    row = connection.execute(COMPLETE).fetchone()
    if row is None or not row[0]:
        with connection.transaction():
            connection.execute(CREATE)


def open_entries(connection: Connection) -> list[Entry]:
    """Nothing where there is no ledger yet."""
    row = connection.execute(EXISTS).fetchone()
    if row is None or not row[0]:
        return []
    with connection.cursor(row_factory=class_row(Entry)) as cursor:
        return cursor.execute(OPEN).fetchall()


def done_already(
    entries: Iterable[Entry], steps: Iterable[PlannedStep]
) -> tuple[Mapping[tuple[str, int], Entry], set[str]]:
    """Entries to believe by (revision, step), and revisions whose rows are stale.  Raises OtherSql."""
    planned = {(step.revision, step.number): step for step in steps}
    listed = list(entries)
    stale = {e.revision for e in listed if (e.revision, e.step) not in planned} | _gone(listed)
    believed = {(e.revision, e.step): e for e in listed if e.revision not in stale}
    for key, entry in believed.items():
        if entry.checksum != planned[key].checksum:
            raise OtherSql(planned[key])
    return believed, stale


def _gone(entries: list[Entry]) -> set[str]:
    """Revisions of which nothing stands that they created: somebody took them back.  (One name may be missing:
    a later step may have renamed it.)"""
    created: dict[str, int] = {}
    standing: dict[str, int] = {}
    for each in entries:
        if each.state == "done":
            created[each.revision] = created.get(each.revision, 0) + len(each.created)
            standing[each.revision] = standing.get(each.revision, 0) + each.standing
    return {name for name, count in created.items() if count and not standing[name]}


def begin(connection: Connection, run: str, step: PlannedStep) -> None:
    connection.execute(BEGIN, (run, step.revision, step.number, step.checksum, step.kind))


def finish(
    connection: Connection, run: str, step: PlannedStep, created: Iterable[str] = ()
) -> None:
    """In the step's own transaction where it has one; the last step of a revision closes its rows."""
    values = (run, step.revision, step.number, step.checksum, step.kind, list(created))
    connection.execute(DONE, values)
    if step.ends_revision:
        close(connection, [step.revision])


def forget(connection: Connection, step: PlannedStep) -> None:
    """The step failed and left nothing; what remains `started` was cut short in a way nobody saw."""
    connection.execute(FORGET, (step.revision, step.number))


def count(connection: Connection, step: PlannedStep, rows: int) -> None:
    connection.execute(COUNT, (rows, step.revision, step.number))


def close(connection: Connection, revisions: Iterable[str]) -> None:
    connection.execute(CLOSE, (list(revisions),))


def note_transaction(connection: Connection) -> None:
    """The open transaction is this job's own: rows that it writes are not the application's."""
    connection.execute(NOTE)
    if connection.info.server_version >= SAVEPOINTS_TOLD_SINCE:
        connection.execute("SELECT pg_stat_clear_snapshot()")
        used = connection.execute(USED_SAVEPOINTS).fetchone()
        if used is not None and not used[0]:
            return
    found: set[int] = set()
    for name in connection.execute(WROTE).fetchall():
        query = sql.SQL(OWN_SAVEPOINTS).format(sql.Identifier(*name))
        found |= {int(row[0]) for row in connection.execute(query)}
    connection.execute(NOTE_SAVEPOINTS, (sorted(found),))


def transactions(connection: Connection) -> set[int]:
    return {int(row[0]) for row in connection.execute(NOTED)}


def deleted(connection: Connection) -> dict[str, int]:
    """Rows that this job's own transactions deleted, table by table; at least one where it is any."""
    return {str(name): int(rows) for name, rows in connection.execute(DELETED)}


def forget_transactions(connection: Connection) -> None:
    connection.execute(FORGET_NOTED)
