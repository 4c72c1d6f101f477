"""Dropping, renaming, triggers, views, types, maintenance: what the running code would trip over."""

from postgast import pg_query_pb2 as pg

from migrations.guard.lint import indexes, rewrites
from migrations.guard.lint.case import Case
from migrations.guard.lint.facts import Name
from migrations.guard.lint.locks import Mode
from migrations.guard.lint.tables import cascade
from migrations.guard.lint.world import show

DROPPED = {
    pg.OBJECT_TABLE: "table",
    pg.OBJECT_VIEW: "view",
    pg.OBJECT_MATVIEW: "materialized view",
    pg.OBJECT_SCHEMA: "schema",
    pg.OBJECT_SEQUENCE: "sequence",
    pg.OBJECT_EXTENSION: "extension",
    pg.OBJECT_FOREIGN_TABLE: "foreign table",
}
# Dropped by "name ON table".
ON_TABLE = {pg.OBJECT_TRIGGER, pg.OBJECT_POLICY, pg.OBJECT_RULE}
IN_THE_WAY_FROM = Mode.SHARE
LOCK_MODES = {mode.value: mode for mode in Mode}


def drop(case: Case, statement: pg.DropStmt) -> None:
    if statement.remove_type == pg.OBJECT_INDEX:
        indexes.drop(case, statement)
    hurts = False
    for each in statement.objects:
        items = each.list.items if each.HasField("list") else [each]
        parts = tuple(item.string.sval for item in items)
        # What is no relation (a type, a function) has no such name: presumed to be in use.
        hurts = hurts or "" in parts or case.existing(case.world.dotted(parts))
        if statement.remove_type in ON_TABLE:
            case.lock(case.world.dotted(parts[:-1]), Mode.ACCESS_EXCLUSIVE)
        elif statement.remove_type in DROPPED:
            _gone(case, case.world.dotted(parts), DROPPED[statement.remove_type], statement)
    if statement.behavior == pg.DROP_CASCADE and hurts:
        cascade(case, "DROP")


def _gone(case: Case, name: Name, what: str, statement: pg.DropStmt) -> None:
    case.world.dropped.add(name)
    if not case.existing(name):
        case.world.new.discard(name)
        return
    if what == "table":
        case.lock(name, Mode.ACCESS_EXCLUSIVE)
    elif "view" in what:
        case.wait(name, Mode.ACCESS_EXCLUSIVE)
    case.report(
        f"drop-{what.replace(' ', '-')}",
        f"the old code still running uses the {what} {show(name)}: its statements fail"
        + ("; the data is gone for good" if what in ("table", "schema") else ""),
        f"-- release 1: no code uses {show(name)} any more"
        + (f"\nALTER TABLE {show(name)} RENAME TO {name[1]}_unused; -- and wait"
           if what == "table" else "")
        + "\n-- release 2, allowed by name with its reason:\n"
        f"{case.statement.text};",
    )  # fmt: skip


def truncate(case: Case, statement: pg.TruncateStmt) -> None:
    for each in statement.relations:
        name = case.world.name(each.range_var)
        if not case.existing(name):
            continue
        case.lock(name, Mode.ACCESS_EXCLUSIVE)
        case.report(
            "truncate",
            f"every row of {show(name)} is gone, under ACCESS EXCLUSIVE"
            + (", and of all tables that refer to it" if statement.behavior == pg.DROP_CASCADE
               else ""),
            f"DELETE FROM {show(name)} WHERE … ; -- in batches, if the rows are not wanted",
        )  # fmt: skip


def rename(case: Case, statement: pg.RenameStmt) -> None:
    kind = statement.rename_type
    name = case.world.name(statement.relation)
    if kind == pg.OBJECT_INDEX:
        _renamed_index(case, statement)
        return
    if kind in (pg.OBJECT_ATTRIBUTE, pg.OBJECT_TYPE):
        case.report(
            "rename-type",
            "the old code still names it as before: its casts fail",
            "-- a new type of the new name beside the old one; drop the old one a release later",
        )
        return
    if kind not in (
        pg.OBJECT_TABLE, pg.OBJECT_COLUMN, pg.OBJECT_VIEW, pg.OBJECT_MATVIEW, pg.OBJECT_TABCONSTRAINT,
        pg.OBJECT_TRIGGER, pg.OBJECT_POLICY,
    ):  # fmt: skip
        return
    after = (name[0], statement.newname)
    if not case.existing(name):
        if kind == pg.OBJECT_TABLE:
            loses = after in case.world.copies.get(name, set()) - case.world.triggered
            case.world.rename(name, after)
            appears(case, after)
            if loses:
                _loses_writes(case, name, after)
        return
    case.lock(name, Mode.ACCESS_EXCLUSIVE)
    if kind == pg.OBJECT_TABLE:
        case.world.dropped.add(name)
    if kind == pg.OBJECT_COLUMN:
        if (name, statement.subname) not in case.world.new_columns:
            _renamed_column(case, statement, name)
    elif kind in (pg.OBJECT_TABLE, pg.OBJECT_VIEW, pg.OBJECT_MATVIEW):
        _renamed_table(case, statement, name)


