-- case: alembic-naive-003 (inline FK + index + column with volatile default on a live table)
-- found: 3:missing-lock-timeout 3:add-column-volatile-default 4:create-index-not-concurrent 5:missing-lock-timeout 5:add-constraint-without-not-valid
BEGIN;

ALTER TABLE subscriptions ADD COLUMN public_id UUID DEFAULT gen_random_uuid() NOT NULL;
CREATE INDEX ix_subscriptions_user ON subscriptions (user_id);
ALTER TABLE subscriptions ADD CONSTRAINT fk_sub_user FOREIGN KEY(user_id) REFERENCES users (id);

UPDATE alembic_version SET version_num='003' WHERE alembic_version.version_num = 'd6d022bcff3b';

COMMIT;

-- case: django-add-fk (FK without NOT VALID and plain index; django's SET CONSTRAINTS)
-- found: 6:add-column-inline-foreign-key 7:create-index-not-concurrent
SET lock_timeout = '2s';
BEGIN;
--
-- Add field coupon to order
--
ALTER TABLE "shop_order" ADD COLUMN "coupon_id" bigint NULL CONSTRAINT "shop_order_coupon_id_fk" REFERENCES "shop_coupon"("id") DEFERRABLE INITIALLY DEFERRED; SET CONSTRAINTS "shop_order_coupon_id_fk" IMMEDIATE;
CREATE INDEX "shop_order_coupon_id_idx" ON "shop_order" ("coupon_id");
COMMIT;

-- case: django-runpython-like (ddl + backfill)
-- found: 2:missing-lock-timeout 3:unbatched-change 3:ddl-and-backfill-in-one-transaction 4:set-not-null-without-check
BEGIN;
ALTER TABLE "shop_order" ADD COLUMN "total_minor" bigint NULL;
UPDATE "shop_order" SET "total_minor" = "total" * 100;
ALTER TABLE "shop_order" ALTER COLUMN "total_minor" SET NOT NULL;
COMMIT;

-- case: ddl-backfill-with-timeout (timeouts do not help)
-- found: 5:unbatched-change 5:ddl-and-backfill-in-one-transaction
SET lock_timeout = '2s';
SET statement_timeout = '30s';
BEGIN;
ALTER TABLE orders ADD COLUMN region text;
UPDATE orders SET region = 'eu' WHERE region IS NULL;
COMMIT;

-- case: ddl-backfill-implicit (no BEGIN; runners wrap in one transaction)
-- found: 3:unbatched-change 3:ddl-and-backfill-in-one-transaction
SET lock_timeout = '2s';
ALTER TABLE orders ADD COLUMN region text;
UPDATE orders SET region = c.region FROM customers c WHERE c.id = orders.customer_id;

-- case: ddl-backfill-insert-select (lock held while copying)
-- found: 4:ddl-and-backfill-in-one-transaction
SET lock_timeout = '2s';
BEGIN;
ALTER TABLE invoices ADD COLUMN archived_at timestamptz;
INSERT INTO invoices_archive SELECT * FROM invoices WHERE created_at < now() - interval '2 years';
COMMIT;

-- case: backfill-whole (whole table in one statement)
-- found: 1:unbatched-change
UPDATE orders SET region = 'eu';

-- case: backfill-where-null (whole table in effect)
-- found: 1:unbatched-change
UPDATE orders SET region = 'eu' WHERE region IS NULL;

-- case: delete-whole (everything deleted)
-- found: 1:unbatched-change
DELETE FROM sessions;

-- case: delete-pred (unbounded delete)
-- found: 1:unbatched-change
DELETE FROM events WHERE created_at < now() - interval '90 days';

-- case: do-loop-nocommit (batches all in one transaction)
-- found: 5:unbatched-change
DO $$
DECLARE n int;
BEGIN
  LOOP
    UPDATE orders SET region = 'eu' WHERE id IN (SELECT id FROM orders WHERE region IS NULL LIMIT 1000);
    GET DIAGNOSTICS n = ROW_COUNT;
    EXIT WHEN n = 0;
  END LOOP;
END $$;

-- case: do-update (whole table in a block)
-- found: 3:unbatched-change
DO $$
BEGIN
  UPDATE orders SET region = 'eu';
END
$$;

-- case: do-add-constraint (scan under lock hidden in block)
-- found: 5:add-constraint-without-not-valid
SET lock_timeout = '1s';
DO $$
BEGIN
  IF NOT EXISTS (SELECT 1 FROM pg_constraint WHERE conname = 'orders_total_check') THEN
    ALTER TABLE orders ADD CONSTRAINT orders_total_check CHECK (total >= 0);
  END IF;
END;
$$;

-- case: do-execute-dynamic (literal dynamic SQL builds an index)
-- found: 3:missing-lock-timeout 3:create-index-not-concurrent
DO $$
BEGIN
  EXECUTE 'CREATE INDEX orders_region_idx ON orders (region)';
END $$;

-- case: do-execute-format (cannot be judged)
-- found: 5:missing-lock-timeout
DO $$
DECLARE t text;
BEGIN
  FOR t IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' LOOP
    EXECUTE format('ALTER TABLE %I ADD COLUMN tenant_id bigint', t);
  END LOOP;
END $$;

-- case: function-then-called (body runs)
-- found: 1:unbatched-change
CREATE FUNCTION rebuild() RETURNS void LANGUAGE sql AS $$ UPDATE orders SET region = 'eu'; $$;
SELECT rebuild();

-- case: procedure-called (procedure from elsewhere cannot be judged)
-- found: 1:cannot-judge
CALL backfill_orders();

-- case: select-unknown-function (unknown function with side effects)
-- found: 1:cannot-judge
SELECT do_backfill();

-- case: trigger-old-table-no-timeout (waits in the lock queue for ever)
-- found: 1:missing-lock-timeout
CREATE TRIGGER orders_touch BEFORE UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION touch_updated_at();

-- case: ctas-after-ddl (long read while ACCESS EXCLUSIVE held)
-- found: 4:ddl-and-backfill-in-one-transaction
SET lock_timeout = '2s';
BEGIN;
ALTER TABLE orders ADD COLUMN region text;
CREATE TABLE order_totals AS SELECT customer_id, sum(total) AS total FROM orders GROUP BY customer_id;
COMMIT;

-- case: select-after-ddl (long read while ACCESS EXCLUSIVE held)
-- found: 4:slow-statement-under-lock
SET lock_timeout = '2s';
BEGIN;
ALTER TABLE orders ADD COLUMN region text;
SELECT count(*) FROM orders;
COMMIT;

-- case: sleep-after-ddl (holds lock for a minute)
-- found: 4:slow-statement-under-lock
SET lock_timeout = '2s';
BEGIN;
ALTER TABLE orders ADD COLUMN region text;
SELECT pg_sleep(60);
COMMIT;

-- case: partition-of-existing (ACCESS EXCLUSIVE on the parent, no timeout)
-- found: 1:missing-lock-timeout
CREATE TABLE metrics_2025 PARTITION OF metrics FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');

-- case: attach-existing-nocheck (scans the old table under ACCESS EXCLUSIVE)
-- found: 2:attach-partition-without-check
SET lock_timeout = '2s';
ALTER TABLE metrics ATTACH PARTITION metrics_old FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');

-- case: detach (ACCESS EXCLUSIVE on parent w/out concurrently and timeout)
-- found: 1:missing-lock-timeout 1:detach-partition-not-concurrent
ALTER TABLE metrics DETACH PARTITION metrics_2020;

-- case: index-on-partitioned-existing (blocks writes on all partitions)
-- found: 2:create-index-not-concurrent
SET lock_timeout = '2s';
CREATE INDEX metrics_v_idx ON metrics (v);

-- case: enum-add-and-use-same-tx (fails: unsafe use of new value)
-- found: 3:enum-value-used-in-same-transaction
BEGIN;
ALTER TYPE order_state ADD VALUE 'refunded';
INSERT INTO order_defaults (state) VALUES ('refunded');
COMMIT;

-- case: enum-rename-value (old code sends the old name)
-- found: 1:rename-enum-value
ALTER TYPE order_state RENAME VALUE 'open' TO 'opened';

-- case: identity-new-col (rewrite)
-- found: 2:add-column-volatile-default
SET lock_timeout = '2s';
ALTER TABLE orders ADD COLUMN seq bigint GENERATED ALWAYS AS IDENTITY;

-- case: generated-stored (rewrite)
-- found: 2:add-column-generated-stored
SET lock_timeout = '2s';
ALTER TABLE orders ADD COLUMN total_cents bigint GENERATED ALWAYS AS (total * 100) STORED;

-- case: serial-add (rewrite)
-- found: 2:add-column-volatile-default
SET lock_timeout = '2s';
ALTER TABLE orders ADD COLUMN seq serial;

-- case: add-default-clock (volatile)
-- found: 2:add-column-volatile-default
SET lock_timeout = '2s';
ALTER TABLE orders ADD COLUMN imported_at timestamptz DEFAULT clock_timestamp();

-- case: add-default-uuid (volatile)
-- found: 2:add-column-volatile-default
SET lock_timeout = '2s';
ALTER TABLE orders ADD COLUMN ext_id uuid DEFAULT gen_random_uuid();

-- case: add-default-uuid-v4 (volatile (uuid-ossp))
-- found: 2:add-column-volatile-default
SET lock_timeout = '2s';
ALTER TABLE orders ADD COLUMN ext_id uuid NOT NULL DEFAULT uuid_generate_v4();

-- case: add-default-nextval (volatile)
-- found: 2:add-column-volatile-default
SET lock_timeout = '2s';
ALTER TABLE orders ADD COLUMN seq bigint DEFAULT nextval('orders_seq');

-- case: add-default-random-in-expr (volatile deep in the expression)
-- found: 2:add-column-volatile-default
SET lock_timeout = '2s';
ALTER TABLE orders ADD COLUMN slug text DEFAULT md5(random()::text);

-- case: add-not-null-no-default (fails on rows)
-- found: 2:add-column-not-null-without-default
SET lock_timeout = '2s';
ALTER TABLE orders ADD COLUMN region text NOT NULL;

-- case: add-col-domain-check (domain with constraint -> rewrite/scan)
-- found: 3:add-column-constrained-domain
SET lock_timeout = '2s';
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
ALTER TABLE orders ADD COLUMN qty positive DEFAULT 1;

-- case: add-col-check-inline (scan for check)
-- found: 2:add-constraint-without-not-valid
SET lock_timeout = '2s';
ALTER TABLE orders ADD COLUMN qty int DEFAULT 1 CHECK (qty > 0);

-- case: add-col-unique-inline (builds an index under ACCESS EXCLUSIVE)
-- found: 2:add-unique-without-index
SET lock_timeout = '2s';
ALTER TABLE orders ADD COLUMN code text UNIQUE;

-- case: add-col-references (takes one table whole while it waits for another)
-- found: 2:add-column-inline-foreign-key
SET lock_timeout = '2s';
ALTER TABLE orders ADD COLUMN coupon_id bigint REFERENCES coupons (id);
