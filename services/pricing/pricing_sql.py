"""The cost rule and what follows from it as SQL over a chunk of subscriptions: a million rows never leave the database.

A row is priced here if it is plain: priced before, and as its customer left it then.  Its group's terms come from
the pure rules (campaign.row_of), the arithmetic is the cost rule's in whole numbers, half-even.  Whatever is not
plain is handed back to be priced one by one, and groups that are not known yet to be asked for.
"""

from dataclasses import dataclass
from functools import lru_cache

from sqlalchemy import TextClause, text

from services.pricing.campaign import SQL_AMOUNT_MAX
from services.pricing.scopes import Scope

# Differences in minor units at which a histogram's buckets begin, upwards and downwards.
STEPS = tuple(digit * 10**place for place in range(7) for digit in (1, 2, 5))
SAMPLE_ROWS = 3  # of each chunk, computed again by the pure function

# What str.strip() takes for blank.
BLANKS = "".join(f"\\u{code:04x}" for code in range(0x10000) if chr(code).isspace())
# The place as domain.place_of writes it; where case differs in other alphabets, the row is not plain.
PLACE = f"a.country || coalesce('-' || nullif(upper(btrim(a.region, E'{BLANKS}')), ''), '')"

PICKED = f"""
picked AS MATERIALIZED (
    SELECT s.id, s.user_id, s.status, s.currency, s.billing_interval, s.delivery_type, s.created_at,
        s.period_start, s.period_end, s.next_delivery_on, s.cost_breakdown AS old,
        s.cost_breakdown ->> 'place' AS place, s.loyalty_discount_minor AS discount,
        (s.cost_breakdown -> 'subtotal_minor')::bigint AS subtotal,
        coalesce(nullif(s.cost_breakdown -> 'price_versions', '[]'), jsonb_build_array(s.price_version))
            AS versions,
        {{before}} AS before,
        coalesce(s.status <> 'canceled' AND s.variants <> '[]' AND s.cost_breakdown -> 'variants' = s.variants
            AND s.cost_breakdown ->> 'currency' = s.currency
            AND s.cost_breakdown ->> 'delivery_type' = s.delivery_type
            AND s.cost_breakdown ->> 'place' = {PLACE}
            AND (s.cost_breakdown -> 'loyalty_discount_minor')::bigint = s.loyalty_discount_minor
            AND (s.cost_breakdown -> 'subtotal_minor')::bigint <= {SQL_AMOUNT_MAX}
            AND s.loyalty_discount_minor <= {SQL_AMOUNT_MAX}, false) AS plain
    FROM public.subscriptions s LEFT JOIN LATERAL (
        SELECT country, region FROM public.addresses a WHERE a.id = s.delivery_address_id LIMIT 1
    ) a ON true{{history}}
    WHERE s.id = ANY (CAST(:ids AS uuid[]))
)"""

# What the version to be reverted took a subscription from; where it was only stamped, what the last line
# without it says.
# Lines of earlier releases name no versions but their own.
BEFORE = """
    LEFT JOIN LATERAL (
        SELECT CASE WHEN h.moved THEN h.old_breakdown ELSE h.new_breakdown END AS old_breakdown,
            CASE WHEN h.moved THEN coalesce(nullif(h.old_breakdown -> 'price_versions', '[]'),
                jsonb_build_array((SELECT e.price_version FROM subscription_cost_history e
                    WHERE e.subscription_id = h.subscription_id AND e.id < h.id ORDER BY e.id DESC LIMIT 1)))
                ELSE coalesce(nullif(h.new_breakdown -> 'price_versions', '[]'),
                    jsonb_build_array(h.price_version)) END AS versions
        FROM (
            SELECT *, l.price_version = CAST(:reverts AS integer) AND l.kind IN ('config', 'revert')
                AND l.old_breakdown IS NOT NULL AS moved
            FROM subscription_cost_history l WHERE l.subscription_id = s.id
        ) h
        WHERE h.moved OR NOT coalesce(nullif(h.new_breakdown -> 'price_versions', '[]'),
            jsonb_build_array(h.price_version)) @> to_jsonb(CAST(:reverts AS integer))
        ORDER BY h.moved DESC, h.id DESC LIMIT 1
    ) b ON true"""

GROUPED = """
terms AS MATERIALIZED (
    SELECT * FROM jsonb_to_recordset(CAST(:groups AS jsonb)) AS g (
        versions jsonb, before jsonb, currency text, delivery_type text, place text, verdict text, code text,
        detail text, alone boolean, part jsonb, percentage bigint, delivery bigint, rate bigint,
        divisor bigint, step bigint, names boolean)
), grouped AS MATERIALIZED (
    SELECT p.*, g.currency IS NOT NULL AS known, g.verdict, g.code, g.detail, g.alone, g.part,
        g.percentage, g.delivery, g.rate, g.divisor, g.step, g.names
    FROM picked p LEFT JOIN terms g ON p.plain AND g.versions = p.versions AND g.currency = p.currency
        AND g.delivery_type = p.delivery_type AND g.place = p.place{same_before}
)"""

