"""`python -m migrations.lint`: each revision's SQL, rendered without a database, read by squawk (.squawk.toml)."""

import argparse
import contextlib
import io
import json
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

ROOT = Path(__file__).resolve().parent.parent
# Everything after it runs on databases that are in use; the storefront's own picture below it does not.
LIVE_FROM = "d6d022bcff3b"
# What a revision may do although a rule says no: each with the reason it is safe there.
ALLOWED = {
    (
        "007",
        "require-concurrent-index-creation",
    ): "loyalty_accounts is empty until 009 lets loyalty in",
    **dict.fromkeys(
        [(revision, "ban-drop-constraint") for revision in ("014a", "015", "015a", "016")],
        "each is replaced in the same transaction, by a stricter or a wider one of the same name",
    ),
    **dict.fromkeys(
        [
            ("015", "adding-foreign-key-constraint"),
            ("015", "constraint-missing-not-valid"),
            ("015a", "constraint-missing-not-valid"),
        ],
        "pricing_configs and rollouts have one row for each price version: looked at in a moment",
    ),
    (
        "015",
        "ban-drop-not-null",
    ): "only a version of a cohort leaves them out, and an earlier release publishes none",
}


@dataclass(frozen=True)
class Finding:
    """`line` counts in the SQL of the revision, from 1."""

    revision: str
    line: int
    rule: str
    message: str

    def __str__(self) -> str:
        return f"migration {self.revision}, SQL line {self.line}: {self.rule}: {self.message}"


def main() -> int:
    config = Config(toml_file=ROOT / "pyproject.toml")
    revisions = list(rendered(config))
    problems = [each for revision, sql in revisions for each in findings(revision, sql)]
    print("\n".join(map(str, problems)) or f"squawk: {len(revisions)} revisions, no findings")
    return 1 if problems else 0


def rendered(config: Config) -> Iterator[tuple[str, str]]:
    """Every live revision with the SQL that `alembic upgrade` would run for it alone, oldest first."""
    scripts = ScriptDirectory.from_config(config)
    chain = list(scripts.walk_revisions(LIVE_FROM, "heads"))
    for script in reversed(chain[:-1]):
        yield script.revision, _sql(config, f"{script.down_revision}:{script.revision}")


def _sql(config: Config, steps: str) -> str:
    made = io.StringIO()
    config.output_buffer = made
    # Only the dialect of this URL matters: nothing connects.
    config.cmd_opts = argparse.Namespace(x=["url=postgresql://nobody@localhost/nothing"])
    with contextlib.redirect_stderr(io.StringIO()):  # alembic narrates
        command.upgrade(config, steps, sql=True)
    return made.getvalue()


def findings(revision: str, sql: str) -> list[Finding]:
    """What squawk says against one revision; an exception in ALLOWED that is not needed is one too."""
    squawk = Path(sysconfig.get_path("scripts")) / "squawk"
    done = subprocess.run(
        [squawk, "--reporter=Json", f"--config={ROOT / '.squawk.toml'}"],
        input=sql,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode not in (0, 1):
        raise SystemExit(f"squawk failed: {done.stderr.strip()}")
    said = [
        Finding(revision, each["line"] + 1, each["rule_name"], each["message"])
        for each in json.loads(done.stdout)
    ]
    allowed = {rule for name, rule in ALLOWED if name == revision}
    unneeded = allowed - {each.rule for each in said}
    return [each for each in said if each.rule not in allowed] + [
        Finding(revision, 0, rule, "is allowed in migrations/lint.py but not needed any more")
        for rule in sorted(unneeded)
    ]


if __name__ == "__main__":
    sys.exit(main())
