"""PostgreSQL's catalog, asked for what a dump must bring back and a migration must not break.

Every query expects search_path = pg_catalog, so that names come out qualified.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from psycopg import Connection, sql

# Amounts by our own naming rule: minor units, points and what is left of them.
MONEY = re.compile(r"_minor$|^points|_points(_|$)|^balance|_balance$")
# The job's own book-keeping and alembic's change with every run.
OWN = ("farebox_migration",)
NOT_OURS = """
    n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND n.nspname <> ALL (%(own)s)
    AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e'
        AND d.classid = 'pg_class'::regclass)
""".replace("%(own)s", "'{" + ",".join(OWN) + "}'")

TABLES = f"""
SELECT c.oid, n.nspname, c.relname,
    (SELECT jsonb_object_agg(a.attname, format_type(a.atttypid, a.atttypmod)
            || CASE WHEN a.attnotnull THEN ' NOT NULL' ELSE '' END
            || CASE WHEN a.attgenerated <> '' THEN ' GENERATED AS ' ELSE ' DEFAULT ' END
            || coalesce(pg_get_expr(e.adbin, e.adrelid), 'NULL'))
        FROM pg_attribute a LEFT JOIN pg_attrdef e ON (e.adrelid, e.adnum) = (a.attrelid, a.attnum)
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
    (SELECT array_agg(a.attname ORDER BY a.attnum) FROM pg_attribute a
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        AND a.atttypid = ANY ('{{int2,int4,int8,numeric}}'::regtype[])),
    (SELECT array_agg(a.attname ORDER BY array_position(i.indkey, a.attnum))
        FROM pg_index i JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY (i.indkey)
        WHERE i.indrelid = c.oid AND i.indisprimary)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND {NOT_OURS}
ORDER BY 2, 3
"""

CONSTRAINTS = f"""
SELECT t.conname, t.contype, n.nspname, c.relname, pg_get_constraintdef(t.oid), t.convalidated,
    (SELECT array_agg(a.attname ORDER BY k.nr) FROM unnest(t.conkey) WITH ORDINALITY k(att, nr)
        JOIN pg_attribute a ON (a.attrelid, a.attnum) = (t.conrelid, k.att)),
    fn.nspname, f.relname,
    (SELECT array_agg(a.attname ORDER BY k.nr) FROM unnest(t.confkey) WITH ORDINALITY k(att, nr)
        JOIN pg_attribute a ON (a.attrelid, a.attnum) = (t.confrelid, k.att)),
    pg_get_expr(t.conbin, t.conrelid),
    -- Periods are compared by what they cover; what nobody enforces binds nobody.  (PostgreSQL 18.)
    coalesce((to_jsonb(t) ->> 'conenforced')::boolean, true)
        AND NOT (t.contype = 'f' AND coalesce((to_jsonb(t) ->> 'conperiod')::boolean, false))
FROM pg_constraint t JOIN pg_class c ON c.oid = t.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_class f ON f.oid = t.confrelid LEFT JOIN pg_namespace fn ON fn.oid = f.relnamespace
WHERE t.conparentid = 0 AND t.contype <> 't' AND {NOT_OURS}
ORDER BY 3, 4, 1
"""

INDEXES = f"""
SELECT format('%I.%I', n.nspname, c.relname), i.indrelid::regclass::text, pg_get_indexdef(i.indexrelid),
    -- A partitioned one is valid when every partition has its own; until then it is merely not complete.
    (i.indisvalid OR c.relkind = 'I') AND i.indisready AND i.indislive
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE {NOT_OURS}
ORDER BY 1
"""

# A missing list and one that says the default are the same; a dump does not keep them apart.
GRANTS = f"""
SELECT format('%I.%I', n.nspname, c.relname),
    array(SELECT x::text FROM unnest(coalesce(c.relacl,
        acldefault(CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", c.relowner))) x ORDER BY 1)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f') AND c.relpersistence <> 't' AND {NOT_OURS}
UNION ALL
SELECT format('%I.%I(%I)', n.nspname, c.relname, a.attname),
    array(SELECT x::text FROM unnest(a.attacl) x ORDER BY 1)
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE a.attnum > 0 AND NOT a.attisdropped AND cardinality(a.attacl) > 0 AND {NOT_OURS}
UNION ALL
SELECT format('schema %I', n.nspname),
    array(SELECT x::text FROM unnest(coalesce(n.nspacl, acldefault('n', n.nspowner))) x ORDER BY 1)
FROM pg_namespace n LEFT JOIN pg_class c ON false
WHERE {NOT_OURS}
ORDER BY 1
"""

# Triggers, functions, views, sequences' kinds, enums: by definition, so that one that was lost or changed is seen.
OBJECTS = f"""
SELECT format('trigger %I on %I.%I', t.tgname, n.nspname, c.relname),
    pg_get_triggerdef(t.oid) || ' ' || t.tgenabled::text
FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE NOT t.tgisinternal AND {NOT_OURS}
UNION ALL
SELECT format('function %I.%I(%s)', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid)),
    md5(pg_get_functiondef(p.oid))
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace LEFT JOIN pg_class c ON false
WHERE p.prokind IN ('f', 'p') AND {NOT_OURS}
    AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e')
UNION ALL
SELECT format('view %I.%I', n.nspname, c.relname), pg_get_viewdef(c.oid)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('v', 'm') AND {NOT_OURS}
UNION ALL
SELECT format('sequence %I.%I', n.nspname, c.relname), s.seqtypid::regtype::text || ' by ' || s.seqincrement
FROM pg_sequence s JOIN pg_class c ON c.oid = s.seqrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE {NOT_OURS}
UNION ALL
SELECT format('enum %I.%I', n.nspname, y.typname),
    (SELECT string_agg(e.enumlabel, ',' ORDER BY e.enumsortorder) FROM pg_enum e WHERE e.enumtypid = y.oid)
FROM pg_type y JOIN pg_namespace n ON n.oid = y.typnamespace LEFT JOIN pg_class c ON false
WHERE y.typtype = 'e' AND {NOT_OURS}
    AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = y.oid AND d.deptype = 'e')
UNION ALL
SELECT format('extension %I', x.extname), x.extversion FROM pg_extension x
ORDER BY 1
"""


@dataclass(frozen=True)
class Table:
    """`columns`: name to type and default; `key`: of the primary key, else empty."""

    oid: int
    schema: str
    label: str
    columns: dict[str, str]
    numbers: tuple[str, ...] = ()
    key: tuple[str, ...] = ()
    name: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", f"{self.schema}.{self.label}")

    @property
    def identifier(self) -> sql.Identifier:
        return sql.Identifier(self.schema, self.label)

    @property
    def money(self) -> tuple[str, ...]:
        return tuple(sorted(each for each in self.columns if MONEY.search(each)))


def tables(connection: Connection) -> list[Table]:
    return [
        Table(oid, schema, label, columns or {}, tuple(numbers or ()), tuple(key or ()))
        for oid, schema, label, columns, numbers, key in connection.execute(
            TABLES.encode()
        ).fetchall()
    ]


@dataclass(frozen=True)
class Constraint:
    name: str
    kind: str
    table: str
    definition: str
    validated: bool
    place: sql.Identifier
    columns: tuple[str, ...]
    target: sql.Identifier | None
    target_columns: tuple[str, ...]
    expression: str | None
    # Whether the rows that break it can be counted here.
    counted: bool = True

    def broken_by_row(self) -> sql.Composed | None:
        """A condition on the table's own row `c`, for what can be told without looking at any other row."""
        if not self.counted:
            return None
        match self.kind:
            case "c" if self.expression is not None:
                return sql.SQL("NOT ({})").format(sql.SQL(self.expression))
            case "n":
                return _all("c.{} IS NULL", self.columns)
            case _:
                return None

    def violations(self) -> sql.Composed | None:
        """A query for the number of rows that break it, also where PostgreSQL was told not to look."""
        if self.kind in "up":
            many = sql.SQL("SELECT coalesce(sum(n - 1), 0)::bigint FROM (SELECT count(*) n {}) d")
            return many.format(self._duplicates())
        broken = self._broken()
        return None if broken is None else sql.SQL("SELECT count(*) {}").format(broken)

    def examples(self, limit: int) -> sql.Composed | None:
        """A query for what stands in the constraint's columns of such rows."""
        broken = self._duplicates() if self.kind in "up" else self._broken()
        if broken is None or not self.columns:
            return None
        names = sql.SQL(", ").join(sql.Identifier("c", each) for each in self.columns)
        query = sql.SQL("SELECT ROW({})::text {} LIMIT {}")
        return query.format(names, broken, sql.Literal(limit))

    def _broken(self) -> sql.Composed | None:
        if self.kind == "f" and self.target is not None and self.counted:
            return self._orphans(self.target)
        broken = self.broken_by_row()
        return sql.SQL("FROM {} c WHERE {}").format(self.place, broken) if broken else None

    def _orphans(self, target: sql.Identifier) -> sql.Composed:
        pairs = zip(self.columns, self.target_columns, strict=True)
        same = sql.SQL(" AND ").join(
            sql.SQL("p.{} = c.{}").format(sql.Identifier(theirs), sql.Identifier(ours))
            for ours, theirs in pairs
        )
        query = "FROM {} c WHERE {} AND NOT EXISTS (SELECT FROM {} p WHERE {})"
        filled = _all("c.{} IS NOT NULL", self.columns)
        return sql.SQL(query).format(self.place, filled, target, same)

    def _duplicates(self) -> sql.Composed:
        names = sql.SQL(", ").join(sql.Identifier("c", each) for each in self.columns)
        filled = _all("c.{} IS NOT NULL", self.columns)
        query = sql.SQL("FROM {} c WHERE {} GROUP BY {} HAVING count(*) > 1")
        return query.format(self.place, filled, names)


def _all(condition: str, columns: Sequence[str]) -> sql.Composed:
    test = sql.SQL(condition)
    return sql.SQL(" AND ").join(test.format(sql.Identifier(each)) for each in columns)


def constraints(connection: Connection) -> list[Constraint]:
    found = connection.execute(CONSTRAINTS.encode()).fetchall()
    return [
        Constraint(
            name=name,
            kind=kind,
            table=f"{schema}.{label}",
            definition=definition,
            validated=validated,
            place=sql.Identifier(schema, label),
            columns=tuple(columns or ()),
            target=sql.Identifier(target_schema, target) if target else None,
            target_columns=tuple(target_columns or ()),
            expression=expression,
            counted=counted,
        )
        for name, kind, schema, label, definition, validated, columns, *rest in found
        for target_schema, target, target_columns, expression, counted in (rest,)
    ]
