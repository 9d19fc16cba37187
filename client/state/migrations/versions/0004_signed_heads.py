"""The head of the log, signed in each transaction; see `governance.audit.signed_head`."""

from alembic import op

from governance.runtime.append_only import create_signed_head

revision = "node_0004"
down_revision = "node_0003"


def upgrade() -> None:
    create_signed_head(op)
