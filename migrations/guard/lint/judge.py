"""A file's statements in order: which rule looks at which, what a transaction is, and the verdict.

A file that says neither BEGIN nor COMMIT is taken to run as one transaction, as alembic and most runners do;
unless it holds what makes sense only outside of one (CREATE INDEX CONCURRENTLY, VACUUM, a VALIDATE of its own NOT VALID
constraint, …): then each statement runs by itself.
"""

from collections.abc import Sequence
from pathlib import Path

from postgast import pg_query_pb2 as pg

from migrations.guard.lint import blocks, data, indexes, objects, squawk, tables
from migrations.guard.lint.case import Case
from migrations.guard.lint.facts import LiveFacts
from migrations.guard.lint.locks import Mode
from migrations.guard.lint.report import FileReport, Finding, Override
from migrations.guard.lint.session import TIMEOUTS, Session, duration_ms
from migrations.guard.lint.source import Source, Statement, SyntaxFault, overrides_in, walk
from migrations.guard.lint.world import World

ALONE = {"vacuum_stmt", "alter_system_stmt", "createdb_stmt", "dropdb_stmt"} | {
    "create_table_space_stmt", "drop_table_space_stmt",
}  # fmt: skip
BEGINS = {pg.TRANS_STMT_BEGIN, pg.TRANS_STMT_START}
ENDS = {pg.TRANS_STMT_COMMIT, pg.TRANS_STMT_ROLLBACK, pg.TRANS_STMT_PREPARE}


def lint(
    sql: str, *, file: str, facts: LiveFacts | None = None, overrides: Sequence[Override] = ()
) -> FileReport:
    """One file, with nothing before it."""
    return judge(sql, file, World(), facts=facts, overrides=overrides)


def lint_files(
    paths: Sequence[Path], *, facts: LiveFacts | None = None, overrides: Sequence[Override] = ()
) -> list[FileReport]:
    """Files in the order they would run: a table made by one is new to the next.  Raises OSError."""
    world = World()
    return [
        judge(path.read_text(), str(path), world, facts=facts, overrides=overrides)
        for path in paths
    ]


def judge(
    sql: str, file: str, world: World, *, facts: LiveFacts | None, overrides: Sequence[Override]
) -> FileReport:
    source = Source.of(sql)
    world.schema = "public"
    try:
        statements = source.statements()
    except SyntaxFault as fault:
        found = Finding(
            "syntax-error",
            fault.line,
            fault.message,
            "-- correct the statement: nothing after it is judged",
        )
        return _verdict(file, [found], [], [*overrides, *overrides_in(sql)])
    case = Case(source, world, _session(statements, facts), facts)
    for each in statements:
        case.statement = each
        step(case, each)
    _unfinished(case, statements)
    more = squawk.findings(source.text.decode())
    return _verdict(file, [*case.findings, *more], case.notes, [*overrides, *overrides_in(sql)])


def _session(statements: Sequence[Statement], facts: LiveFacts | None) -> Session:
    by_itself = any(map(_ends_wrapping, statements)) or _validates_its_own(statements)
    defaults = dict.fromkeys(TIMEOUTS, 0)
    if facts:
        defaults = {
            "lock_timeout": facts.lock_timeout_ms,
            "statement_timeout": facts.statement_timeout_ms,
        }
    return Session(defaults, wrapped=not by_itself)


def _ends_wrapping(statement: Statement) -> bool:
    control = statement.node.transaction_stmt.kind in BEGINS | ENDS
    return (statement.kind == "transaction_stmt" and control) or cannot_be_in_transaction(statement)


def _validates_its_own(statements: Sequence[Statement]) -> bool:
    """NOT VALID and then VALIDATE: of use only to a file that is not run as one transaction."""
    late: set[str] = set()
    for each in statements:
        for command in (part.alter_table_cmd for part in each.node.alter_table_stmt.cmds):
            constraint = getattr(command, "def").constraint
            if constraint.skip_validation:
                late.add(constraint.conname)
            if command.subtype == pg.AT_ValidateConstraint and command.name in late:
                return True
    return False


def _verdict(
    file: str, found: list[Finding], notes: list[Finding], overrides: Sequence[Override]
) -> FileReport:
    reasons = {each.rule: each.reason for each in overrides}
    judged = sorted(
        (
            Finding(
                each.rule, each.line, f"{each.message} [overridden: {reasons[each.rule]}]",
                each.rewrite, overridden=True,
            )
            if each.rule in reasons else each
            for each in dict.fromkeys(found)
        ),
        key=lambda each: each.line,
    )  # fmt: skip
    safe = all(each.overridden for each in judged)
    return FileReport(file, "safe" if safe else "dangerous", tuple(judged), tuple(notes))


def _unfinished(case: Case, statements: Sequence[Statement]) -> None:
    if case.session.in_block and not case.session.wrapped:
        begun = [each for each in statements if each.node.transaction_stmt.kind in BEGINS]
        case.statement = begun[-1]
        case.report(
            "transaction-not-ended",
            "the BEGIN has no COMMIT: its locks are held until the connection ends, and nothing stays",
            "COMMIT;",
        )


