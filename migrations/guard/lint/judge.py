"""A file's statements in order: which rule looks at which, what a transaction is, and the verdict.

A file that says neither BEGIN nor COMMIT is taken to run as one transaction, as alembic and most runners do;
unless it holds what makes sense only outside of one (CREATE INDEX CONCURRENTLY, VACUUM, a VALIDATE of its own NOT VALID
constraint, …): then each statement runs by itself.
"""

from collections.abc import Sequence
from pathlib import Path

import postgast
from postgast import pg_query_pb2 as pg

from migrations.guard.lint import (
    blocks,
    calls,
    data,
    indexes,
    objects,
    squawk,
    tables,
    transactions,
)
from migrations.guard.lint.case import Case
from migrations.guard.lint.facts import LiveFacts
from migrations.guard.lint.locks import Mode
from migrations.guard.lint.report import FileReport, Finding, Override
from migrations.guard.lint.session import TIMEOUTS, Session
from migrations.guard.lint.source import (
    Source,
    Statement,
    SyntaxFault,
    overrides_in,
    text_of,
    unseen_in,
    walk,
)
from migrations.guard.lint.transactions import BEGINS, ENDS
from migrations.guard.lint.world import World

ALONE = {"vacuum_stmt", "alter_system_stmt", "createdb_stmt", "dropdb_stmt"} | {
    "create_table_space_stmt", "drop_table_space_stmt",
}  # fmt: skip


def lint(
    sql: str, *, file: str, facts: LiveFacts | None = None, overrides: Sequence[Override] = ()
) -> FileReport:
    """One file, with nothing before it."""
    (more,) = squawk.findings([Source.of(sql).text.decode()])
    return judge(sql, file, World(), facts=facts, overrides=overrides, more=more)


def lint_files(
    paths: Sequence[Path], *, facts: LiveFacts | None = None, overrides: Sequence[Override] = ()
) -> list[FileReport]:
    """Files in the order they would run: a table made by one is new to the next.  Raises OSError."""
    world = World()
    texts = [text_of(path) for path in paths]
    second = squawk.findings([Source.of(each).text.decode() for each in texts])
    return [
        judge(text, str(path), world, facts=facts, overrides=overrides, more=more)
        for path, text, more in zip(paths, texts, second, strict=True)
    ]


def judge(
    sql: str,
    file: str,
    world: World,
    *,
    facts: LiveFacts | None,
    overrides: Sequence[Override],
    more: Sequence[Finding] = (),
) -> FileReport:
    """`more`: what squawk found in it."""
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
        return _verdict(sql, file, ([found], []), overrides)
    case = Case(file, source, world, _session(statements, facts), facts)
    for each in statements:
        case.statement = each
        try:
            step(case, each)
        except postgast.PgQueryError as error:
            case.report(
                "cannot-judge",
                f"its rewrite cannot be written: {error.message}",
                "-- split the statement into simpler ones",
            )
    _unfinished(case, statements)
    for line in unseen_in(sql):
        case.called_from = line
        case.report(
            "cannot-judge",
            "psql runs what is not written in this file",
            "-- write the statements out; lint the included file beside this one",
        )
    return _verdict(sql, file, ([*case.findings, *more], case.notes), overrides)


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
    sql: str, file: str, gathered: tuple[list[Finding], list[Finding]], given: Sequence[Override]
) -> FileReport:
    found, notes = gathered
    inside = overrides_in(sql)
    reasons = {each.rule: each.reason for each in [*given, *inside]}
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
    asked = {each.rule for each in judged}
    notes += [
        Finding("override-not-needed", 1, f"farebox:allow {each.rule}: no such finding", "")
        for each in inside
        if each.rule not in asked
    ]
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
        transactions.control(case, statement.node.transaction_stmt)
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
            calls.block(case, node.do_stmt, step)
        case "insert_stmt" | "update_stmt" | "delete_stmt" | "merge_stmt":
            data.changes(case, node)
        case "select_stmt":
            calls.settings(case, node.select_stmt)
            data.changes(case, node)
            data.reads(case, node.select_stmt)
            calls.made(case, statement, step)
        case "call_stmt":
            calls.made(case, statement, step)
        case "copy_stmt":
            data.copies(case, node.copy_stmt)
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
            world.triggered.add(world.name(node.create_trig_stmt.relation))
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
            calls.function(case, node.create_function_stmt)
        case "create_domain_stmt":
            objects.make_domain(case, node.create_domain_stmt)
        case "alter_domain_stmt":
            objects.change_domain(case, node.alter_domain_stmt)
        case "discard_stmt" if node.discard_stmt.target == pg.DISCARD_ALL:
            case.session.reset_all()
        case "alter_table_move_all_stmt":
            objects.move_all(case)
        case "alter_system_stmt":
            objects.change_server(case)
        case _:
            pass


def _set(case: Case, statement: pg.VariableSetStmt) -> None:
    if statement.name == "search_path" and statement.args:
        case.world.schema = statement.args[0].a_const.sval.sval or "public"
    if statement.is_local and not case.session.in_block and statement.name in TIMEOUTS:
        case.note("set-local-outside-transaction", "SET LOCAL has no effect outside a transaction")
    case.session.set(statement)
