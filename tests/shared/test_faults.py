"""Which of the client's own errors pass by themselves: those of a connection that went away."""

import asyncpg
import pytest

from shared.faults import is_transient


@pytest.mark.parametrize(
    ("error", "transient"),
    [
        (asyncpg.InterfaceError("connection is closed"), True),
        (asyncpg.InterfaceError("cannot call Connection.execute(): connection has been"), True),
        (asyncpg.InterfaceError("the server expects 2 arguments for this query"), False),
        (asyncpg.DataError("invalid input for query argument $1: 'connection'"), False),
        (asyncpg.ConnectionDoesNotExistError("connection was closed"), True),
        (asyncpg.UniqueViolationError("duplicate key"), False),
        (asyncpg.InternalClientError("cannot switch to state 15; another operation (2)"), True),
    ],
)
def test_a_connection_that_went_away_is_waited_out(error: Exception, transient: bool) -> None:
    assert is_transient(error) is transient
