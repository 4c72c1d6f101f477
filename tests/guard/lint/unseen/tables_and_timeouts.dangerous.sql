-- case: numeric-widen (old type unknown -> presumed rewrite)
-- found: 2:alter-column-type
SET lock_timeout = '2s';
ALTER TABLE invoices ALTER COLUMN amount TYPE numeric(12,2);

-- case: int-to-bigint (rewrite)
-- found: 2:alter-column-type
SET lock_timeout = '2s';
ALTER TABLE events ALTER COLUMN id TYPE bigint;

-- case: ts-to-tstz (rewrite unless UTC)
-- found: 2:alter-column-type
SET lock_timeout = '2s';
ALTER TABLE events ALTER COLUMN created_at TYPE timestamptz USING created_at AT TIME ZONE 'UTC';

-- case: rename-column (old code breaks)
-- found: 2:rename-column
SET lock_timeout = '2s';
ALTER TABLE customers RENAME COLUMN name TO full_name;

-- case: rename-table
-- found: 2:rename-table
SET lock_timeout = '2s';
ALTER TABLE customers RENAME TO clients;

-- case: drop-column (old code reads it; data lost)
-- found: 2:drop-column
SET lock_timeout = '2s';
ALTER TABLE customers DROP COLUMN legacy;

-- case: drop-table
-- found: 2:drop-table
SET lock_timeout = '2s';
DROP TABLE IF EXISTS legacy_orders;

-- case: drop-index (ACCESS EXCLUSIVE on the table)
-- found: 1:missing-lock-timeout 1:drop-index-not-concurrent
DROP INDEX orders_region_idx;

-- case: truncate
-- found: 1:missing-lock-timeout 1:truncate
TRUNCATE orders;

-- case: index-plain
-- found: 1:missing-lock-timeout 1:create-index-not-concurrent
CREATE INDEX orders_region_idx ON orders (region);

-- case: index-plain-timeout (lock_timeout does not shorten the build)
-- found: 2:create-index-not-concurrent
SET lock_timeout = '2s';
CREATE INDEX orders_region_idx ON orders (region);

-- case: index-conc-in-tx (errors)
-- found: 2:not-in-transaction
BEGIN;
CREATE INDEX CONCURRENTLY orders_region_idx ON orders (region);
COMMIT;

-- case: reindex
-- found: 1:missing-lock-timeout 1:reindex-not-concurrent
REINDEX TABLE orders;

-- case: cluster
-- found: 1:missing-lock-timeout 1:table-rewrite
CLUSTER orders USING orders_pkey;

-- case: vacuum-full
-- found: 1:missing-lock-timeout 1:table-rewrite
VACUUM FULL orders;

-- case: add-pk
-- found: 2:add-unique-without-index
SET lock_timeout = '2s';
ALTER TABLE logs ADD PRIMARY KEY (id);

-- case: add-unique
-- found: 2:add-unique-without-index
SET lock_timeout = '2s';
ALTER TABLE users ADD CONSTRAINT users_email_key UNIQUE (email);

-- case: exclusion
-- found: 2:add-exclusion-constraint
SET lock_timeout = '2s';
ALTER TABLE bookings ADD CONSTRAINT no_overlap EXCLUDE USING gist (room WITH =, during WITH &&);

-- case: check-valid
-- found: 2:add-constraint-without-not-valid
SET lock_timeout = '2s';
ALTER TABLE orders ADD CONSTRAINT total_pos CHECK (total >= 0);

-- case: check-not-valid-validate-same-tx
-- found: 4:validate-in-same-transaction
SET lock_timeout = '2s';
BEGIN;
ALTER TABLE orders ADD CONSTRAINT total_pos CHECK (total >= 0) NOT VALID;
ALTER TABLE orders VALIDATE CONSTRAINT total_pos;
COMMIT;

-- case: set-not-null
-- found: 2:set-not-null-without-check
SET lock_timeout = '2s';
ALTER TABLE orders ALTER COLUMN region SET NOT NULL;

-- case: set-not-null-unvalidated (the check is NOT VALID still)
-- found: 6:set-not-null-without-check
SET lock_timeout = '2s';
BEGIN;
ALTER TABLE orders ADD CONSTRAINT region_nn CHECK (region IS NOT NULL) NOT VALID;
COMMIT;
BEGIN;
ALTER TABLE orders ALTER COLUMN region SET NOT NULL;
COMMIT;

