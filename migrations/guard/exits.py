"""What the migration job leaves with.  Distinct, so that a pipeline can decide without reading."""

from enum import IntEnum


class ExitCode(IntEnum):
    """`EXPLAINED` says what to do about each."""

    DONE = 0
    USAGE = 2
    UNREACHABLE = 3
    LOCK_BUSY = 4
    NOTHING_TO_DO = 10
    REFUSED_BY_PREFLIGHT = 20
    REFUSED_BY_LINT = 21
    REFUSED_BY_BACKUP = 22
    REFUSED_BY_REHEARSAL = 23
    FAILED_UNDONE = 40
    FAILED_RESUMABLE = 41
    VALIDATION_FAILED = 42
    SMOKE_FAILED = 43
    INTERRUPTED = 130


EXPLAINED = {
    ExitCode.DONE: "done (or nothing to do, unless --detailed-exit-code was given)",
    ExitCode.USAGE: "wrong arguments or environment; nothing was touched",
    ExitCode.UNREACHABLE: "the database or Kafka cannot be reached",
    ExitCode.LOCK_BUSY: "another migration job runs, or a table stayed busy: try again",
    ExitCode.NOTHING_TO_DO: "nothing to do (only with --detailed-exit-code)",
    ExitCode.REFUSED_BY_PREFLIGHT: "refused by preflight: do what it says; nothing changed",
    ExitCode.REFUSED_BY_LINT: "refused by lint: rewrite the SQL or allow the rule by name; nothing changed",
    ExitCode.REFUSED_BY_BACKUP: "no backup that could be restored: nothing changed",
    ExitCode.REFUSED_BY_REHEARSAL: "the rehearsal failed or was too heavy: nothing changed",
    ExitCode.FAILED_UNDONE: "a step failed; the database is as it was before",
    ExitCode.FAILED_RESUMABLE: "a step failed; what was done stands, the old code runs on it: run again",
    ExitCode.VALIDATION_FAILED: "something that should not have moved has moved: see the report",
    ExitCode.SMOKE_FAILED: "migrated and valid, but a main flow does not work: deploy nothing yet",
    ExitCode.INTERRUPTED: "interrupted: run again",
}
