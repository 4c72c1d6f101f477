-- case: alembic-new-table (new table only, alembic offline with version table)
BEGIN;

-- Running upgrade d6d022bcff3b -> 003

CREATE TABLE pricing_configs (
    id UUID DEFAULT gen_random_uuid() NOT NULL, 
    name VARCHAR(80) NOT NULL, 
    amount_minor BIGINT NOT NULL, 
    PRIMARY KEY (id), 
    CONSTRAINT uq_pricing_configs_name UNIQUE (name)
);

CREATE INDEX ix_pricing_configs_amount ON pricing_configs (amount_minor);

UPDATE alembic_version SET version_num='003' WHERE alembic_version.version_num = 'd6d022bcff3b';

COMMIT;

-- case: alembic-first (alembic base)
BEGIN;

CREATE TABLE alembic_version (
    version_num VARCHAR(32) NOT NULL, 
    CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);

-- Running upgrade  -> a1

CREATE TABLE users (
    id SERIAL NOT NULL, 
    email VARCHAR(320), 
    PRIMARY KEY (id)
);

CREATE UNIQUE INDEX ix_users_email ON users (email);

INSERT INTO alembic_version (version_num) VALUES ('a1') RETURNING alembic_version.version_num;

COMMIT;

-- case: django-add-field-null (nullable add with lock timeout)
SET lock_timeout = '2s';
BEGIN;
--
-- Add field nickname to customer
--
ALTER TABLE "shop_customer" ADD COLUMN "nickname" varchar(50) NULL;
COMMIT;

-- case: django-add-field-default-drop (constant default then drop default: catalogue only)
SET lock_timeout TO '1500ms';
BEGIN;
--
-- Add field is_vip to customer
--
ALTER TABLE "shop_customer" ADD COLUMN "is_vip" boolean DEFAULT false NOT NULL;
ALTER TABLE "shop_customer" ALTER COLUMN "is_vip" DROP DEFAULT;
COMMIT;

-- case: backfill-batched-own-file (bounded batch)
UPDATE orders SET region = 'eu' WHERE id IN (SELECT id FROM orders WHERE region IS NULL ORDER BY id LIMIT 1000);

-- case: backfill-batched-between (bounded range of the key)
BEGIN;
UPDATE orders SET region = 'eu' WHERE id BETWEEN 1 AND 1000 AND region IS NULL;
COMMIT;

-- case: backfill-ctid-batch (batch through CTE, skip locked)
WITH batch AS (
  SELECT id FROM orders WHERE region IS NULL LIMIT 500 FOR UPDATE SKIP LOCKED
)
UPDATE orders o SET region = 'eu' FROM batch WHERE batch.id = o.id;

-- case: delete-one (one row by key)
DELETE FROM feature_flags WHERE id = 42;

-- case: update-one-key (a row by unique text)
UPDATE pricing_configs SET active = false WHERE id = 'b0f4c6f0-5ad2-4d6e-9d46-2a2c2ab2a001';

-- case: update-in-list (a few rows by key)
UPDATE plans SET archived = true WHERE id IN (3, 4, 5);

-- case: insert-values (seed rows)
INSERT INTO roles (name) VALUES ('admin'), ('editor') ON CONFLICT (name) DO NOTHING;

-- case: insert-select-generate (locks nothing that exists)
INSERT INTO user_settings (user_id) SELECT id FROM users;

-- case: do-loop-commit (batched procedure with commits, outside tx)
DO $$
DECLARE n int;
BEGIN
  LOOP
    UPDATE orders SET region = 'eu' WHERE id IN (SELECT id FROM orders WHERE region IS NULL LIMIT 1000);
    GET DIAGNOSTICS n = ROW_COUNT;
    EXIT WHEN n = 0;
    COMMIT;
    PERFORM pg_sleep(0.1);
  END LOOP;
END $$;

-- case: do-create-type (idempotent type creation)
DO $$ BEGIN
  CREATE TYPE order_state AS ENUM ('open', 'closed');
EXCEPTION
  WHEN duplicate_object THEN NULL;
END $$;

-- case: do-notice (says something)
DO $$ BEGIN RAISE NOTICE 'hello'; END $$;

