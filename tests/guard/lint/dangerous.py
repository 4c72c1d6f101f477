"""Small migrations that would hurt a live database: (SQL, rule, line)."""

TIMED = "SET lock_timeout = '2s';\n"

DANGEROUS = {
    "no-lock-timeout": ("ALTER TABLE orders ADD COLUMN note text;", "missing-lock-timeout", 1),
    "lock-timeout-off": (
        "SET lock_timeout = 0;\nALTER TABLE orders ADD COLUMN note text;",
        "missing-lock-timeout",
        2,
    ),
    "lock-timeout-reset": (
        TIMED + "RESET lock_timeout;\nALTER TABLE orders ADD COLUMN note text;",
        "missing-lock-timeout",
        3,
    ),
    "lock-timeout-ended-with-its-transaction": (
        (
            "BEGIN;\nSET LOCAL lock_timeout = '2s';\nSELECT 1;\nCOMMIT;\n"
            "BEGIN;\nALTER TABLE orders ADD COLUMN note text;\nCOMMIT;"
        ),
        "missing-lock-timeout",
        6,
    ),
    "lock-timeout-local-outside-a-transaction": (
        "SET LOCAL lock_timeout = '2s';\nALTER TABLE orders ADD COLUMN note text;\nBEGIN;\nCOMMIT;",
        "missing-lock-timeout",
        2,
    ),
    "lock-timeout-undone-by-rollback": (
        "BEGIN;\nSET lock_timeout = '2s';\nROLLBACK;\nALTER TABLE orders ADD COLUMN note text;",
        "missing-lock-timeout",
        4,
    ),
    "lock-timeout-of-minutes": (
        "SET lock_timeout = '5min';\nALTER TABLE orders ADD COLUMN note text;",
        "lock-timeout-too-long",
        2,
    ),
    "new-table-locks-the-old-one-it-refers-to": (
        "CREATE TABLE lines (\n  id bigint PRIMARY KEY,\n  order_id bigint REFERENCES orders (id)\n);",
        "missing-lock-timeout",
        1,
    ),
    "trigger-without-timeout": (
        "CREATE TRIGGER t AFTER INSERT ON orders FOR EACH ROW EXECUTE FUNCTION f();",
        "missing-lock-timeout",
        1,
    ),
    "ddl-and-backfill": (
        (
            "BEGIN;\nSET LOCAL lock_timeout = '2s';\nALTER TABLE orders ADD COLUMN total bigint;\n"
            "UPDATE orders SET total = 0 WHERE id BETWEEN 1 AND 1000;\nCOMMIT;"
        ),
        "ddl-and-backfill-in-one-transaction",
        4,
    ),
    "ddl-and-backfill-without-begin": (
        TIMED + "ALTER TABLE orders ADD COLUMN total bigint;\n"
        "INSERT INTO totals SELECT id, 0 FROM lines;",
        "ddl-and-backfill-in-one-transaction",
        3,
    ),
    "backfill-then-ddl": (
        (
            "BEGIN;\nSET LOCAL lock_timeout = '2s';\nDELETE FROM orders WHERE id < 10 AND id > 5;\n"
            "ALTER TABLE orders ADD COLUMN total bigint;\nCOMMIT;"
        ),
        "ddl-and-backfill-in-one-transaction",
        4,
    ),
    "new-table-filled-while-its-foreign-key-locks": (
        (
            "BEGIN;\nSET LOCAL lock_timeout = '2s';\n"
            "CREATE TABLE tiers (user_id bigint REFERENCES users (id));\n"
            "INSERT INTO tiers SELECT id FROM users;\nCOMMIT;"
        ),
        "ddl-and-backfill-in-one-transaction",
        4,
    ),
    "whole-table-update": ("UPDATE orders SET total = 0;", "unbatched-change", 1),
    "whole-table-update-of-null": (
        "UPDATE orders\nSET total = 0\nWHERE total IS NULL;",
        "unbatched-change",
        1,
    ),
    "whole-table-delete": (
        "DELETE FROM orders WHERE created_at < now() - interval '1 year';",
        "unbatched-change",
        1,
    ),
    "delete-hidden-in-with": (
        "WITH gone AS (DELETE FROM orders RETURNING *) SELECT count(*) FROM gone;",
        "unbatched-change",
        1,
    ),
    "update-joined-by-id": (
        "UPDATE orders o SET total = l.total FROM lines l WHERE o.id = l.order_id;",
        "unbatched-change",
        1,
    ),
    "two-tables-in-one-transaction": (
        (
            "BEGIN;\nSET LOCAL lock_timeout = '2s';\nALTER TABLE orders ADD COLUMN a int;\n"
            "ALTER TABLE users ADD COLUMN b int;\nCOMMIT;"
        ),
        "several-access-exclusive-locks",
        4,
    ),
    "plain-index": (TIMED + "CREATE INDEX ix ON orders (total);", "create-index-not-concurrent", 2),
    "plain-unique-index": (
        TIMED + "CREATE UNIQUE INDEX ix ON shop.orders (total);",
        "create-index-not-concurrent",
        2,
    ),
    "concurrent-index-in-transaction": (
        "BEGIN;\nCREATE INDEX CONCURRENTLY ix ON orders (total);\nCOMMIT;",
        "not-in-transaction",
        2,
    ),
    "vacuum-in-transaction": ("BEGIN;\nVACUUM orders;\nCOMMIT;", "not-in-transaction", 2),
    "concurrent-index-if-not-exists": (
        "CREATE INDEX CONCURRENTLY IF NOT EXISTS ix ON orders (total);",
        "concurrent-index-if-not-exists",
        1,
    ),
    "plain-drop-index": (TIMED + "DROP INDEX ix;", "drop-index-not-concurrent", 2),
    "plain-reindex": (TIMED + "REINDEX TABLE orders;", "reindex-not-concurrent", 2),
    "vacuum-full": ("VACUUM FULL orders;", "table-rewrite", 1),
    "cluster": (TIMED + "CLUSTER orders USING ix;", "table-rewrite", 2),
    "uuid-default": (
        TIMED + "ALTER TABLE orders\n  ADD COLUMN token uuid NOT NULL DEFAULT gen_random_uuid();",
        "add-column-volatile-default",
        3,
    ),
    "clock-default": (
        TIMED + "ALTER TABLE orders ADD COLUMN at timestamptz DEFAULT clock_timestamp();",
        "add-column-volatile-default",
        2,
    ),
    "volatile-inside": (
        TIMED + "ALTER TABLE orders ADD COLUMN x int DEFAULT floor(random() * 10)::int;",
        "add-column-volatile-default",
        2,
    ),
    "unknown-function-default": (
        TIMED + "ALTER TABLE orders ADD COLUMN x int DEFAULT my.next_number();",
        "add-column-volatile-default",
        2,
    ),
    "serial-column": (
        TIMED + "ALTER TABLE orders ADD COLUMN n bigserial;",
        "add-column-volatile-default",
        2,
    ),
    "identity-column": (
        TIMED + "ALTER TABLE orders ADD COLUMN n bigint GENERATED ALWAYS AS IDENTITY;",
        "add-column-volatile-default",
        2,
    ),
    "stored-generated-column": (
        TIMED + "ALTER TABLE orders ADD COLUMN n bigint GENERATED ALWAYS AS (a + b) STORED;",
        "add-column-generated-stored",
        2,
    ),
    "required-column": (
        TIMED + "ALTER TABLE orders ADD COLUMN n bigint NOT NULL;",
        "add-column-not-null-without-default",
        2,
    ),
    "column-with-check": (
        TIMED + "ALTER TABLE orders ADD COLUMN n bigint CHECK (n > 0);",
        "add-constraint-without-not-valid",
        2,
    ),
    "column-with-foreign-key": (
        TIMED + "ALTER TABLE orders ADD COLUMN user_id uuid REFERENCES users (id);",
        "add-column-inline-foreign-key",
        2,
    ),
    "unique-column": (
        TIMED + "ALTER TABLE orders ADD COLUMN n bigint UNIQUE;",
        "add-unique-without-index",
        2,
    ),
    "int-to-bigint": (
        TIMED + "ALTER TABLE orders ALTER COLUMN id TYPE bigint;",
        "alter-column-type",
        2,
    ),
    "type-with-using": (
        TIMED + "ALTER TABLE orders ALTER COLUMN note TYPE text USING lower(note);",
        "alter-column-type",
        2,
    ),
    "set-not-null": (
        TIMED + "ALTER TABLE orders ALTER COLUMN total SET NOT NULL;",
        "set-not-null-without-check",
        2,
    ),
    "set-not-null-on-a-check-nobody-validated": (
        TIMED + "ALTER TABLE orders ADD CONSTRAINT c CHECK (total IS NOT NULL) NOT VALID;\n"
        "ALTER TABLE orders ALTER COLUMN total SET NOT NULL;",
        "set-not-null-without-check",
        3,
    ),
    "check": (
        TIMED + "ALTER TABLE orders ADD CONSTRAINT c CHECK (total >= 0);",
        "add-constraint-without-not-valid",
        2,
    ),
    "foreign-key": (
        TIMED + "ALTER TABLE orders ADD CONSTRAINT f FOREIGN KEY (user_id) REFERENCES users (id);",
        "add-constraint-without-not-valid",
        2,
    ),
    "validate-at-once": (
        (
            "BEGIN;\nSET LOCAL lock_timeout = '2s';\n"
            "ALTER TABLE orders ADD CONSTRAINT c CHECK (total >= 0) NOT VALID;\n"
            "ALTER TABLE orders VALIDATE CONSTRAINT c;\nCOMMIT;"
        ),
        "validate-in-same-transaction",
        4,
    ),
    "primary-key": (
        TIMED + "ALTER TABLE orders ADD PRIMARY KEY (id);",
        "add-unique-without-index",
        2,
    ),
    "unique": (
        TIMED + "ALTER TABLE orders ADD CONSTRAINT u UNIQUE (number);",
        "add-unique-without-index",
        2,
    ),
    "exclude": (
        TIMED + "ALTER TABLE orders ADD CONSTRAINT x EXCLUDE USING gist (period WITH &&);",
        "add-exclusion-constraint",
        2,
    ),
    "drop-column": (TIMED + "ALTER TABLE orders DROP COLUMN note;", "drop-column", 2),
    "rename-column": (TIMED + "ALTER TABLE orders RENAME COLUMN a TO b;", "rename-column", 2),
    "rename-table": (TIMED + "ALTER TABLE orders RENAME TO purchases;", "rename-table", 2),
    "move-to-schema": (TIMED + "ALTER TABLE orders SET SCHEMA shop;", "rename-table", 2),
    "drop-table": (TIMED + "DROP TABLE orders;", "drop-table", 2),
    "drop-cascade": (TIMED + "DROP TYPE color CASCADE;", "drop-cascade", 2),
    "drop-view": (TIMED + "DROP VIEW open_orders;", "drop-view", 2),
    "truncate": (TIMED + "TRUNCATE orders;", "truncate", 2),
    "rename-enum-value": (
        "ALTER TYPE color RENAME VALUE 'red' TO 'crimson';",
        "rename-enum-value",
        1,
    ),
    "enum-value-used-too-early": (
        "BEGIN;\nALTER TYPE color ADD VALUE 'pink';\nINSERT INTO paints VALUES ('pink');\nCOMMIT;",
        "enum-value-used-in-same-transaction",
        3,
    ),
    "lock-table": (TIMED + "LOCK TABLE orders;", "lock-table", 2),
    "attach-unproven": (
        TIMED + "ALTER TABLE logs ATTACH PARTITION logs_1 FOR VALUES FROM (1) TO (2);",
        "attach-partition-without-check",
        2,
    ),
    "detach": (
        TIMED + "ALTER TABLE logs DETACH PARTITION logs_1;",
        "detach-partition-not-concurrent",
        2,
    ),
    "refresh": (TIMED + "REFRESH MATERIALIZED VIEW sums;", "refresh-not-concurrent", 2),
    "unlogged": (TIMED + "ALTER TABLE orders SET UNLOGGED;", "table-rewrite", 2),
    "tablespace": (TIMED + "ALTER TABLE orders SET TABLESPACE fast;", "tablespace-move", 2),
    "trigger-off": (TIMED + "ALTER TABLE orders DISABLE TRIGGER ALL;", "disable-trigger", 2),
    "row-security": (
        TIMED + "ALTER TABLE orders ENABLE ROW LEVEL SECURITY;",
        "enable-row-security-without-policy",
        2,
    ),
    "in-a-block": (
        "DO $$\nBEGIN\n  UPDATE orders SET total = 0;\nEND $$;",
        "unbatched-change",
        3,
    ),
    "executed-in-a-block": (
        TIMED + "DO $$\nBEGIN\n  EXECUTE 'CREATE INDEX ix ON orders (total)';\nEND $$;",
        "create-index-not-concurrent",
        4,
    ),
    "formatted-in-a-block": (
        TIMED + "DO $$\nBEGIN\n  EXECUTE format('DROP TABLE %I', 'orders');\nEND $$;",
        "drop-table",
        4,
    ),
    "made-in-a-block": (
        "DO $$\nDECLARE q text := f();\nBEGIN\n  EXECUTE q;\nEND $$;",
        "cannot-judge",
        4,
    ),
    "loop-without-commit": (
        TIMED + "DO $$\nBEGIN\n  ALTER TABLE orders ADD COLUMN n int;\n"
        "  LOOP\n    UPDATE orders SET n = 0 WHERE id IN (SELECT id FROM orders LIMIT 9);\n"
        "    EXIT WHEN NOT FOUND;\n  END LOOP;\nEND $$;",
        "ddl-and-backfill-in-one-transaction",
        6,
    ),
    "syntax": ("SELECT 1;\nALTER TABEL orders ADD x int;", "syntax-error", 2),
    "begin-alone": (
        "BEGIN;\nSET LOCAL lock_timeout = '2s';\nALTER TABLE orders ADD COLUMN n int;",
        "transaction-not-ended",
        1,
    ),
    "database": ("DROP DATABASE shop;", "ban-drop-database", 1),
    "same-name-elsewhere-is-new": (
        TIMED + "CREATE TABLE shop.orders (id int);\nCREATE INDEX ix ON orders (id);",
        "create-index-not-concurrent",
        3,
    ),
    "limit-in-another-place": (
        "UPDATE orders SET total = (SELECT sum FROM sums s WHERE s.id = orders.id LIMIT 1);",
        "unbatched-change",
        1,
    ),
    "all-but-some": ("DELETE FROM orders WHERE id NOT IN (1, 2);", "unbatched-change", 1),
    "a-batch-of-everything": (
        "UPDATE orders SET n = 0 WHERE id BETWEEN 1 AND 100000000;",
        "unbatched-change",
        1,
    ),
    "explain-that-does-it": ("EXPLAIN ANALYZE UPDATE orders SET n = 0;", "unbatched-change", 1),
    "loop-that-never-commits": (
        (
            "DO $$\nBEGIN\n  LOOP\n"
            "    DELETE FROM orders WHERE id IN (SELECT id FROM orders WHERE gone LIMIT 9);\n"
            "    EXIT WHEN NOT FOUND;\n  END LOOP;\nEND $$;"
        ),
        "unbatched-change",
        4,
    ),
    "a-function-of-its-own": (
        "CREATE FUNCTION g() RETURNS void LANGUAGE sql AS $$\nUPDATE orders SET n = 0\n$$;\nSELECT g();",
        "unbatched-change",
        2,
    ),
    "not-null-constraint": (
        TIMED + "ALTER TABLE orders ADD CONSTRAINT n NOT NULL total;",
        "set-not-null-without-check",
        2,
    ),
    "partition-of-an-old-table": (
        "CREATE TABLE logs_9 PARTITION OF logs FOR VALUES FROM (1) TO (2);",
        "missing-lock-timeout",
        1,
    ),
    "half-of-a-swap": (
        TIMED + "BEGIN;\nALTER TABLE orders RENAME TO orders_old;\nCOMMIT;",
        "rename-table",
        3,
    ),
}
