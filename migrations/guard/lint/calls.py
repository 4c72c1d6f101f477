"""What a migration runs without writing it out: functions, procedures, DO blocks; judged by their bodies where known."""

from collections.abc import Callable

from postgast import pg_query_pb2 as pg

from migrations.guard.lint import blocks
from migrations.guard.lint.builtins import HARMLESS_CALLS, SLEEPS
from migrations.guard.lint.case import Case
from migrations.guard.lint.session import TIMEOUTS, duration_ms
from migrations.guard.lint.source import Source, Statement, SyntaxFault, walk
from migrations.guard.lint.world import Body

Step = Callable[[Case, Statement], None]


def settings(case: Case, statement: pg.SelectStmt) -> None:
    """set_config() is a SET; SELECT … INTO makes a table."""
    if statement.HasField("into_clause"):
        case.world.create(statement.into_clause.rel)
    for each in walk(statement):
        named = isinstance(each, pg.FuncCall) and each.funcname[-1].string.sval == "set_config"
        if not isinstance(each, pg.FuncCall) or not named or len(each.args) != 3:
            continue
        name, value = (arg.a_const for arg in each.args[:2])
        local = each.args[2].a_const.boolval.boolval
        if name.sval.sval in TIMEOUTS:
            case.session.put(name.sval.sval, duration_ms(value), local=local)
        elif name.sval.sval == "search_path":
            case.world.schema = value.sval.sval.split(",")[0].strip() or "public"


def function(case: Case, made: pg.CreateFunctionStmt) -> None:
    """Kept by name: its body is judged where it is called."""
    name = made.funcname[-1].string.sval
    options = {each.def_elem.defname: each.def_elem.arg for each in made.options}
    if "volatility" in options and options["volatility"].string.sval in ("stable", "immutable"):
        case.world.stable_functions.add(name)
    if "as" in options and "language" in options:
        text = options["as"].list.items[0].string.sval
        body = Body(
            options["language"].string.sval,
            text,
            case.statement.text,
            _line_of(case, text),
            case.file,
        )
        case.world.bodies[name] = body


def _line_of(case: Case, body: str) -> int:
    return case.source.line(case.source.text.find(body.encode(), case.statement.location))


def made(case: Case, statement: Statement, step: Step) -> None:
    """Every call of the statement; a SELECT that reads a table is taken to call for values only."""
    for_effect = not statement.node.select_stmt.from_clause
    for each in walk(statement.node):
        if not isinstance(each, pg.FuncCall):
            continue
        name = each.funcname[-1].string.sval
        if name in SLEEPS and not case.session.wrapped:
            case.slow("pg_sleep()")
        body = case.world.bodies.get(name) or _in_database(case, name)
        if name in case.calling or _harmless(case, each, name):
            continue
        if body is not None:
            case.calling.add(name)
            before = case.called_from
            case.called_from = before if body.file == case.file else before or case.here
            _body(case, body, step)
            case.called_from = before
            case.calling.discard(name)
        elif for_effect:
            _not_judged(case, f"{name}(), which is not in this file", case.here)


def _in_database(case: Case, name: str) -> Body | None:
    found = case.facts.functions.get(name) if case.facts else None
    return (
        Body(found.language, found.body, found.definition, 0, "") if found and found.body else None
    )


def _harmless(case: Case, call: pg.FuncCall, name: str) -> bool:
    """A built-in; one that changes nothing; or called for a table that is new and empty."""
    own = name in case.world.bodies
    schema = call.funcname[0].string.sval if len(call.funcname) > 1 else ""
    builtin = schema == "pg_catalog" or (
        not schema and (name.startswith(("pg_", "has_")) or name in HARMLESS_CALLS)
    )
    live = case.facts.functions.get(name) if case.facts else None
    if live is not None:
        builtin = live.volatility != "v" or live.language in ("internal", "c")
    words = (arg.a_const.sval.sval for arg in call.args)
    for_new = any(word and not case.existing(case.world.named(word)) for word in words)
    return not own and (builtin or name in case.world.stable_functions or for_new)


def block(case: Case, given: pg.DoStmt, step: Step) -> None:
    language, text = blocks.body_of(given)
    _body(case, Body(language, text, "", _line_of(case, text), case.file), step)


def _body(case: Case, body: Body, step: Step) -> None:
    """Alone, it is one transaction, until it commits itself."""
    alone = not case.session.in_block
    if alone:
        case.session.begin(block=True)
    wrapped, case.session.wrapped = case.session.wrapped, False
    try:
        if body.language == "sql":
            source = Source.of(body.text, body.line)
            for each in source.statements():
                with case.part(source, each):
                    step(case, each)
        elif body.language == "plpgsql":
            _plpgsql(case, blocks.plpgsql_tree(body.text, body.definition), body.line, step)
        else:
            _not_judged(case, f"language {body.language}", case.here)
    except SyntaxFault as fault:
        case.report("syntax-error", fault.message, "-- correct the block")
    case.session.wrapped = wrapped
    if wrapped:
        # Whether the runner's transaction goes on after it is not known: SET LOCAL may have ended with the block.
        case.session.local.clear()
    if alone:
        case.session.begin(block=False)


def _plpgsql(case: Case, tree: blocks.JsonValue, first_line: int, step: Step) -> None:
    before = (case.endless, case.commits)
    handlers = {first_line + number - 1 for number in blocks.in_handlers(tree)}
    case.commits = blocks.commits(tree)
    case.endless = blocks.loops(tree) and not case.commits
    for line, text, statements in blocks.statements(tree, first_line):
        if text is None:
            _not_judged(case, "EXECUTE of an expression", line)
        for each in statements:
            if each.kind == "transaction_stmt":
                case.session.begin(block=True)
                continue
            held = dict(case.session.held)
            if line in handlers:
                case.session.held.clear()
            with case.part(Source.of(text or "", line), each):
                step(case, each)
            case.session.held = held | case.session.held
    case.endless, case.commits = before


def _not_judged(case: Case, what: str, line: int) -> None:
    with case.part(Source(b"", line), Statement(pg.Node(), 0, what)):
        case.report(
            "cannot-judge",
            f"what it runs is not written here and cannot be judged: {what}",
            "-- write the statements out, or format('literal …', names); give --database-url if the"
            " function is in the database",
        )
