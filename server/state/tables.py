"""The tables of the coordinator's state database, beside its log."""

from pathlib import Path

from sqlalchemy import Column, Float, Integer, LargeBinary, MetaData, String, Table, Text

from governance.runtime.database import UtcTime

MIGRATIONS = Path(__file__).parent / "migrations"
COORDINATOR_TABLES = MetaData()

parties = Table(
    "parties",
    COORDINATOR_TABLES,
    Column("fingerprint", String(128), primary_key=True),
    Column("country", String(2), nullable=False),
    Column("role", String(16), nullable=False),
    Column("node_id", String(32), unique=True),
    Column("admitted", UtcTime, nullable=False),
    Column("revoked", UtcTime),
)
"""Who is admitted, by certificate fingerprint; `node_id` is the SuperLink's, in decimal."""

invitations = Table(
    "invitations",
    COORDINATOR_TABLES,
    Column("token_hash", String(71), primary_key=True),
    Column("country", String(2), nullable=False),
    Column("role", String(16), nullable=False),
    Column("created", UtcTime, nullable=False),
    Column("used", UtcTime),
)

enrolments = Table(
    "enrolments",
    COORDINATOR_TABLES,
    Column("id", String(64), primary_key=True),
    Column("country", String(2), nullable=False),
    Column("role", String(16), nullable=False),
    Column("request", LargeBinary, nullable=False),
    Column("fingerprint", String(128), nullable=False),
    Column("status", String(16), nullable=False),
    Column("certificate", LargeBinary),
    Column("created", UtcTime, nullable=False),
)

revoked = Table("revoked", COORDINATOR_TABLES, Column("serial", String(64), primary_key=True))
"""Serial numbers of revoked certificates, in decimal."""

renewals = Table(
    "renewals",
    COORDINATOR_TABLES,
    Column("serial", String(64), primary_key=True),
    Column("country", String(2), nullable=False),
    Column("role", String(16), nullable=False),
    Column("successor", String(64), nullable=False, index=True),
    Column("public_key", LargeBinary, nullable=False),
    Column("certificate", LargeBinary, nullable=False),
    Column("created", UtcTime, nullable=False),
    Column("used", UtcTime),
    Column("disputed", UtcTime),
)
"""One row a replaced certificate, by serial number in decimal: the one that follows it and the key
that this is for (empty where a new admission replaced it), the first call made with it, and when a
second holder of the old one showed up."""

runs = Table(
    "runs",
    COORDINATOR_TABLES,
    Column("run_id", String(32), primary_key=True),
    Column("study", String(71), nullable=False, index=True),
    Column("flower_run", String(32)),
    Column("state", String(16), nullable=False),
    Column("round", Integer, nullable=False),
    Column("model", LargeBinary),
    Column("reason", Text, nullable=False),
    Column("created", UtcTime, nullable=False),
    Column("updated", UtcTime, nullable=False),
    Column("attempt", Integer, nullable=False, server_default="0"),
    Column("begun", Integer, nullable=False, server_default="0"),
    Column("fruitless", Integer, nullable=False, server_default="0"),
    Column("resumed", UtcTime),
    Column("ground", Text),
    Column("outcome", Text),
    Column("closed", Text),
)
"""One row a run of ours; `flower_run` is the Flower run that carries it now; `reason` says why
it ended, where it did not finish, or why its last attempt did.

An attempt is one Flower run that carries it: `attempt` is the one that may, `begun` the last one
that did, `fruitless` how many have passed since the run's last step was kept, `resumed` when the
latest but the first was submitted. `ground` is JSON: the documents that the run stands on;
`model` is the state after the last round, or what is to be released once `outcome`, JSON, is
there. `closed`, JSON, is a round under way that opens over fewer countries than the roster, or not
at all, and these."""

set_up_replies = Table(
    "set_up_replies",
    COORDINATOR_TABLES,
    Column("run_id", String(32), primary_key=True),
    Column("step", String(16), primary_key=True),
    Column("country", String(2), primary_key=True),
    Column("reply", LargeBinary, nullable=False),
)
"""What the countries said in a run's set-up, signed by them: whoever carries it on begins there."""

rounds = Table(
    "rounds",
    COORDINATOR_TABLES,
    Column("run_id", String(32), primary_key=True),
    Column("round", Integer, primary_key=True),
    Column("phase", String(32), primary_key=True),
    Column("outcome", String(16), nullable=False),
    Column("countries", Text, nullable=False),
    Column("seconds", Float, nullable=False),
    Column("body", LargeBinary),
)
"""What came of each round; `countries` is JSON."""
