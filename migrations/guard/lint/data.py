"""Statements that change rows: how many, and beside which locks."""

import postgast
from google.protobuf.message import Message
from postgast import pg_query_pb2 as pg

from migrations.guard.lint import rewrites
from migrations.guard.lint.case import Case
from migrations.guard.lint.facts import Name
from migrations.guard.lint.source import walk
from migrations.guard.lint.world import show

# A row is found by such a column, or a few are; a live database's unique indexes are asked too.
KEYS = {"id", "uuid", "key", "name", "code", "slug", "version_num", "email", "token", "pk"}
KEY_ENDINGS = ("_id", "_key", "_uuid", "_slug")
# More than that in one statement is no batch: its rows stay locked for seconds.
LARGEST_BATCH = 100_000
KEY_RANGE = "id >= 1 AND id < 1001"
RANGE_ENDS = ({">", ">="}, {"<", "<="})


def changes(case: Case, node: pg.Node) -> None:
    """Every UPDATE, DELETE, INSERT … SELECT and MERGE of the statement, those inside WITH too."""
    for each in walk(node):
        if isinstance(each, pg.UpdateStmt | pg.DeleteStmt):
            _change(case, each)
        elif isinstance(each, pg.MergeStmt):
            _merge(case, each)
        elif isinstance(each, pg.InsertStmt):
            _insert(case, each)


def _merge(case: Case, statement: pg.MergeStmt) -> None:
    target = case.world.name(statement.relation)
    query = statement.source_relation.range_subselect.subquery.select_stmt
    few = bool(query.values_lists) or limited(query) or is_batch(query.where_clause)
    if case.existing(target) and few:
        case.long_work(f"a batch of MERGE into {show(target)}", [target])
    elif case.existing(target):
        _unbatched(case, target, "MERGE", rewrites.merged(statement, KEY_RANGE))


def reads(case: Case, query: pg.SelectStmt) -> None:
    """A long read hurts who waits for a lock that is held meanwhile; FOR UPDATE locks each row it reads."""
    if limited(query):
        return
    names = [each for each in tables_read(case, query) if not case.small(each)]
    if names and query.locking_clause and not few_rows(case, names[0], query.where_clause):
        case.report(
            "locks-every-row",
            f"every row of {show(names[0])} that it finds stays locked against the application's"
            " writes until the transaction ends",
            f"{case.statement.text.removesuffix(';')} LIMIT 1000; -- again and again",
            size_of=names[0],
        )
    if names and not _quick(case, query, names[0]):
        case.slow(f"the read of {show(names[0])}")


def _quick(case: Case, query: pg.SelectStmt, table: Name) -> bool:
    """By key, or the ends of an index: max(id)."""
    parts = [each for each in walk(query) if isinstance(each, pg.SelectStmt) and each.from_clause]
    for each in parts:
        calls = {part.funcname[-1].string.sval for target in each.target_list
                 for part in walk(target) if isinstance(part, pg.FuncCall)}  # fmt: skip
        ends = calls and calls <= {"max", "min"} and not each.group_clause
        bare = not each.HasField("where_clause")
        if not (ends and bare) and not few_rows(case, table, each.where_clause):
            return False
    return True


def copies(case: Case, statement: pg.CopyStmt) -> None:
    """COPY takes as long as there are rows."""
    table = case.world.name(statement.relation)
    if statement.is_from or case.existing(table):
        case.slow(f"COPY of {show(table)}")


def _change(case: Case, statement: pg.UpdateStmt | pg.DeleteStmt) -> None:
    target = case.world.name(statement.relation)
    word = "UPDATE" if isinstance(statement, pg.UpdateStmt) else "DELETE"
    where = statement.where_clause
    if not case.existing(target) or few_rows(case, target, where):
        return
    rows = statement.from_clause if isinstance(statement, pg.UpdateStmt) else statement.using_clause
    joined = [statement.with_clause, *rows]
    if rows and all(each.range_subselect.subquery.select_stmt.values_lists for each in rows):
        return  # FROM (VALUES …): as many rows as are written there
    # A loop that never commits makes one change of all its batches.
    if not case.endless and (any(map(limited, joined)) or is_batch(where)):
        case.long_work(f"a batch of {word} {show(target)}", [target])
        return
    try:
        rewrite = rewrites.batched(statement)
    except postgast.PgQueryError:
        rewrite = f"{rewrites.AGAIN}\n{case.statement.text} AND {KEY_RANGE};"
    _unbatched(case, target, word, rewrite)


def _unbatched(case: Case, target: Name, word: str, rewrite: str) -> None:
    case.report(
        "unbatched-change",
        f"one {word} touches any number of rows of {show(target)}: it keeps them locked against"
        " the application's writes until it commits, and bloats the table",
        rewrite,
        size_of=target,
    )
    case.long_work(f"{word} of {show(target)}", [target])