def cannot_be_in_transaction(statement: Statement) -> bool:
    node = statement.node
    match statement.kind:
        case "index_stmt":
            return bool(node.index_stmt.concurrent)
        case "drop_stmt":
            return bool(node.drop_stmt.concurrent)
        case "reindex_stmt":
            whole = node.reindex_stmt.kind not in (pg.REINDEX_OBJECT_INDEX, pg.REINDEX_OBJECT_TABLE)
            return whole or any(
                each.def_elem.defname == "concurrently" for each in node.reindex_stmt.params
            )
        case "vacuum_stmt":
            return bool(node.vacuum_stmt.is_vacuumcmd)
        case "cluster_stmt":
            return not node.cluster_stmt.HasField("relation")
        case "alter_table_stmt":
            return any(
                getattr(each.alter_table_cmd, "def").partition_cmd.concurrent
                for each in node.alter_table_stmt.cmds
            )
        case "do_stmt":
            return _commits(*blocks.body_of(node.do_stmt))
        case kind:
            return kind in ALONE


def _commits(language: str, body: str) -> bool:
    try:
        return language == "plpgsql" and blocks.commits(blocks.plpgsql_tree(body))
    except SyntaxFault:
        return False


def step(case: Case, statement: Statement) -> None:
    session = case.session
    if statement.kind == "transaction_stmt":
        _transaction(case, statement.node.transaction_stmt)
        return
    if not session.in_block:
        case.world.transactions += 1
        session.begin(block=False)
    if session.in_block and cannot_be_in_transaction(statement):
        case.report(
            "not-in-transaction",
            "PostgreSQL refuses this inside a transaction: the migration fails here",
            f"COMMIT;\n{statement.text};",
        )
    if session.new_enum_values:
        _uses_new_enum_value(case, statement)
    _look(case, statement)


def _transaction(case: Case, control: pg.TransactionStmt) -> None:
    session = case.session
    if control.kind in BEGINS:
        if session.in_block and not session.wrapped:
            case.note("nested-begin", "BEGIN inside a transaction does nothing")
        case.world.transactions += 1
        session.begin(block=True)
    elif control.kind in ENDS:
        if control.kind == pg.TRANS_STMT_PREPARE:
            case.report(
                "prepare-transaction",
                "a prepared transaction holds its locks until somebody ends it, restarts included",
                "COMMIT;",
            )
        ended = session.roll_back if control.kind == pg.TRANS_STMT_ROLLBACK else None
        if ended:
            ended()
        else:
            session.begin(block=control.chain)


def _uses_new_enum_value(case: Case, statement: Statement) -> None:
    for each in walk(statement.node):
        if isinstance(each, pg.String | pg.A_Const):
            value = each.sval if isinstance(each, pg.String) else each.sval.sval
            if value in case.session.new_enum_values and statement.kind != "alter_enum_stmt":
                case.report(
                    "enum-value-used-in-same-transaction",
                    f"'{value}' cannot be used before the transaction that adds it is committed",
                    f"COMMIT;\n{statement.text};",
                )
                return


def _look(case: Case, statement: Statement) -> None:
    node = statement.node
    match statement.kind:
        case "variable_set_stmt":
            _set(case, node.variable_set_stmt)
        case "create_stmt":
            tables.create(case, node.create_stmt)
            objects.appears(case, case.world.name(node.create_stmt.relation))
        case "create_table_as_stmt":
            read = data.tables_read(case, node.create_table_as_stmt.query)
            tables.create_as(case, node.create_table_as_stmt, read)
        case "alter_table_stmt":
            objects.change_type(case, node.alter_table_stmt)
            tables.alter(case, node.alter_table_stmt)
        case "index_stmt":
            indexes.create(case, node.index_stmt)
        case "reindex_stmt":
            indexes.reindex(case, node.reindex_stmt)
        case "do_stmt":
            _block(case, node.do_stmt)
        case "insert_stmt" | "update_stmt" | "delete_stmt" | "merge_stmt":
            data.changes(case, node)
        case "select_stmt":
            _select(case, node.select_stmt)
            data.changes(case, node)
            _calls(case, statement)
        case "call_stmt":
            _calls(case, statement)
        case "explain_stmt":
            if any(each.def_elem.defname == "analyze" for each in node.explain_stmt.options):
                data.changes(case, node)
        case _:
            _look_at_objects(case, statement)