-- case: function-only (a function is only text)
CREATE OR REPLACE FUNCTION touch_updated_at() RETURNS trigger LANGUAGE plpgsql AS $fn$
BEGIN
  NEW.updated_at := now();
  RETURN NEW;
END;
$fn$;

-- case: function-with-update-inside (body not run)
CREATE FUNCTION rebuild() RETURNS void LANGUAGE sql AS $$ UPDATE orders SET region = 'eu'; $$;

-- case: trigger-new-table (new table with trigger)
CREATE TABLE notes (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body text, updated_at timestamptz);
CREATE TRIGGER notes_touch BEFORE UPDATE ON notes FOR EACH ROW EXECUTE FUNCTION touch_updated_at();

-- case: trigger-old-table (short SHARE ROW EXCLUSIVE with timeout)
SET lock_timeout = '2s';
CREATE TRIGGER orders_touch BEFORE UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION touch_updated_at();

-- case: ctas (new table from query, reading only (ACCESS SHARE))
CREATE TABLE order_totals AS SELECT customer_id, sum(total) AS total FROM orders GROUP BY customer_id;

-- case: sleep-between-tx (holds nothing)
SET lock_timeout = '2s';
BEGIN;
ALTER TABLE orders ADD COLUMN region text;
COMMIT;
SELECT pg_sleep(1);
BEGIN;
ALTER TABLE orders ADD COLUMN zone text;
COMMIT;

-- case: partitioned-new (new partitioned table with partitions and index)
CREATE TABLE metrics (ts timestamptz NOT NULL, v int) PARTITION BY RANGE (ts);
CREATE TABLE metrics_2024 PARTITION OF metrics FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
CREATE TABLE metrics_default PARTITION OF metrics DEFAULT;
CREATE INDEX metrics_ts_idx ON metrics (ts);

-- case: attach-with-check (attach after valid check in an earlier tx)
SET lock_timeout = '2s';
CREATE TABLE metrics_2026 (LIKE metrics INCLUDING ALL);
ALTER TABLE metrics_2026 ADD CONSTRAINT metrics_2026_ts CHECK (ts >= '2026-01-01' AND ts < '2027-01-01');
ALTER TABLE metrics ATTACH PARTITION metrics_2026 FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');

-- case: detach-concurrently (the right way)
ALTER TABLE metrics DETACH PARTITION metrics_2020 CONCURRENTLY;

-- case: index-only-on-partitioned (catalogue only, then concurrently, then attach)
SET lock_timeout = '2s';
CREATE INDEX metrics_v_idx ON ONLY metrics (v);
CREATE INDEX CONCURRENTLY metrics_2024_v_idx ON metrics_2024 (v);
ALTER INDEX metrics_v_idx ATTACH PARTITION metrics_2024_v_idx;

-- case: enum-add-value (catalogue only)
ALTER TYPE order_state ADD VALUE 'refunded';

-- case: enum-add-value-if-not-exists
ALTER TYPE order_state ADD VALUE IF NOT EXISTS 'refunded' AFTER 'closed';

-- case: add-default-now (stable default evaluated once)
SET lock_timeout = '2s';
ALTER TABLE orders ADD COLUMN imported_at timestamptz NOT NULL DEFAULT now();

-- case: add-default-current-timestamp (stable)
SET lock_timeout = '2s';
ALTER TABLE orders ADD COLUMN imported_at timestamptz DEFAULT CURRENT_TIMESTAMP;

-- case: add-default-jsonb (constant)
SET lock_timeout = '2s';
ALTER TABLE orders ADD COLUMN meta jsonb NOT NULL DEFAULT '{}'::jsonb;

-- case: add-default-array (constant)
SET lock_timeout = '2s';
ALTER TABLE orders ADD COLUMN tags text[] NOT NULL DEFAULT ARRAY[]::text[];

-- case: add-default-expr-immutable (immutable functions of constants)
SET lock_timeout = '2s';
ALTER TABLE orders ADD COLUMN slug text DEFAULT lower('X') || md5('y');

-- case: add-default-two-steps (add then set default: only new rows)
SET lock_timeout = '2s';
ALTER TABLE orders ADD COLUMN ext_id uuid;
ALTER TABLE orders ALTER COLUMN ext_id SET DEFAULT gen_random_uuid();
