"""squawk as a second reader: for what it knows and the rules here do not."""

import json
import subprocess
import sysconfig
import tempfile
from pathlib import Path

from migrations.guard.lint.report import Finding

# Its other rules are either judged here, knowing what is new, small, locked and bounded (foreign keys, NOT VALID,
# indexes, columns, types, renames, drops, transactions, timeouts), or are no danger to a live database:
#   prefer-text-field, prefer-timestamp-tz, ban-char-field, prefer-identity, prefer-bigint-over-int,
#   prefer-bigint-over-smallint: the choice of a type; a change of type is judged when it comes
#   prefer-robust-stmts: IF NOT EXISTS hides drift, and an INVALID index
#   prefer-repack: names a tool
#   ban-alter-domain-with-add-constraint: judged here, knowing which domains are new
#   ban-drop-not-null, ban-set-default, ban-create-domain-with-constraint: no lock beyond a moment
#   require-table-schema, require-enum-value-ordering, unused-ignore: style
KEPT = {
    "ban-drop-database": "-- not in a migration",
    "identifier-too-long": "-- a name of at most 63 bytes; PostgreSQL cuts longer ones off silently",
}


class SquawkMissing(Exception):
    """squawk-cli is not installed, or failed."""


def findings(sql: str) -> list[Finding]:
    """Raises SquawkMissing."""
    program = Path(sysconfig.get_path("scripts")) / "squawk"
    with tempfile.TemporaryDirectory() as empty:  # no .squawk.toml of whoever calls
        try:
            done = subprocess.run(
                [program, "--reporter=json"],
                input=sql, capture_output=True, text=True, check=False, cwd=empty,
            )  # fmt: skip
        except FileNotFoundError as error:
            raise SquawkMissing("squawk-cli is not installed") from error
    if done.returncode not in (0, 1):
        raise SquawkMissing(f"squawk failed: {done.stderr.strip()}")
    return [
        Finding(each["rule_name"], each["line"] + 1, each["message"], KEPT[each["rule_name"]])
        for each in json.loads(done.stdout)
        if each["rule_name"] in KEPT
    ]
