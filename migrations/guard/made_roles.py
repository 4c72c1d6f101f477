"""Roles that a rehearsal made on the way: they are the whole server's, and go with the copy that they were made for.

The trail holds them from the moment they are made, with their oid, so that the run after a killed one neither takes
them for old ones nor stumbles over them.
"""

from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from psycopg import Connection, sql

from migrations.guard.restore import sweep_copies
from migrations.guard.trail import Trail, entries

MADE = "roles_made"
GONE = ("role_dropped", "role_stays")
ROLES = "SELECT rolname, oid::bigint FROM pg_roles"


def roles(connection: Connection) -> set[str]:
    return set(with_oids(connection))


def with_oids(connection: Connection) -> dict[str, int]:
    return {str(name): int(oid) for name, oid in connection.execute(ROLES)}


def drop_new_roles(connection: Connection, before: set[str], trail: Trail) -> None:
    """Those that this run's rehearsal made on the way; one that somebody uses by now stays."""
    told = _told(trail.path).get(trail.run, _Told())
    _drop(connection, {r: o for r, o in told.made.items() if r not in before}, trail)


def drop_left_roles(connection: Connection, copies_url: str, trail: Trail) -> None:
    """Those of rehearsals against this database that were killed; the copies that use them go first."""
    told = _told(trail.path)
    own = told.get(trail.run, _Told()).url
    left: dict[str, int] = {}
    for each in told.values():
        if each.url == own:
            left |= each.made
    if left:
        sweep_copies(copies_url)
        _drop(connection, left, trail)


def _drop(connection: Connection, made: dict[str, int], trail: Trail) -> None:
    # By its oid: one of that name that somebody has made since is not ours.
    there = with_oids(connection).items()
    for role in sorted(name for name, oid in made.items() if (name, oid) in there):
        try:
            connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))
        except psycopg.Error as error:
            trail.record("role_stays", role=role, reason=str(error))
        else:
            trail.record("role_dropped", role=role, reason="only the rehearsal needed it")


@dataclass
class _Told:
    """What the trail says of one run, and of the roles it has not taken away yet."""

    url: object = None
    made: dict[str, int] = field(default_factory=dict)


def _told(path: Path) -> dict[object, _Told]:
    runs: dict[object, _Told] = {}
    for entry in entries(path):
        run, kind, made = entry.get("run"), entry.get("kind"), entry.get("roles")
        each = runs.setdefault(run, _Told())
        if kind == "run_started":
            each.url = entry.get("url")
        elif kind == MADE and isinstance(made, dict):
            each.made |= {str(name): int(oid) for name, oid in made.items()}
        elif kind in GONE:
            for one in runs.values():
                one.made.pop(str(entry.get("role")), None)
    return runs
