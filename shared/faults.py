"""Which faults pass by themselves: those are waited out, the others are the fact's own."""

import asyncpg
from aiokafka.errors import KafkaError
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from shared.errors import Unavailable

# SQLSTATE classes: connection, rollback (deadlock, serialization), access rule and undefined object (a schema or
# a grant that is not there yet: parking every fact would be worse than waiting), resources, lock, operator, system.
TRANSIENT_SQLSTATES = ("08", "25", "40", "42", "53", "55", "57", "58", "XX")


def is_transient(error: BaseException) -> bool:
    match error:
        case ConnectionError() | TimeoutError() | OSError() | PoolTimeout():
            return True
        case KafkaError() | Unavailable():
            return True
        case DBAPIError(connection_invalidated=True) | OperationalError() | InterfaceError():
            return True
        case asyncpg.InterfaceError() if not isinstance(error, asyncpg.DataError):
            # The client's own word, without a code: its connection went away, or it was used wrongly.
            return "connection" in str(error)
        case asyncpg.InternalClientError():
            # What it says where its connection dies while a transaction ends.
            return True
        case DBAPIError():
            return _sqlstate(error).startswith(TRANSIENT_SQLSTATES)
        case _:
            return hasattr(error, "sqlstate") and _sqlstate(error).startswith(TRANSIENT_SQLSTATES)


def _sqlstate(error: BaseException) -> str:
    origin = error.orig if isinstance(error, DBAPIError) else error
    return str(getattr(origin, "sqlstate", "") or "")
