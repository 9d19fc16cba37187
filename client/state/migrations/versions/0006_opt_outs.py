"""The entries of the opt-out list that match no patient, as far as the operator confirmed them."""

import sqlalchemy as sa
from alembic import op

revision = "node_0006"
down_revision = "node_0005"


def upgrade() -> None:
    op.create_table(
        "opt_out_confirmations",
        sa.Column("entry", sa.String(64), primary_key=True),
        sa.Column("confirmed", sa.String(27), nullable=False),
    )
