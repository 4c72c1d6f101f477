"""A chunk of a rollout in one statement: priced, held against its preview, written, remembered and said."""

from functools import lru_cache

from sqlalchemy import TextClause, text

from services.pricing.pricing_sql import Shape, left, priced, said_by, said_in

# Why a subscription whose result is known is not moved all the same; p is its result, t its item, n its notice,
# i what the preview said of it.  Other cents than it said are let pass where another version was on its way to the
# subscription when the preview was made, approved by itself: of several changes none is lost.
RULING = """
    CASE WHEN EXISTS (SELECT FROM rollout_items newer WHERE newer.price_version = ANY (CAST(:newer AS integer[]))
            AND newer.subscription_id = p.id AND newer.outcome IS NULL AND newer.effective_at <= t.effective_at)
            THEN 'replaced'
        WHEN n.id IS NOT NULL AND (n.told_at IS NULL OR n.told_at > n.notify_by) THEN 'not_told'
        WHEN CAST(:preview AS bigint) IS NULL OR coalesce(t.code = 'accepted', false) THEN NULL
        WHEN i.subscription_id IS NULL THEN 'new_since_preview'
        WHEN i.digest <> {said} THEN 'changed'
        WHEN i.new_total_minor = {total} THEN NULL
        WHEN NOT EXISTS (SELECT FROM rollout_items other
            JOIN pricing_configs published ON published.version = other.price_version
            JOIN previews seen ON seen.id = CAST(:preview AS bigint)
            WHERE other.subscription_id = p.id AND other.price_version <> CAST(:version AS integer)
            AND other.price_version IN (SELECT v::integer FROM jsonb_array_elements({versions}) v)
            AND other.outcome IN ('moved', 'kept') AND published.published_at <= seen.started_at
            AND (other.due_at > seen.started_at OR published.effective_from > seen.started_at))
            THEN 'changed' END"""
# Row by row through primary keys, whatever the statistics of tables say that grow while this runs.
BESIDE = """
    LEFT JOIN LATERAL (SELECT * FROM rollout_items t WHERE t.price_version = CAST(:version AS integer)
        AND t.subscription_id = p.id LIMIT 1) t ON true
    LEFT JOIN LATERAL (SELECT * FROM notices n WHERE n.id = t.notice_id LIMIT 1) n ON true
    LEFT JOIN LATERAL (SELECT * FROM preview_items i WHERE i.preview_id = CAST(:preview AS bigint)
        AND i.subscription_id = p.id LIMIT 1) i ON true"""
ACCEPTED = "coalesce(t.code = 'accepted', false)"
EFFECTIVE = "coalesce(t.effective_at, greatest(CAST(:effective_from AS timestamptz), p.created_at))"

