"""A log from before the node kept a head beside it: its first start writes one."""

from alembic import op

revision = "node_0003"
down_revision = "node_0002"


def upgrade() -> None:
    op.execute(
        "INSERT INTO settings (name, value) SELECT 'log-head-never-kept', 'upgraded' "
        "WHERE EXISTS (SELECT 1 FROM log_entries)"
    )
