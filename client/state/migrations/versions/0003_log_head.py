"""Marks a log that was written before the log-head file existed: the first start writes one."""

from alembic import op

revision = "node_0003"
down_revision = "node_0002"


def upgrade() -> None:
    op.execute(
        "INSERT INTO settings (name, value) SELECT 'log-head-never-kept', 'upgraded' "
        "WHERE EXISTS (SELECT 1 FROM log_entries)"
    )