def _loses_writes(case: Case, name: Name, after: Name) -> None:
    case.report(
        "swap-loses-writes",
        f"what the application wrote into {show(after)} since the copy began is not in {show(name)}:"
        " after the swap it is gone",
        f"-- before the copy: a trigger on {show(after)} that writes each change to {show(name)} too;\n"
        f"-- then copy in batches with ON CONFLICT DO NOTHING, then:\n{case.statement.text};",
    )


def _renamed_index(case: Case, statement: pg.RenameStmt) -> None:
    table = case.world.indexes.pop(statement.relation.relname, None)
    if table is not None:
        case.world.indexes[statement.newname] = table


def _renamed_column(case: Case, statement: pg.RenameStmt, name: Name) -> None:
    old, new = statement.subname, statement.newname
    case.report(
        "rename-column",
        f"the old code still running asks {show(name)} for {old}: its statements fail at once",
        f"ALTER TABLE {show(name)} ADD COLUMN {new} …;\n-- write both (a trigger or the code), fill"
        f" in batches, read {new}, and drop {old} a release later",
    )


def _renamed_table(case: Case, statement: pg.RenameStmt, name: Name) -> None:
    new = statement.newname
    case.report(
        "rename-table",
        f"the old code still running asks for {show(name)}: its statements fail at once",
        f"BEGIN;\nSET LOCAL lock_timeout = '2s';\n{case.statement.text};\n"
        f"CREATE VIEW {show(name)} AS SELECT * FROM {new}; -- until no code asks for it\nCOMMIT;",
    )


def move_schema(case: Case, statement: pg.AlterObjectSchemaStmt) -> None:
    if statement.object_type not in (pg.OBJECT_TABLE, pg.OBJECT_VIEW, pg.OBJECT_MATVIEW):
        return
    name = case.world.name(statement.relation)
    if not case.existing(name):
        case.world.rename(name, (statement.newschema, name[1]))
        return
    case.lock(name, Mode.ACCESS_EXCLUSIVE)
    case.report(
        "rename-table",
        f"{show(name)} is not found under its old name any more: the old code's statements fail",
        f"BEGIN;\nSET LOCAL lock_timeout = '2s';\n{case.statement.text};\nCREATE VIEW {show(name)}"
        f" AS SELECT * FROM {statement.newschema}.{name[1]};\nCOMMIT;",
    )


def appears(case: Case, name: Name) -> None:
    """A view or table of this name is there again: a rename in this transaction broke nobody."""
    if not case.session.in_block:
        return
    marks = (
        f"asks for {show(name)}:",
        f"uses the view {show(name)}:",
        f"{show(name)} is not found under",
    )
    case.findings[:] = [
        each for each in case.findings
        if each.rule not in ("rename-table", "drop-view") or not any(m in each.message for m in marks)
    ]  # fmt: skip


def lock_table(case: Case, statement: pg.LockStmt) -> None:
    mode = LOCK_MODES[statement.mode]
    for each in statement.relations:
        name = case.world.name(each.range_var)
        case.lock(name, mode, nowait=statement.nowait)
        if case.existing(name) and mode >= IN_THE_WAY_FROM:
            case.report(
                "lock-table",
                f"{mode.stops} of {show(name)} wait from here until the transaction ends",
                "-- leave the locking to the statements that need it, each in a short transaction:"
                "\nSET LOCAL lock_timeout = '2s';",
            )


def refresh(case: Case, statement: pg.RefreshMatViewStmt) -> None:
    name = case.world.name(statement.relation)
    if not case.existing(name) and not statement.skip_data:
        case.slow(f"the first filling of {show(name)}")
    if statement.concurrent or not case.existing(name):
        return
    case.lock(name, Mode.ACCESS_EXCLUSIVE)
    case.report(
        "refresh-not-concurrent",
        f"who reads {show(name)} waits until it is filled again",
        f"REFRESH MATERIALIZED VIEW CONCURRENTLY {show(name)}; -- needs a unique index on it",
        size_of=name,
    )