# Unit prices that the version names, put into the lines; numeric, since a huge box must not overflow.
LINES = f"""
, named AS MATERIALIZED (
    SELECT * FROM jsonb_to_recordset(CAST(:prices AS jsonb)) AS n (currency text, variant text, price jsonb)
), lines AS MATERIALIZED (
    SELECT g.id, jsonb_agg(CASE WHEN n.price IS NULL THEN e.line
            ELSE jsonb_set(e.line, '{{unit_price_minor}}', n.price) END ORDER BY e.place) AS variants,
        sum((e.line -> 'quantity')::numeric * coalesce(n.price, e.line -> 'unit_price_minor')::numeric)
            AS subtotal
    FROM grouped g CROSS JOIN LATERAL jsonb_array_elements(g.old -> 'variants')
        WITH ORDINALITY AS e (line, place)
    LEFT JOIN named n ON n.currency = g.currency AND n.variant = e.line ->> 'variant_id'
    WHERE g.plain AND g.known AND NOT g.alone AND g.names GROUP BY g.id
), boxed AS MATERIALIZED (
    SELECT g.id, coalesce(l.variants, g.old -> 'variants') AS variants,
        CASE WHEN l.subtotal IS NULL THEN g.subtotal WHEN l.subtotal <= {SQL_AMOUNT_MAX}
            THEN l.subtotal::bigint END AS new_subtotal
    FROM grouped g LEFT JOIN lines l USING (id)
)"""

# Each line is rounded once: one more where the remainder is above half, or half and the line odd.
PRICED = """
, fees AS MATERIALIZED (
    SELECT g.*, {boxed} AS base, {variants} AS variants,
        {boxed} * percentage / 1000000 + CASE WHEN {boxed} * percentage % 1000000 * 2
            + ({boxed} * percentage / 1000000 & 1) > 1000000 THEN 1 ELSE 0 END AS fee
    FROM grouped g {join} WHERE g.known AND NOT g.alone AND {boxed} IS NOT NULL
), sums AS (
    SELECT *, greatest(0, base + fee + delivery - discount) AS due FROM fees OFFSET 0
), taxed AS (
    SELECT *, due * rate / divisor + CASE WHEN due * rate % divisor * 2
        + (due * rate / divisor & 1) > divisor THEN 1 ELSE 0 END AS tax FROM sums OFFSET 0
), inclusive AS (
    SELECT *, CASE WHEN divisor = 1000000 THEN due ELSE due - tax END AS taxable,
        CASE WHEN divisor = 1000000 THEN due + tax ELSE due END AS asked FROM taxed OFFSET 0
), rounded AS (
    SELECT *, CASE WHEN step = 1 THEN asked ELSE step * (asked / step + CASE WHEN asked % step * 2
        + (asked / step & 1) > step THEN 1 ELSE 0 END) END AS total FROM inclusive OFFSET 0
), valued AS MATERIALIZED (
    SELECT *, (old -> 'total_minor')::bigint AS old_total,
        (old -> 'total_minor')::bigint = total AND (old -> 'fee_minor')::bigint = fee
            AND (old -> 'tax_minor')::bigint = tax AND (old -> 'taxable_minor')::bigint = taxable
            AND (old -> 'delivery_minor')::bigint = delivery
            AND coalesce((old -> 'rounding_minor')::bigint, 0) = total - asked{same_lines} AS same
    FROM rounded
), priced AS NOT MATERIALIZED (
    SELECT *, old || part || jsonb_build_object({named}'fee_minor', fee, 'taxable_minor', taxable,
        'tax_minor', tax, 'total_minor', total, 'rounding_minor', total - asked) AS new FROM valued
)"""

# What SQL leaves to others, and a few rows to be computed again.
LEFT = f"""
    (SELECT jsonb_agg(DISTINCT jsonb_build_object('versions', versions, 'before', before, 'currency', currency,
        'delivery_type', delivery_type, 'place', place)) FROM grouped WHERE plain AND NOT known) AS unknown,
    (SELECT array_agg(id ORDER BY id) FROM grouped WHERE plain AND NOT known) AS waiting,
    (SELECT array_agg(g.id ORDER BY g.id) FROM grouped g
        WHERE NOT g.plain OR g.known AND (g.alone OR {{too_large}})) AS alone,
    (SELECT jsonb_agg(jsonb_build_object('id', id, 'versions', versions, 'before', before, 'old', old,
        'new', new)) FROM (SELECT * FROM priced WHERE new IS NOT NULL LIMIT {SAMPLE_ROWS}) p) AS sample"""


@dataclass(frozen=True)
class Shape:
    """What a version asks of the statements beside terms: unit prices to set, a version to take back."""

    prices: bool = False
    reverts: bool = False


