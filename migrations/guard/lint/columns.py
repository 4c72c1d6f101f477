"""ALTER TABLE on columns: what rewrites the table, what scans it, what the old code would miss."""

import re

from postgast import pg_query_pb2 as pg

from migrations.guard.lint import rewrites
from migrations.guard.lint.builtins import NOT_VOLATILE
from migrations.guard.lint.case import Case
from migrations.guard.lint.facts import Name
from migrations.guard.lint.source import walk
from migrations.guard.lint.world import show

SERIALS = {
    "serial": "int4", "bigserial": "int8", "smallserial": "int2",
    "serial4": "int4", "serial8": "int8", "serial2": "int2",
}  # fmt: skip
SHAPE = re.compile(r"([a-z ]+?)(?:\((\d+)(?:,(-?\d+))?\))?( with(?:out)? time zone)?")
SHORT = {
    "int2": "smallint", "int4": "integer", "int8": "bigint", "varchar": "character varying",
    "bpchar": "character", "timestamptz": "timestamp with time zone",
    "timestamp": "timestamp without time zone", "bool": "boolean", "decimal": "numeric",
    "timetz": "time with time zone", "time": "time without time zone", "varbit": "bit varying",
    "float4": "real", "float8": "double precision",
}  # fmt: skip


def add_column(case: Case, table: Name, column: pg.ColumnDef) -> None:
    """The whole of ADD COLUMN on an existing table; foreign keys and checks of the column too."""
    kinds = {each.constraint.contype: each.constraint for each in column.constraints}
    kind = column.type_name.names[-1].string.sval
    required = pg.CONSTR_NOTNULL in kinds or pg.CONSTR_PRIMARY in kinds
    default = kinds.get(pg.CONSTR_DEFAULT)
    counted = kind in SERIALS or pg.CONSTR_IDENTITY in kinds
    volatile = volatile_call(case, default.raw_expr) if default else None
    generated = kinds.get(pg.CONSTR_GENERATED)
    null_default = default is None or default.raw_expr.a_const.isnull
    if counted or volatile:
        _volatile_default(case, table, column, "nextval" if counted else volatile or "")
    elif _constrained_domain(case, kind):
        case.report(
            "add-column-constrained-domain",
            f"the domain {kind} has a constraint: {show(table)} is rewritten under ACCESS EXCLUSIVE"
            " to try it on each row",
            f"-- the domain's own type, then a CHECK … NOT VALID, validated later\n"
            f"{rewrites.column(table, column)}",
            at=column.location, size_of=table,
        )  # fmt: skip
    elif generated and generated.generated_kind != "v":
        _stored(case, table, column, generated)
    elif required and null_default and not generated:
        blank = rewrites.BLANKS.get(kind)
        bare = rewrites.column(table, column).removesuffix(";")
        case.report(
            "add-column-not-null-without-default",
            f"fails as soon as {show(table)} has a row, and the old code's INSERTs fail after it",
            f"{bare} NOT NULL DEFAULT {blank};" if blank else
            f"{bare}; -- the new code fills it; the old rows in batches; then\n"
            f"{rewrites.not_null(table, column.colname)}",
            at=column.location,
        )  # fmt: skip
    _column_constraints(case, table, column)
    case.world.new_columns.add((table, column.colname))


def _volatile_default(case: Case, table: Name, column: pg.ColumnDef, volatile: str) -> None:
    name, kind = column.colname, column.type_name.names[-1].string.sval
    kinds = {each.constraint.contype: each.constraint for each in column.constraints}
    bare = pg.ColumnDef()
    bare.CopyFrom(column)
    before = ""
    if pg.CONSTR_DEFAULT in kinds:
        value = rewrites.expression(kinds[pg.CONSTR_DEFAULT].raw_expr)
    else:
        sequence = f"{table[1]}_{name}_seq"
        value = f"nextval('{sequence}')"
        bare.type_name.names[-1].string.sval = SERIALS.get(kind, kind)
        before = f"CREATE SEQUENCE {sequence};\n"
    steps = [
        before + rewrites.column(table, bare), rewrites.set_default(table, name, value),
        rewrites.fill(table, name, value),
    ]  # fmt: skip
    if pg.CONSTR_NOTNULL in kinds or pg.CONSTR_DEFAULT not in kinds:
        steps.append(rewrites.not_null(table, name))
    case.report(
        "add-column-volatile-default",
        f"{volatile}() is asked for each row: {show(table)} is rewritten under ACCESS EXCLUSIVE,"
        " reads and writes wait until it is done",
        "\n".join(steps), at=column.location, size_of=table,
    )  # fmt: skip


