"""A journalled reply can be given up once nobody can ask for it; its place stays taken."""

import sqlalchemy as sa
from alembic import op

revision = "node_0002"
down_revision = "node_0001"


def upgrade() -> None:
    with op.batch_alter_table("journal") as journal:
        journal.alter_column("reply", existing_type=sa.LargeBinary, nullable=True)