def _look_at_objects(case: Case, statement: Statement) -> None:
    node, world = statement.node, case.world
    match statement.kind:
        case "drop_stmt":
            objects.drop(case, node.drop_stmt)
        case "rename_stmt":
            objects.rename(case, node.rename_stmt)
        case "alter_object_schema_stmt":
            objects.move_schema(case, node.alter_object_schema_stmt)
        case "truncate_stmt":
            objects.truncate(case, node.truncate_stmt)
        case "lock_stmt":
            objects.lock_table(case, node.lock_stmt)
        case "refresh_mat_view_stmt":
            objects.refresh(case, node.refresh_mat_view_stmt)
        case "vacuum_stmt":
            objects.vacuum(case, node.vacuum_stmt)
        case "cluster_stmt":
            objects.cluster(case, node.cluster_stmt)
        case "alter_enum_stmt":
            objects.change_enum(case, node.alter_enum_stmt)
        case "drop_owned_stmt" | "reassign_owned_stmt":
            objects.own_or_reassign(case, statement.text)
        case "create_trig_stmt":
            case.lock(world.name(node.create_trig_stmt.relation), Mode.SHARE_ROW_EXCLUSIVE)
        case "create_policy_stmt":
            name = world.name(node.create_policy_stmt.table)
            world.policies.add(name)
            case.lock(name, Mode.ACCESS_EXCLUSIVE)
        case "alter_policy_stmt":
            case.lock(world.name(node.alter_policy_stmt.table), Mode.ACCESS_EXCLUSIVE)
        case "rule_stmt":
            case.lock(world.name(node.rule_stmt.relation), Mode.ACCESS_EXCLUSIVE)
        case "view_stmt":
            objects.appears(case, world.name(node.view_stmt.view))
            world.create(node.view_stmt.view)
        case "create_function_stmt":
            _function(case, node.create_function_stmt)
        case _:
            pass


def _set(case: Case, statement: pg.VariableSetStmt) -> None:
    if statement.name == "search_path" and statement.args:
        case.world.schema = statement.args[0].a_const.sval.sval or "public"
    if statement.is_local and not case.session.in_block and statement.name in TIMEOUTS:
        case.note("set-local-outside-transaction", "SET LOCAL has no effect outside a transaction")
    case.session.set(statement)


def _select(case: Case, statement: pg.SelectStmt) -> None:
    """set_config() is a SET; SELECT … INTO makes a table."""
    if statement.HasField("into_clause"):
        case.world.create(statement.into_clause.rel)
    for each in walk(statement):
        if isinstance(each, pg.FuncCall) and each.funcname[-1].string.sval == "set_config":
            name, value = (arg.a_const for arg in each.args[:2])
            local = each.args[2].a_const.boolval.boolval
            if name.sval.sval in TIMEOUTS:
                case.session.put(name.sval.sval, duration_ms(value), local=local)


def _function(case: Case, made: pg.CreateFunctionStmt) -> None:
    """Kept by name: its body is judged where this file calls it."""
    name = made.funcname[-1].string.sval
    options = {each.def_elem.defname: each.def_elem.arg for each in made.options}
    if "volatility" in options and options["volatility"].string.sval in ("stable", "immutable"):
        case.world.stable_functions.add(name)
    if "as" in options and "language" in options:
        body = options["as"].list.items[0].string.sval
        case.bodies[name] = (options["language"].string.sval, body, _line_of(case, body))


def _line_of(case: Case, body: str) -> int:
    return case.source.line(case.source.text.find(body.encode(), case.statement.location))


def _calls(case: Case, statement: Statement) -> None:
    for each in walk(statement.node):
        if isinstance(each, pg.FuncCall):
            body = case.bodies.pop(each.funcname[-1].string.sval, None)
            if body is not None:
                _body(case, *body)


def _block(case: Case, block: pg.DoStmt) -> None:
    language, body = blocks.body_of(block)
    _body(case, language, body, _line_of(case, body))


def _body(case: Case, language: str, body: str, first_line: int) -> None:
    """Alone, it is one transaction, until it commits itself."""
    alone = not case.session.in_block
    if alone:
        case.session.begin(block=True)
    try:
        if language == "sql":
            source = Source.of(body, first_line)
            for each in source.statements():
                with case.part(source, each):
                    step(case, each)
        elif language == "plpgsql":
            _plpgsql(case, blocks.plpgsql_tree(body), first_line)
        else:
            _not_judged(case, f"language {language}", case.source.line(case.statement.location))
    except SyntaxFault as fault:
        case.report("syntax-error", fault.message, "-- correct the block")
    if alone:
        case.session.begin(block=False)


def _plpgsql(case: Case, tree: blocks.JsonValue, first_line: int) -> None:
    before = (case.endless, case.commits)
    case.commits = blocks.commits(tree)
    case.endless = blocks.loops(tree) and not case.commits
    for line, text, statements in blocks.statements(tree, first_line):
        if text is None:
            _not_judged(case, "EXECUTE of an expression", line)
        for each in statements:
            if each.kind == "transaction_stmt":
                case.session.begin(block=True)
                continue
            with case.part(Source.of(text or "", line), each):
                step(case, each)
    case.endless, case.commits = before


def _not_judged(case: Case, what: str, line: int) -> None:
    with case.part(Source(b"", line), Statement(pg.Node(), 0, what)):
        case.report(
            "cannot-judge",
            f"its SQL is made at run time and cannot be judged: {what}",
            "-- write the statements out, or format('literal …', names)",
        )
