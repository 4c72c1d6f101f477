"""BEGIN to COMMIT and back: what a rollback takes with it, settings and new tables too."""

from postgast import pg_query_pb2 as pg

from migrations.guard.lint.case import Case

BEGINS = {pg.TRANS_STMT_BEGIN, pg.TRANS_STMT_START}
ENDS = {pg.TRANS_STMT_COMMIT, pg.TRANS_STMT_ROLLBACK, pg.TRANS_STMT_PREPARE}


def control(case: Case, given: pg.TransactionStmt) -> None:
    if given.kind in BEGINS:
        _begin(case)
    elif given.kind in ENDS:
        _end(case, given)
    elif given.kind == pg.TRANS_STMT_SAVEPOINT:
        case.marks.append(case.mark(given.savepoint_name))
    elif given.kind in (pg.TRANS_STMT_ROLLBACK_TO, pg.TRANS_STMT_RELEASE):
        found = next((m for m in reversed(case.marks) if m.name == given.savepoint_name), None)
        if found is None:
            return
        at = max(number for number, each in enumerate(case.marks) if each is found)
        if given.kind == pg.TRANS_STMT_ROLLBACK_TO:
            case.go_back(found)
            at += 1
        del case.marks[at:]


def _begin(case: Case) -> None:
    session = case.session
    if session.in_block and not session.wrapped:
        case.note("nested-begin", "BEGIN inside a transaction does nothing")
        return
    case.world.transactions += 1
    session.begin(block=True)
    case.marks[:] = [case.mark()]


def _end(case: Case, given: pg.TransactionStmt) -> None:
    if given.kind == pg.TRANS_STMT_PREPARE:
        case.report(
            "prepare-transaction",
            "a prepared transaction holds its locks until somebody ends it, restarts included",
            "COMMIT;",
        )
    if given.kind == pg.TRANS_STMT_ROLLBACK and case.marks:
        case.go_back(case.marks[0])
    case.session.begin(block=given.chain)
    case.marks[:] = [case.mark()] if given.chain else []
