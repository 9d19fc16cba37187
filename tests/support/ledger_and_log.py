"""State databases, releases and events for tests of the ledger and the log."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

import client.state.tables
from governance.audit.events import Event, EventKind
from governance.audit.log import AuditLog
from governance.budget.ledger import Terms
from governance.budget.period import period_of
from governance.runtime.database import open_database
from keys.identity import SigningKey
from protocols.numerics.mechanism import Mechanism

EFFECTIVE = datetime(2026, 1, 1, tzinfo=UTC)
NOW = EFFECTIVE + timedelta(days=40)
PERIOD_DAYS = 365
STUDY = "sha256:" + "5" * 64
ORIGIN = "pratique/demo/node/XA"
LOG_KEY = SigningKey.from_bytes(bytes(range(32)))


def node_state(folder: Path) -> Engine:
    return open_database(folder / "state.db", client.state.tables.MIGRATIONS)


def release(**changed: Any) -> Mechanism:
    plain = {
        "phase": "train",
        "rounds": 10,
        "dimension": 8,
        "clip_norm": 1.0,
        "scale": 1000,
        "noise_std": 4000,
        "patients_bound": 1000,
    }
    return Mechanism.model_validate({**plain, **changed})


def terms(cap_micro: int, *, now: datetime = NOW, **changed: Any) -> Terms:
    period = period_of(EFFECTIVE, PERIOD_DAYS, now)
    plain = {"register": "adults", "period": period, "order": 8, "honest": 2}
    return Terms(cap_micro=cap_micro, **{**plain, **changed})


def run_id(number: int) -> str:
    return f"{number:032x}"


def audit_log(engine: Engine, key: SigningKey = LOG_KEY) -> AuditLog:
    return AuditLog(engine, ORIGIN, key)


def event(number: int = 0, **changed: Any) -> Event:
    plain = {
        "kind": EventKind.SUM_CONTRIBUTED,
        "at": NOW + timedelta(seconds=number),
        "actor": "XA",
        "study": STUDY,
        "run": run_id(number),
        "round": number,
    }
    return Event.model_validate({**plain, **changed})
