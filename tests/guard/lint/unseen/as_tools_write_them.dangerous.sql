-- case: django-alter-unique
-- found: 3:add-unique-without-index 4:create-index-not-concurrent
SET lock_timeout='2s';
BEGIN;
ALTER TABLE "app_user" ADD CONSTRAINT "app_user_email_uniq" UNIQUE ("email");
CREATE INDEX "app_user_email_like" ON "app_user" ("email" varchar_pattern_ops);
COMMIT;

-- case: django-addfield-gen
-- found: 3:add-unique-without-index
SET lock_timeout='2s';
BEGIN;
ALTER TABLE "a" ADD COLUMN "u" uuid DEFAULT 'b3d1f0aa-0000-4000-8000-000000000001'::uuid NOT NULL UNIQUE;
COMMIT;

-- case: knex-style (plain quick DDL but no timeout)
-- found: 1:missing-lock-timeout
alter table "users" add column "bio" text null;

-- case: lower-case-multi (hidden among harmless)
-- found: 6:add-column-volatile-default
set lock_timeout = '1s';
create table if not exists t_log (id bigserial primary key, m text);
alter table
  orders
  add column a int,
  add column b timestamptz default clock_timestamp(),
  add column c text;

-- case: backfill-then-not-null-one-tx
-- found: 4:unbatched-change 4:ddl-and-backfill-in-one-transaction 5:set-not-null-without-check
BEGIN;
SET LOCAL lock_timeout = '2s';
ALTER TABLE subscriptions ADD COLUMN tier text;
UPDATE subscriptions SET tier = CASE WHEN price_minor > 1000 THEN 'gold' ELSE 'basic' END;
ALTER TABLE subscriptions ALTER COLUMN tier SET NOT NULL;
COMMIT;

-- case: fk-not-valid-same-tx-as-other (AE on two tables... orders AE + customers AE)
-- found: 4:several-access-exclusive-locks
BEGIN;
SET LOCAL lock_timeout = '2s';
ALTER TABLE orders ADD COLUMN coupon_id bigint;
ALTER TABLE coupons ADD COLUMN note text;
ALTER TABLE orders ADD CONSTRAINT orders_coupon_fk FOREIGN KEY (coupon_id) REFERENCES coupons (id) NOT VALID;
COMMIT;

-- case: commit-inside-string (no real COMMIT between)
-- found: 4:unbatched-change 4:ddl-and-backfill-in-one-transaction
BEGIN;
SET LOCAL lock_timeout = '2s';
ALTER TABLE orders ADD COLUMN a text DEFAULT 'COMMIT; BEGIN;';
UPDATE orders SET a = 'x';
COMMIT;

-- case: set-in-comment (the SET is a comment)
-- found: 3:missing-lock-timeout
-- SET lock_timeout = '2s';
/* SET lock_timeout = '2s'; */
ALTER TABLE orders ADD COLUMN a text;

-- case: set-other-conn (ALTER ROLE is for later sessions)
-- found: 2:missing-lock-timeout
ALTER ROLE CURRENT_USER SET lock_timeout = '2s';
ALTER TABLE orders ADD COLUMN a text;

-- case: set-default-off
-- found: 2:missing-lock-timeout
SET lock_timeout TO DEFAULT;
ALTER TABLE orders ADD COLUMN a text;

-- case: start-transaction
-- found: 4:unbatched-change 4:ddl-and-backfill-in-one-transaction
START TRANSACTION;
SET LOCAL lock_timeout = '2s';
ALTER TABLE orders ADD COLUMN a text;
DELETE FROM orders WHERE a IS NULL;
END;

-- case: commit-and-chain (SET LOCAL is gone after AND CHAIN)
-- found: 5:missing-lock-timeout
BEGIN;
SET LOCAL lock_timeout = '2s';
ALTER TABLE orders ADD COLUMN a text;
COMMIT AND CHAIN;
ALTER TABLE users ADD COLUMN b text;
COMMIT;

-- case: flyway-placeholder (plain index in ${schema})
-- found: 2:create-index-not-concurrent
SET lock_timeout = '2s';
CREATE INDEX i ON ${schema}.orders (a);

-- case: gexec
-- found: 1:cannot-judge
SELECT format('ALTER TABLE %I ADD COLUMN x int', relname) FROM pg_class WHERE relkind = 'r' \gexec

-- case: include
-- found: 1:cannot-judge
\i other.sql

