"""What a database is besides its contents, and how one is made, renamed and dropped."""

import re

from psycopg import Connection, sql

# Lists of names: pg_db_role_setting holds them quoted already, one literal would be one name.
LISTS = {
    "search_path",
    "local_preload_libraries",
    "session_preload_libraries",
    "temp_tablespaces",
}
FROM = """
SELECT pg_encoding_to_char(encoding), datcollate, datctype, pg_get_userbyid(datdba), datlocprovider::text,
    to_jsonb(d) ->> 'daticulocale', to_jsonb(d) ->> 'datlocale', datconnlimit,
    spcname
FROM pg_database d JOIN pg_tablespace t ON t.oid = dattablespace WHERE datname = %s
"""
# Whoever names it must be allowed to create in it, though it is where databases go anyway.
DEFAULT_SPACE = "pg_default"
PROVIDERS = {"c": "libc", "i": "icu", "b": "builtin"}
SETTINGS = """
SELECT coalesce(r.rolname, ''), unnest(s.setconfig) FROM pg_db_role_setting s
    LEFT JOIN pg_roles r ON r.oid = s.setrole
WHERE s.setdatabase = (SELECT oid FROM pg_database WHERE datname = %s) ORDER BY 1, 2
"""
GRANTS = """
SELECT CASE x.grantee WHEN 0 THEN NULL ELSE pg_get_userbyid(x.grantee) END, x.privilege_type, x.is_grantable
FROM pg_database d, aclexplode(d.datacl) x WHERE d.datname = %s
"""
HAS_GRANTS = "SELECT datacl IS NOT NULL FROM pg_database WHERE datname = %s"
# Every comment of ours on a database begins so; without it a database is somebody's, whatever its name.
OURS = "farebox: "
MARK = f"{OURS}a copy that the migration job made; it is dropped when no job uses it"
# Another owner's would refuse to go, and with it each run that comes across it.
UNCLAIMED = """
SELECT datname FROM pg_database d
WHERE starts_with(shobj_description(oid, 'pg_database'), %s) AND pg_has_role(datdba, 'USAGE')
    AND NOT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = d.datname)
"""


def exists(connection: Connection, database: str) -> bool:
    query = "SELECT count(*) FROM pg_database WHERE datname = %s"
    row = connection.execute(query, (database,)).fetchone()
    return bool(row and row[0])


def is_open(connection: Connection, database: str) -> bool:
    query = "SELECT datallowconn FROM pg_database WHERE datname = %s"
    row = connection.execute(query, (database,)).fetchone()
    return bool(row and row[0])


def claim(holder: Connection, database: str) -> None:
    """As long as `holder` is connected, `sweep` leaves `database` alone."""
    holder.execute("SELECT set_config('application_name', %s, false)", (database,))


def sweep(connection: Connection, names: re.Pattern[str]) -> None:
    """Drop the databases of such names that bear our mark and whose makers were killed."""
    for (name,) in connection.execute(UNCLAIMED, (OURS,)).fetchall():
        if names.fullmatch(name):
            drop(connection, name)


def create_like(connection: Connection, model: str, database: str) -> None:
    """An empty database with `model`'s encoding, locale and owner, marked as a copy of ours."""
    row = connection.execute(FROM, (model,)).fetchone()
    assert row is not None, "the database we are connected to exists"
    encoding, collate, ctype, owner, provider, icu, locale, limit, space = row
    options = [
        sql.SQL("TEMPLATE template0 ENCODING {}").format(sql.Literal(encoding)),
        sql.SQL("LC_COLLATE {} LC_CTYPE {}").format(sql.Literal(collate), sql.Literal(ctype)),
        sql.SQL("OWNER {}").format(sql.Identifier(owner)),
        sql.SQL("LOCALE_PROVIDER {}").format(sql.SQL(PROVIDERS[provider])),
        sql.SQL("CONNECTION LIMIT {}").format(sql.Literal(limit)),
    ]
    if provider == "i":
        options.append(sql.SQL("ICU_LOCALE {}").format(sql.Literal(icu or locale)))
    if provider == "b":
        options.append(sql.SQL("BUILTIN_LOCALE {}").format(sql.Literal(locale)))
    if space != DEFAULT_SPACE:
        options.append(sql.SQL("TABLESPACE {}").format(sql.Identifier(space)))
    name = sql.Identifier(database)
    connection.execute(sql.SQL("CREATE DATABASE {} {}").format(name, sql.SQL(" ").join(options)))
    comment(connection, database, MARK)


def dress_like(connection: Connection, model: str, database: str) -> None:
    """Settings and grants; after the rows are in, for a setting may forbid to write."""
    name = sql.Identifier(database)
    for role, setting in connection.execute(SETTINGS, (model,)).fetchall():
        connection.execute(_setting(role, name, *setting.split("=", 1)))
    _copy_grants(connection, model, name)


def _setting(role: str, database: sql.Identifier, name: str, value: str) -> sql.Composed:
    whose = sql.SQL("DATABASE {}").format(database)
    if role:
        whose = sql.SQL("ROLE {} IN DATABASE {}").format(sql.Identifier(role), database)
    said = sql.SQL(value) if name in LISTS and value else sql.Literal(value)
    # A setting of an extension is two words with a dot, each quoted by itself.
    words = sql.SQL(".").join(map(sql.Identifier, name.split(".")))
    return sql.SQL("ALTER {} SET {} TO {}").format(whose, words, said)


def _copy_grants(connection: Connection, model: str, database: sql.Identifier) -> None:
    row = connection.execute(HAS_GRANTS, (model,)).fetchone()
    if not (row and row[0]):
        return
    connection.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(database))
    for role, privilege, grantable in connection.execute(GRANTS, (model,)).fetchall():
        grant = sql.SQL("GRANT {} ON DATABASE {} TO {} {}").format(
            sql.SQL(privilege),
            database,
            sql.SQL("PUBLIC") if role is None else sql.Identifier(role),
            sql.SQL("WITH GRANT OPTION" if grantable else ""),
        )
        connection.execute(grant)


def drop(connection: Connection, database: str) -> None:
    """Whoever is connected is thrown out; it may be gone already."""
    statement = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)")
    connection.execute(statement.format(sql.Identifier(database)))


def allow(control: Connection, database: str, connections: bool) -> None:
    control.execute(
        sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}").format(
            sql.Identifier(database), sql.Literal(connections)
        )
    )


def rename(control: Connection, old: str, new: str) -> None:
    """It can be connected to afterwards."""
    control.execute(
        sql.SQL("ALTER DATABASE {} RENAME TO {}").format(sql.Identifier(old), sql.Identifier(new))
    )
    allow(control, new, True)


def comment_of(connection: Connection, database: str) -> str | None:
    query = "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = %s"
    row = connection.execute(query, (database,)).fetchone()
    return row[0] if row else None


def comment(connection: Connection, database: str, text: str | None) -> None:
    statement = sql.SQL("COMMENT ON DATABASE {} IS {}")
    connection.execute(statement.format(sql.Identifier(database), sql.Literal(text)))
