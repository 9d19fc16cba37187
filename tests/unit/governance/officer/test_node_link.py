import tempfile
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from governance.budget.ledger import LedgerView
from governance.errors import DocumentFault
from governance.officer.node_link import ledger_left, records_warning
from governance.policy.assessment import ledger_terms
from governance.runtime.local_rpc import LocalRpcServer
from tests.support.documents import DAY, NOW, agreement, study
from tests.support.narrowing import present
from tests.support.officers import OfficerCommands

pytestmark = pytest.mark.enable_socket

AGREED = agreement()
TERMS = ledger_terms(AGREED, "patients", NOW)
HONEST = {
    "register": "patients",
    "order": TERMS.order,
    "cap_micro": TERMS.cap_micro,
    "spent_micro": TERMS.cap_micro // 4,
    "lifetime_micro": TERMS.cap_micro,
    "epsilon": 3.0,
}


class StatusServer:
    """A node's RPC server that states a ledger."""

    def __init__(self, node: Path) -> None:
        self.status: Any = {"country": "DK", "ledger": HONEST}
        self.rpc_server = LocalRpcServer(node / "run" / "node.sock", self._answer)

    def _answer(self, method: str, _params: Mapping[str, Any]) -> Any:
        if method == "deliver":
            return {"version": 1}
        if method != "status" or self.status is None:
            raise DocumentFault("The status is not available now")
        return self.status


@pytest.fixture
def node() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as short:  # a socket's path may not be long
        (Path(short) / "node.yaml").touch()
        yield Path(short)


@pytest.fixture
def rpc_server(node: Path) -> Iterator[StatusServer]:
    opened = StatusServer(node)
    yield opened
    opened.rpc_server.close()


def stated_ledger(
    node: Path | None, register: str = "patients", now: datetime = NOW
) -> LedgerView | None:
    return ledger_left(node, AGREED, register, now)


def test_a_running_node_states_the_remaining_budget(node: Path, rpc_server: StatusServer) -> None:
    view = present(stated_ledger(node))
    assert view.spent_micro == TERMS.cap_micro // 4
    assert view.left_micro == TERMS.cap_micro - TERMS.cap_micro // 4
    assert view.period == TERMS.period


def test_an_opt_out_that_matches_nobody_is_told_to_the_officer(
    node: Path, rpc_server: StatusServer
) -> None:
    assert records_warning(None) == records_warning(node) == ""
    rpc_server.status = {"data": {"fault": None, "unmatched_opt_outs": 2, "patients": 80}}
    assert records_warning(node).startswith("FAIL: 2 entries of the opt-out list match no patient")
    rpc_server.status = {"data": {"fault": "line 3: Kowalski", "unmatched_opt_outs": 0}}
    assert "cannot be read" in records_warning(node)
    assert "Kowalski" not in records_warning(node)
    for wrong in (None, {"data": None}, {"data": {"fault": 1}}, {"data": {"fault": None}}):
        rpc_server.status = wrong
        assert records_warning(node) == ""


def test_the_cap_is_the_agreement_s_whatever_a_node_states(
    node: Path, rpc_server: StatusServer
) -> None:
    rpc_server.status = {"ledger": HONEST | {"cap_micro": 10 * TERMS.cap_micro}}
    assert present(stated_ledger(node)).cap_micro == TERMS.cap_micro


@pytest.mark.parametrize(
    "status",
    [
        None,
        {},
        {"ledger": None},
        {"ledger": {}},
        {"ledger": HONEST | {"register": "children"}},
        {"ledger": HONEST | {"order": TERMS.order + 1}},
        {"ledger": HONEST | {"spent_micro": -1}},
        [],
        "soon",
    ],
)
def test_an_inconsistent_ledger_counts_as_unknown(
    node: Path, rpc_server: StatusServer, status: Any
) -> None:
    rpc_server.status = status
    assert stated_ledger(node) is None


def test_another_register_counts_as_unknown(node: Path, rpc_server: StatusServer) -> None:
    assert stated_ledger(node, "children") is None


def test_the_budget_is_unknown_before_the_agreement(node: Path, rpc_server: StatusServer) -> None:
    assert stated_ledger(node, now=AGREED.effective - DAY) is None


def test_the_budget_is_unknown_without_a_daemon(node: Path) -> None:
    assert stated_ledger(node) is None
    assert stated_ledger(None) is None
    (node / "run").mkdir()
    (node / "run" / "node.sock").touch()
    assert stated_ledger(node) is None


class TestDecision:
    @pytest.fixture
    def beside(
        self, agreed: OfficerCommands, node: Path, rpc_server: StatusServer
    ) -> OfficerCommands:
        """An officer whose node runs on the same machine, with a study to decide."""
        settings = agreed.home.settings()
        agreed.home.save(settings.model_copy(update={"node": str(node)}))
        agreed.documents.propose(study(agreed.documents.agreed))
        return agreed

    def test_show_states_what_is_spent(self, beside: OfficerCommands) -> None:
        assert "25.0 % of it, says your node" in beside.done("show", "heart-by-sex")

    def test_show_states_that_the_budget_is_unknown(
        self, beside: OfficerCommands, rpc_server: StatusServer
    ) -> None:
        rpc_server.status = None
        assert "not known: your node cannot be asked now" in beside.done("show", "heart-by-sex")

    def test_approve_refuses_a_study_that_exceeds_the_ledger(
        self, beside: OfficerCommands, rpc_server: StatusServer
    ) -> None:
        rpc_server.status = {"ledger": HONEST | {"spent_micro": TERMS.cap_micro}}
        assert "(agreement/budget)" in beside.refused("approve", "heart-by-sex", "--yes")
        assert "[agreement/budget]" in beside.done("show", "heart-by-sex")

    def test_approve_accepts_a_study_that_fits_the_ledger(self, beside: OfficerCommands) -> None:
        assert "Your node is running and has them" in beside.done(
            "approve", "heart-by-sex", "--yes"
        )
