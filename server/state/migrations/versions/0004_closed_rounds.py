"""A round that goes on without a country: whom it was closed on, before they are asked to agree."""

import sqlalchemy as sa
from alembic import op

revision = "coordinator_0004"
down_revision = "coordinator_0003"


def upgrade() -> None:
    op.add_column("runs", sa.Column("closed", sa.Text))
