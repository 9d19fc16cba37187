"""Counts are found by their cohort: studies of the same cohort share one."""

import sqlalchemy as sa
from alembic import op

revision = "node_0005"
down_revision = "node_0004"


def upgrade() -> None:
    op.add_column("cohort_counts", sa.Column("cohort", sa.String(64)))
    op.create_index("ix_cohort_counts_cohort", "cohort_counts", ["cohort"])
