"""Everything that leaves a node goes through one way out, and reveals nothing of its records."""

import ast
import inspect
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from client.border.cohort_floor import CohortFloor
from client.border.door import Door
from client.border.failpoints import no_failpoint
from client.border.outbox import Outbox
from client.border.reply_timing import ReplySlots
from client.settings import NodeSettings
from client.wiring import Surroundings
from protocols.proto.round_pb2 import Reply
from tests.support.node_federation import NodeFederation, code_of, records

ROOM = Path(__file__).parents[2] / "client"
REACHES_OUT = {"grpc", "socket", "http", "urllib", "requests", "httpx", "smtplib", "ftplib"}
PREDICTABLE = {"random", "numpy.random"}
TORCH = {"tasks/torch_module.py", "tasks/module_registry.py", "tasks/series_conv.py"}
"""These files build and differentiate networks; none of them draws a random number."""
TORCH_DRAWS = re.compile(
    r"\b(rand\w*|normal_?|bernoulli_?|multinomial|uniform_|poisson|Generator)\("
)
RUNS_DATA = {
    "pickle",
    "marshal",
    "shelve",
    "importlib.util",
    "importlib.machinery",
    "runpy",
    "code",
}
HEADER = "id,age,sex,disease\n"

NEIGHBOURS = {
    "one patient more": records(81),
    "one patient fewer": records(79),
    "a patient far outside the bounds": records(80) + "p999,119.9,F,1\n",
    "a patient below the bounds": records(80) + "p999,-1e308,F,1\n",
    "a patient with nothing recorded": records(80) + "p999,,,\n",
    "everybody ill": records(80).replace(",0\n", ",1\n"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "federation"


class Watch:
    """Counts the reply slots that the node waited for."""

    def __init__(self) -> None:
        self.slots = 0

    def sleep(self, seconds: float) -> None:
        self.slots += 1


def traffic(federation: NodeFederation, data: str = "") -> list[tuple[str, int]]:
    """Return code and length of every reply of DK's node in one whole run, and slots waited."""
    watch, study = Watch(), federation.approved()
    federation.put_records("DK", data or records())
    node = federation.restart("DK", slots=ReplySlots(sleep=watch.sleep, monotonic=lambda: 0.0))
    run = federation.run(study, b"w" * 16)
    replies: list[bytes] = []
    inner = node._request_handler.handle

    def handle(frame: bytes) -> bytes:
        replies.append(inner(frame))
        return replies[-1]

    node._request_handler.handle = handle  # type: ignore[method-assign]
    run.set_up()
    run.sum(1, "histogram")
    return [*((str(code_of(reply)), len(reply)) for reply in replies), ("slots", watch.slots)]


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[tuple[str, int]]]:
    """Return the traffic of an ordinary cohort."""
    federation = NodeFederation(tmp_path_factory.mktemp("usual") / "federation")
    yield traffic(federation)
    federation.close()


@pytest.mark.parametrize("data", NEIGHBOURS.values(), ids=NEIGHBOURS.keys())
def test_neighbouring_cohorts_cause_the_same_traffic(
    folder: Path, usual: list[tuple[str, int]], data: str
) -> None:
    federation = NodeFederation(folder)
    assert traffic(federation, data) == usual
    federation.close()


def test_a_contribution_looks_like_noise_for_any_values(folder: Path) -> None:
    """Two runs over the same records have no word in common: contributions are masked."""
    federation = NodeFederation(folder)
    study = federation.approved()
    words = []
    for number in (1, 2):
        federation.documents.now += timedelta(minutes=1)
        federation.permit("DK", study)  # a permit covers one run
        run = federation.ready(study, bytes([number]) * 16)
        round_ = run.coordinator.begin_round(1, "histogram", b"")
        reply = federation.nodes["DK"].handle(round_.contribute_request("DK"))
        words.append(Reply.FromString(reply).words)
    pairs = zip(_words(words[0]), _words(words[1]), strict=True)
    assert all(one != other for one, other in pairs)
    federation.close()


def _words(data: bytes) -> list[bytes]:
    return [data[start : start + 8] for start in range(0, len(data), 8)]


def imports(file: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def files() -> list[Path]:
    return sorted(ROOM.rglob("*.py"))


def importers(names: set[str]) -> set[str]:
    return {
        str(file.relative_to(ROOM))
        for file in files()
        if any(name == n or name.startswith(f"{n}.") for name in imports(file) for n in names)
    }


def test_only_these_files_use_a_channel_or_its_faults() -> None:
    """The Flower client with its faults, the start and the daemon that reconnects, the commands."""
    fleet = {"flower_client.py", "fleet_faults.py"}
    assert importers({"protocols.wire.channel"}) == fleet | {"startup.py", "daemon.py", "cli.py"}
    assert importers(REACHES_OUT) == fleet


def test_only_the_flower_client_and_its_app_import_flower() -> None:
    assert importers({"flwr"}) == {"flower_client.py", "app.py"}


def test_only_the_door_and_the_floor_draw_noise_and_only_the_start_chooses_it() -> None:
    drawing = {str(f.relative_to(ROOM)) for f in files() if "noise.draw(" in f.read_text()}
    assert drawing == {"border/door.py", "border/cohort_floor.py"}
    choosing = {str(f.relative_to(ROOM)) for f in files() if "DiscreteGaussian" in f.read_text()}
    assert choosing == {"startup.py"}


def test_only_the_outbox_writes_replies_and_only_the_door_contributes() -> None:
    writing = {str(f.relative_to(ROOM)) for f in files() if "journal.write(" in f.read_text()}
    assert writing == {"border/outbox.py"}
    callers = {str(f.relative_to(ROOM)) for f in files() if "run.contribute(" in f.read_text()}
    assert callers == {"border/door.py"}


def test_only_a_charge_reserves_on_the_ledger() -> None:
    charging = {str(f.relative_to(ROOM)) for f in files() if "ledger.reserve(" in f.read_text()}
    assert charging == {"border/charge.py"}


@pytest.mark.parametrize("owner", [Door, CohortFloor, Surroundings])
def test_the_noise_source_has_no_default(owner: type) -> None:
    assert inspect.signature(owner).parameters["noise"].default is inspect.Parameter.empty


def test_only_the_wiring_passes_a_failpoint_on_and_nothing_that_runs_a_node_does() -> None:
    calling = {str(f.relative_to(ROOM)) for f in files() if "failpoint" in identifiers(f)}
    border = ("door", "charge", "cohort_floor", "outbox", "request_handler")
    assert calling == {"wiring.py", *(f"border/{name}.py" for name in border)}
    for owner in (Door, CohortFloor, Outbox, Surroundings):
        assert inspect.signature(owner).parameters["failpoint"].default is no_failpoint


def identifiers(file: Path) -> set[str]:
    """Return every name, argument and keyword in a file's code."""
    nodes = list(ast.walk(ast.parse(file.read_text())))
    keywords = {node.arg for node in nodes if isinstance(node, ast.keyword | ast.arg) and node.arg}
    return keywords | {node.id for node in nodes if isinstance(node, ast.Name)}


def test_no_setting_can_select_noise_budget_or_policy() -> None:
    assert set(NodeSettings.model_fields) == {
        "country",
        "data",
        "dictionary",
        "opt_out",
        "opt_out_covers",
        "officer_key",
        "person_register",
        "enrolment",
        "modules",
        "observe",
        "log_file",
    }


def test_no_predictable_generator_and_no_code_from_data() -> None:
    assert importers(PREDICTABLE) == set()
    assert importers({"torch"}) == TORCH
    assert not [name for name in TORCH if TORCH_DRAWS.search((ROOM / name).read_text())]
    assert importers(RUNS_DATA) == set()
    calls = [
        (file.name, node.func.id)
        for file in files()
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    ]
    assert not {call for call in calls if call[1] in {"eval", "exec", "compile", "__import__"}}


def test_every_file_of_the_package_is_checked() -> None:
    assert len(files()) > 30
