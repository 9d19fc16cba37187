"""The check of the guard passes only if the guard refused; `tests/attacks` has a real Flower."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from flwr.proto.control_pb2 import ListRunsResponse, StartRunRequest, StartRunResponse
from flwr.proto.run_pb2 import Run, RunStatus

from server.errors import CoordinatorFault
from server.flower import guard_check
from server.flower.bundle_guard import REFUSED, BundleRefused, check_bundle
from server.flower.guard_check import MARKER, forbidden_bundle, require_guard

pytestmark = pytest.mark.filterwarnings("ignore:GitWildMatchPattern")  # flwr packs so
RUN = 77


def flower(
    status: RunStatus, on_start: Callable[[bytes], None] = lambda _: None
) -> Callable[[Any], httpx.Client]:
    """Return what makes a client of a Flower in which every run ends like this."""

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("start-run"):
            on_start(StartRunRequest.FromString(request.read()).fab.content)
            return httpx.Response(200, content=StartRunResponse(run_id=RUN).SerializeToString())
        listed = ListRunsResponse(run_dict={RUN: Run(run_id=RUN, status=status)})
        return httpx.Response(200, content=listed.SerializeToString())

    return lambda _: httpx.Client(transport=httpx.MockTransport(answer), base_url="https://x")


def check(
    home: Path, monkeypatch: pytest.MonkeyPatch, client: Callable[[Any], httpx.Client]
) -> None:
    monkeypatch.setattr(guard_check, "_client", client)
    require_guard(SimpleNamespace(home=home), seconds=0.01)  # type: ignore[arg-type]


def ended(details: str) -> RunStatus:
    return RunStatus(status="finished", sub_status="failed", details=details)


def test_a_refusal_by_the_guard_passes_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[bytes] = []
    check(tmp_path, monkeypatch, flower(ended(f"failed: {REFUSED}. It ..."), sent.append))
    with pytest.raises(BundleRefused, match=REFUSED):
        check_bundle(sent[0])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("status", "why"),
    [
        (ended("No module named x"), "ended otherwise: No module named x"),
        (RunStatus(status="finished", sub_status="completed"), "ended otherwise: completed"),
        (RunStatus(status="running"), "had not ended"),
    ],
)
def test_any_other_end_of_the_run_is_no_proof(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: RunStatus, why: str
) -> None:
    with pytest.raises(CoordinatorFault, match="does not work here") as caught:
        check(tmp_path, monkeypatch, flower(status))
    assert why in caught.value.why
    assert "stays closed" in caught.value.fix


def test_code_that_ran_is_found_whatever_flower_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def execute(_: bytes) -> None:
        (next(tmp_path.iterdir()) / MARKER).touch()

    with pytest.raises(CoordinatorFault) as caught:
        check(tmp_path, monkeypatch, flower(ended(REFUSED), execute))
    assert caught.value.why == "code of a bundle was executed"


def test_a_flower_that_does_not_answer_is_no_proof(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: httpx.Request) -> httpx.Response:
        return httpx.Response(500)

    transport = httpx.MockTransport(refuse)
    with pytest.raises(CoordinatorFault) as caught:
        check(
            tmp_path,
            monkeypatch,
            lambda _: httpx.Client(transport=transport, base_url="https://x"),
        )
    assert "Flower does not answer" in caught.value.why


def test_the_code_of_the_bundle_makes_the_marker(tmp_path: Path) -> None:
    """Otherwise the check would pass for a wrong reason."""
    code = guard_check._CODE.format(marker=str(tmp_path / 'it\'s "here"'))
    exec(compile(code, "forbidden.py", "exec"), {})  # noqa: S102 (the bundle's own code)
    assert len(list(tmp_path.iterdir())) == 1
    assert forbidden_bundle(tmp_path / "x")
