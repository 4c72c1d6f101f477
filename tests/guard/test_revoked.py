"""A revision may take a right away by its name; a right that goes otherwise is a fault."""

import pytest

from migrations.guard.compare import Expected, Severity, compare
from migrations.guard.declared import revoked
from migrations.guard.snapshot import Snapshot

BEFORE = ("app=arwd/owner", "owner=arwdDxt/owner")


def with_grants(grants: tuple[str, ...]) -> Snapshot:
    held = {"pricing.rollouts": grants}
    return Snapshot(
        instant="", revision=(), tables={}, constraints={}, indexes={}, grants=held, objects={}
    )


@pytest.mark.parametrize(
    ("sql", "after", "severity"),
    [
        ("REVOKE DELETE ON pricing.rollouts FROM app", "app=arw/owner", Severity.CHANGE),
        ("REVOKE UPDATE, DELETE ON TABLE pricing.rollouts FROM app", "app=ar/owner", Severity.CHANGE),
        ("REVOKE DELETE ON pricing.previews, pricing.rollouts FROM app;", "app=arw/owner", Severity.CHANGE),
        # Another table's, another role's, another right; and more than was said.
        ("REVOKE DELETE ON pricing.previews FROM app", "app=arw/owner", Severity.NEW),
        ("REVOKE DELETE ON pricing.rollouts FROM other", "app=arw/owner", Severity.NEW),
        ("REVOKE UPDATE ON pricing.rollouts FROM app", "app=arw/owner", Severity.NEW),
        ("REVOKE DELETE ON pricing.rollouts FROM app", "app=ar/owner", Severity.NEW),
        ("REVOKE ALL ON pricing.rollouts FROM app", "", Severity.NEW),
    ],
)  # fmt: skip
def test_a_right_goes_only_where_a_statement_names_it(
    sql: str, after: str, severity: Severity
) -> None:
    left = tuple(entry for entry in (after, BEFORE[1]) if entry)
    meant = Expected(revoked=frozenset(revoked([sql])))
    [found] = compare(with_grants(BEFORE), with_grants(left), meant)
    assert (found.severity, found.kind) == (severity, "grant")
