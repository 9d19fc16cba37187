"""A journalled reply can be erased once nobody can ask for it; its row stays."""

import sqlalchemy as sa
from alembic import op

revision = "node_0002"
down_revision = "node_0001"


def upgrade() -> None:
    with op.batch_alter_table("journal") as journal:
        journal.alter_column("reply", existing_type=sa.LargeBinary, nullable=True)
