"""Constraints: which are added without looking at the rows, and what validating holds."""

from postgast import pg_query_pb2 as pg

from migrations.guard.lint import rewrites
from migrations.guard.lint.case import Case
from migrations.guard.lint.columns import set_not_null
from migrations.guard.lint.facts import Name
from migrations.guard.lint.locks import Mode
from migrations.guard.lint.world import CheckState, show


def add(case: Case, table: Name, constraint: pg.Constraint) -> None:
    """`table` may be new: then only the table it points to can be hurt."""
    name = constraint.conname or f"{table[1]}_constraint"
    if constraint.contype == pg.CONSTR_FOREIGN:
        case.lock(case.world.name(constraint.pktable), Mode.SHARE_ROW_EXCLUSIVE)
    if case.existing(table):
        _judge(case, table, constraint, name)
    _remember(case, table, constraint, name)


def _judge(case: Case, table: Name, constraint: pg.Constraint, name: str) -> None:
    match constraint.contype:
        case pg.CONSTR_CHECK | pg.CONSTR_FOREIGN:
            _rows_are_checked(case, table, constraint, name)
        case pg.CONSTR_NOTNULL if not constraint.skip_validation:
            set_not_null(case, table, constraint.keys[0].string.sval)
        case pg.CONSTR_PRIMARY | pg.CONSTR_UNIQUE if not constraint.indexname:
            kind = "PRIMARY KEY" if constraint.contype == pg.CONSTR_PRIMARY else "UNIQUE"
            columns = ", ".join(each.string.sval for each in constraint.keys)
            case.report(
                "add-unique-without-index",
                f"the index is built under ACCESS EXCLUSIVE on {show(table)}: reads and writes wait",
                f"CREATE UNIQUE INDEX CONCURRENTLY {name} ON {show(table)} ({columns});\n"
                f"ALTER TABLE {show(table)} ADD CONSTRAINT {name} {kind} USING INDEX {name};",
                at=constraint.location, size_of=table,
            )  # fmt: skip
        case pg.CONSTR_EXCLUSION:
            case.report(
                "add-exclusion-constraint",
                f"its index is built under ACCESS EXCLUSIVE on {show(table)}, and there is no"
                " CONCURRENTLY for it",
                f"-- a new table with the constraint: copy in batches, then swap; or\n-- CHECK … NOT"
                f" VALID or a trigger on {show(table)}",
                at=constraint.location, size_of=table,
            )  # fmt: skip


def _remember(case: Case, table: Name, constraint: pg.Constraint, name: str) -> None:
    column = None
    test = constraint.raw_expr.null_test
    if constraint.contype == pg.CONSTR_CHECK and test.nulltesttype == pg.IS_NOT_NULL:
        column = test.arg.column_ref.fields[-1].string.sval
    if constraint.contype == pg.CONSTR_NOTNULL and constraint.keys:
        column = constraint.keys[0].string.sval
    case.world.constraints[table, name] = CheckState(
        column, not constraint.skip_validation, case.world.transactions
    )


def _rows_are_checked(case: Case, table: Name, constraint: pg.Constraint, name: str) -> None:
    if constraint.skip_validation:
        return
    mode = "ACCESS EXCLUSIVE" if constraint.contype == pg.CONSTR_CHECK else "SHARE ROW EXCLUSIVE"
    where = show(table)
    if constraint.contype == pg.CONSTR_FOREIGN:
        where += f" and {show(case.world.name(constraint.pktable))}"
    case.report(
        "add-constraint-without-not-valid",
        f"every row of {show(table)} is checked while {mode} is held on {where}",
        rewrites.not_valid(table, constraint, name),
        at=constraint.location, size_of=table,
    )  # fmt: skip


def validate(case: Case, table: Name, name: str) -> None:
    check = case.world.constraints.get((table, name))
    held = case.session.held.get(table, Mode.ACCESS_SHARE)
    together = case.session.in_block and held >= Mode.SHARE
    if together and case.existing(table):
        case.report(
            "validate-in-same-transaction",
            f"the scan runs while this transaction still holds {held} on {show(table)}:"
            f" {held.stops} wait until it is done, as without NOT VALID"
            + ("" if not case.session.wrapped else " (a file without BEGIN is one transaction)"),
            f"COMMIT;\n-- in a transaction of its own:\n{case.statement.text};",
            size_of=table,
        )
    if case.existing(table) and not together:
        case.long_work(f"the validation of {name}", [table], locks_rows=False)
    if check is None:
        case.world.constraints[table, name] = CheckState(None, True, case.world.transactions)
    else:
        check.validated = True
