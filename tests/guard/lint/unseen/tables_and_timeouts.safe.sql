-- case: varchar-widen (catalogue only)
SET lock_timeout = '2s';
ALTER TABLE customers ALTER COLUMN name TYPE varchar(100);

-- case: type-to-text (varchar->text is free, but the file cannot show the old type)
SET lock_timeout = '2s';
ALTER TABLE customers ALTER COLUMN name TYPE text;

-- case: int-to-bigint-new-table (created here)
CREATE TABLE t1 (id int);
ALTER TABLE t1 ALTER COLUMN id TYPE bigint;

-- case: rename-index (nobody names an index)
SET lock_timeout = '2s';
ALTER INDEX orders_idx RENAME TO orders_region_idx;

-- case: rename-constraint (with timeout)
SET lock_timeout = '2s';
ALTER TABLE orders RENAME CONSTRAINT a TO b;

-- case: drop-table-created-here
CREATE TABLE scratch (id int);
DROP TABLE scratch;

-- case: drop-index-conc
DROP INDEX CONCURRENTLY IF EXISTS orders_region_idx;

-- case: drop-constraint (short, with timeout)
SET lock_timeout = '2s';
ALTER TABLE orders DROP CONSTRAINT orders_total_check;

-- case: drop-not-null (short)
SET lock_timeout = '2s';
ALTER TABLE orders ALTER COLUMN note DROP NOT NULL;

-- case: set-default
SET lock_timeout = '2s';
ALTER TABLE orders ALTER COLUMN state SET DEFAULT 'open';

-- case: truncate-new
CREATE TABLE tmp_x (id int); TRUNCATE tmp_x;

-- case: index-conc
CREATE INDEX CONCURRENTLY orders_region_idx ON orders (region);

-- case: index-new-table
CREATE TABLE wishlists (id uuid PRIMARY KEY, user_id uuid NOT NULL);
CREATE INDEX wishlists_user_idx ON wishlists (user_id);
CREATE UNIQUE INDEX wishlists_u ON wishlists (user_id, id);

-- case: index-conc-after-drop (remake)
DROP INDEX CONCURRENTLY IF EXISTS orders_region_idx;
CREATE INDEX CONCURRENTLY orders_region_idx ON orders (region);

-- case: reindex-conc
REINDEX INDEX CONCURRENTLY orders_region_idx;

-- case: vacuum-analyze
VACUUM (ANALYZE) orders;

-- case: analyze
ANALYZE orders;

-- case: pk-using-index
CREATE UNIQUE INDEX CONCURRENTLY orders_id_idx ON orders (id);
SET lock_timeout = '2s';
ALTER TABLE orders ADD CONSTRAINT orders_pkey PRIMARY KEY USING INDEX orders_id_idx;

-- case: unique-using-index
CREATE UNIQUE INDEX CONCURRENTLY orders_code_key ON orders (code);
BEGIN;
SET LOCAL lock_timeout = '2s';
ALTER TABLE orders ADD CONSTRAINT orders_code_key UNIQUE USING INDEX orders_code_key;
COMMIT;

-- case: exclusion-new
CREATE EXTENSION IF NOT EXISTS btree_gist;
CREATE TABLE bookings (room int, during tstzrange, EXCLUDE USING gist (room WITH =, during WITH &&));

-- case: check-not-valid-then-validate (two transactions)
SET lock_timeout = '2s';
BEGIN;
ALTER TABLE orders ADD CONSTRAINT total_pos CHECK (total >= 0) NOT VALID;
COMMIT;
BEGIN;
ALTER TABLE orders VALIDATE CONSTRAINT total_pos;
COMMIT;

-- case: fk-not-valid-then-validate
SET lock_timeout = '2s';
BEGIN;
ALTER TABLE orders ADD CONSTRAINT orders_user_fk FOREIGN KEY (user_id) REFERENCES users (id) NOT VALID;
COMMIT;
BEGIN;
ALTER TABLE orders VALIDATE CONSTRAINT orders_user_fk;
COMMIT;

