"""The part of the cohort that pays a charge; earlier charges are paid by everybody."""

import sqlalchemy as sa
from alembic import op

revision = "node_0007"
down_revision = "node_0006"


def upgrade() -> None:
    op.add_column("ledger_entries", sa.Column("part", sa.String(16)))
