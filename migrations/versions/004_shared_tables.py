"""Outbox, inbox, parked events, leases and API keys: one set for each service.

Revision ID: 004
Revises: 003
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

revision = "004"
down_revision = "003"
branch_labels = None
depends_on = None

NOW = sa.text("now()")
SCHEMAS = ("pricing", "payments", "loyalty", "analytics")
TABLES = ("outbox", "inbox", "consumer_progress", "parked_events", "leases", "api_keys")


def _time(name: str, *, default: sa.TextClause | None = None) -> sa.Column[object]:
    return sa.Column(
        name, sa.DateTime(timezone=True), server_default=default, nullable=default is None
    )


def upgrade() -> None:
    for schema in SCHEMAS:
        _create_delivery(schema)
        _create_parking(schema)


def _create_delivery(schema: str) -> None:
    op.create_table(
        "outbox",
        sa.Column("position", sa.BigInteger(), sa.Identity(), primary_key=True),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("aggregatetype", sa.String(), nullable=False),
        sa.Column("aggregateid", sa.String(), nullable=False),
        sa.Column("type", sa.String(), nullable=False),
        sa.Column("payload", JSONB(), nullable=False),
        sa.Column("headers", JSONB(), nullable=False),
        _time("created_at", default=sa.text("clock_timestamp()")),
        _time("published_at"),
        sa.UniqueConstraint("id"),
        sa.Index(
            "ix_outbox_unpublished", "position", postgresql_where=sa.text("published_at IS NULL")
        ),
        schema=schema,
    )
    op.create_table(
        "inbox",
        sa.Column("consumer", sa.String(), primary_key=True),
        sa.Column("message_id", sa.Uuid(), primary_key=True),
        _time("claimed_at", default=NOW),
        schema=schema,
    )
    op.create_table(
        "consumer_progress",
        sa.Column("consumer", sa.String(), primary_key=True),
        sa.Column("topic", sa.String(), primary_key=True),
        sa.Column("partition", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("next_offset", sa.BigInteger(), nullable=False),
        _time("updated_at", default=NOW),
        schema=schema,
    )


def _create_parking(schema: str) -> None:
    op.create_table(
        "parked_events",
        sa.Column("id", sa.BigInteger(), sa.Identity(), primary_key=True),
        sa.Column("consumer", sa.String(), nullable=False),
        sa.Column("event_id", sa.String()),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("topic", sa.String(), nullable=False),
        sa.Column("partition", sa.Integer(), nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("headers", JSONB(), nullable=False),
        sa.Column("error", sa.String(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("status", sa.String(), server_default=sa.text("'parked'"), nullable=False),
        _time("parked_at", default=NOW),
        _time("resolved_at"),
        sa.UniqueConstraint("consumer", "topic", "partition", "offset"),
        sa.CheckConstraint("status IN ('parked', 'retried', 'dropped')", name="status"),
        sa.Index(
            "ix_parked_events_open",
            "consumer",
            "key",
            postgresql_where=sa.text("status = 'parked'"),
        ),
        schema=schema,
    )
    op.create_table(
        "leases",
        sa.Column("name", sa.String(), primary_key=True),
        sa.Column("holder", sa.String(), nullable=False),
        sa.Column("fence", sa.BigInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        schema=schema,
    )
    op.create_table(
        "api_keys",
        sa.Column("digest", sa.LargeBinary(), primary_key=True),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("scopes", ARRAY(sa.String()), nullable=False),
        _time("created_at", default=NOW),
        _time("revoked_at"),
        sa.UniqueConstraint("name"),
        schema=schema,
    )


def downgrade() -> None:
    for schema in SCHEMAS:
        for table in TABLES:
            op.drop_table(table, schema=schema)