def vacuum(case: Case, statement: pg.VacuumStmt) -> None:
    full = any(each.def_elem.defname == "full" for each in statement.options)
    names = [case.world.name(each.vacuum_relation.relation) for each in statement.rels]
    if any(case.existing(each) and not case.small(each) for each in names):
        case.slow(f"the reading of {show(names[0])}")
    if not full or (names and not any(map(case.existing, names))):
        return
    _rewritten(case, "VACUUM FULL", names[0] if names else None, "VACUUM (ANALYZE) …;")


def cluster(case: Case, statement: pg.ClusterStmt) -> None:
    name = case.world.name(statement.relation) if statement.HasField("relation") else None
    if name is None or case.existing(name):
        _rewritten(case, "CLUSTER", name, "-- pg_repack or pg_squeeze rewrite beside the traffic")


def _rewritten(case: Case, what: str, name: Name | None, rewrite: str) -> None:
    if name is not None:
        case.lock(name, Mode.ACCESS_EXCLUSIVE)
    where = show(name) if name else "every table"
    case.report(
        "table-rewrite",
        f"{what} copies {where} under ACCESS EXCLUSIVE: reads and writes wait until it is done",
        rewrite,
        size_of=name,
    )


def change_enum(case: Case, statement: pg.AlterEnumStmt) -> None:
    name = ".".join(each.string.sval for each in statement.type_name)
    if statement.old_val:
        case.report(
            "rename-enum-value",
            f"the old code still writes '{statement.old_val}' into {name}: its statements fail",
            f"ALTER TYPE {name} ADD VALUE '{statement.new_val}';\n-- in a later transaction, in"
            " batches, move the rows; the old value stays",
        )
    elif case.session.in_block:
        case.session.new_enum_values.add(statement.new_val)


def make_domain(case: Case, made: pg.CreateDomainStmt) -> None:
    checks = (pg.CONSTR_CHECK, pg.CONSTR_NOTNULL)
    strict = any(each.constraint.contype in checks for each in made.constraints)
    case.world.domains[made.domainname[-1].string.sval] = strict


def change_domain(case: Case, statement: pg.AlterDomainStmt) -> None:
    """A new constraint is tried on every column of that type, under SHARE locks on all their tables."""
    name = statement.type_name[-1].string.sval
    constraint: pg.Node = getattr(statement, "def")
    adds = statement.subtype == "C" and not constraint.constraint.skip_validation
    if name in case.world.domains:
        case.world.domains[name] |= statement.subtype in ("C", "O")
    elif adds or statement.subtype == "O":
        called = constraint.constraint.conname or f"{name}_check"
        test = rewrites.expression(constraint.constraint.raw_expr) if adds else "VALUE IS NOT NULL"
        case.report(
            "domain-constraint-without-not-valid",
            f"every table with a column of type {name} is read through while writes to it wait",
            f"ALTER DOMAIN {name} ADD CONSTRAINT {called} CHECK ({test}) NOT VALID;\n"
            f"{rewrites.LATER}\nALTER DOMAIN {name} VALIDATE CONSTRAINT {called};",
        )


def move_all(case: Case) -> None:
    case.report(
        "tablespace-move",
        "every table or index of the tablespace is copied under ACCESS EXCLUSIVE, one after the other",
        "REINDEX (TABLESPACE …) INDEX CONCURRENTLY …; -- indexes one by one; tables by pg_repack",
    )


def change_server(case: Case) -> None:
    case.report(
        "alter-system",
        "it changes every database of this server, at the next reload, for good; no rollback takes it"
        " back",
        "-- for this connection: SET …; for a role or database: ALTER ROLE … SET …, ALTER DATABASE …"
        " SET …",
    )


def change_type(case: Case, statement: pg.AlterTableStmt) -> None:
    """ALTER TYPE … of a composite: tables that hold it are changed with it."""
    if statement.objtype == pg.OBJECT_TYPE:
        case.report(
            "alter-composite-type",
            "every table with a column of this type is locked and may be rewritten",
            "-- a new type and a new column beside the old one",
        )


def own_or_reassign(case: Case, what: str) -> None:
    case.report(
        "drop-owned",
        f"{what} takes all that a role owns away, by no name in this file",
        "-- name each object: ALTER … OWNER TO …, REVOKE …, DROP …",
    )