-- case: set-not-null-check-other-column
-- found: 9:set-not-null-without-check
SET lock_timeout = '2s';
BEGIN;
ALTER TABLE orders ADD CONSTRAINT zone_nn CHECK (zone IS NOT NULL) NOT VALID;
COMMIT;
BEGIN;
ALTER TABLE orders VALIDATE CONSTRAINT zone_nn;
COMMIT;
BEGIN;
ALTER TABLE orders ALTER COLUMN region SET NOT NULL;
COMMIT;

-- case: two-tables-one-tx (two ACCESS EXCLUSIVE locks: deadlock and a longer hold)
-- found: 4:several-access-exclusive-locks
SET lock_timeout = '2s';
BEGIN;
ALTER TABLE orders ADD COLUMN a int;
ALTER TABLE customers ADD COLUMN b int;
COMMIT;

-- case: set-local-outside (SET LOCAL outside a tx has no effect)
-- found: 3:missing-lock-timeout
SET LOCAL lock_timeout = '2s';
BEGIN;
ALTER TABLE orders ADD COLUMN a int;
COMMIT;

-- case: set-local-ended (gone after COMMIT)
-- found: 6:missing-lock-timeout
BEGIN;
SET LOCAL lock_timeout = '2s';
ALTER TABLE orders ADD COLUMN a int;
COMMIT;
BEGIN;
ALTER TABLE orders ADD COLUMN b int;
COMMIT;

-- case: timeout-zero (0 means for ever)
-- found: 2:missing-lock-timeout
SET lock_timeout = 0;
ALTER TABLE orders ADD COLUMN a int;

-- case: timeout-reset
-- found: 3:missing-lock-timeout
SET lock_timeout = '2s';
RESET lock_timeout;
ALTER TABLE orders ADD COLUMN a int;

-- case: timeout-reset-all
-- found: 3:missing-lock-timeout
SET lock_timeout = '2s';
RESET ALL;
ALTER TABLE orders ADD COLUMN a int;

-- case: discard-all
-- found: 3:missing-lock-timeout
SET lock_timeout = '2s';
DISCARD ALL;
ALTER TABLE orders ADD COLUMN a int;

-- case: timeout-after (set too late)
-- found: 1:missing-lock-timeout
ALTER TABLE orders ADD COLUMN a int;
SET lock_timeout = '2s';

