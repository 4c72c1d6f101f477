"""Rollouts that can be paused, stopped and canceled, and know how far they drifted from their preview.

Revision ID: 015a
Revises: 015
"""

import sqlalchemy as sa
from alembic import op

revision = "015a"
down_revision = "015"
branch_labels = None
depends_on = None

STATES = "'listing', 'running', 'paused', 'stopped', 'canceled', 'done'"
EARLIER_STATES = "'listing', 'running', 'done'"


def upgrade() -> None:
    for column in _columns():
        op.add_column("rollouts", column, schema="pricing")
    _replace_states(STATES)


def _replace_states(states: str) -> None:
    op.drop_constraint(op.f("ck_rollouts_status"), "rollouts", schema="pricing")
    op.execute(
        "ALTER TABLE pricing.rollouts ADD CONSTRAINT ck_rollouts_status"
        f" CHECK (status IN ({states}))"
    )


def _columns() -> tuple[sa.Column[object], ...]:
    return (
        sa.Column("preview_id", sa.BigInteger()),
        sa.Column("resume_status", sa.String()),
        sa.Column("drifted", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("drift_limit", sa.BigInteger()),
        sa.Column("detail", sa.String()),
        sa.Column("changed_by", sa.String()),
        sa.Column("changed_at", sa.DateTime(timezone=True)),
    )


def downgrade() -> None:
    _replace_states(EARLIER_STATES)
    for column in reversed(_columns()):
        op.drop_column("rollouts", column.name, schema="pricing")
