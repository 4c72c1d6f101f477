"""The same change without the danger, as SQL to paste: made from the statement's own parse tree."""

import postgast
from postgast import pg_query_pb2 as pg

from migrations.guard.lint.facts import Name
from migrations.guard.lint.world import show

BATCH_ROWS = 1000
AGAIN = "-- again and again until it changes no row, each in a transaction of its own:"
BY_RANGE = "-- range after range of its source's key, each in its transaction:"
LATER = "-- in a later transaction:"
# What a column may hold meanwhile; a type that is not here stays nullable.
BLANKS = {
    "int2": "0", "int4": "0", "int8": "0", "numeric": "0", "float4": "0", "float8": "0",
    "text": "''", "varchar": "''", "bpchar": "''", "bool": "false", "jsonb": "'{}'", "json": "'{}'",
    "timestamptz": "now()", "timestamp": "now()", "date": "CURRENT_DATE",
}  # fmt: skip


def expression(node: pg.Node) -> str:
    target = pg.Node(res_target=pg.ResTarget(val=node))
    return _select(pg.SelectStmt(target_list=[target], op=pg.SETOP_NONE)).removeprefix("SELECT ")


def column(table: Name, given: pg.ColumnDef) -> str:
    """ADD COLUMN with nothing but the type."""
    bare = pg.ColumnDef(colname=given.colname, type_name=given.type_name, is_local=True)
    return _alter(table, pg.AT_AddColumn, pg.Node(column_def=bare))


def not_valid(table: Name, given: pg.Constraint, name: str) -> str:
    """ADD CONSTRAINT … NOT VALID, and its VALIDATE."""
    late = pg.Constraint()
    late.CopyFrom(given)
    late.conname, late.skip_validation, late.initially_valid = name, True, False
    add = _alter(table, pg.AT_AddConstraint, pg.Node(constraint=late))
    return f"{add}\n{LATER}\nALTER TABLE {show(table)} VALIDATE CONSTRAINT {name};"


def set_default(table: Name, name: str, default: str) -> str:
    return f"ALTER TABLE {show(table)} ALTER COLUMN {name} SET DEFAULT {default};"


def fill(table: Name, name: str, value: str, missing: str = "") -> str:
    where = missing or f"{name} IS NULL"
    return f"{AGAIN}\nUPDATE {show(table)} SET {name} = {value}\nWHERE {_some(show(table), where)};"


def not_null(table: Name, name: str) -> str:
    check = f"{table[1]}_{name}_not_null"
    where = f"ALTER TABLE {show(table)}"
    return (
        f"{where} ADD CONSTRAINT {check} CHECK ({name} IS NOT NULL) NOT VALID;\n"
        f"{LATER}\n{where} VALIDATE CONSTRAINT {check};\n{LATER}\n"
        f"{where} ALTER COLUMN {name} SET NOT NULL;\n{where} DROP CONSTRAINT {check};"
    )


def kept_by_trigger(table: Name, name: str, value: str) -> str:
    """`value` is said of NEW."""
    function = f"{table[1]}_{name}"
    return (
        f"CREATE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql AS\n"
        f"$$ BEGIN NEW.{name} := {value}; RETURN NEW; END $$;\n"
        f"CREATE TRIGGER {function} BEFORE INSERT OR UPDATE ON {show(table)}\n"
        f"FOR EACH ROW EXECUTE FUNCTION {function}();"
    )


def of_new_row(node: pg.Node) -> str:
    """The expression, of a trigger's NEW."""
    copy = pg.Node()
    copy.CopyFrom(node)
    for each in postgast.find_nodes(copy, pg.ColumnRef):
        each.fields.insert(0, pg.Node(string=pg.String(sval="new")))
    return expression(copy)