def _insert(case: Case, statement: pg.InsertStmt) -> None:
    target = case.world.name(statement.relation)
    read = tables_read(case, statement.select_stmt)
    if not case.existing(target):
        case.world.copies.setdefault(target, set()).update(read)
    if not read or limited(statement.select_stmt):
        return
    updates = statement.on_conflict_clause.action == pg.ONCONFLICT_UPDATE
    batch = is_batch(statement.select_stmt.select_stmt.where_clause)
    if updates and case.existing(target) and not batch:
        rewrite = rewrites.upserted(statement, KEY_RANGE)
        _unbatched(case, target, "INSERT … ON CONFLICT DO UPDATE", rewrite)
    else:
        case.long_work(
            f"INSERT … SELECT into {show(target)}", read, locks_rows=case.existing(target)
        )


def tables_read(case: Case, node: Message) -> list[Name]:
    """Existing tables a query reads; names of its own WITH are none."""
    own = {each.ctename for each in walk(node) if isinstance(each, pg.CommonTableExpr)}
    found = [case.world.name(each) for each in walk(node)
             if isinstance(each, pg.RangeVar) and (each.schemaname or each.relname not in own)]  # fmt: skip
    return [name for name in found if case.existing(name) and not _catalog(name)]


def _catalog(name: Name) -> bool:
    return name[0] in ("pg_catalog", "information_schema") or name[1].startswith("pg_")


def is_batch(where: Message) -> bool:
    """A range of a column with both ends, or IN (SELECT … LIMIT): so many rows at most, whatever the table holds."""
    ends: dict[str, dict[int, pg.Node]] = {}
    for each in conjuncts(where):
        column = column_of(each.lexpr)
        if each.kind in (pg.AEXPR_BETWEEN, pg.AEXPR_BETWEEN_SYM):
            low, high = each.rexpr.list.items
            ends[column] = {0: low, 1: high}
        operator = each.name[0].string.sval if each.name else ""
        for end, signs in enumerate(RANGE_ENDS):
            if each.kind == pg.AEXPR_OP and operator in signs:
                ends.setdefault(column, {})[end] = each.rexpr
    ranges = (found for column, found in ends.items() if column and len(found) == 2)
    return any(_narrow(found[0], found[1]) for found in ranges) or any(
        isinstance(each, pg.SubLink)
        and each.sub_link_type in (pg.ANY_SUBLINK, pg.ARRAY_SUBLINK)
        and limited(each)
        for each in walk(where)
    )


def _narrow(low: pg.Node, high: pg.Node) -> bool:
    ends = (low.a_const, high.a_const)
    if all(each.HasField("ival") for each in ends):
        return bool(ends[1].ival.ival - ends[0].ival.ival <= LARGEST_BATCH)
    return True


def limited(query: Message) -> bool:
    """LIMIT stands in it, and is no larger than a batch."""
    return any(
        isinstance(each, pg.SelectStmt)
        and each.HasField("limit_count")
        and not each.limit_count.a_const.isnull
        and not each.limit_count.a_const.HasField("fval")
        and each.limit_count.a_const.ival.ival <= LARGEST_BATCH
        for each in walk(query)
    )


def few_rows(case: Case, table: Name, where: pg.Node) -> bool:
    """Found by the value of a key."""
    keys = set(KEYS)
    if case.facts:
        keys |= {
            each.unique_column for each in case.facts.indexes.values()
            if each.table == table and each.unique_column
        }  # fmt: skip
    for each in conjuncts(where):
        column = column_of(each.lexpr)
        by_key = column in keys or column.endswith(KEY_ENDINGS)
        equals = bool(each.name) and each.name[0].string.sval == "="
        if not by_key or not equals:
            continue
        alone = each.rexpr.sub_link.sub_link_type == pg.EXPR_SUBLINK
        if each.kind == pg.AEXPR_OP and each.rexpr.HasField("sub_link") and alone:
            return True
        # In a block that commits, a key may come from a variable: a row at a time.
        if each.kind == pg.AEXPR_OP and (is_constant(each.rexpr) or case.commits):
            return True
        if each.kind in (pg.AEXPR_IN, pg.AEXPR_OP_ANY):
            listed = [*each.rexpr.list.items, *each.rexpr.a_array_expr.elements]
            if all(map(is_constant, listed or [each.rexpr])):
                return True
    return False


def conjuncts(where: Message) -> list[pg.A_Expr]:
    if not isinstance(where, pg.Node):
        return []
    if where.HasField("a_expr"):
        return [where.a_expr]
    if where.HasField("bool_expr") and where.bool_expr.boolop == pg.AND_EXPR:
        return [each for part in where.bool_expr.args for each in conjuncts(part)]
    return []


def column_of(node: pg.Node) -> str:
    return node.column_ref.fields[-1].string.sval if node.column_ref.fields else ""


def is_constant(node: pg.Node) -> bool:
    while node.HasField("type_cast"):
        node = node.type_cast.arg
    return bool(node.HasField("a_const") or node.HasField("param_ref"))
