"""squawk as a second reader: for what it knows and the rules here do not."""

import json
import subprocess
import sysconfig
import tempfile
from collections.abc import Sequence
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


def findings(texts: Sequence[str]) -> list[list[Finding]]:
    """Of each text its own, from one call for all.  Raises SquawkMissing."""
    program = Path(sysconfig.get_path("scripts")) / "squawk"
    found: list[list[Finding]] = [[] for _ in texts]
    with tempfile.TemporaryDirectory() as folder:  # no .squawk.toml of whoever calls
        names = [f"{number}.sql" for number in range(len(texts))]
        for name, text in zip(names, texts, strict=True):
            (Path(folder) / name).write_text(text)
        try:
            done = subprocess.run(
                [program, "--reporter=json", *names],
                capture_output=True, text=True, check=False, cwd=folder,
            )  # fmt: skip
        except FileNotFoundError as error:
            raise SquawkMissing("squawk-cli is not installed") from error
    if done.returncode not in (0, 1):
        raise SquawkMissing(f"squawk failed: {done.stderr.strip()}")
    for each in json.loads(done.stdout) if texts else []:
        rule = each["rule_name"]
        if rule in KEPT:
            of = found[int(Path(each["file"]).stem)]
            of.append(Finding(rule, each["line"] + 1, each["message"], KEPT[rule]))
    return found
