"""Stores which session acts for each country's node."""

import sqlalchemy as sa
from alembic import op

revision = "coordinator_0007"
down_revision = "coordinator_0006"


def upgrade() -> None:
    op.create_table(
        "acting_sessions",
        sa.Column("country", sa.String(2), primary_key=True),
        sa.Column("incarnation", sa.Integer, nullable=False),
        sa.Column("key", sa.LargeBinary, nullable=False),
        sa.Column("former", sa.LargeBinary, nullable=False),
        sa.Column("disputed", sa.Boolean, nullable=False),
    )
