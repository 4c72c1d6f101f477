"""Who makes the copy in which the backup is tested and the upgrade rehearsed, where the owner may make no databases.

Another role of the same server: its URL in FAREBOX_SCRATCH_DATABASE_URL, whatever database that names.
"""

import os
from collections.abc import Iterator

from sqlalchemy.engine import make_url

from migrations.faults import MigrationFault
from migrations.guard.address import address
from migrations.guard.subject import Problem, Subject, refuse
from migrations.guard.tools import on_database
from migrations.run_lock import connect

VARIABLE = "FAREBOX_SCRATCH_DATABASE_URL"
# Of the cluster, made by initdb: the same behind every address it has.
SERVER = "SELECT system_identifier FROM pg_control_system()"
MAKES_DATABASES = (
    "SELECT rolcreatedb OR rolsuper, rolname FROM pg_roles WHERE rolname = current_user"
)


def copy_maker(url: str) -> str | None:
    """The URL of that role for the database of `url`, None where its owner makes the copy.  Raises NotAUrl."""
    given = os.environ.get(VARIABLE)
    return on_database(address(given), str(make_url(url).database)) if given else None


def scratch(subject: Subject) -> Iterator[Problem]:
    if subject.scratch_url is None or subject.bare:
        return
    try:
        with connect(subject.scratch_url) as there:
            same = _of(subject) == there.execute(SERVER).fetchone()
            row = there.execute(MAKES_DATABASES).fetchone()
    except MigrationFault as fault:
        yield refuse("scratch", f"who is to make the copy: {fault}", f"correct {VARIABLE}")
        return
    may, user = row or (False, "its role")
    if not same:
        yield refuse(
            "scratch",
            f"{VARIABLE} is of another server, whose roles and settings are not these",
            "name a role of the same server in it",
        )
    elif not may:
        yield refuse(
            "scratch",
            f"{user} of {VARIABLE} may not create the copy's database either",
            f"ALTER ROLE {user} CREATEDB",
        )


def _of(subject: Subject) -> tuple[object, ...] | None:
    return subject.connection.execute(SERVER).fetchone()