# In the order of the ids everywhere: as everybody locks subscriptions, and as their facts are to be read.
# What may be there already is known from reading it: an upsert of each row would lock and look once more.
EFFECTS = """
updated AS (
    UPDATE public.subscriptions s SET cost_breakdown = m.new, total_minor = m.total,
        admin_percentage_applied = (m.part ->> 'admin_percentage')::numeric,
        tax_rate_applied = (m.part ->> 'tax_rate')::numeric, tax_minor = m.tax,
        delivery_cost_minor = m.delivery, price_version = CAST(:version AS integer){variants}
    FROM moved m WHERE s.id = m.id
), stamped AS (
    UPDATE public.subscriptions s SET price_version = CAST(:version AS integer),
        cost_breakdown = jsonb_set(s.cost_breakdown, '{{price_versions}}', r.part -> 'price_versions')
    FROM ruled r WHERE s.id = r.id AND r.stamped
), history AS (
    INSERT INTO subscription_cost_history (id, subscription_id, user_id, price_version, kind, currency,
        old_breakdown, new_breakdown, old_total_minor, new_total_minor, effective_at, reason,
        changed_by, cause_id, recorded_at, line_hash)
    OVERRIDING SYSTEM VALUE
    SELECT line, id, user_id, CAST(:version AS integer), kind, currency, old, new, old_total, total, effective_at, reason,
        changed_by, cause, now(), line_hash
    FROM moved ORDER BY id
), revised AS (
    UPDATE subscription_revisions r SET revision = m.revision, head = m.line_hash
    FROM moved m WHERE r.subscription_id = m.id AND m.last IS NOT NULL
), first_revised AS (
    INSERT INTO subscription_revisions (subscription_id, revision, head)
    SELECT id, revision, line_hash FROM moved WHERE last IS NULL ORDER BY id
), said AS (
    INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload, headers)
    SELECT event::uuid, 'pricing', user_id::text, 'pricing.subscription_cost_changed',
        jsonb_build_object('id', event::uuid, 'occurred_at', CAST(:now AS timestamptz),
            'customer_id', user_id, 'subscription_id', id, 'revision', revision, 'status', status,
            'currency', currency, 'billing_interval', billing_interval,
            'price_version', CAST(:version AS integer), 'cost_history_id', line,
            'old_breakdown', old, 'new_breakdown', new,
            'old_total_minor', old_total, 'new_total_minor', total, 'effective_at', effective_at,
            'kind', 'config', 'reason', reason, 'changed_by', changed_by,
            'history_hash', encode(line_hash, 'hex')),
        jsonb_build_object('ce_subject', user_id, 'ce_time', CAST(:now AS timestamptz),
            'ce_dataschema', CAST(:schema AS text), 'ce_causationid', cause,
            'traceparent', concat('00-', CAST(:trace AS text), '-', substr(event, 1, 16), '-01'))
    FROM moved ORDER BY id
), settled AS (
    INSERT INTO rollout_items (price_version, subscription_id, outcome, code, detail, effective_at)
    SELECT CAST(:version AS integer), id, outcome, code, {detail}, effective_at
    FROM ruled WHERE NOT listed ORDER BY id
), settled_before AS (
    INSERT INTO rollout_items AS old (price_version, subscription_id, outcome, code, detail, effective_at)
    SELECT CAST(:version AS integer), id, outcome, code, {detail}, effective_at FROM ruled WHERE listed ORDER BY id
    ON CONFLICT (price_version, subscription_id) DO UPDATE SET outcome = excluded.outcome,
        code = excluded.code, detail = excluded.detail, effective_at = excluded.effective_at
)"""
DETAIL = "coalesce(detail, CAST(:details AS jsonb) ->> code)"


@lru_cache(maxsize=4)
def move(shape: Shape) -> TextClause:
    """Answers with how many came out otherwise than they were previewed, beside what `left` answers."""
    ruling = RULING.format(
        said=said_in("p", shape), total="p.total", versions="p.part -> 'price_versions'"
    )
    variants = ", variants = m.new -> 'variants'" if shape.prices else ""
    effects = EFFECTS.format(variants=variants, detail=DETAIL)
    return text(f"""
WITH {priced(shape)}, rulings AS (
    SELECT p.*, {ACCEPTED} AS accepted, {EFFECTIVE} AS effective_at, r.revision AS last, r.head,{ruling} AS ruling,
        i.outcome = 'moved' AS previewed, t.price_version IS NOT NULL AS listed
    FROM priced p{BESIDE}
    LEFT JOIN LATERAL (
        SELECT * FROM subscription_revisions r WHERE r.subscription_id = p.id LIMIT 1) r ON true
    OFFSET 0
), ruled AS MATERIALIZED (
    SELECT id, user_id, status, currency, billing_interval, old, new, part, delivery, old_total, total, tax,
        effective_at, last, head, accepted, listed, coalesce(code = 'restored', false) AS restores, detail,
        CASE WHEN verdict IS NOT NULL THEN verdict WHEN ruling = 'not_told' THEN 'kept'
            WHEN ruling IS NOT NULL THEN 'deferred' WHEN same THEN 'kept' ELSE 'moved' END AS outcome,
        CASE WHEN verdict IS NOT NULL THEN code WHEN ruling IS NOT NULL THEN ruling
            WHEN code = 'restored' THEN 'grandfathered' WHEN same THEN 'same_cents'
            WHEN accepted THEN 'accepted' END AS code,
        verdict IS NULL AND ruling IS NULL AND same AS stamped,
        ruling = 'changed' AND verdict IS NULL
            OR previewed AND (verdict = 'failed' OR verdict = 'kept' AND code = 'never_moved') AS drifted
    FROM rulings
), numbered AS (
    SELECT *, nextval('subscription_cost_history_id_seq') AS line, coalesce(last, 0) + 1 AS revision,
        CASE WHEN restores THEN 'revert' ELSE 'config' END AS kind,
        CASE WHEN accepted THEN CAST(:applied_reason AS text) ELSE CAST(:reason AS text) END AS reason,
        CASE WHEN accepted THEN CAST(:applied_by AS text) ELSE CAST(:changed_by AS text) END AS changed_by,
        CASE WHEN accepted THEN CAST(:applied_cause AS text) ELSE CAST(:cause AS text) END AS cause
    FROM (SELECT * FROM ruled WHERE outcome = 'moved' ORDER BY id) r
), moved AS MATERIALIZED (
    SELECT *, cost_line_hash(head, id, user_id, CAST(:version AS integer), kind, effective_at, new,
            reason, changed_by, cause, now()) AS line_hash,
        md5(concat('pricing.subscription_cost_changed:', id, ':', revision)) AS event
    FROM numbered
),{effects}
SELECT (SELECT count(*) FROM ruled WHERE drifted) AS drifted,{left(shape)}
""")