def batched(statement: pg.UpdateStmt | pg.DeleteStmt) -> str:
    """A thousand rows of it at a time; an UPDATE of every row leaves out those that are done.

    Raises postgast.PgQueryError where the statement's parts do not stand alone, as in SET (a, b) = (SELECT …).
    """
    relation = statement.relation
    called = relation.alias.aliasname or relation.relname
    update = isinstance(statement, pg.UpdateStmt)
    rows = statement.from_clause if isinstance(statement, pg.UpdateStmt) else statement.using_clause
    where = expression(statement.where_clause) if statement.HasField("where_clause") else ""
    if isinstance(statement, pg.UpdateStmt) and not where:
        where = " OR ".join(
            f"{each.res_target.name} IS DISTINCT FROM {expression(each.res_target.val)}"
            for each in statement.target_list
        )
    sources = _select(
        pg.SelectStmt(from_clause=[pg.Node(range_var=relation), *rows], op=pg.SETOP_NONE)
    ).removeprefix("SELECT FROM ")
    some = _some(sources, where, called if rows else "")
    copy = pg.UpdateStmt() if update else pg.DeleteStmt()
    copy.CopyFrom(statement)
    copy.ClearField("where_clause")
    copy.ClearField("returning_clause")
    outer = f"({where}) AND " if rows and where else ""
    text = postgast.deparse(_tree(pg.Node(**{"update_stmt" if update else "delete_stmt": copy})))
    return f"{AGAIN}\n{text}\nWHERE {outer}{some};"


def upserted(statement: pg.InsertStmt, key_range: str) -> str:
    """The same INSERT … SELECT from a range of its source's rows."""
    copy = pg.InsertStmt()
    copy.CopyFrom(statement)
    query = copy.select_stmt.select_stmt
    narrow = postgast.parse(f"SELECT WHERE {key_range}").stmts[0].stmt.select_stmt.where_clause
    if query.HasField("where_clause"):
        both = pg.BoolExpr(boolop=pg.AND_EXPR, args=[query.where_clause, *narrow.bool_expr.args])
        narrow = pg.Node(bool_expr=both)
    query.where_clause.CopyFrom(narrow)
    text = postgast.deparse(_tree(pg.Node(insert_stmt=copy)))
    return f"{BY_RANGE}\n{text};"


def merged(statement: pg.MergeStmt, key_range: str) -> str:
    """The same MERGE from a range of its source's rows."""
    copy = pg.MergeStmt()
    copy.CopyFrom(statement)
    source = statement.source_relation
    if source.HasField("range_var"):
        called = source.range_var.alias.aliasname or source.range_var.relname
        tree = postgast.parse(f"SELECT * FROM source WHERE {key_range}").stmts[0].stmt
        tree.select_stmt.from_clause[0].range_var.CopyFrom(source.range_var)
        tree.select_stmt.from_clause[0].range_var.ClearField("alias")
        narrow = pg.RangeSubselect(subquery=tree, alias=pg.Alias(aliasname=called))
        copy.source_relation.CopyFrom(pg.Node(range_subselect=narrow))
    text = postgast.deparse(_tree(pg.Node(merge_stmt=copy)))
    return f"{BY_RANGE}\n{text};"


def _some(sources: str, where: str, of: str = "") -> str:
    mark = f"{of}.ctid" if of else "ctid"
    condition = f" WHERE {where}" if where else ""
    lock = f"FOR UPDATE OF {of} SKIP LOCKED" if of else "FOR UPDATE SKIP LOCKED"
    return (
        f"{mark} = ANY (ARRAY(SELECT {mark} FROM {sources}{condition} LIMIT {BATCH_ROWS} {lock}))"
    )


def _alter(table: Name, kind: pg.AlterTableType, definition: pg.Node) -> str:
    command = pg.AlterTableCmd(subtype=kind, behavior=pg.DROP_RESTRICT)
    getattr(command, "def").CopyFrom(definition)
    schema = "" if table[0] in ("public", "pg_temp") else table[0]
    relation = pg.RangeVar(schemaname=schema, relname=table[1], inh=True, relpersistence="p")
    statement = pg.AlterTableStmt(
        relation=relation, cmds=[pg.Node(alter_table_cmd=command)], objtype=pg.OBJECT_TABLE
    )
    return f"{postgast.deparse(_tree(pg.Node(alter_table_stmt=statement)))};"


def _select(statement: pg.SelectStmt) -> str:
    statement.limit_option = pg.LIMIT_OPTION_DEFAULT
    return str(postgast.deparse(_tree(pg.Node(select_stmt=statement))))


def _tree(node: pg.Node) -> pg.ParseResult:
    return pg.ParseResult(stmts=[pg.RawStmt(stmt=node)])
