"""The first schema of the node: ledger, log, and the state of runs."""

import sqlalchemy as sa
from alembic import op

from governance.runtime.append_only import create_log, keep, not_next

revision = "node_0001"
down_revision = None


def upgrade() -> None:
    create_log(op)
    _create_ledger()
    _create_rounds()
    _create_documents()


def _create_ledger() -> None:
    op.create_table(
        "ledger_entries",
        sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("register", sa.String(64), nullable=False),
        sa.Column("period", sa.Integer, nullable=False),
        sa.Column("study", sa.String(71), nullable=False),
        sa.Column("run", sa.String(32), nullable=False),
        sa.Column("phase", sa.String(32), nullable=False),
        sa.Column("mechanism", sa.Text, nullable=False),
        sa.Column("honest", sa.Integer, nullable=False),
        sa.Column("order", sa.Integer, nullable=False),
        sa.Column("rdp_micro", sa.BigInteger, nullable=False),
        sa.Column("created", sa.String(27), nullable=False),
        sa.UniqueConstraint("run", "phase", name="one_charge_a_phase"),
    )
    op.create_index("ledger_by_time", "ledger_entries", ["register", "created"])
    keep(op, "ledger_entries", not_next("ledger_entries", "position"))


def _create_rounds() -> None:
    op.create_table(
        "journal",
        sa.Column("run_id", sa.String(32), primary_key=True),
        sa.Column("round", sa.Integer, primary_key=True),
        sa.Column("phase", sa.String(32), primary_key=True),
        sa.Column("request_digest", sa.String(71), nullable=False),
        sa.Column("ctx", sa.LargeBinary, nullable=False),
        sa.Column("reply", sa.LargeBinary, nullable=False),
        sa.Column("created", sa.String(27), nullable=False),
    )
    op.create_table(
        "runs",
        sa.Column("run_id", sa.String(32), primary_key=True),
        sa.Column("study", sa.String(71), nullable=False),
        sa.Column("state", sa.LargeBinary),
        sa.Column("created", sa.String(27), nullable=False),
        sa.Column("ended", sa.String(27)),
    )
    op.create_table(
        "cohort_counts",
        sa.Column("permit", sa.String(71), primary_key=True),
        sa.Column("data_version", sa.String(71), primary_key=True),
        sa.Column("decision", sa.String(16), nullable=False),
        sa.Column("created", sa.String(27), nullable=False),
    )


def _create_documents() -> None:
    op.create_table(
        "documents",
        sa.Column("path", sa.String(512), primary_key=True),
        sa.Column("bytes", sa.LargeBinary, nullable=False),
        sa.Column("fetched", sa.String(27), nullable=False),
    )
    op.create_table(
        "settings",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
    )
