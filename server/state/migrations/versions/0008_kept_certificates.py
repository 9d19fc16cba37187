"""Stores which replaced certificates stay valid: two machines present one node's identity."""

import sqlalchemy as sa
from alembic import op

revision = "coordinator_0008"
down_revision = "coordinator_0007"


def upgrade() -> None:
    op.add_column("renewals", sa.Column("kept", sa.String(27)))
