"""The cost history as a chain of hashes: a line that was changed, slipped in or taken away is found.

A line's hash is over the line before it of the same subscription as well.  The newest is kept on the subscription's
revision and said in its fact, so that neither the last line nor a whole chain is rewritten unnoticed.
"""

from sqlalchemy import text

# Lines of before the chain have no hash; after one that has, all have.
CHAINED = text("""
    SELECT count(line_hash), count(*) FILTER (WHERE wrong), min(id) FILTER (WHERE wrong)
    FROM (
        SELECT id, line_hash, CASE WHEN line_hash IS NULL THEN previous IS NOT NULL
            ELSE line_hash IS DISTINCT FROM cost_line_hash(previous, subscription_id, user_id, price_version,
                kind, effective_at, new_breakdown, reason, changed_by, cause_id, recorded_at) END AS wrong
        FROM (
            SELECT *, lag(line_hash) OVER (PARTITION BY subscription_id ORDER BY id) AS previous
            FROM subscription_cost_history
        ) h
    ) c
""")
HEADS = text("""
    SELECT count(*), count(*) FILTER (WHERE wrong), min(id) FILTER (WHERE wrong)
    FROM (
        SELECT coalesce(r.subscription_id, h.subscription_id)::text AS id,
            r.head IS DISTINCT FROM h.line_hash AS wrong
        FROM subscription_revisions r FULL JOIN (
            SELECT DISTINCT ON (subscription_id) subscription_id, line_hash
            FROM subscription_cost_history ORDER BY subscription_id, id DESC
        ) h ON h.subscription_id = r.subscription_id
    ) compared
""")
# What lines of the first releases left unsaid.
LIKE_NOW = """jsonb '{"tax_inclusive": false, "rounding_minor": 0}'"""
# That each line has its one fact is checked by itself (S2).  Payments charges by what facts say.
TOLD = text(f"""
    SELECT count(*), count(*) FILTER (WHERE wrong), min(id) FILTER (WHERE wrong)
    FROM (
        SELECT h.id, o.payload ->> 'history_hash' IS DISTINCT FROM encode(h.line_hash, 'hex')
            OR (o.payload ->> 'customer_id', o.payload ->> 'subscription_id', o.payload ->> 'currency')
                IS DISTINCT FROM (h.user_id::text, h.subscription_id::text, h.currency)
            OR (o.payload ->> 'effective_at')::timestamptz IS DISTINCT FROM h.effective_at
            OR {LIKE_NOW} || (o.payload -> 'new_breakdown') - 'price_versions'
                IS DISTINCT FROM {LIKE_NOW} || h.new_breakdown - 'price_versions' AS wrong
        FROM outbox o JOIN subscription_cost_history h ON h.id = (o.payload ->> 'cost_history_id')::bigint
        WHERE o.type = 'pricing.subscription_cost_changed'
    ) compared
""")
# What the storefront asks now is the last that the log noted: none of its writes went by it.
NOTED = text("""
    SELECT count(*), count(*) FILTER (WHERE wrong), min(id) FILTER (WHERE wrong)
    FROM (
        SELECT v.id::text AS id,
            (v.currency, v.price_minor) IS DISTINCT FROM (c.currency, c.price_minor) AS wrong
        FROM public.product_variants v LEFT JOIN (
            SELECT DISTINCT ON (variant_id) variant_id, currency, price_minor
            FROM catalogue_prices ORDER BY variant_id, id DESC
        ) c ON c.variant_id = v.id
    ) compared
""")
# An owner may switch the triggers off for an hour; not unseen.
GUARDED = text("""
    SELECT count(*), count(*) FILTER (WHERE wrong), min(name) FILTER (WHERE wrong)
    FROM (
        SELECT name, EXISTS (SELECT FROM pg_roles r WHERE rolname = 'pricing_app' AND (
                has_table_privilege(r.oid, name, 'UPDATE, DELETE, TRUNCATE')
                OR has_any_column_privilege(r.oid, name, 'UPDATE')))
            OR NOT EXISTS (SELECT FROM pg_trigger g WHERE g.tgrelid = name::regclass
                AND g.tgname = 'farebox_append_only' AND g.tgenabled <> 'D') AS wrong
        FROM (VALUES ('subscription_cost_history'), ('catalogue_prices')) AS t (name)
    ) guarded
""")

CHECKS = (
    ("S6", CHAINED, "cost lines: hashed with the line before"),
    ("S6", HEADS, "cost lines: the newest is the one that the subscription's head names"),
    ("S6", TOLD, "cost lines: their facts say the same, and carry their hash"),
    ("S6", NOTED, "catalogue prices: the newest is what the storefront asks"),
    ("S6", GUARDED, "cost lines and catalogue prices: only ever added to"),
)