-- case: timeout-hour (an hour's queue is no limit)
-- found: 2:lock-timeout-too-long
SET lock_timeout = '1h';
ALTER TABLE orders ADD COLUMN a int;

-- case: timeout-rolled-back (SET undone by rollback)
-- found: 4:missing-lock-timeout
BEGIN;
SET lock_timeout = '2s';
ROLLBACK;
ALTER TABLE orders ADD COLUMN a int;

-- case: plain-add-column (no lock timeout)
-- found: 1:missing-lock-timeout
ALTER TABLE orders ADD COLUMN a int;

-- case: refresh-mv
-- found: 1:missing-lock-timeout 1:refresh-not-concurrent
REFRESH MATERIALIZED VIEW order_stats;

-- case: lock-table
-- found: 3:lock-table
SET lock_timeout = '2s';
BEGIN;
LOCK TABLE orders IN ACCESS EXCLUSIVE MODE;
ALTER TABLE orders ADD COLUMN a int;
COMMIT;

-- case: lock-table-share (blocks writers)
-- found: 2:missing-lock-timeout 2:lock-table 3:slow-statement-under-lock
BEGIN;
LOCK TABLE orders IN SHARE MODE;
SELECT count(*) FROM orders;
COMMIT;

-- case: alter-system (server-wide setting in a migration)
-- found: 1:alter-system
ALTER SYSTEM SET lock_timeout = '2s';

-- case: savepoint-release (still one tx)
-- found: 6:unbatched-change 6:ddl-and-backfill-in-one-transaction
SET lock_timeout = '2s';
BEGIN;
SAVEPOINT a;
ALTER TABLE orders ADD COLUMN r text;
RELEASE SAVEPOINT a;
UPDATE orders SET r = 'x';
COMMIT;

-- case: savepoint-rollback-timeout (SET undone by the rollback to)
-- found: 5:missing-lock-timeout
BEGIN;
SAVEPOINT a;
SET LOCAL lock_timeout = '2s';
ROLLBACK TO SAVEPOINT a;
ALTER TABLE orders ADD COLUMN r text;
COMMIT;

-- case: savepoint-rollback-table (the new table is undone; what follows is an old one)
-- found: 5:missing-lock-timeout 5:create-index-not-concurrent
BEGIN;
SAVEPOINT a;
CREATE TABLE orders2 (id int);
ROLLBACK TO a;
CREATE INDEX orders2_i ON orders2 (id);
COMMIT;

-- case: rollback-all (create is rolled back, index is on an old table)
-- found: 4:missing-lock-timeout 4:create-index-not-concurrent
BEGIN;
CREATE TABLE orders2 (id int);
ROLLBACK;
CREATE INDEX orders2_i ON orders2 (id);

-- case: syntax-error
-- found: 1:syntax-error
ALTER TABEL orders ADD COLUMN a int;

-- case: rls-old (enabling RLS hides all rows from the app)
-- found: 2:enable-row-security-without-policy
SET lock_timeout = '2s';
ALTER TABLE orders ENABLE ROW LEVEL SECURITY;

-- case: disable-trigger (integrity is off)
-- found: 2:disable-trigger
SET lock_timeout = '2s';
ALTER TABLE orders DISABLE TRIGGER ALL;

-- case: set-unlogged (rewrite)
-- found: 2:table-rewrite
SET lock_timeout = '2s';
ALTER TABLE orders SET UNLOGGED;

-- case: set-tablespace
-- found: 2:tablespace-move
SET lock_timeout = '2s';
ALTER TABLE orders SET TABLESPACE fast;

-- case: drop-view (old code reads)
-- found: 1:missing-lock-timeout 1:drop-view
DROP VIEW active_orders;

-- case: flyway-mixed (conc index with other statements that a runner wraps)
-- found: 1:missing-lock-timeout
ALTER TABLE orders ADD COLUMN region text;
CREATE INDEX CONCURRENTLY orders_region_idx ON orders (region);

-- case: swap-tables
-- found: 6:swap-loses-writes
SET lock_timeout = '2s';
BEGIN;
CREATE TABLE orders_new (LIKE orders INCLUDING ALL);
INSERT INTO orders_new SELECT * FROM orders;
ALTER TABLE orders RENAME TO orders_old;
ALTER TABLE orders_new RENAME TO orders;
COMMIT;

-- case: schema-confusion (new table in another schema is not the public one)
-- found: 2:missing-lock-timeout 2:create-index-not-concurrent
CREATE TABLE archive.orders (id int);
CREATE INDEX orders_i ON public.orders (id);

-- case: merge (whole-table merge)
-- found: 1:unbatched-change
MERGE INTO orders o USING imports i ON i.id = o.id WHEN MATCHED THEN UPDATE SET total = i.total WHEN NOT MATCHED THEN INSERT VALUES (i.id, i.total);

-- case: cte-delete-insert (moves everything in one statement)
-- found: 1:unbatched-change
WITH moved AS (DELETE FROM events WHERE created_at < '2020-01-01' RETURNING *) INSERT INTO events_old SELECT * FROM moved;

-- case: multi-alter-rewrites (the danger is the second subcommand)
-- found: 2:alter-column-type
SET lock_timeout = '2s';
ALTER TABLE orders ADD COLUMN a int, ALTER COLUMN id TYPE bigint, ADD COLUMN b int;

-- case: select-for-update (locks all rows)
-- found: 2:locks-every-row
BEGIN;
SELECT * FROM orders FOR UPDATE;
COMMIT;

-- case: drop-schema
-- found: 1:drop-schema 1:drop-cascade
DROP SCHEMA billing CASCADE;

-- case: drop-type
-- found: 1:drop-cascade
DROP TYPE order_state CASCADE;

-- case: set-schema (old code does not find it)
-- found: 2:rename-table
SET lock_timeout = '2s';
ALTER TABLE orders SET SCHEMA archive;
