"""Small migrations that a live database does not notice, though they look like some that hurt."""

TIMED = "SET lock_timeout = '2s';\n"

SAFE = {
    "nothing": "",
    "only-a-comment": "-- later",
    "new-table": "CREATE TABLE notes (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body text);",
    "new-table-with-everything": (
        "BEGIN;\nCREATE TABLE notes (id serial PRIMARY KEY, n int NOT NULL CHECK (n > 0), c char(3));\n"
        "CREATE INDEX ON notes (n);\nCREATE UNIQUE INDEX u ON notes (c);\n"
        "ALTER TABLE notes ADD COLUMN token uuid DEFAULT gen_random_uuid();\n"
        "ALTER TABLE notes ALTER COLUMN n TYPE bigint;\nALTER TABLE notes ALTER COLUMN c SET NOT NULL;\n"
        "ALTER TABLE notes ADD CONSTRAINT q UNIQUE (n, c);\nALTER TABLE notes RENAME n TO m;\n"
        "ALTER TABLE notes DROP COLUMN c;\nUPDATE notes SET m = 0;\nCOMMIT;"
    ),
    "new-tables-that-refer-to-each-other": (
        "CREATE TABLE a (id int PRIMARY KEY);\nCREATE TABLE b (a_id int REFERENCES a (id));\n"
        "ALTER TABLE b ADD CONSTRAINT f FOREIGN KEY (a_id) REFERENCES a (id);"
    ),
    "new-table-refers-to-an-old-one": (
        TIMED + "CREATE TABLE lines (order_id bigint REFERENCES orders (id));"
    ),
    "new-table-in-a-quoted-schema": (
        'CREATE SCHEMA "Shop";\nCREATE TABLE "Shop"."Notes" (id int);\n'
        'CREATE INDEX ix ON "Shop"."Notes" (id);'
    ),
    "new-table-in-the-search-path": (
        "SET search_path = shop;\nCREATE TABLE notes (id int);\nCREATE INDEX ix ON shop.notes (id);"
    ),
    "copied-table": "CREATE TABLE sums AS SELECT user_id, sum(total) FROM orders GROUP BY 1;\n"
    "CREATE INDEX ix ON sums (user_id);",
    "temporary-table": "CREATE TEMP TABLE t (id int);\nTRUNCATE t;\nDROP TABLE t;",
    "new-table-filled": "BEGIN;\nCREATE TABLE tiers (user_id bigint);\n"
    "INSERT INTO tiers SELECT id FROM users;\nCOMMIT;",
    "new-table-seeded-beside-a-new-column": (
        "BEGIN;\nSET LOCAL lock_timeout = '2s';\nALTER TABLE orders ADD COLUMN tier text;\n"
        "CREATE TABLE tiers (name text PRIMARY KEY);\nINSERT INTO tiers VALUES ('gold');\nCOMMIT;"
    ),
    "nullable-column": TIMED + "ALTER TABLE orders ADD COLUMN note text;",
    "column-with-constant": TIMED
    + "ALTER TABLE orders ADD COLUMN points bigint NOT NULL DEFAULT 0;",
    "column-with-now": TIMED
    + "ALTER TABLE orders ADD COLUMN seen timestamptz NOT NULL DEFAULT now();",
    "column-with-current-timestamp": TIMED
    + "ALTER TABLE orders ADD COLUMN seen timestamptz DEFAULT CURRENT_TIMESTAMP;",
    "column-with-json": TIMED
    + "ALTER TABLE orders ADD COLUMN bag jsonb NOT NULL DEFAULT '[]'::jsonb;",
    "virtual-column": TIMED
    + "ALTER TABLE orders ADD COLUMN n int GENERATED ALWAYS AS (a + b) VIRTUAL;",
    "timeout-of-the-transaction": (
        "BEGIN;\nSET LOCAL lock_timeout TO '3s';\nALTER TABLE orders ADD COLUMN note text;\nCOMMIT;"
    ),
    "timeout-by-function": (
        "BEGIN;\nSELECT set_config('lock_timeout', '2s', true);\n"
        "ALTER TABLE orders ADD COLUMN note text;\nCOMMIT;"
    ),
    "timeout-in-milliseconds": "SET lock_timeout = 2000;\nALTER TABLE orders ADD COLUMN note text;",
    "statement-timeout-bounds-the-wait-too": (
        "SET statement_timeout = '5s';\nALTER TABLE orders ADD COLUMN note text;"
    ),
    "several-changes-of-one-table": (
        "BEGIN;\nSET LOCAL lock_timeout = '2s';\nALTER TABLE orders ADD COLUMN a int;\n"
        "ALTER TABLE orders ADD COLUMN b int, ALTER COLUMN c SET DEFAULT 1;\nCOMMIT;"
    ),
    "two-tables-in-two-transactions": (
        TIMED + "BEGIN;\nALTER TABLE orders ADD COLUMN a int;\nCOMMIT;\n"
        "BEGIN;\nALTER TABLE users ADD COLUMN b int;\nCOMMIT;"
    ),
    "concurrent-index": "CREATE INDEX CONCURRENTLY ix ON orders (total);",
    "concurrent-index-anew": (
        "DROP INDEX CONCURRENTLY IF EXISTS ix;\nCREATE INDEX CONCURRENTLY IF NOT EXISTS ix ON orders (a);"
    ),
    "index-of-the-parent-only": TIMED + "CREATE INDEX ix ON ONLY logs (at);",
    "concurrent-reindex": "REINDEX INDEX CONCURRENTLY ix;",
    "drop-own-index": "CREATE TABLE t (a int);\nCREATE INDEX ix ON t (a);\nDROP INDEX ix;",
    "vacuum": "VACUUM (ANALYZE) orders;",
    "analyze": "ANALYZE orders;",
    "unique-by-index": (
        TIMED + "CREATE UNIQUE INDEX CONCURRENTLY u ON orders (number);\n"
        "ALTER TABLE orders ADD CONSTRAINT u UNIQUE USING INDEX u;"
    ),
    "check-later-validated": (
        TIMED
        + "BEGIN;\nALTER TABLE orders ADD CONSTRAINT c CHECK (total >= 0) NOT VALID;\nCOMMIT;\n"
        "ALTER TABLE orders VALIDATE CONSTRAINT c;"
    ),
    "foreign-key-not-valid": (
        TIMED + "ALTER TABLE orders ADD CONSTRAINT f FOREIGN KEY (user_id) REFERENCES users (id)"
        " NOT VALID;"
    ),
    "validate": "ALTER TABLE orders VALIDATE CONSTRAINT f;",
    "not-null-proved": (
        TIMED + "BEGIN;\n"
        "ALTER TABLE orders ADD CONSTRAINT c CHECK (total IS NOT NULL) NOT VALID;\nCOMMIT;\n"
        "BEGIN;\nALTER TABLE orders VALIDATE CONSTRAINT c;\nCOMMIT;\n"
        "BEGIN;\nALTER TABLE orders ALTER COLUMN total SET NOT NULL;\n"
        "ALTER TABLE orders DROP CONSTRAINT c;\nCOMMIT;"
    ),
    "not-null-proved-by-an-earlier-file": (
        TIMED + "ALTER TABLE orders VALIDATE CONSTRAINT orders_total_not_null;\n"
        "ALTER TABLE orders ALTER COLUMN total SET NOT NULL;"
    ),
    "drop-not-null": TIMED + "ALTER TABLE orders ALTER COLUMN total DROP NOT NULL;",
    "drop-constraint": TIMED + "ALTER TABLE orders DROP CONSTRAINT c;",
    "statistics": "ALTER TABLE orders ALTER COLUMN total SET STATISTICS 500;",
    "fillfactor": "ALTER TABLE orders SET (fillfactor = 80);",
    "trigger": TIMED + "CREATE TRIGGER t AFTER INSERT ON orders FOR EACH ROW EXECUTE FUNCTION f();",
    "renamed-behind-a-view": (
        "BEGIN;\nSET LOCAL lock_timeout = '2s';\nALTER TABLE orders RENAME TO purchases;\n"
        "CREATE VIEW orders AS SELECT * FROM purchases;\nCOMMIT;"
    ),
    "view-made-anew": (
        "BEGIN;\nSET LOCAL lock_timeout = '2s';\nDROP VIEW open_orders;\n"
        "CREATE VIEW open_orders AS SELECT * FROM orders;\nCOMMIT;"
    ),
    "rename-index": "ALTER INDEX ix RENAME TO iy;",
    "enum-value": "ALTER TYPE color ADD VALUE IF NOT EXISTS 'pink';",
    "new-enum": "CREATE TYPE color AS ENUM ('red', 'green');",
    "attach-new": (
        TIMED + "CREATE TABLE logs_2 (LIKE logs);\n"
        "ALTER TABLE logs ATTACH PARTITION logs_2 FOR VALUES FROM (1) TO (2);"
    ),
    "attach-proved": (
        TIMED + "ALTER TABLE logs_1 VALIDATE CONSTRAINT logs_1_bounds;\n"
        "ALTER TABLE logs ATTACH PARTITION logs_1 FOR VALUES FROM (1) TO (2);"
    ),
    "detach-concurrently": "ALTER TABLE logs DETACH PARTITION logs_1 CONCURRENTLY;",
    "refresh-concurrently": "REFRESH MATERIALIZED VIEW CONCURRENTLY sums;",
    "grants": "GRANT SELECT ON orders TO reader;\nREVOKE INSERT ON orders FROM reader;",
    "comment-and-extension": "COMMENT ON TABLE orders IS 'x';\nCREATE EXTENSION IF NOT EXISTS citext;",
    "function": "CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1';",
    "row-by-key": "UPDATE settings SET value = 'on' WHERE key = 'pricing';",
    "rows-by-keys": "DELETE FROM orders WHERE id IN (1, 2, 3);",
    "bookkeeping": "UPDATE alembic_version SET version_num = '2' WHERE version_num = '1';",
    "batch-by-range": "UPDATE orders SET total = 0 WHERE id >= 1000 AND id < 2000 AND total IS NULL;",
    "batch-by-limit": (
        "UPDATE orders SET total = 0 WHERE id IN (SELECT id FROM orders WHERE total IS NULL LIMIT 1000);"
    ),
    "batches-in-a-block": (
        "DO $$\nBEGIN\n  LOOP\n    UPDATE orders SET n = 0 WHERE id IN\n"
        "      (SELECT id FROM orders WHERE n IS NULL LIMIT 1000);\n"
        "    EXIT WHEN NOT FOUND;\n    COMMIT;\n  END LOOP;\nEND $$;"
    ),
    "role-in-a-block": (
        "DO $$ BEGIN\n  CREATE ROLE app LOGIN;\nEXCEPTION WHEN duplicate_object THEN NULL;\nEND $$;"
    ),
    "seed": "INSERT INTO settings (key, value) VALUES ('a', 'b') ON CONFLICT DO NOTHING;",
    "psql-commands": "\\set ON_ERROR_STOP on\nCREATE TABLE t (id int);",
    "allowed": "-- farebox:allow drop-column nobody has read it for a year\n"
    + TIMED
    + "ALTER TABLE orders DROP COLUMN note;",
    "validated-after-its-own-not-valid": (
        TIMED + "ALTER TABLE orders ADD CONSTRAINT c CHECK (total >= 0) NOT VALID;\n"
        "ALTER TABLE orders VALIDATE CONSTRAINT c;"
    ),
    "batch-by-cte": (
        "WITH b AS (SELECT id FROM orders WHERE n IS NULL LIMIT 500 FOR UPDATE SKIP LOCKED)\n"
        "UPDATE orders o SET n = 0 FROM b WHERE o.id = b.id;"
    ),
    "batch-by-ctid": (
        "DELETE FROM orders WHERE ctid = ANY (ARRAY(SELECT ctid FROM orders WHERE gone LIMIT 500));"
    ),
    "rows-of-a-block": (
        "DO $$\nDECLARE r record;\nBEGIN\n  FOR r IN SELECT id FROM orders LOOP\n"
        "    UPDATE orders SET n = 0 WHERE id = r.id;\n    COMMIT;\n  END LOOP;\nEND $$;"
    ),
    "new-table-dropped-with-cascade": "CREATE TABLE t (id int);\nDROP TABLE t CASCADE;",
    "swapped-with-a-new-table": (
        "CREATE TABLE orders_new (LIKE orders INCLUDING ALL);\nBEGIN;\n"
        "SET LOCAL lock_timeout = '2s';\nALTER TABLE orders RENAME TO orders_old;\n"
        "ALTER TABLE orders_new RENAME TO orders;\nCOMMIT;"
    ),
    "backfill-after-the-change": (
        "BEGIN;\nSET LOCAL lock_timeout = '2s';\nALTER TABLE orders ADD COLUMN n int;\nCOMMIT;\n"
        "BEGIN;\nUPDATE orders SET n = 0 WHERE id BETWEEN 1 AND 1000;\nCOMMIT;"
    ),
    "trigger-function-that-writes": (
        "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$\nBEGIN\n"
        "  UPDATE totals SET n = n + 1;\n  RETURN NEW;\nEND $$;"
    ),
}
