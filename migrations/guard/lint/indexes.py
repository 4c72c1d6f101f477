"""Indexes: built, dropped and rebuilt beside live traffic or in its way."""

from postgast import pg_query_pb2 as pg

from migrations.guard.lint.case import Case
from migrations.guard.lint.facts import Name
from migrations.guard.lint.locks import Mode
from migrations.guard.lint.world import show


def create(case: Case, made: pg.IndexStmt) -> None:
    table = case.world.name(made.relation)
    case.world.indexes[made.idxname] = table
    if not case.existing(table):
        return
    if made.concurrent:
        case.lock(table, Mode.SHARE_UPDATE_EXCLUSIVE)
        if made.if_not_exists and made.idxname not in case.world.dropped_indexes:
            _hides_invalid(case, made, table)
        return
    case.lock(table, Mode.SHARE)
    # ON ONLY a partitioned table builds nothing, and there is no CONCURRENTLY for it.
    if made.relation.inh:
        case.report(
            "create-index-not-concurrent",
            f"SHARE lock on {show(table)} while the whole index is built: writes wait",
            _concurrently(case.statement.text, "INDEX"),
            size_of=table,
        )


def _hides_invalid(case: Case, made: pg.IndexStmt, table: Name) -> None:
    if case.facts:
        found = case.facts.indexes.get((table[0], made.idxname))
        if found is None or found.valid:
            return
    case.report(
        "concurrent-index-if-not-exists",
        f"a build that failed leaves an INVALID index named {made.idxname}; IF NOT EXISTS then does"
        " nothing and all looks well",
        f"DROP INDEX CONCURRENTLY IF EXISTS {made.idxname};\n"
        f"{case.statement.text.replace('IF NOT EXISTS ', '').replace('if not exists ', '')};",
    )


def _concurrently(text: str, word: str) -> str:
    at = text.upper().find(word) + len(word)
    return f"{text[:at]} CONCURRENTLY{text[at:]}; -- outside a transaction"


def drop(case: Case, statement: pg.DropStmt) -> None:
    for each in statement.objects:
        parts = tuple(item.string.sval for item in each.list.items)
        case.world.dropped_indexes.add(parts[-1])
        table = case.world.indexes.get(parts[-1])
        if case.facts and table is None:
            found = case.facts.indexes.get(case.world.dotted(parts))
            table = found.table if found else None
        if statement.concurrent or (table is not None and not case.existing(table)):
            continue
        case.lock(table or case.world.dotted(parts), Mode.ACCESS_EXCLUSIVE)
        case.report(
            "drop-index-not-concurrent",
            f"ACCESS EXCLUSIVE on the table of {parts[-1]}: reads and writes wait",
            f"DROP INDEX CONCURRENTLY {'.'.join(parts)}; -- outside a transaction",
        )


def reindex(case: Case, statement: pg.ReindexStmt) -> None:
    if any(each.def_elem.defname == "concurrently" for each in statement.params):
        return
    table: Name | None = None
    if statement.kind == pg.REINDEX_OBJECT_TABLE:
        table = case.world.name(statement.relation)
    elif statement.kind == pg.REINDEX_OBJECT_INDEX:
        table = case.world.indexes.get(statement.relation.relname)
    if table is not None and not case.existing(table):
        return
    if table is not None:
        case.lock(table, Mode.SHARE)
    words = case.statement.text.split()
    at = next(
        number for number, word in enumerate(words, 1)
        if word.upper() in ("TABLE", "INDEX", "SCHEMA", "DATABASE", "SYSTEM")
    )  # fmt: skip
    case.report(
        "reindex-not-concurrent",
        "writes wait while the index is rebuilt, and so do reads that would use it",
        " ".join([*words[:at], "CONCURRENTLY", *words[at:]]) + "; -- outside a transaction",
        size_of=table,
    )