def _stored(case: Case, table: Name, column: pg.ColumnDef, generated: pg.Constraint) -> None:
    name = column.colname
    value = rewrites.expression(generated.raw_expr)
    trigger = rewrites.kept_by_trigger(table, name, rewrites.of_new_row(generated.raw_expr))
    fill = rewrites.fill(table, name, value, f"{name} IS DISTINCT FROM {value}")
    case.report(
        "add-column-generated-stored",
        f"a stored generated column rewrites {show(table)} under ACCESS EXCLUSIVE",
        f"{rewrites.column(table, column)}\n{trigger}\n{fill}",
        at=column.location, size_of=table,
    )  # fmt: skip


def _constrained_domain(case: Case, kind: str) -> bool:
    live = case.facts is not None and kind in case.facts.strict_domains
    return case.world.domains.get(kind, live)


def _column_constraints(case: Case, table: Name, column: pg.ColumnDef) -> None:
    bare = rewrites.column(table, column)
    name = f"{table[1]}_{column.colname}"
    for constraint in (each.constraint for each in column.constraints):
        if constraint.contype == pg.CONSTR_CHECK:
            late = rewrites.not_valid(table, constraint, f"{name}_check")
            case.report(
                "add-constraint-without-not-valid",
                f"the CHECK is tried on every row of {show(table)} under ACCESS EXCLUSIVE",
                f"{bare}\n{late}", at=constraint.location, size_of=table,
            )  # fmt: skip
        elif constraint.contype in (pg.CONSTR_UNIQUE, pg.CONSTR_PRIMARY):
            case.report(
                "add-unique-without-index",
                f"the index is built under ACCESS EXCLUSIVE on {show(table)}: reads and writes wait",
                f"{bare}\nCREATE UNIQUE INDEX CONCURRENTLY {name}_key ON {show(table)}"
                f" ({column.colname});\nALTER TABLE {show(table)} ADD CONSTRAINT {name}_key"
                f" UNIQUE USING INDEX {name}_key;",
                at=constraint.location, size_of=table,
            )  # fmt: skip
        elif constraint.contype == pg.CONSTR_FOREIGN:
            _inline_foreign_key(case, table, column, constraint)


def _inline_foreign_key(
    case: Case, table: Name, column: pg.ColumnDef, constraint: pg.Constraint
) -> None:
    other = case.world.name(constraint.pktable)
    if not case.existing(other) or other == table:
        return
    named = pg.Constraint()
    named.CopyFrom(constraint)
    named.fk_attrs.append(pg.Node(string=pg.String(sval=column.colname)))
    name = constraint.conname or f"{table[1]}_{column.colname}_fkey"
    case.report(
        "add-column-inline-foreign-key",
        f"one statement takes ACCESS EXCLUSIVE on {show(table)} and then waits for"
        f" {show(other)}; with a default it checks every row as well",
        f"{rewrites.column(table, column)}\n{rewrites.LATER}\n"
        f"{rewrites.not_valid(table, named, name)}",
        at=constraint.location,
    )


def change_type(case: Case, table: Name, column: str, definition: pg.ColumnDef) -> None:
    """Without a database the old type is not known: only what as a rule widens a varchar is let through."""
    after = type_text(definition.type_name)
    known = case.facts.columns.get((*table, column)) if case.facts else None
    plain = definition.raw_default.WhichOneof("node") is None
    if plain and not definition.HasField("coll_clause"):
        if known is not None and is_free(known, after):
            return
        if known is None and re.fullmatch(r"text|character varying(\(\d+\))?", after):
            case.note(
                "alter-column-type",
                f"{column} TYPE {after} is free if it was a shorter varchar, a rewrite if it was not;"
                " give --database-url to know",
            )
            return
    wider = pg.ColumnDef(colname=f"{column}_new", type_name=definition.type_name)
    value = column if plain else rewrites.expression(definition.raw_default)
    of_new = f"NEW.{column}" if plain else rewrites.of_new_row(definition.raw_default)
    missing = f"{column}_new IS NULL AND {column} IS NOT NULL"
    case.report(
        "alter-column-type",
        f"{show(table)}.{column} to {after} rewrites the table and its indexes, or reads it through,"
        " under ACCESS EXCLUSIVE; the old code may not bear the new type",
        f"{rewrites.column(table, wider)}\n"
        f"{rewrites.kept_by_trigger(table, wider.colname, of_new)}\n"
        f"{rewrites.fill(table, wider.colname, value, missing)}\n"
        f"-- a release later the code uses {column}_new; another one later {column} is dropped",
        at=definition.location, size_of=table,
    )  # fmt: skip


