"""The JSON of a node's status: its fields and their order are what other programs read."""

from typing import Any

import pytest

from client.errors import NodeFault
from client.state.decision_log import KeptRefusal
from client.state.pause import Pause
from client.state.restored import Restored
from client.status.model import NodeStatus

STATUS: dict[str, Any] = {
    "country": "DK",
    "federation": "nordic-heart",
    "waiting_for": "idle, connected",
    "connected": True,
    "disputed": False,
    "paused": {"reason": "audit", "since": "2026-09-01T12:00:00+00:00"},
    "documents": {
        "agreement": "Heart disease",
        "expires": "2026-09-02T12:00:00+00:00",
        "ends": "2027-09-01T00:00:00+00:00",
        "signatures": "Ed25519",
        "countries": {"EE": "2026-09-08T12:00:00+00:00"},
        "versions": {"root": 1, "targets": 2, "EE": 3},
        "own": {"version": 4, "expires": "2026-09-08T12:00:00+00:00"},
        "absent": {"NO": "its documents have expired"},
        "ignored": ["country-PT: not signed"],
        "fault": None,
        "officer": {"key": "SHA256:a", "announced": None},
    },
    "data": {
        "file": "/srv/records.csv",
        "version": "sha256:b",
        "patients": 80,
        "fault": None,
        "unmatched_opt_outs": 0,
    },
    "ledger": {
        "register": "patients",
        "period_start": "2026-01-01T00:00:00+00:00",
        "period_end": "2027-01-01T00:00:00+00:00",
        "order": 16,
        "cap_micro": 2_114_831,
        "spent_micro": 10_000,
        "left_micro": 2_104_831,
        "lifetime_micro": 10_000,
        "share_spent": 0.005,
        "delta": 1e-05,
        "epsilon": 3.0,
        "epsilon_spent": 0.1,
        "epsilon_left": 2.9,
        "epsilon_lifetime": 0.1,
    },
    "studies": [{"id": "heart", "title": "Heart", "digest": "sha256:c", "standing": "permitted"}],
    "runs": [{"run": "0" * 32, "study": "heart", "entered": "2026-09-01T12:00:00+00:00"}],
    "refusals": [
        {
            "at": "2026-09-01T12:00:00+00:00",
            "code": "stale",
            "what": "The request is old",
            "why": "",
            "fix": "",
            "clause": "",
            "study": None,
            "run": None,
            "round": None,
            "phase": None,
        }
    ],
    "restored": {
        "at": "2026-09-01T12:00:00+00:00",
        "entries": 7,
        "before": None,
        "ended": 1,
        "assumed": ["heart"],
    },
    "log": {"origin": "pratique/dk/node", "size": 9},
    "clock": None,
}


def order(value: Any) -> Any:
    """Return a JSON value with each object as a list of pairs, so that the order counts."""
    if isinstance(value, dict):
        return [(name, order(part)) for name, part in value.items()]
    return [order(part) for part in value] if isinstance(value, list) else value


def test_the_json_of_a_status_keeps_fields_and_order() -> None:
    assert order(NodeStatus.from_json(STATUS).to_json()) == order(STATUS)


def test_parts_are_read_as_their_own_classes() -> None:
    status = NodeStatus.from_json(STATUS)
    assert isinstance(status.paused, Pause)
    assert isinstance(status.restored, Restored)
    assert isinstance(status.refusals[0], KeptRefusal)
    assert status.restored.assumed == ("heart",)


def test_absent_parts_of_a_status_are_null() -> None:
    nothing = dict.fromkeys(("federation", "paused", "ledger", "restored"))
    assert NodeStatus.from_json(STATUS | nothing).to_json() == STATUS | nothing


@pytest.mark.parametrize("value", [None, [], {}, "status", {**STATUS, "log": None}])
def test_the_answer_of_another_version_is_a_plain_fault(value: object) -> None:
    with pytest.raises(NodeFault, match="status that the daemon sent") as raised:
        NodeStatus.from_json(value)
    assert "same version" in raised.value.fix
