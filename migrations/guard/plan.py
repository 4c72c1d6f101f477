"""The plan, for people and for scripts: each step's SQL and, once rehearsed, what it really did."""

from collections.abc import Iterator, Sequence

from migrations.guard.policy import Policy
from migrations.guard.rehearse import STOPS_WRITERS, Rehearsal, Rehearsed
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
            yield f"      {'; '.join(_did(each, rehearsal.existed))}"
    if rehearsal is not None:
        yield f"rehearsed in {rehearsal.seconds:.1f} s"
        for step, table, ms in rehearsal.blocks():
            yield f"  {step}: writers of {table} wait up to {ms:.0f} ms"
        rewritten = {table for each in rehearsal.statements for table, _ in each.rewrites}
        if not rewritten & rehearsal.existed:
            yield "  no table that was there is rewritten"


def _did(each: Rehearsed, existed: frozenset[str]) -> Iterator[str]:
    """What concerns others first: locks on tables that were there, grouped; then those nobody else knows yet."""
    yield f"{each.ms:.1f} ms"
    modes: dict[str, list[str]] = {}
    for table, mode in each.locks:
        modes.setdefault(mode if table in existed else "", []).append(table)
    made = modes.pop("", [])
    for mode, tables in modes.items():
        wait = " (writers wait)" if mode in STOPS_WRITERS else ""
        yield f"{mode} on {', '.join(tables)}{wait}"
    if made:
        yield f"locks on new {', '.join(sorted(set(made)))}"
    yield from (f"rewrote {rows} rows of {table}" for table, rows in each.rewrites)


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
