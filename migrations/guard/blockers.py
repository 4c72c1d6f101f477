"""Who would stand in our way, or we in theirs: prepared and long transactions, dumps, replicas that lag."""

import fcntl
import time
from collections.abc import Iterator
from pathlib import Path

from migrations.guard.backup import APPLICATION, OWNER, PARTIAL
from migrations.guard.subject import Problem, Subject, refuse, warn

# Younger transactions end before our last attempt does.
LONG_TRANSACTION_SECONDS = 300
# One that an application is just about to commit is gone by then.
PREPARED_PATIENCE_SECONDS = 2.0
REPLICA_LAG_SECONDS = 30
MEBIBYTE = 2**20

PREPARED = """
SELECT gid, owner, round(extract(epoch FROM now() - prepared))::int FROM pg_prepared_xacts
WHERE database = current_database() ORDER BY prepared
"""
# A vacuum against wraparound does not give way to us; the others do.
LONG = """
SELECT pid, coalesce(usename, 'autovacuum'), coalesce(nullif(application_name, ''), 'no name'),
    coalesce(state, backend_type), round(extract(epoch FROM clock_timestamp() - xact_start))::int
FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
    AND (backend_type = 'client backend' OR query LIKE 'autovacuum:%%to prevent wraparound%%')
    AND xact_start < clock_timestamp() - make_interval(secs => %s)
ORDER BY xact_start
"""
DUMPS = """
SELECT pid, usename, application_name FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
    AND (application_name LIKE 'pg\\_dump%%' OR application_name LIKE %s)
ORDER BY pid
"""
# replay_lag says nothing of one that stands still: what it has not replayed yet does.
REPLICAS = """
SELECT coalesce(nullif(application_name, ''), host(client_addr), 'a replica'), state,
    greatest(coalesce(extract(epoch FROM replay_lag), 0), 0)::int,
    coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn), 0)::bigint,
    extract(epoch FROM clock_timestamp() - coalesce(reply_time, clock_timestamp()))::int
FROM pg_stat_replication WHERE state IN ('streaming', 'catchup')
"""
SLOTS = """
SELECT slot_name, pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint FROM pg_replication_slots
WHERE NOT active AND NOT temporary AND restart_lsn IS NOT NULL
"""
# What a replica that stands still may not have replayed: a few seconds of a busy server.
UNREPLAYED_BYTES = 256 * MEBIBYTE


def blockers(subject: Subject) -> Iterator[Problem]:
    yield from _prepared(subject)
    for pid, user, name, state, seconds in subject.connection.execute(
        LONG, (LONG_TRANSACTION_SECONDS,)
    ):
        yield refuse(
            "long transaction",
            f"process {pid} of {user} ({name}), {state}, is in one transaction since {seconds} s",
            f"end it: SELECT pg_terminate_backend({pid})",
        )
    for pid, user, name in subject.connection.execute(DUMPS, (f"{APPLICATION}%",)):
        if not _orphan(subject.backup_folder, str(name)):
            yield refuse(
                "dump",
                f"another dump runs (process {pid} of {user}), our locks would queue behind it",
                f"wait for it, or end it: SELECT pg_terminate_backend({pid})",
            )


def replicas(subject: Subject) -> Iterator[Problem]:
    for name, state, seconds, behind, silent in subject.connection.execute(REPLICAS):
        late = max(seconds, silent)
        if state == "catchup" or late > REPLICA_LAG_SECONDS or behind > UNREPLAYED_BYTES:
            yield refuse(
                "replicas",
                f"replica {name} ({state}) is {late} s and {behind // MEBIBYTE} MB behind",
                "wait until it has caught up; if its replay is paused: SELECT pg_wal_replay_resume() there",
            )
    for name, kept in subject.connection.execute(SLOTS):
        yield warn(
            "replicas",
            f"nobody reads replication slot {name}: it keeps {kept // MEBIBYTE} MB of log, and all we write",
            f"start its replica, or SELECT pg_drop_replication_slot('{name}')",
        )


def _prepared(subject: Subject) -> Iterator[Problem]:
    before = {gid for gid, _, _ in subject.connection.execute(PREPARED)}
    if before:
        time.sleep(PREPARED_PATIENCE_SECONDS)
    for gid, owner, seconds in subject.connection.execute(PREPARED):
        if gid in before:
            yield refuse(
                "prepared",
                f"prepared transaction {gid} of {owner} holds its locks since {seconds} s",
                f"COMMIT PREPARED '{gid}' or ROLLBACK PREPARED '{gid}'",
            )


def _orphan(folder: Path, application: str) -> bool:
    """The dump of a killed run of ours: the backup about to be made ends it."""
    if not application.startswith(APPLICATION):
        return False
    owner = folder / f"{PARTIAL}{application.removeprefix(APPLICATION)}" / OWNER
    try:
        with owner.open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
