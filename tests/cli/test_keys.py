"""API keys: shown once, usable at once, refused once revoked."""

import asyncio
import json

import pytest

from shared.api_keys import SCOPES, caller_of
from shared.db import create_engine, create_sessions
from shared.errors import Unauthorized
from tests.cli.conftest import Farebox
from tests.conftest import Database

CREATE = ("keys", "create", "--service", "pricing", "--name", "ops")


def caller(database: Database, key: str) -> tuple[str, frozenset[str]]:
    async def ask() -> tuple[str, frozenset[str]]:
        engine = create_engine(database.url_for("pricing"), "pricing")
        try:
            async with create_sessions(engine)() as session:
                found = await caller_of(session, key)
        finally:
            await engine.dispose()
        return found.name, found.scopes

    return asyncio.run(ask())


def test_a_key_opens_what_it_was_made_for(farebox: Farebox, database: Database) -> None:
    made = farebox(*CREATE, "--scope", "pricing:read", "--scope", "pricing:write", "--json")
    assert made.code == 0, made.err
    key = json.loads(made.out)["key"]
    assert caller(database, key) == ("ops", frozenset({"pricing:read", "pricing:write"}))


def test_a_key_without_scopes_named_has_all_of_its_service(
    farebox: Farebox, database: Database
) -> None:
    key = farebox(*CREATE).out.strip()
    assert caller(database, key) == ("ops", frozenset(SCOPES["pricing"]))


def test_a_list_names_keys_and_never_shows_one(farebox: Farebox) -> None:
    key = farebox(*CREATE).out.strip()
    listed = farebox("keys", "list", "--service", "pricing", "--json")
    [row] = json.loads(listed.out)
    assert (row["name"], row["revoked_at"]) == ("ops", None)
    assert key not in listed.out


def test_a_revoked_key_opens_nothing(farebox: Farebox, database: Database) -> None:
    key = farebox(*CREATE).out.strip()
    assert farebox("keys", "revoke", "--service", "pricing", "--name", "ops").code == 0
    with pytest.raises(Unauthorized):
        caller(database, key)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ((*CREATE, "--scope", "payments:write"), 1, "unknown scopes ['payments:write']"),
        (("keys", "revoke", "--service", "pricing", "--name", "nobody"), 1, "no key named"),
        (("keys", "list", "--service", "kitchen"), 2, "kitchen"),
        (("keys", "create", "--service", "pricing"), 2, "--name"),
    ],
)
def test_what_cannot_be_is_said(
    farebox: Farebox, arguments: tuple[str, ...], code: int, said: str
) -> None:
    outcome = farebox(*arguments)
    assert outcome.code == code
    assert said in outcome.err


def test_a_name_stands_for_one_key_only(farebox: Farebox) -> None:
    farebox(*CREATE)
    again = farebox(*CREATE)
    assert again.code == 1
    assert "exists already" in again.err