-- case: conc-unique-ine (IF NOT EXISTS hides invalid)
-- found: 1:concurrent-index-if-not-exists
CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS u ON orders (code);

-- case: set-not-null-pg18
-- found: 2:set-not-null-without-check
SET lock_timeout = '2s';
ALTER TABLE orders ADD CONSTRAINT nn NOT NULL region;

-- case: truncate-cascade
-- found: 2:truncate
SET lock_timeout = '2s';
TRUNCATE TABLE carts RESTART IDENTITY CASCADE;

-- case: delete-using
-- found: 1:unbatched-change
DELETE FROM carts USING users WHERE users.id = carts.user_id AND users.deleted_at IS NOT NULL;

-- case: exists-update
-- found: 1:unbatched-change
UPDATE orders SET vip = true WHERE EXISTS (SELECT 1 FROM vips WHERE vips.user_id = orders.user_id);

-- case: reindex-db
-- found: 1:reindex-not-concurrent
REINDEX DATABASE shop;

-- case: alter-table-all-tablespace
-- found: 1:tablespace-move
ALTER TABLE ALL IN TABLESPACE pg_default SET TABLESPACE fast;

-- case: drop-trigger-no-timeout
-- found: 1:missing-lock-timeout
DROP TRIGGER orders_touch ON orders;

-- case: create-rule (no timeout)
-- found: 1:missing-lock-timeout
CREATE RULE r AS ON INSERT TO orders DO ALSO NOTHING;

-- case: new-fk-filled-same-tx (FK lock on orders held while filling)
-- found: 4:ddl-and-backfill-in-one-transaction
BEGIN;
SET LOCAL lock_timeout = '2s';
CREATE TABLE order_notes (order_id bigint REFERENCES orders (id), note text);
INSERT INTO order_notes SELECT id, note FROM orders;
COMMIT;

-- case: do-add-and-update
-- found: 5:unbatched-change 5:ddl-and-backfill-in-one-transaction
SET lock_timeout = '2s';
DO $$
BEGIN
  ALTER TABLE orders ADD COLUMN a int;
  UPDATE orders SET a = 1;
END $$;

-- case: union-types (type change among many columns)
-- found: 2:alter-column-type
SET lock_timeout = '2s';
ALTER TABLE t ALTER a DROP DEFAULT, ALTER b TYPE jsonb USING b::jsonb;

-- case: collate-change (rewrites indexes)
-- found: 2:alter-column-type
SET lock_timeout = '2s';
ALTER TABLE users ALTER COLUMN email TYPE text COLLATE "C";

-- case: drop-partition (drop of an old partition)
-- found: 2:drop-table
SET lock_timeout = '2s';
DROP TABLE logs_2019;

-- case: drop-column-if-exists-cascade
-- found: 2:drop-column 2:drop-cascade
SET lock_timeout = '2s';
ALTER TABLE orders DROP COLUMN IF EXISTS old CASCADE;

-- case: lock-nowait (nowait does not wait but the lock is held for the scan)
-- found: 2:lock-table 3:create-index-not-concurrent
BEGIN;
LOCK TABLE orders IN ACCESS EXCLUSIVE MODE NOWAIT;
CREATE INDEX i ON orders (a);
COMMIT;

-- case: conc-detach-in-tx
-- found: 2:not-in-transaction
BEGIN;
ALTER TABLE logs DETACH PARTITION logs_1 CONCURRENTLY;
COMMIT;

-- case: function-replaced-default-volatile (own volatile function as default)
-- found: 3:add-column-volatile-default
SET lock_timeout = '2s';
CREATE FUNCTION new_code() RETURNS text LANGUAGE sql AS $$ SELECT md5(random()::text) $$;
ALTER TABLE orders ADD COLUMN code text DEFAULT new_code();

-- case: reassign
-- found: 1:drop-owned
REASSIGN OWNED BY old TO app;

-- case: trailing-garbage
-- found: 2:syntax-error
SELECT 1;
)

-- case: unterminated
-- found: 1:syntax-error
INSERT INTO a VALUES ('x);

-- case: validate-after-ddl-same-tx (AE held during the scan)
-- found: 4:validate-in-same-transaction
BEGIN;
SET LOCAL lock_timeout = '2s';
ALTER TABLE orders ADD COLUMN q int;
ALTER TABLE orders VALIDATE CONSTRAINT a;
COMMIT;
