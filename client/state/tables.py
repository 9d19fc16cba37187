"""The tables of a node's state database, beside its ledger and its log."""

from pathlib import Path

from sqlalchemy import Column, Integer, LargeBinary, MetaData, String, Table, Text

from governance.runtime.database import UtcTime

MIGRATIONS = Path(__file__).parent / "migrations"
NODE_TABLES = MetaData()

journal = Table(
    "journal",
    NODE_TABLES,
    Column("run_id", String(32), primary_key=True),
    Column("round", Integer, primary_key=True),
    Column("phase", String(32), primary_key=True),
    Column("request_digest", String(71), nullable=False),
    Column("ctx", LargeBinary, nullable=False),
    Column("reply", LargeBinary),
    Column("created", UtcTime, nullable=False),
)
"""The reply sent for each (run, round, phase), to be sent again unchanged; null once nobody can ask
for it any more."""

runs = Table(
    "runs",
    NODE_TABLES,
    Column("run_id", String(32), primary_key=True),
    Column("study", String(71), nullable=False),
    Column("state", LargeBinary),
    Column("created", UtcTime, nullable=False),
    Column("ended", UtcTime),
)
"""Every run id ever used, so that no run is entered twice; `state` is sealed, null once erased."""

cohort_counts = Table(
    "cohort_counts",
    NODE_TABLES,
    Column("permit", String(71), primary_key=True),
    Column("data_version", String(71), primary_key=True),
    Column("decision", String(16), nullable=False),
    Column("created", UtcTime, nullable=False),
    Column("cohort", String(64), index=True),
)
"""The decision of each charged noisy count, the permit that paid for it, and the version of the
records. `cohort` is null if the count was for its permit alone."""

documents = Table(
    "documents",
    NODE_TABLES,
    Column("path", String(512), primary_key=True),
    Column("bytes", LargeBinary, nullable=False),
    Column("fetched", UtcTime, nullable=False),
)
"""Document bytes as fetched, for use while the link is down; verified again at each use."""

settings = Table(
    "settings",
    NODE_TABLES,
    Column("name", String(64), primary_key=True),
    Column("value", Text, nullable=False),
)

opt_out_confirmations = Table(
    "opt_out_confirmations",
    NODE_TABLES,
    Column("entry", String(64), primary_key=True),
    Column("confirmed", UtcTime, nullable=False),
)
"""Keyed hashes of entries of the opt-out list, which the operator confirmed to be no patients."""