-- case: fk-new-table-to-old (with timeout; table is new)
SET lock_timeout = '2s';
BEGIN;
CREATE TABLE reviews (id bigserial PRIMARY KEY, order_id bigint NOT NULL REFERENCES orders (id) ON DELETE CASCADE, stars int CHECK (stars BETWEEN 1 AND 5));
CREATE INDEX reviews_order_idx ON reviews (order_id);
COMMIT;

-- case: fk-new-to-new
BEGIN;
CREATE TABLE a (id bigint PRIMARY KEY);
CREATE TABLE b (id bigint PRIMARY KEY, a_id bigint);
ALTER TABLE b ADD CONSTRAINT b_a_fk FOREIGN KEY (a_id) REFERENCES a (id);
CREATE INDEX ON b (a_id);
INSERT INTO a SELECT generate_series(1, 10);
UPDATE b SET a_id = 1;
COMMIT;

-- case: set-not-null-after-check
SET lock_timeout = '2s';
ALTER TABLE orders ADD CONSTRAINT region_nn CHECK (region IS NOT NULL) NOT VALID;
COMMIT;
BEGIN;
ALTER TABLE orders VALIDATE CONSTRAINT region_nn;
COMMIT;
BEGIN;
ALTER TABLE orders ALTER COLUMN region SET NOT NULL;
ALTER TABLE orders DROP CONSTRAINT region_nn;
COMMIT;

-- case: set-not-null-after-check-clean (with explicit transactions)
SET lock_timeout = '2s';
BEGIN;
ALTER TABLE orders ADD CONSTRAINT region_nn CHECK (region IS NOT NULL) NOT VALID;
COMMIT;
BEGIN;
ALTER TABLE orders VALIDATE CONSTRAINT region_nn;
COMMIT;
BEGIN;
ALTER TABLE orders ALTER COLUMN region SET NOT NULL;
ALTER TABLE orders DROP CONSTRAINT region_nn;
COMMIT;

-- case: two-tables-two-tx
SET lock_timeout = '2s';
BEGIN;
ALTER TABLE orders ADD COLUMN a int;
COMMIT;
BEGIN;
ALTER TABLE customers ADD COLUMN b int;
COMMIT;

-- case: same-table-many (one lock)
SET lock_timeout = '2s';
BEGIN;
ALTER TABLE orders ADD COLUMN a int, ADD COLUMN b text DEFAULT 'x';
ALTER TABLE orders ADD COLUMN c int;
COMMENT ON COLUMN orders.c IS 'c';
COMMIT;

-- case: timeout-set-config
SELECT set_config('lock_timeout', '2s', false);
ALTER TABLE orders ADD COLUMN a int;

-- case: statement-timeout-only (it bounds the waiting as well)
SET statement_timeout = '3s';
ALTER TABLE orders ADD COLUMN a int;

-- case: statement-timeout-zero (lock_timeout is what counts)
SET statement_timeout = 0;
SET lock_timeout = '2s';
CREATE INDEX CONCURRENTLY orders_region_idx ON orders (region);

-- case: refresh-mv-conc
REFRESH MATERIALIZED VIEW CONCURRENTLY order_stats;

-- case: create-mv (new, reads only)
CREATE MATERIALIZED VIEW order_stats AS SELECT count(*) FROM orders;
CREATE UNIQUE INDEX order_stats_u ON order_stats (count);

