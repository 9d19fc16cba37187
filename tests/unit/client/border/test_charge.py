"""A charge and its log entry are written together and once, or not at all."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import Engine

from client.border.charge import Charges
from client.border.failpoints import Failpoint
from client.state.decision_log import DecisionLog, Subject
from governance.audit.log import AuditLog
from governance.budget.ledger import Ledger
from protocols.errors import ReasonCode, Refusal
from protocols.wire.document_versions import DocumentVersions
from tests.support.ledger_and_log import (
    NOW,
    STUDY,
    audit_log,
    node_state,
    release,
    run_id,
    terms,
)

RUN = run_id(1)
STEPS = {"reserved": Failpoint.DOOR_RESERVED, "logged": Failpoint.DOOR_CHARGE_LOGGED}


class Charging:
    """Charges on a node's database; the process can die at a failpoint."""

    def __init__(self, engine: Engine) -> None:
        self.ledger, self.log = Ledger(engine), audit_log(engine)
        decisions = DecisionLog(self.log, lambda: NOW, "DK")
        self.charges = Charges(engine, self.ledger, decisions, self._reach)
        self.reached: list[Failpoint] = []
        self.dies_at: Failpoint | None = None

    def _reach(self, step: str) -> None:
        self.reached.append(Failpoint(step))
        if step == self.dies_at:
            raise RuntimeError("killed")

    def charge(self, cap: int = 10**9) -> None:
        admission: Any = SimpleNamespace(
            budget=terms(cap),
            study=SimpleNamespace(digest=STUDY, accounting=1),
            subject=Subject(study=STUDY, run=RUN),
            assessment=SimpleNamespace(clauses=("base/permit",)),
            documents=SimpleNamespace(
                view=SimpleNamespace(now=NOW), versions=DocumentVersions(1, 2, {"DK": 3})
            ),
        )
        self.charges.charge(admission, RUN, [release()], **STEPS)

    @property
    def kept(self) -> tuple[int, int]:
        """Return the numbers of entries in the ledger and in the log."""
        return len(self.ledger.entries(run=RUN)), self.log.size()


@pytest.fixture
def charging(tmp_path: Path) -> Charging:
    return Charging(node_state(tmp_path))


def logged(log: AuditLog) -> list[dict[str, Any]]:
    return [json.loads(entry) for entry in log.entries()]


def test_a_charge_is_logged_with_the_policies_that_allowed_it(charging: Charging) -> None:
    charging.charge()
    (entry,) = logged(charging.log)
    assert (entry["kind"], entry["actor"]) == ("budget-charged", "DK")
    assert (entry["study"], entry["run"], entry["policies"]) == (STUDY, RUN, ["base/permit"])
    assert entry["documents"] == {"root": 1, "targets": 2, "countries": {"DK": 3}}
    assert charging.reached == [*STEPS.values()]


def test_a_repeated_charge_is_neither_charged_nor_logged_again(charging: Charging) -> None:
    charging.charge()
    charging.charge()
    assert charging.kept == (1, 1)
    assert charging.reached == 2 * [*STEPS.values()]


@pytest.mark.parametrize("step", STEPS.values(), ids=lambda step: step.name)
def test_a_crash_between_charge_and_log_leaves_neither_and_a_retry_makes_both(
    charging: Charging, step: Failpoint
) -> None:
    charging.dies_at = step
    with pytest.raises(RuntimeError):
        charging.charge()
    assert charging.kept == (0, 0)
    charging.dies_at = None
    charging.charge()
    assert charging.kept == (1, 1)


def test_a_charge_beyond_the_budget_is_refused_and_not_logged(charging: Charging) -> None:
    with pytest.raises(Refusal) as caught:
        charging.charge(cap=1)
    assert caught.value.code is ReasonCode.BUDGET
    assert charging.kept == (0, 0)
