"""Which torch modules a node has: the one that comes with it, and those that are listed."""

from importlib.metadata import EntryPoint
from typing import Any

import pytest

from client.errors import NodeFault
from client.tasks import module_registry
from client.tasks.assignment import Assignment
from client.tasks.module_registry import GROUP, Registered, registered
from protocols.errors import ReasonCode, Refusal
from tests.support.patients import FEATURES, module, records

OURS = Registered("tokens", 3, lambda *_: None)  # type: ignore[arg-type]
NOT_ONE = "a text"
SAME = Registered("series-conv", 1, OURS.build)


def offered(monkeypatch: pytest.MonkeyPatch, **points: str) -> None:
    def found(*, group: str, name: str) -> list[EntryPoint]:
        known = [EntryPoint(n, f"{__name__}:{value}", GROUP) for n, value in points.items()]
        return [one for one in known if one.group == group and one.name == name]

    monkeypatch.setattr(module_registry, "entry_points", found)


def test_a_node_has_the_module_that_comes_with_it_and_no_other() -> None:
    assert list(registered()) == [("series-conv", 1)]


def test_an_installed_module_that_is_not_listed_is_not_registered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    offered(monkeypatch, tokens="OURS")
    assert ("tokens", 3) not in registered()
    assert registered(["tokens"])["tokens", 3] is OURS


@pytest.mark.parametrize(
    ("listed", "said"),
    [
        (["absent"], "0 packages offer the module 'absent'"),
        (["text"], "is not a `Registered` module"),
        (["same"], "the same name and version"),
        (["tokens", "tokens"], "the same name and version"),
    ],
    ids=str,
)
def test_a_list_with_an_unusable_module_stops_the_node(
    monkeypatch: pytest.MonkeyPatch, listed: list[str], said: str
) -> None:
    offered(monkeypatch, tokens="OURS", text="NOT_ONE", same="SAME")
    with pytest.raises(NodeFault, match=r"node\.yaml") as fault:
        registered(listed)
    assert said in fault.value.why


def prepared(**changes: Any) -> Assignment:
    return Assignment.prepare(
        module(**changes), FEATURES, records(30), split_secret=bytes(32), split="s"
    )


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"module": "tokens"}, "has not registered it"),
        ({"version": 2}, "has not registered it"),
        ({"parameters": {"channels": 2}}, "`series-conv` needs `channels` and `kernel`"),
        ({"parameters": {"channels": 4, "kernel": 3}}, "the study declares others"),
    ],
    ids=str,
)
def test_a_study_of_another_module_is_refused_before_anything_is_charged(
    changes: dict[str, Any], why: str
) -> None:
    with pytest.raises(Refusal) as refusal:
        prepared(**changes)
    assert refusal.value.code is ReasonCode.TASK_UNKNOWN
    assert why in refusal.value.why


def test_a_registered_module_is_prepared() -> None:
    assert prepared().trainer.patients_at_once > 1
