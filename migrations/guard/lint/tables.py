"""CREATE TABLE and ALTER TABLE: the locks they take and the work they do under them."""

from postgast import pg_query_pb2 as pg

from migrations.guard.lint import columns, constraints
from migrations.guard.lint.case import Case
from migrations.guard.lint.facts import Name
from migrations.guard.lint.locks import Mode, of_command
from migrations.guard.lint.world import show

REWRITES = {
    pg.AT_SetLogged: "SET LOGGED",
    pg.AT_SetUnLogged: "SET UNLOGGED",
    pg.AT_SetTableSpace: "SET TABLESPACE",
    pg.AT_SetAccessMethod: "SET ACCESS METHOD",
    pg.AT_SetExpression: "SET EXPRESSION",
}
NOT_TABLES = {
    pg.OBJECT_VIEW, pg.OBJECT_SEQUENCE, pg.OBJECT_TYPE, pg.OBJECT_FOREIGN_TABLE,
}  # fmt: skip


def create(case: Case, made: pg.CreateStmt) -> None:
    name = case.world.name(made.relation)
    live = case.facts is not None and name in case.facts.tables
    there = live and name not in case.world.dropped
    if there:
        case.note(
            "already-there", f"{show(name)} is in this database: it is not new to what follows"
        )
    if not there:
        name = case.world.create(made.relation)
    for parent in made.inh_relations:
        partition = made.partbound.strategy != ""
        mode = Mode.ACCESS_EXCLUSIVE if partition else Mode.SHARE_UPDATE_EXCLUSIVE
        case.lock(case.world.name(parent.range_var), mode)
    if there:
        return
    for element in [*made.table_elts, *made.constraints]:
        own = [element] if element.HasField("constraint") else element.column_def.constraints
        for each in own:
            constraints.add(case, name, each.constraint)


def create_as(case: Case, made: pg.CreateTableAsStmt, read: list[Name]) -> None:
    name = case.world.create(made.into.rel)
    case.world.copies[name] = set(read)
    if read and not made.into.skip_data:
        case.long_work(f"the copy into {made.into.rel.relname}", read, locks_rows=False)


def alter(case: Case, statement: pg.AlterTableStmt) -> None:
    name = case.world.name(statement.relation)
    if statement.objtype == pg.OBJECT_INDEX:
        _alter_index(case, statement)
        return
    if statement.objtype in NOT_TABLES:
        return
    commands = [each.alter_table_cmd for each in statement.cmds]
    case.lock(name, max(map(of_command, commands)))
    for each in commands:
        command(case, name, each)


def _alter_index(case: Case, statement: pg.AlterTableStmt) -> None:
    table = case.world.indexes.get(statement.relation.relname)
    moves = any(each.alter_table_cmd.subtype == pg.AT_SetTableSpace for each in statement.cmds)
    if moves and (table is None or case.existing(table)):
        case.report(
            "tablespace-move",
            "the index is copied under ACCESS EXCLUSIVE: what reads it waits",
            f"REINDEX (TABLESPACE …) INDEX CONCURRENTLY {statement.relation.relname};",
        )


def command(case: Case, table: Name, given: pg.AlterTableCmd) -> None:
    definition: pg.Node = getattr(given, "def")
    kind = given.subtype
    if kind == pg.AT_AddConstraint:
        constraints.add(case, table, definition.constraint)
        return
    if kind == pg.AT_ValidateConstraint:
        constraints.validate(case, table, given.name)
        return
    if kind == pg.AT_AddColumn:
        for each in definition.column_def.constraints:
            if each.constraint.contype == pg.CONSTR_FOREIGN:
                case.lock(case.world.name(each.constraint.pktable), Mode.SHARE_ROW_EXCLUSIVE)
    if kind == pg.AT_AttachPartition:
        _attach(case, table, definition.partition_cmd)
        return
    if not case.existing(table):
        return
    match kind:
        case pg.AT_AddColumn:
            there = given.missing_ok and _known_column(case, table, definition.column_def.colname)
            if not there:
                columns.add_column(case, table, definition.column_def)
        case pg.AT_AlterColumnType:
            columns.change_type(case, table, given.name, definition.column_def)
        case pg.AT_SetNotNull:
            columns.set_not_null(case, table, given.name)
        case pg.AT_DropColumn:
            columns.drop_column(case, table, given.name)
        case _:
            _other(case, table, given)
    if given.behavior == pg.DROP_CASCADE:
        cascade(case, f"DROP … of {show(table)}")


