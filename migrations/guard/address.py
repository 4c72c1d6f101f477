"""The database's URL as it was given, judged before anything connects: a slip must not pass for an outage.

No message repeats what was given: a password may stand anywhere in it.
"""

import psycopg
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from migrations.faults import NotAUrl
from shared.db import plain_url

HIGHEST_PORT = 65_535
SSL_MODES = {"disable", "allow", "prefer", "require", "verify-ca", "verify-full"}


def address(given: str) -> str:
    """`given` as libpq wants it.  Raises NotAUrl."""
    try:
        url = make_url(given)
        backend = url.get_backend_name()
    except (ArgumentError, ValueError) as error:
        # Its text may repeat what was given, password and all.
        raise NotAUrl from error
    if backend not in ("postgresql", "postgres"):
        raise NotAUrl
    _require_whole(url)
    plain = plain_url(given)
    try:
        conninfo_to_dict(plain)
    except psycopg.ProgrammingError as error:
        names = ", ".join(sorted(url.query)) or "none"
        raise NotAUrl(
            f"PostgreSQL cannot read this database URL (its parameters: {names})"
        ) from error
    return plain


def _require_whole(url: URL) -> None:
    if url.host is not None and "@" in url.host:
        raise NotAUrl(
            "this is not a database URL: there is one @ too many, in a password it is written %40"
        )
    if url.port is not None and not 0 < url.port <= HIGHEST_PORT:
        raise NotAUrl(f"this is not a database URL: no port is {url.port}")
    if not (url.database or url.query.get("dbname")):
        raise NotAUrl("this database URL names no database")
    mode = url.query.get("sslmode", "prefer")
    if mode not in SSL_MODES:
        raise NotAUrl(f"sslmode in this database URL is none of {', '.join(sorted(SSL_MODES))}")
