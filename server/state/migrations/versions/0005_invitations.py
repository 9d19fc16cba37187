"""Invitations: the serial number of their certificate, and when they were revoked."""

import sqlalchemy as sa
from alembic import op

revision = "coordinator_0005"
down_revision = "coordinator_0004"


def upgrade() -> None:
    op.add_column("invitations", sa.Column("serial", sa.String(64)))
    op.add_column("invitations", sa.Column("revoked", sa.String(27)))
