"""Rounds without a country: the countries on which a round was closed, before they agree to it."""

import sqlalchemy as sa
from alembic import op

revision = "coordinator_0004"
down_revision = "coordinator_0003"


def upgrade() -> None:
    op.add_column("runs", sa.Column("closed", sa.Text))
