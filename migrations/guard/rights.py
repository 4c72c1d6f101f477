"""Whether the role may do all that the run will: create, alter, drop, read every table, test the backup."""

from collections.abc import Iterator

import psycopg

from migrations.guard.subject import Problem, Subject, names, one, refuse, shortened, warn

OWN = "('public', 'pricing', 'payments', 'loyalty', 'analytics')"
RIGHTS = """
SELECT has_database_privilege(current_database(), 'CREATE'), r.rolcreatedb OR r.rolsuper,
    r.rolcreaterole OR r.rolsuper, current_user, pg_has_role('pg_read_all_stats', 'USAGE'),
    current_setting('default_transaction_read_only')::bool
FROM pg_roles r WHERE r.rolname = current_user
"""
MISSING_ROLES = """
SELECT array_agg(name) FROM unnest(ARRAY['pricing_app', 'payments_app', 'loyalty_app', 'analytics_app']) AS name
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name)
"""
# pg_dump needs both; what an extension brings is not dumped.
NOT_OURS = """n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND NOT EXISTS (
    SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.classid = 'pg_class'::regclass AND d.deptype = 'e')"""
CLOSED_SCHEMAS = f"""
SELECT DISTINCT format('%I', n.nspname) FROM pg_namespace n JOIN pg_class c ON c.relnamespace = n.oid
WHERE {NOT_OURS} AND NOT has_schema_privilege(n.oid, 'USAGE') ORDER BY 1
"""
UNREADABLE = f"""
SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'm') AND c.relpersistence <> 't' AND {NOT_OURS}
    AND NOT has_table_privilege(c.oid, 'SELECT') ORDER BY 1
"""
UNREADABLE_SEQUENCES = f"""
SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relpersistence <> 't' AND {NOT_OURS}
    AND CASE c.relkind WHEN 'S' THEN NOT has_sequence_privilege(c.oid, 'SELECT') END ORDER BY 1
"""
SHUT_SCHEMAS = f"""
SELECT format('%I', nspname) FROM pg_namespace
WHERE nspname IN {OWN} AND NOT has_schema_privilege(oid, 'CREATE') ORDER BY 1
"""
# Nobody but the owner may ALTER or DROP; and a copy cannot be given to a role we are not a member of.
FOREIGN = f"""
SELECT format('%I.%I', n.nspname, c.relname), pg_get_userbyid(c.relowner), n.nspname IN {OWN}
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f') AND c.relpersistence <> 't' AND {NOT_OURS}
    AND NOT pg_has_role(c.relowner, 'USAGE')
UNION ALL
SELECT format('%I.%I', n.nspname, p.proname), pg_get_userbyid(p.proowner), n.nspname IN {OWN}
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND NOT pg_has_role(p.proowner, 'USAGE')
    AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e')
UNION ALL
SELECT format('schema %I', n.nspname), pg_get_userbyid(n.nspowner), n.nspname IN {OWN}
FROM pg_namespace n
WHERE n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'public')
    AND NOT pg_has_role(n.nspowner, 'USAGE')
ORDER BY 2, 1
"""


def rights(subject: Subject) -> Iterator[Problem]:
    row = subject.connection.execute(RIGHTS).fetchone()
    create, create_database, create_role, user, sees, read_only = row or (None,) * 6
    if read_only:
        yield refuse(
            "read only",
            "this database only takes reads (default_transaction_read_only is on)",
            f"ALTER DATABASE … SET default_transaction_read_only = off, or ALTER ROLE {user} …",
        )
    if not create:
        yield refuse(
            "privileges",
            f"{user} may not create schemas here",
            f"GRANT CREATE ON DATABASE … TO {user}",
        )
    if not create_database and subject.scratch_url is None and not subject.bare:
        yield refuse(
            "privileges",
            f"{user} may not create the database that the backup is tested in",
            f"ALTER ROLE {user} CREATEDB, or give a role that may in FAREBOX_SCRATCH_DATABASE_URL",
        )
    missing = one(subject, MISSING_ROLES)
    if isinstance(missing, list) and missing and not create_role and subject.steps:
        yield refuse(
            "privileges",
            f"{user} may not create the roles {', '.join(map(str, missing))}",
            f"ALTER ROLE {user} CREATEROLE, or create them",
        )
    if not sees:
        yield warn(
            "sight",
            f"{user} cannot see how long others' transactions last nor how far replicas are",
            f"GRANT pg_read_all_stats TO {user}, or look yourself",
        )
    yield from _reading(subject, str(user))
    yield from _changing(subject, str(user))


def _reading(subject: Subject, user: str) -> Iterator[Problem]:
    for query, what, grant in (
        (CLOSED_SCHEMAS, "look into schema", "USAGE ON SCHEMA"),
        (UNREADABLE, "read", "SELECT ON"),
        (UNREADABLE_SEQUENCES, "read", "SELECT ON SEQUENCE"),
    ):
        if found := names(subject, query):
            yield refuse(
                "privileges",
                f"{user} may not {what} {shortened(found)}, so not back it up",
                f"GRANT {grant} {shortened(found)} TO {user}",
            )


def _changing(subject: Subject, user: str) -> Iterator[Problem]:
    if found := names(subject, SHUT_SCHEMAS):
        yield refuse(
            "privileges",
            f"{user} may not create anything in schema {shortened(found)}",
            f"GRANT CREATE ON SCHEMA {shortened(found)} TO {user}",
        )
    foreign: dict[str, list[str]] = {}
    for name, owner, own in subject.connection.execute(FOREIGN.encode()):
        # Elsewhere a superuser may bring back what is somebody else's; what we change must be ours.
        if own or subject.scratch_url is None:
            foreign.setdefault(str(owner), []).append(str(name))
    for owner, found in foreign.items():
        yield refuse(
            "privileges",
            f"{user} does not own {shortened(found)}, but {owner} does",
            f"run as {owner}, or ALTER … OWNER TO {user}, or GRANT {owner} TO {user}",
        )


def may_not(error: psycopg.errors.InsufficientPrivilege) -> Problem:
    """For what can only be found out by trying."""
    said = " ".join(str(error).split())
    return refuse("privileges", said, "run as the owner, or GRANT it what it lacks")
