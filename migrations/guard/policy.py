"""How long a statement may wait for a lock and work, how often it is tried, and what a rehearsal may cost."""

import random
from dataclasses import dataclass

from migrations.guard.statements import Kind


@dataclass(frozen=True)
class Limits:
    """The timeouts are in force for one statement, read back before it runs; `stall_ms` is what somebody may wait
    behind its whole transaction before it is cancelled, None where nobody queues behind."""

    lock_timeout_ms: int
    statement_timeout_ms: int
    stall_ms: int | None = None


@dataclass(frozen=True)
class Policy:
    """`stall`: what others wait behind our DDL, at most, per attempt.  `patient`: waits of statements that
    nobody queues behind."""

    stall_lock_timeout_ms: int = 1_000
    stall_statement_timeout_ms: int = 15_000
    # A lock_timeout counts for each lock anew: several waits, and the work after them, add up for those behind.
    stall_limit_ms: int = 1_000
    batch_lock_timeout_ms: int = 3_000
    batch_statement_timeout_ms: int = 30_000
    batch_stall_limit_ms: int = 3_000
    patient_lock_timeout_ms: int = 120_000
    # An index on a large table takes its time and stops nobody.
    patient_statement_timeout_ms: int = 6 * 3_600_000
    attempts: int = 12
    first_pause_seconds: float = 0.5
    longest_pause_seconds: float = 20.0
    # Of the time a batch took: half the disk is the storefront's.
    batch_pause_share: float = 1.0
    # On the rehearsal copy, from the first lock that stops writers of an existing table to COMMIT.
    block_limit_ms: float = 2_000.0
    rewrite_limit_rows: int = 10_000
    rehearsal_limit_seconds: float = 4 * 3_600.0

    def limits(self, kind: Kind) -> Limits:
        match kind:
            case Kind.TRANSACTION | Kind.OTHER:
                return Limits(
                    self.stall_lock_timeout_ms, self.stall_statement_timeout_ms, self.stall_limit_ms
                )
            case Kind.BACKFILL:
                return Limits(
                    self.batch_lock_timeout_ms,
                    self.batch_statement_timeout_ms,
                    self.batch_stall_limit_ms,
                )
            case Kind.INDEX | Kind.VALIDATION:
                return Limits(self.patient_lock_timeout_ms, self.patient_statement_timeout_ms)

    def pause_seconds(self, attempt: int, chance: random.Random) -> float:
        """Doubles from attempt to attempt, and half of it is chance: two waiters do not meet again."""
        longest = min(self.longest_pause_seconds, self.first_pause_seconds * 2.0 ** (attempt - 1))
        return longest * (0.5 + chance.random() / 2)
