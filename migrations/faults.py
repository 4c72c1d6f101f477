"""What can keep the migration job from its end: one line for the person at the terminal, one exit code for scripts."""

from typing import ClassVar


class MigrationFault(Exception):
    """The job ends here.  `exit_code` is what it leaves with."""

    exit_code: ClassVar[int] = 1


class NotAUrl(MigrationFault):
    exit_code = 2

    def __init__(self, why: str = "this is not a database URL") -> None:
        super().__init__(f"{why}; use postgresql://user:password@host:port/database")


class CannotReach(MigrationFault):
    exit_code = 3


class LockBusy(MigrationFault):
    """Another job runs: try again later."""

    exit_code = 4


class PoolerBetween(MigrationFault):
    """The connection is not PostgreSQL's own."""

    exit_code = 20
