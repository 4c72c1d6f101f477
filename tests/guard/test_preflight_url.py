"""The runbook's first trouble, "connection failed": the URL, the server, the network, each with its remedy."""

import contextlib
import socket
from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import make_url

from migrations import run_lock
from migrations.faults import CannotReach, NotAUrl
from migrations.guard.address import address
from migrations.run_lock import connect
from tests.conftest import Database

SECRET = "s3cret-and-long"


@pytest.mark.parametrize(
    ("given", "plain"),
    [
        ("postgresql+asyncpg://u@h:5433/db", "postgresql://u@h:5433/db"),
        ("postgresql+psycopg://u@h/db", "postgresql://u@h/db"),
        ("postgres://u@h/db", "postgresql://u@h/db"),
        ("postgresql://u:p%40ss%2Fw%3Ard@h/db", "postgresql://u:p%40ss%2Fw%3Ard@h/db"),
        ("postgresql://u@h/db?sslmode=verify-full", "postgresql://u@h/db?sslmode=verify-full"),
        ("postgresql:///db?host=/run/pg", "postgresql:///db?host=%2Frun%2Fpg"),
        ("postgresql://u@[::1]:5432/db", "postgresql://u@[::1]:5432/db"),
    ],
)
def test_every_spelling_is_understood(given: str, plain: str) -> None:
    assert address(given) == plain


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("", "this is not a database URL"),
        (f"host=h password={SECRET}", "this is not a database URL"),
        (f"mysql://u:{SECRET}@h/db", "this is not a database URL"),
        (f"postgresql://u:{SECRET}@h:port/db", "this is not a database URL"),
        (f"postgresql://u:{SECRET}@h:70000/db", "no port is 70000"),
        (f"postgresql://u:p@{SECRET}@h/db", "one @ too many, in a password it is written %40"),
        (f"postgresql://u:{SECRET}@h", "names no database"),
        (f"postgresql://u:{SECRET}@h/db?sslmode=always", "sslmode in this database URL is none of"),
        (f"postgresql://u:{SECRET}@h/db?colour=red", "cannot read .* parameters: colour"),
    ],
)
def test_what_is_no_url_is_told_without_repeating_it(given: str, said: str) -> None:
    with pytest.raises(NotAUrl, match=said) as caught:
        address(given)
    assert "use postgresql://user:password@host:port/database" in str(caught.value)
    assert SECRET not in str(caught.value)
    assert caught.value.exit_code == 2


def unreachable(url: str) -> str:
    with pytest.raises(CannotReach) as caught:
        connect(url)
    assert caught.value.exit_code == 3
    assert SECRET not in str(caught.value)
    return str(caught.value)


def changed(
    url: str, *, host: str | None = None, database: str | None = None, username: str | None = None
) -> str:
    parts = make_url(url).set(host=host, database=database, username=username, password=SECRET)
    return parts.render_as_string(hide_password=False)


def test_a_host_that_nobody_knows(database: Database) -> None:
    said = unreachable(changed(database.url, host="nowhere.invalid"))
    assert "nowhere.invalid" in said
    assert said.endswith("correct the host's name in the URL")


def test_a_port_where_nobody_listens() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        said = unreachable(f"postgresql://u:{SECRET}@127.0.0.1:{held.getsockname()[1]}/db")
    assert "see that the server runs, and listens on the host and port" in said


def test_a_server_that_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_lock, "CONNECT_TIMEOUT_SECONDS", 2)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        said = unreachable(f"postgresql://u:{SECRET}@127.0.0.1:{mute.getsockname()[1]}/db")
    assert "no firewall stands between" in said


def test_a_database_and_a_role_that_are_not_there(database: Database) -> None:
    for wrong in (
        changed(database.url, database="fbx_nothing"),
        changed(database.url, username="fbx_nobody"),
    ):
        said = unreachable(wrong)
        assert "does not exist; create it, or correct the URL" in said


def test_a_socket_folder_without_a_server() -> None:
    said = unreachable("postgresql:///db?host=/nowhere/at/all")
    assert "see that the server runs" in said


@pytest.fixture
def shut(database: Database) -> Iterator[str]:
    """The URL of a role that may not even connect."""
    name, role = f"{database.name}_shut", sql.Identifier(f"{database.name}_shut")
    place = sql.Identifier(database.name)
    with psycopg.connect(database.url, autocommit=True) as owner:
        owner.execute(sql.SQL("CREATE ROLE {} LOGIN").format(role))
        owner.execute(sql.SQL("REVOKE CONNECT ON DATABASE {} FROM PUBLIC").format(place))
        yield changed(database.url, username=name)
        owner.execute(sql.SQL("DROP ROLE {}").format(role))


def test_a_role_that_may_not_connect_gets_its_grant(shut: str) -> None:
    assert "GRANT CONNECT ON DATABASE" in unreachable(shut)


def test_a_server_without_a_free_connection(database: Database) -> None:
    role = sql.Identifier(f"{database.name}_one")
    with psycopg.connect(database.url, autocommit=True) as owner, contextlib.ExitStack() as last:
        owner.execute(sql.SQL("CREATE ROLE {} LOGIN CONNECTION LIMIT 1").format(role))
        last.callback(owner.execute, sql.SQL("DROP ROLE {}").format(role))
        url = changed(database.url, username=f"{database.name}_one")
        with psycopg.connect(url):
            assert "run again when connections are free" in unreachable(url)


def test_a_connection_that_must_be_encrypted_and_cannot_be(database: Database) -> None:
    said = unreachable(f"{database.url}?sslmode=require")
    assert "look at sslmode" in said
