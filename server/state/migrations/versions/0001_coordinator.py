"""The coordinator's first schema: log, parties and runs."""

import sqlalchemy as sa
from alembic import op

from governance.runtime.append_only import create_log

revision = "coordinator_0001"
down_revision = None


def upgrade() -> None:
    create_log(op)
    _create_parties()
    _create_runs()


def _create_parties() -> None:
    op.create_table(
        "parties",
        sa.Column("fingerprint", sa.String(128), primary_key=True),
        sa.Column("country", sa.String(2), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("node_id", sa.String(32), unique=True),
        sa.Column("admitted", sa.String(27), nullable=False),
        sa.Column("revoked", sa.String(27)),
    )
    op.create_table(
        "invitations",
        sa.Column("token_hash", sa.String(71), primary_key=True),
        sa.Column("country", sa.String(2), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("created", sa.String(27), nullable=False),
        sa.Column("used", sa.String(27)),
    )
    op.create_table(
        "enrolments",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("country", sa.String(2), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("request", sa.LargeBinary, nullable=False),
        sa.Column("fingerprint", sa.String(128), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("certificate", sa.LargeBinary),
        sa.Column("created", sa.String(27), nullable=False),
    )
    op.create_table("revoked", sa.Column("serial", sa.String(64), primary_key=True))


def _create_runs() -> None:
    op.create_table(
        "runs",
        sa.Column("run_id", sa.String(32), primary_key=True),
        sa.Column("study", sa.String(71), nullable=False),
        sa.Column("flower_run", sa.String(32)),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("round", sa.Integer, nullable=False),
        sa.Column("model", sa.LargeBinary),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("created", sa.String(27), nullable=False),
        sa.Column("updated", sa.String(27), nullable=False),
    )
    op.create_index("ix_runs_study", "runs", ["study"])
    op.create_table(
        "rounds",
        sa.Column("run_id", sa.String(32), primary_key=True),
        sa.Column("round", sa.Integer, primary_key=True),
        sa.Column("phase", sa.String(32), primary_key=True),
        sa.Column("outcome", sa.String(16), nullable=False),
        sa.Column("countries", sa.Text, nullable=False),
        sa.Column("seconds", sa.Float, nullable=False),
        sa.Column("body", sa.LargeBinary),
    )
