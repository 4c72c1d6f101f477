"""The plan, for people and for scripts: each step's SQL and, once rehearsed, what it really did."""

from collections.abc import Iterator, Sequence

from migrations.guard.policy import Policy
from migrations.guard.rehearse import Rehearsal
from migrations.guard.statements import PlannedStep


def as_sql(steps: Sequence[PlannedStep]) -> str:
    """One file, as psql would run it: what the linter judges."""
    return "\n".join(_sql(steps))


def _sql(steps: Sequence[PlannedStep]) -> Iterator[str]:
    for step in steps:
        yield f"-- {step} ({step.kind})"
        if step.transactional:
            yield "BEGIN;"
        yield from (_ended(each) for each in step.statements)
        if step.transactional:
            yield "COMMIT;"


def _ended(statement: str) -> str:
    return statement if statement.rstrip().endswith(";") else f"{statement};"


def revisions(steps: Sequence[PlannedStep]) -> dict[str, str]:
    """Titles by revision, in order."""
    return {step.revision: step.title for step in steps}


def as_text(steps: Sequence[PlannedStep], rehearsal: Rehearsal | None, policy: Policy) -> str:
    return "\n".join(_text(steps, rehearsal, policy))


def _text(
    steps: Sequence[PlannedStep], rehearsal: Rehearsal | None, policy: Policy
) -> Iterator[str]:
    for step in steps:
        limits = policy.limits(step.kind)
        yield f"{step} ({step.kind}, lock_timeout {limits.lock_timeout_ms} ms)"
        if rehearsal is None:
            yield from (f"    {' '.join(each.split())}" for each in step.statements)
            continue
        for each in rehearsal.of(step):
            yield f"    {each.sql}"
            yield (
                f"      {each.ms:.1f} ms"
                + "".join(f"; {mode} on {table}" for table, mode in each.locks)
                + "".join(f"; rewrote {rows} rows of {table}" for table, rows in each.rewrites)
            )
    if rehearsal is not None:
        yield f"rehearsed in {rehearsal.seconds:.1f} s"
        for step, table, ms in rehearsal.blocks():
            yield f"  {step}: writers of {table} wait up to {ms:.0f} ms"


def as_json(
    steps: Sequence[PlannedStep], rehearsal: Rehearsal | None, policy: Policy
) -> list[dict[str, object]]:
    return [
        {
            "revision": step.revision,
            "title": step.title,
            "step": step.number,
            "kind": str(step.kind),
            "transactional": step.transactional,
            "checksum": step.checksum,
            "lock_timeout_ms": policy.limits(step.kind).lock_timeout_ms,
            "statements": [
                {"sql": each.sql, "ms": each.ms, "locks": each.locks, "rewrites": each.rewrites}
                for each in rehearsal.of(step)
            ]
            if rehearsal is not None
            else [{"sql": each} for each in step.statements],
        }
        for step in steps
    ]