def is_free(before: str, after: str) -> bool:
    """PostgreSQL changes such a type in its catalogs alone.

    >>> is_free("character varying(20)", "character varying(40)")
    True
    """
    was, will = SHAPE.fullmatch(before), SHAPE.fullmatch(after)
    if before == after:
        return True
    if was is None or will is None:
        return False
    kinds = (was[1], will[1])
    text = {"text", "character varying"}
    if set(kinds) <= text:
        return will[2] is None or (was[2] is not None and int(will[2]) >= int(was[2]))
    if kinds == ("numeric", "numeric"):
        if will[2] is None:
            return True
        same_scale = (was[3] or "0") == (will[3] or "0")
        return was[2] is not None and same_scale and int(will[2]) >= int(was[2])
    if kinds == ("bit varying", "bit varying"):
        return will[2] is None or (was[2] is not None and int(will[2]) >= int(was[2]))
    return kinds == ("cidr", "inet")


def set_not_null(case: Case, table: Name, column: str) -> None:
    """Without a scan only where a valid CHECK (column IS NOT NULL) is there (PostgreSQL 12)."""
    if case.facts and any(
        each.table == table and each.validated and proves_not_null(each.definition, column)
        for each in case.facts.checks
    ):
        return
    for (owner, name), check in case.world.constraints.items():
        proven = check.proves == column or (check.proves is None and column in name)
        if owner == table and check.validated and proven:
            return
    case.report(
        "set-not-null-without-check",
        f"{show(table)} is read through under ACCESS EXCLUSIVE: reads and writes wait",
        rewrites.not_null(table, column),
        size_of=table,
    )


def proves_not_null(definition: str, column: str) -> bool:
    return definition.replace('"', "").startswith(f"CHECK (({column} IS NOT NULL))")


def drop_column(case: Case, table: Name, column: str) -> None:
    if (table, column) in case.world.new_columns:
        return
    case.report(
        "drop-column",
        f"the old code still running reads and writes {show(table)}.{column}: its statements fail;"
        " the data is gone for good",
        f"-- release 1: no code names {column} any more (ALTER COLUMN {column} DROP NOT NULL if it"
        f" has no default)\n-- release 2, allowed by name with its reason:\n"
        f"ALTER TABLE {show(table)} DROP COLUMN {column};",
    )


def volatile_call(case: Case, expression: pg.Node) -> str | None:
    """The first function in a default that may give each row another value."""
    for each in walk(expression):
        if isinstance(each, pg.FuncCall):
            names = [part.string.sval for part in each.funcname]
            live = case.facts.functions.get(names[-1]) if case.facts else None
            stable = names[-1] in case.world.stable_functions or (
                live is not None and live.volatility != "v"
            )
            builtin = names[0] == "pg_catalog" or len(names) == 1
            if not stable and not (builtin and names[-1] in NOT_VOLATILE):
                return str(names[-1])
    return None


def type_text(given: pg.TypeName) -> str:
    """As format_type() writes it."""
    name = given.names[-1].string.sval
    name = SHORT.get(name, name)
    sizes = [each.a_const.ival.ival for each in given.typmods]
    size = f"({','.join(map(str, sizes))})" if sizes else ""
    if "time zone" in name and size:
        head, _, tail = name.partition(" ")
        name, size = f"{head}{size} {tail}", ""
    if name == "numeric" and len(sizes) == 1:
        size = f"({sizes[0]},0)"
    return f"{name}{size}" + "[]" * len(given.array_bounds)