# The same ruling for those priced one by one.
RULED_ALONE = RULING.format(
    said=said_by("p.new"),
    total="(p.new -> 'total_minor')::bigint",
    versions="p.new -> 'price_versions'",
)
RULE_ALONE = text(f"""
SELECT p.id, {ACCEPTED} AS accepted, {EFFECTIVE} AS effective_at,{RULED_ALONE} AS ruling,
    coalesce(i.outcome = 'moved', false) AS previewed
FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS p (id uuid, created_at timestamptz, new jsonb){BESIDE}
""")

SETTLE = text("""
INSERT INTO rollout_items AS old (price_version, subscription_id, outcome, code, detail, due_at,
    effective_at, notice_id)
SELECT CAST(:version AS integer), id, outcome, code, detail, due_at, effective_at, notice_id
FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r (id uuid, outcome text, code text, detail text,
    due_at timestamptz, effective_at timestamptz, notice_id uuid)
ORDER BY id
ON CONFLICT (price_version, subscription_id) DO UPDATE SET outcome = excluded.outcome,
    code = excluded.code, detail = excluded.detail,
    due_at = coalesce(excluded.due_at, old.due_at),
    effective_at = coalesce(excluded.effective_at, old.effective_at),
    notice_id = coalesce(excluded.notice_id, old.notice_id)
""")

# Of the preview's, those whom the walk did not find between these ids: nobody is left without an outcome.
MISSING = text("""
INSERT INTO rollout_items (price_version, subscription_id, outcome, code, detail)
SELECT CAST(:version AS integer), p.subscription_id, 'excluded',
    CASE WHEN s.id IS NULL THEN 'deleted' WHEN s.status = 'canceled' THEN 'canceled' ELSE 'left_scope' END,
    CASE WHEN s.id IS NULL THEN 'it was deleted' WHEN s.status = 'canceled' THEN 'it is canceled'
        ELSE 'this version is not for it any more' END
FROM preview_items p
LEFT JOIN LATERAL (SELECT true AS there FROM rollout_items i WHERE i.price_version = CAST(:version AS integer)
    AND i.subscription_id = p.subscription_id LIMIT 1) i ON true
LEFT JOIN LATERAL (SELECT id, status FROM public.subscriptions s WHERE s.id = p.subscription_id LIMIT 1) s ON true
WHERE p.preview_id = :preview AND p.subscription_id BETWEEN :first AND :last AND i.there IS NULL
    AND p.subscription_id NOT IN (SELECT unnest(CAST(:found AS uuid[])))
ORDER BY p.subscription_id
""")

