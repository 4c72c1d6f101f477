-- case: limit-all (LIMIT ALL is no limit)
-- found: 1:unbatched-change
UPDATE orders SET a = 1 WHERE id IN (SELECT id FROM orders WHERE a IS NULL LIMIT ALL);

-- case: limit-beyond-integers (no batch either)
-- found: 1:unbatched-change
DELETE FROM orders WHERE id IN (SELECT id FROM orders LIMIT 5000000000);

-- case: limit-ten-million (too large for a batch)
-- found: 1:unbatched-change
DELETE FROM orders WHERE id IN (SELECT id FROM orders LIMIT 10000000);

-- case: analyze-under-lock (reads a sample while ACCESS EXCLUSIVE is held)
-- found: 4:slow-statement-under-lock
BEGIN;
SET LOCAL lock_timeout = '2s';
ALTER TABLE orders ADD COLUMN a int;
ANALYZE orders;
COMMIT;

-- case: refresh-under-lock (fills a view while ACCESS EXCLUSIVE is held)
-- found: 5:slow-statement-under-lock
BEGIN;
SET LOCAL lock_timeout = '2s';
ALTER TABLE orders ADD COLUMN a int;
CREATE MATERIALIZED VIEW mv AS SELECT id FROM orders WITH NO DATA;
REFRESH MATERIALIZED VIEW mv;
COMMIT;

