"""DO blocks: the SQL inside them, judged where it is written out; named as not judged where it is made at run time."""

import re
from collections.abc import Iterator

import postgast
from postgast import pg_query_pb2 as pg

from migrations.guard.lint.source import Source, Statement, SyntaxFault

JsonValue = dict[str, "JsonValue"] | list["JsonValue"] | str | int | float | bool | None
# format('ALTER TABLE %I …', name): the words are judged, an unknown name is an existing table's.
SLOTS = {"I": "judged_by_name", "L": "'?'", "s": "judged_by_name"}
LOOPS = {f"PLpgSQL_stmt_{kind}" for kind in ("loop", "while", "fori", "fors", "foreach_a", "forc")}
SLOT = re.compile(r"%(?:\d+\$)?(?:-?\d+)?([IsL])")


def body_of(block: pg.DoStmt) -> tuple[str, str]:
    """(language, text)"""
    options = {each.def_elem.defname: each.def_elem.arg for each in block.args}
    language = options["language"].string.sval if "language" in options else "plpgsql"
    return language, options["as"].string.sval


def plpgsql_tree(body: str, definition: str = "") -> JsonValue:
    """By its own head, whose parameters it names, if it is a function's.  Raises SyntaxFault."""
    tag = "$farebox_lint$"
    block = f"CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql AS {tag}{body}{tag}"
    faults = []
    for text in filter(None, (definition, block)):
        try:
            tree: JsonValue = postgast.parse_plpgsql(text)
        except postgast.PgQueryError as error:
            faults.append(error.message)
        except ValueError:  # its JSON is broken for some rows and records
            faults.append("PL/pgSQL that the parser cannot tell about")
        else:
            return tree
    raise SyntaxFault(faults[0], 1)


def loops(tree: JsonValue) -> bool:
    return any(kind in LOOPS for kind, _ in nodes(tree))


def commits(tree: JsonValue) -> bool:
    return any(kind in ("PLpgSQL_stmt_commit", "PLpgSQL_stmt_rollback") for kind, _ in nodes(tree))


def in_handlers(tree: JsonValue) -> set[int]:
    """Lines of what runs after a rollback to the block's beginning."""
    handlers = [node for kind, node in nodes(tree) if kind == "PLpgSQL_exception"]
    lines = (inner.get("lineno") for each in handlers for _, inner in nodes(each))
    return {each for each in lines if isinstance(each, int)}


def nodes(tree: JsonValue) -> Iterator[tuple[str, dict[str, JsonValue]]]:
    """Every PL/pgSQL node with its kind, in the order it stands."""
    if isinstance(tree, list):
        for each in tree:
            yield from nodes(each)
    elif isinstance(tree, dict):
        for kind, value in tree.items():
            if kind.startswith("PLpgSQL_") and isinstance(value, dict):
                yield kind, value
            yield from nodes(value)


def statements(
    tree: JsonValue, first_line: int
) -> Iterator[tuple[int, str | None, list[Statement]]]:
    """(line, text, statements) of each piece of SQL; no text: made at run time.  `COMMIT` is one too."""
    text: str | None
    for kind, node in nodes(tree):
        number = node.get("lineno")
        line = first_line + (number - 1 if isinstance(number, int) else 0)
        match kind:
            case "PLpgSQL_stmt_execsql":
                text = _query(node.get("sqlstmt"))
            case "PLpgSQL_stmt_fors" | "PLpgSQL_stmt_return_query":
                text = _query(node.get("query"))
            case "PLpgSQL_stmt_perform":
                text = _query(node.get("expr"))
            case "PLpgSQL_stmt_commit":
                text = "COMMIT"
            case "PLpgSQL_stmt_rollback":
                text = "ROLLBACK"
            case "PLpgSQL_stmt_dynexecute":
                text = _executed(_query(node.get("query")))
            case _:
                continue
        try:
            yield line, text, Source.of(text, line).statements() if text else []
        except SyntaxFault:
            yield line, None, []


def _query(node: JsonValue) -> str:
    expression = node.get("PLpgSQL_expr") if isinstance(node, dict) else None
    query = expression.get("query") if isinstance(expression, dict) else None
    return query if isinstance(query, str) else ""


def _executed(expression: str) -> str | None:
    """The SQL of EXECUTE 'literal' and of EXECUTE format('literal', …)."""
    target = Source.of(f"SELECT {expression}").statements()[0].node.select_stmt.target_list[0]
    value = target.res_target.val
    if value.a_const.HasField("sval"):
        return str(value.a_const.sval.sval)
    names, args = value.func_call.funcname, value.func_call.args
    if names and names[-1].string.sval == "format" and args:
        first = args[0].a_const
        if first.HasField("sval"):
            return SLOT.sub(lambda slot: SLOTS[slot[1]], first.sval.sval)
    return None
