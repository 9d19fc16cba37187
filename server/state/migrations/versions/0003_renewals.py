"""Renewed certificates, each with the certificate that it replaces."""

import sqlalchemy as sa
from alembic import op

revision = "coordinator_0003"
down_revision = "coordinator_0002"


def upgrade() -> None:
    op.create_table(
        "renewals",
        sa.Column("serial", sa.String(64), primary_key=True),
        sa.Column("country", sa.String(2), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("successor", sa.String(64), nullable=False),
        sa.Column("public_key", sa.LargeBinary, nullable=False),
        sa.Column("certificate", sa.LargeBinary, nullable=False),
        sa.Column("created", sa.String(27), nullable=False),
        sa.Column("used", sa.String(27)),
        sa.Column("disputed", sa.String(27)),
    )
    op.create_index("ix_renewals_successor", "renewals", ["successor"])