-- case: for-loop-over-an-update (the loop's query changes every row)
-- found: 4:unbatched-change
DO $$
DECLARE r record;
BEGIN
  FOR r IN UPDATE orders SET a = 1 RETURNING id LOOP
    RAISE NOTICE '%', r.id;
  END LOOP;
END $$;

-- case: copy-under-lock (as long as the file)
-- found: 4:slow-statement-under-lock
BEGIN;
SET LOCAL lock_timeout = '2s';
ALTER TABLE orders ADD COLUMN a int;
COPY regions (code) FROM '/srv/regions.csv';
COMMIT;

-- case: set-config-off (0 is no timeout)
-- found: 3:missing-lock-timeout
SET lock_timeout = '2s';
SELECT set_config('lock_timeout', '0', false);
ALTER TABLE orders ADD COLUMN a int;

-- case: set-config-local-without-transaction (ends with its own statement)
-- found: 2:missing-lock-timeout
SELECT set_config('lock_timeout', '2s', true);
ALTER TABLE orders ADD COLUMN a int;

-- case: set-local-ends-with-its-block (the second block has no timeout)
-- found: 6:missing-lock-timeout
DO $$
BEGIN
  SET LOCAL lock_timeout = '2s';
  ALTER TABLE orders ADD COLUMN a int;
END $$;
ALTER TABLE orders ADD COLUMN b int;

-- case: set-local-without-transaction (PostgreSQL warns, and ignores it)
-- found: 2:missing-lock-timeout
SET LOCAL lock_timeout = '2s';
ALTER TABLE orders ADD COLUMN a int;

-- case: fk-from-a-new-table-without-timeout (SHARE ROW EXCLUSIVE on orders waits without an end)
-- found: 1:missing-lock-timeout
CREATE TABLE reviews (id bigserial PRIMARY KEY, order_id bigint NOT NULL REFERENCES orders (id));

-- case: fk-of-an-old-table-to-a-new-one (the old table is read through)
-- found: 5:add-constraint-without-not-valid
BEGIN;
SET LOCAL lock_timeout = '2s';
CREATE TABLE regions (id int PRIMARY KEY);
ALTER TABLE orders ADD COLUMN region_id int;
ALTER TABLE orders ADD CONSTRAINT orders_region_fk FOREIGN KEY (region_id) REFERENCES regions (id);
COMMIT;

-- case: set-not-null-on-a-fresh-column (read through although every row has the default)
-- found: 3:set-not-null-without-check
SET lock_timeout = '2s';
ALTER TABLE orders ADD COLUMN n int DEFAULT 0;
ALTER TABLE orders ALTER COLUMN n SET NOT NULL;

-- case: two-dropped-at-once (two ACCESS EXCLUSIVE locks, two tables gone)
-- found: 3:drop-table 3:several-access-exclusive-locks 3:drop-table
BEGIN;
SET LOCAL lock_timeout = '2s';
DROP TABLE carts, cart_items;
COMMIT;

-- case: or-true (the key decides nothing)
-- found: 1:unbatched-change
DELETE FROM orders WHERE id = 5 OR status IS NULL;

-- case: half-a-range (only one end)
-- found: 1:unbatched-change
UPDATE orders SET a = 1 WHERE id > 1000;

-- case: quoted-is-another-table ("Orders" is new, orders is not)
-- found: 3:create-index-not-concurrent
SET lock_timeout = '2s';
CREATE TABLE "Orders" (id int);
CREATE INDEX i ON orders (id);

-- case: called-under-lock (its own function reads for long)
-- found: 5:ddl-and-backfill-in-one-transaction
BEGIN;
SET LOCAL lock_timeout = '2s';
CREATE FUNCTION fill() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  UPDATE orders SET a = 1 WHERE id BETWEEN 1 AND 1000;
END $$;
ALTER TABLE orders ADD COLUMN a int;
SELECT fill();
COMMIT;

-- case: domain-not-null (every column of that type is read)
-- found: 1:domain-constraint-without-not-valid
ALTER DOMAIN email SET NOT NULL;

-- case: domain-check (every column of that type is read)
-- found: 1:domain-constraint-without-not-valid
ALTER DOMAIN email ADD CONSTRAINT at CHECK (value LIKE '%@%');

-- case: statement-timeout-of-a-minute (a minute of queue)
-- found: 2:missing-lock-timeout
SET statement_timeout = '1min';
ALTER TABLE orders ADD COLUMN a int;

-- case: savepoint-of-another-name (what was rolled back was set after it)
-- found: 7:missing-lock-timeout
BEGIN;
SAVEPOINT a;
SET LOCAL lock_timeout = '2s';
SAVEPOINT b;
RELEASE SAVEPOINT b;
ROLLBACK TO SAVEPOINT a;
ALTER TABLE orders ADD COLUMN a int;
COMMIT;

-- case: default-by-a-volatile-function-said-so (asked for each row)
-- found: 3:add-column-volatile-default
SET lock_timeout = '2s';
CREATE FUNCTION code() RETURNS text LANGUAGE sql VOLATILE AS $$ SELECT 'x' $$;
ALTER TABLE orders ADD COLUMN code text DEFAULT code();

-- case: search-path-set-back (public.notes is another table)
-- found: 5:create-index-not-concurrent
SET lock_timeout = '2s';
SELECT set_config('search_path', 'shop', false);
CREATE TABLE notes (id int);
SET search_path = public;
CREATE INDEX i ON notes (id);

-- case: function-in-another-language (only SQL and PL/pgSQL are read here)
-- found: 1:cannot-judge
DO LANGUAGE plpython3u $$ plpy.execute("DELETE FROM orders") $$;

-- case: broken-block (PL/pgSQL's own grammar refuses it)
-- found: 1:syntax-error
DO $$
BEGIN
  IF THEN;
END $$;

-- case: called-by-name-of-an-old-table (what it does to orders is not written here)
-- found: 1:cannot-judge
SELECT audit.watch('public.orders');

-- case: a-function-of-this-file-named-like-a-built-in (pg_fill is ours)
-- found: 1:unbatched-change
CREATE FUNCTION pg_fill() RETURNS void LANGUAGE sql AS $$ UPDATE orders SET a = 1 $$;
SELECT pg_fill();

-- case: same-function-called-twice (the second call is under the lock)
-- found: 3:ddl-and-backfill-in-one-transaction
BEGIN;
SET LOCAL lock_timeout = '2s';
CREATE FUNCTION fill() RETURNS void LANGUAGE sql AS $$ UPDATE orders SET a = 1 WHERE id BETWEEN 1 AND 10 $$;
SELECT fill();
COMMIT;
BEGIN;
SET LOCAL lock_timeout = '2s';
ALTER TABLE orders ADD COLUMN b int;
SELECT fill();
COMMIT;

-- case: block-is-a-transaction-of-its-own (two ACCESS EXCLUSIVE locks within it)
-- found: 6:several-access-exclusive-locks
SET lock_timeout = '2s';
CREATE INDEX CONCURRENTLY i ON orders (a);
DO $$
BEGIN
  ALTER TABLE orders ADD COLUMN b int;
  ALTER TABLE users ADD COLUMN b int;
END $$;

-- case: pause-with-the-lock-held (not in the handler)
-- found: 5:slow-statement-under-lock
SET lock_timeout = '1s';
DO $$
BEGIN
  ALTER TABLE orders ADD COLUMN b int;
  PERFORM pg_sleep(1);
END $$;

-- case: rows-by-key-in-a-block-that-never-commits (every row in one transaction)
-- found: 5:unbatched-change
DO $$
DECLARE r record;
BEGIN
  FOR r IN SELECT id FROM orders LOOP
    UPDATE orders SET a = 1 WHERE id = r.id;
  END LOOP;
END $$;

-- case: executed-literal-that-is-no-sql (cannot be read)
-- found: 3:cannot-judge
DO $$
BEGIN
  EXECUTE 'ALTER TABEL orders';
END $$;

-- case: executed-result-of-another-function (only format() is read)
-- found: 3:cannot-judge
DO $$
BEGIN
  EXECUTE concat('DROP TABLE ', 'orders');
END $$;

-- case: prepared (its locks stay until somebody ends it)
-- found: 4:prepare-transaction
BEGIN;
SET LOCAL lock_timeout = '2s';
ALTER TABLE orders ADD COLUMN a int;
PREPARE TRANSACTION 'x';

-- case: materialized-refresh-without-data (who reads it fails)
-- found: 1:missing-lock-timeout 1:refresh-not-concurrent
REFRESH MATERIALIZED VIEW sums WITH NO DATA;

-- case: drop-sequence (nextval() fails)
-- found: 1:drop-sequence
DROP SEQUENCE order_numbers;

-- case: drop-extension (its functions are gone)
-- found: 1:drop-extension
DROP EXTENSION pgcrypto;

-- case: alter-policy-without-timeout (ACCESS EXCLUSIVE)
-- found: 1:missing-lock-timeout
ALTER POLICY own ON orders USING (true);

-- case: rename-of-a-type (casts fail)
-- found: 1:rename-type
ALTER TYPE color RENAME TO colour;

-- case: rename-of-an-attribute (as with a column)
-- found: 1:rename-type
ALTER TYPE address RENAME ATTRIBUTE zip TO code;

-- case: composite-type (tables that hold it are rewritten)
-- found: 1:alter-composite-type
ALTER TYPE address ADD ATTRIBUTE country text;

-- case: index-to-another-tablespace (copied under ACCESS EXCLUSIVE)
-- found: 2:tablespace-move
SET lock_timeout = '2s';
ALTER INDEX orders_pkey SET TABLESPACE fast;

-- case: cluster-of-everything (each table in turn)
-- found: 1:table-rewrite
CLUSTER;

-- case: vacuum-full-of-everything (each table in turn)
-- found: 1:table-rewrite
VACUUM FULL;

-- case: set-access-method (rewritten)
-- found: 2:table-rewrite
SET lock_timeout = '2s';
ALTER TABLE orders SET ACCESS METHOD heap2;

-- case: drop-owned (by no name)
-- found: 1:drop-owned
DROP OWNED BY app;

-- case: enum-value-as-a-default (not before COMMIT)
-- found: 4:enum-value-used-in-same-transaction
BEGIN;
SET LOCAL lock_timeout = '2s';
ALTER TYPE color ADD VALUE 'pink';
ALTER TABLE paints ALTER COLUMN color SET DEFAULT 'pink';
COMMIT;

-- case: validated-beside-another-change (users stands still while orders is read)
-- found: 4:ddl-and-backfill-in-one-transaction
BEGIN;
SET LOCAL lock_timeout = '2s';
ALTER TABLE users ADD COLUMN a int;
ALTER TABLE orders VALIDATE CONSTRAINT total_is_positive;
COMMIT;

-- case: merge-batch-under-lock (a batch too, while the lock is held)
-- found: 4:ddl-and-backfill-in-one-transaction
BEGIN;
SET LOCAL lock_timeout = '2s';
ALTER TABLE orders ADD COLUMN a int;
MERGE INTO orders o USING (SELECT * FROM imports WHERE id >= 1 AND id < 100) i ON i.id = o.id WHEN MATCHED THEN UPDATE SET a = i.a;
COMMIT;

-- case: upsert-from-a-table (any number of rows is updated)
-- found: 1:unbatched-change
INSERT INTO totals SELECT id, sum(n) FROM lines GROUP BY id ON CONFLICT (id) DO UPDATE SET n = excluded.n;

-- case: policy-without-timeout (ACCESS EXCLUSIVE)
-- found: 1:missing-lock-timeout
CREATE POLICY own ON orders USING (true);

-- case: rename-without-timeout (it waits, and then breaks the code)
-- found: 1:missing-lock-timeout 1:rename-column
ALTER TABLE orders RENAME COLUMN a TO b;

-- case: move-without-timeout (it waits, and then breaks the code)
-- found: 1:missing-lock-timeout 1:rename-table
ALTER TABLE orders SET SCHEMA shop;

-- case: two-transactions-without-timeout (each waits)
-- found: 2:missing-lock-timeout 5:missing-lock-timeout
BEGIN;
ALTER TABLE orders ADD COLUMN a int;
COMMIT;
BEGIN;
ALTER TABLE orders ADD COLUMN b int;
COMMIT;

-- case: replaced-by-an-empty-table (the code finds no row any more)
-- found: 3:rename-table
BEGIN;
SET LOCAL lock_timeout = '2s';
ALTER TABLE orders RENAME TO orders_old;
CREATE TABLE orders (id int);
COMMIT;
