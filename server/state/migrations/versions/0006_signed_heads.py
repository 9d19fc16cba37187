"""The head of the log, signed in each transaction; see `governance.audit.signed_head`."""

from alembic import op

from governance.runtime.append_only import create_signed_head

revision = "coordinator_0006"
down_revision = "coordinator_0005"


def upgrade() -> None:
    create_signed_head(op)
