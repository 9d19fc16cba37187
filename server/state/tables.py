"""The tables of the coordinator's state database, beside those of its audit log."""

from pathlib import Path

from sqlalchemy import Boolean, Column, Float, Integer, LargeBinary, MetaData, String, Table, Text

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
"""The admitted parties by certificate fingerprint; `node_id` is the SuperLink's, in decimal."""

invitations = Table(
    "invitations",
    COORDINATOR_TABLES,
    Column("token_hash", String(71), primary_key=True),
    Column("country", String(2), nullable=False),
    Column("role", String(16), nullable=False),
    Column("created", UtcTime, nullable=False),
    Column("used", UtcTime),
    Column("serial", String(64)),
    Column("revoked", UtcTime),
)
"""One row for each invitation. `serial` is that of its certificate, in decimal; an invitation of an
earlier release has none."""

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
    Column("kept", UtcTime),
)
"""One row for each replaced certificate, by serial number in decimal.

`successor` is the serial number of the certificate that replaces it, `public_key` the key of that
one (empty if a new admission replaced it), `used` the time of its first call; `disputed` is when a
second holder of the old certificate appeared. `kept` is since when the old certificate stays valid
beside the new one, because nobody knows which of two machines is the node."""

acting_sessions = Table(
    "acting_sessions",
    COORDINATOR_TABLES,
    Column("country", String(2), primary_key=True),
    Column("incarnation", Integer, nullable=False),
    Column("key", LargeBinary, nullable=False),
    Column("former", LargeBinary, nullable=False),
    Column("disputed", Boolean, nullable=False),
)
"""The session that acts for each country's node: the number of the node's start, the hash of its
session, and whether two machines have the identity. `former` has the hashes of the sessions that
acted before, one after the other, the newest last."""

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
"""One row for each run. `flower_run` is the Flower run of its current attempt; `reason` says why
the run ended without a result, or why its last attempt ended.

An attempt is one Flower run that executes the run: `attempt` is the number of the current one,
`begun` that of the last one that began, `fruitless` the number of attempts since the run's last
stored step, `resumed` the time when the newest attempt after the first was submitted. `ground`,
JSON, names the documents that the run is based on. `model` is the state after the last round, or
the model to release once `outcome`, JSON, is set. `closed`, JSON, is a round in progress that was
closed on fewer countries than the roster, with these countries."""

set_up_replies = Table(
    "set_up_replies",
    COORDINATOR_TABLES,
    Column("run_id", String(32), primary_key=True),
    Column("step", String(16), primary_key=True),
    Column("country", String(2), primary_key=True),
    Column("reply", LargeBinary, nullable=False),
)
"""The countries' signed replies in a run's set-up, from which the next attempt continues."""

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
"""The result of each round; `countries` is JSON."""