def _known_column(case: Case, table: Name, column: str) -> bool:
    return case.facts is not None and (*table, column) in case.facts.columns


def _other(case: Case, table: Name, given: pg.AlterTableCmd) -> None:
    definition: pg.Node = getattr(given, "def")
    kind = given.subtype
    if REWRITES.get(kind):
        rule = "tablespace-move" if kind == pg.AT_SetTableSpace else "table-rewrite"
        case.report(
            rule,
            f"{REWRITES[kind]} copies all of {show(table)} under ACCESS EXCLUSIVE: reads and writes"
            " wait until it is done",
            f"-- a new table with that property: copy in batches, keep it by a trigger, then swap\n"
            f"CREATE TABLE {table[1]}_new (LIKE {show(table)} INCLUDING ALL);",
            size_of=table,
        )
    elif kind == pg.AT_DetachPartition and not definition.partition_cmd.concurrent:
        part = show(case.world.name(definition.partition_cmd.name))
        case.report(
            "detach-partition-not-concurrent",
            f"ACCESS EXCLUSIVE on {show(table)} and all that reads it, until the transaction ends",
            f"ALTER TABLE {show(table)} DETACH PARTITION {part} CONCURRENTLY;",
        )
    elif kind in (pg.AT_DisableTrig, pg.AT_DisableTrigAll, pg.AT_DisableTrigUser):
        case.report(
            "disable-trigger",
            f"what the trigger of {show(table)} keeps true is kept for nobody while it is off, and"
            " writes wait until this transaction ends",
            "SET LOCAL session_replication_role = replica; -- for this session alone, or make the"
            " trigger's function look at a setting",
        )
    elif kind == pg.AT_EnableRowSecurity and table not in case.world.policies:
        case.report(
            "enable-row-security-without-policy",
            f"without a policy nobody but the owner sees a row of {show(table)} from then on",
            f"BEGIN;\nSET LOCAL lock_timeout = '2s';\nCREATE POLICY … ON {show(table)} …;\n"
            f"{case.statement.text};\nCOMMIT;",
        )


def _attach(case: Case, parent: Name, given: pg.PartitionCmd) -> None:
    part = case.world.name(given.name)
    case.lock(part, Mode.ACCESS_EXCLUSIVE)
    if not case.existing(part):
        return
    proven = any(owner == part and check.validated for (owner, _), check in
                 case.world.constraints.items())  # fmt: skip
    if case.facts:
        proven = proven or any(each.table == part and each.validated for each in case.facts.checks)
    if not proven:
        case.report(
            "attach-partition-without-check",
            f"{show(part)} is read through under ACCESS EXCLUSIVE to see that its rows belong there",
            f"ALTER TABLE {show(part)} ADD CONSTRAINT {part[1]}_bounds CHECK (…the bounds…) NOT"
            f" VALID;\n-- later: ALTER TABLE {show(part)} VALIDATE CONSTRAINT {part[1]}_bounds;\n"
            f"{case.statement.text};",
            size_of=part,
        )


def cascade(case: Case, what: str) -> None:
    case.report(
        "drop-cascade",
        f"{what} CASCADE also drops what this file does not name: views, foreign keys, defaults",
        "-- name and drop each dependent thing first, then drop without CASCADE",
    )
