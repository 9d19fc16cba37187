"""Attempts of a run: their numbers, the run's documents, its set-up and its outcome."""

import sqlalchemy as sa
from alembic import op

revision = "coordinator_0002"
down_revision = "coordinator_0001"


def upgrade() -> None:
    for name in ("attempt", "begun", "fruitless"):
        op.add_column("runs", sa.Column(name, sa.Integer, nullable=False, server_default="0"))
    op.add_column("runs", sa.Column("resumed", sa.String(27)))
    op.add_column("runs", sa.Column("ground", sa.Text))
    op.add_column("runs", sa.Column("outcome", sa.Text))
    op.create_table(
        "set_up_replies",
        sa.Column("run_id", sa.String(32), primary_key=True),
        sa.Column("step", sa.String(16), primary_key=True),
        sa.Column("country", sa.String(2), primary_key=True),
        sa.Column("reply", sa.LargeBinary, nullable=False),
    )