# What a turn is looked at again with: when it was to be, and what was said then.
TURNS = text("""
SELECT subscription_id, effective_at, code, notice_id FROM rollout_items
WHERE price_version = :version AND subscription_id = ANY (CAST(:ids AS uuid[]))
""")
# Their period, interval or delivery may be another: their turns are looked at again at once.
RECONSIDER = text("""
UPDATE rollout_items i SET due_at = NULL
FROM rollouts r, unnest(CAST(:ids AS uuid[])) AS changed (id)
WHERE r.status IN ('listing', 'running', 'paused', 'stopped') AND i.price_version = r.price_version
    AND i.subscription_id = changed.id AND i.outcome IS NULL AND i.due_at IS NOT NULL
""")
# Who could not be priced when his turn was planned is planned now: he was there before the version all the same.
REOPEN = text("""
UPDATE rollout_items i SET outcome = NULL, code = NULL, detail = NULL, due_at = NULL, effective_at = NULL
FROM rollouts r, unnest(CAST(:ids AS uuid[])) AS changed (id)
WHERE r.price_version = ANY (CAST(:planned AS integer[])) AND r.status <> 'canceled'
    AND i.price_version = r.price_version AND i.subscription_id = changed.id
    AND i.outcome IN ('excluded', 'failed') AND i.code NOT IN ('canceled', 'deleted')
""")
# Somebody else is changing them: looked at again a moment later.
PUT_OFF = text("""
UPDATE rollout_items i SET due_at = :due_at
FROM (
    SELECT subscription_id FROM rollout_items
    WHERE price_version = :version AND subscription_id = ANY (CAST(:ids AS uuid[])) AND outcome IS NULL
    FOR NO KEY UPDATE SKIP LOCKED
) busy
WHERE i.price_version = :version AND i.subscription_id = busy.subscription_id
""")
# One walk at a time, and nobody who looks how far it is while it is on its way: see reprice.
WALK = text("SELECT pg_advisory_xact_lock(:walks, :version)")
# Who took deferred results up again, and why.
APPLIED = text("""
SELECT decided_by, reason, cause_id FROM decisions
WHERE price_version = :version AND action = 'rollout deferred applied' ORDER BY id DESC LIMIT 1
""")
REDATE = text("""
UPDATE rollout_items i SET due_at = r.due_at, effective_at = r.effective_at
FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r (id uuid, due_at timestamptz, effective_at timestamptz)
WHERE i.price_version = :version AND i.subscription_id = r.id
""")

NOTIFY = text("""
INSERT INTO notices (id, price_version, subscription_id, user_id, effective_at, notify_by, created_at)
SELECT id, CAST(:version AS integer), subscription_id, user_id, effective_at, notify_by, CAST(:now AS timestamptz)
FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r (id uuid, subscription_id uuid, user_id uuid,
    effective_at timestamptz, notify_by timestamptz)
ORDER BY id
""")

# Whose walk is to go on, whose time has come, or who is through; in the order in which versions take effect.
NEXT = text("""
SELECT r.* FROM rollouts r JOIN pricing_configs c ON c.version = r.price_version
WHERE r.status = 'listing' OR r.status = 'canceled' AND r.finished_at IS NULL
    -- Somebody was put back on the list while it ended.
    OR r.status IN ('done', 'canceled') AND EXISTS (SELECT FROM rollout_items i
        WHERE i.price_version = r.price_version AND i.outcome IS NULL)
    OR r.status = 'running' AND (
        NOT EXISTS (SELECT FROM rollout_items i
            WHERE i.price_version = r.price_version AND i.outcome IS NULL)
        OR EXISTS (SELECT FROM rollout_items i
            WHERE i.price_version = r.price_version AND i.outcome IS NULL AND i.due_at <= :now)
        OR EXISTS (SELECT FROM rollout_items i
            WHERE i.price_version = r.price_version AND i.outcome IS NULL AND i.due_at IS NULL))
ORDER BY c.effective_from, c.version LIMIT 1 FOR UPDATE OF r SKIP LOCKED
""")

# Without a time: listed by an earlier release, or to be looked at again; at once.
DUE = text("""
SELECT subscription_id FROM rollout_items
WHERE price_version = :version AND outcome IS NULL AND (due_at <= :now OR due_at IS NULL)
ORDER BY due_at, subscription_id LIMIT :rows
""")
WAITING = text("""
SELECT subscription_id FROM rollout_items
WHERE price_version = :version AND outcome IS NULL ORDER BY subscription_id LIMIT :rows
""")