@lru_cache(maxsize=4)
def priced(shape: Shape) -> str:
    """The chunk's rows with old and new cost, as the CTEs `grouped`, `valued` (all but `new`) and `priced`.

    `new` is built wherever it is named: a third of the arithmetic, so once, or not at all.
    """
    picked = PICKED.format(
        before="b.versions" if shape.reverts else "CAST(NULL AS jsonb)",
        history=BEFORE if shape.reverts else "",
    )
    same_before = " AND g.before IS NOT DISTINCT FROM p.before" if shape.reverts else ""
    cost = PRICED.format(
        boxed="b.new_subtotal" if shape.prices else "g.subtotal",
        variants="b.variants" if shape.prices else "NULL::jsonb",
        join="JOIN boxed b USING (id)" if shape.prices else "",
        named="'variants', variants, 'subtotal_minor', base, " if shape.prices else "",
        same_lines=" AND old -> 'variants' = variants" if shape.prices else "",
    )
    lines = LINES if shape.prices else ""
    return f"{picked}, {GROUPED.format(same_before=same_before).lstrip()}{lines}{cost}"


def left(shape: Shape) -> str:
    """The columns `unknown`, `alone` and `sample` of a statement's answer."""
    large = "g.id IN (SELECT id FROM boxed WHERE new_subtotal IS NULL)"
    return LEFT.format(too_large=large if shape.prices else "false")


def said_by(new: str) -> str:
    """A number for what the customer said: his lines as they end up, currency, delivery, discount; 0: no price.

    Not for what versions say: several of them may move one subscription, each approved by itself.
    """
    return _digest(new, f"{new} -> 'variants'", new)


def said_in(row: str, shape: Shape) -> str:
    """`said_by` of a row of `valued`, without its `new`: only lines may be other than before."""
    variants = f"{row}.variants" if shape.prices else f"{row}.old -> 'variants'"
    return _digest(f"{row}.part", variants, f"{row}.old")


def _digest(price: str, variants: str, breakdown: str) -> str:
    names = ("currency", "delivery_type", "place", "loyalty_discount_minor")
    said = ", ".join((variants, *(f"{breakdown} -> '{name}'" for name in names)))
    return f"CASE WHEN {price} IS NULL THEN 0 ELSE hash_record_extended(ROW({said}), 0) END"


@dataclass(frozen=True)
class Covered:
    """A scope as SQL over s (subscriptions), a (addresses) and u (user_tiers)."""

    condition: str
    values: dict[str, object]


def covered(scope: Scope) -> Covered:
    """As `Scope.covers`."""
    tests = {
        "currencies": "s.currency = ANY (CAST(:currencies AS text[]))",
        "places": f"({PLACE} = ANY (CAST(:places AS text[])) OR a.country = ANY (CAST(:places AS text[])))",
        "delivery_types": "s.delivery_type = ANY (CAST(:delivery_types AS text[]))",
        "variants": (
            "EXISTS (SELECT FROM jsonb_array_elements(s.variants) line"
            " WHERE lower(line ->> 'variant_id') = ANY (CAST(:variants AS text[])))"
        ),
        "tiers": "coalesce(u.tier, 'bronze') = ANY (CAST(:tiers AS text[]))",
        "signed_up_before": "s.created_at < CAST(:signed_up_before AS timestamptz)",
        "subscriptions": "s.id = ANY (CAST(:subscriptions AS uuid[]))",
    }
    given = scope.model_dump(exclude_none=True)
    values: dict[str, object] = {}
    for key, value in given.items():
        listed = isinstance(value, frozenset)
        values[key] = sorted(map(str, value)) if listed else value
    return Covered(" AND ".join(f"({tests[key]})" for key in given) or "true", values)


MEMBERS = (
    "public.subscriptions s LEFT JOIN public.addresses a ON a.id = s.delivery_address_id"
    " LEFT JOIN user_tiers u ON u.user_id = s.user_id"
)


@lru_cache(maxsize=64)
def members(condition: str) -> TextClause:
    """The next ids that a scope covers, and are not canceled, among the next `most`; and the last of those."""
    return text(f"""
WITH reach AS (SELECT id FROM public.subscriptions WHERE id >= :first ORDER BY id OFFSET :most - 1 LIMIT 1)
SELECT (SELECT id FROM reach) AS last, ARRAY(
    SELECT s.id FROM {MEMBERS}
    WHERE s.id >= :first AND s.id <= coalesce((SELECT id FROM reach), :end) AND s.status <> 'canceled'
        AND {condition} ORDER BY s.id LIMIT :rows) AS ids
""")


def membership(condition: str) -> TextClause:
    """Of given ids those that are still there, and whether a scope covers them."""
    return text(
        f"SELECT s.id, {condition} AS covered FROM {MEMBERS} WHERE s.id = ANY (CAST(:ids AS uuid[]))"
    )


# Whoever is in somebody else's hands is left for later: who waits for a row while he holds others makes
# everybody wait, and may be one half of a deadlock.  What then changes is the price, and no SubscriptionChanged
# but subscription_cost_changed says so.  By their keys alone they are looked up from here on: a plan that was made
# while a rollout's items were none yet would read all of them for each row, for as long as it is kept.
LOCK = text("""
SELECT set_config('farebox.pricing', 'on', true), set_config('enable_seqscan', 'off', true), ARRAY(
    SELECT id FROM public.subscriptions WHERE id = ANY (CAST(:ids AS uuid[]))
    ORDER BY id FOR NO KEY UPDATE SKIP LOCKED) AS ours
""")