-- case: psql-meta (psql's own commands)
\set ON_ERROR_STOP on
\timing
SET lock_timeout = '2s';
ALTER TABLE orders ADD COLUMN a int;

-- case: copy-stdin (pg_dump-like seed of a new table)
CREATE TABLE countries (code text PRIMARY KEY, name text);
COPY countries (code, name) FROM stdin;
de	Germany
fr	France
\.

-- case: pg-dump-like (whole new schema)
SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
CREATE TABLE public.widgets (
    id integer NOT NULL,
    name text
);
ALTER TABLE public.widgets OWNER TO app;
CREATE SEQUENCE public.widgets_id_seq AS integer START WITH 1 INCREMENT BY 1 NO MINVALUE NO MAXVALUE CACHE 1;
ALTER SEQUENCE public.widgets_id_seq OWNED BY public.widgets.id;
ALTER TABLE ONLY public.widgets ALTER COLUMN id SET DEFAULT nextval('public.widgets_id_seq'::regclass);
COPY public.widgets (id, name) FROM stdin;
1	a;b
2	it's
\.
SELECT pg_catalog.setval('public.widgets_id_seq', 2, true);
ALTER TABLE ONLY public.widgets ADD CONSTRAINT widgets_pkey PRIMARY KEY (id);
CREATE INDEX widgets_name_idx ON public.widgets USING btree (name);

-- case: grant
GRANT SELECT ON orders TO reporting;
REVOKE INSERT ON orders FROM reporting;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO reporting;
CREATE ROLE reporting2 NOLOGIN;

-- case: advisory
SELECT pg_advisory_lock(42);
CREATE TABLE n1 (id int);
SELECT pg_advisory_unlock(42);

-- case: empty


-- case: only-comments
-- nothing to do
/* really */

-- case: rls-new
CREATE TABLE docs (id int, owner text);
ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON docs USING (owner = current_user);

-- case: set-statistics (SHARE UPDATE EXCLUSIVE)
ALTER TABLE orders ALTER COLUMN region SET STATISTICS 500;

-- case: set-storage-params (fillfactor etc: SHARE UPDATE EXCLUSIVE)
ALTER TABLE orders SET (autovacuum_vacuum_scale_factor = 0.01);

-- case: create-view
CREATE OR REPLACE VIEW active_orders AS SELECT id FROM orders WHERE state = 'open';

-- case: replace-view-lock (replace)
CREATE VIEW v1 AS SELECT 1; DROP VIEW v1;

-- case: create-schema-seq
CREATE SCHEMA IF NOT EXISTS billing;
CREATE SEQUENCE billing.inv_seq;
CREATE TABLE billing.inv (id bigint DEFAULT nextval('billing.inv_seq') PRIMARY KEY);

-- case: temp-table
CREATE TEMP TABLE staging (id int, v text);
INSERT INTO staging SELECT g, 'x' FROM generate_series(1, 100000) g;
CREATE INDEX ON staging (id);
UPDATE staging SET v = 'y';
DROP TABLE staging;

-- case: create-if-not-exists-then-index (IF NOT EXISTS may be an old one but intent is new)
CREATE TABLE IF NOT EXISTS audit_log (id bigserial PRIMARY KEY, at timestamptz DEFAULT now(), what text);
CREATE INDEX IF NOT EXISTS audit_log_at_idx ON audit_log (at);

-- case: create-stats
CREATE STATISTICS s1 ON a, b FROM orders;

-- case: create-extension
CREATE EXTENSION IF NOT EXISTS pg_trgm;

-- case: rename-new
CREATE TABLE t_new (id int, b int);
ALTER TABLE t_new RENAME COLUMN b TO c;
ALTER TABLE t_new RENAME TO t_newer;
CREATE INDEX ON t_newer (c);

-- case: commented-out (danger in a comment or a string only)
-- UPDATE orders SET x = 1;
/* DROP TABLE orders; */
INSERT INTO notes (body) VALUES ('DROP TABLE orders; CREATE INDEX i ON orders (a);');

-- case: index-include-where-new-matview
CREATE TABLE k (a int, b int);
CREATE INDEX k_p ON k (a) INCLUDE (b) WHERE b > 0;

-- case: drop-function (nothing that is left can name it)
DROP FUNCTION touch_updated_at();

-- case: update-join-values (a few rows from VALUES)
UPDATE plans SET price_minor = v.p FROM (VALUES (1, 900), (2, 1900)) AS v(id, p) WHERE plans.id = v.id;

-- case: owner-change (with timeout)
SET lock_timeout = '2s';
ALTER TABLE orders OWNER TO app;

-- case: inherit
SET lock_timeout = '2s';
ALTER TABLE orders REPLICA IDENTITY FULL;

-- case: publication
CREATE PUBLICATION p1 FOR TABLE orders;
