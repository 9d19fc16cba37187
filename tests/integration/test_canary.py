"""Plant values in records; neither they nor a plaintext contribution appear outside the node.

The quick tests look at every reply of real nodes in one process. The slow test starts a whole
federation, wired as in production. It looks at every call of a node before encryption, and at every
byte that the coordinator stores: databases with their free pages and write-ahead logs, Flower's
logs and folders, documents, results, secrets in memory, and temporary files.
"""

import base64
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

import client.border.request_handler
from governance.results.result import MODEL_FILE
from protocols.numerics.noise import DiscreteGaussian
from protocols.private_sum.masking import Masker
from protocols.proto.exchange_pb2 import RequestPart
from protocols.proto.round_pb2 import Reply
from tests.support.canary import (
    PATIENTS,
    Canaries,
    Listener,
    OverheardNoise,
    ages,
    name_of,
    plant,
    planted_records,
)
from tests.support.documents import COUNTRIES, training_fields
from tests.support.live_federation import LiveParts
from tests.support.node_federation import NodeFederation, code_of
from tests.support.patients import entropy
from tests.support.waiting import wait_until

DICTIONARY = """
dictionary: 1
title: Patients with values that are nowhere else
patient: id
features:
  - {name: age, type: numeric, bounds: [0, 120]}
  - {name: sex, type: categorical, codes: {F: female, M: male}}
  - {name: disease, type: boolean}
"""
FOUND_NAMES = "CANARY-76121-Führerschein"
MALFORMED = {
    "text in place of a number": f"{FOUND_NAMES},x,63.7,F,0\nq1,y,{FOUND_NAMES},F,0\n",
    "an unknown code": f"q1,{FOUND_NAMES},63.7,{FOUND_NAMES},0\n",
    "too many fields": f"q1,x,63.7,F,0,{FOUND_NAMES}\n",
    "an open quote": f'q1,"{FOUND_NAMES},63.7,F,0\n',
    "a patient twice": f"{FOUND_NAMES},x,63.7,F,0\n" * 2,
    "an infinite age": f"{FOUND_NAMES},x,1e999,F,0\n",
}
NOISE_STD = 3_000
OVERFLOWING = "q1,x,1.7976931348623157e308,F,1\nq2,x,-1e308,M,1\nq3,x,119.999999999,F,0\n"


@pytest.fixture
def canaries() -> Canaries:
    planted = Canaries()
    plant(planted, COUNTRIES)
    planted.text("a malformed field", FOUND_NAMES)
    return planted


@pytest.fixture
def listener(canaries: Canaries, monkeypatch: pytest.MonkeyPatch) -> Listener:
    hearing = Listener(canaries)
    hearing.listen(monkeypatch)
    return hearing


def settle(federation: NodeFederation) -> None:
    """Write planted records into every node's folder."""
    for country in COUNTRIES:
        federation.put_records(country, planted_records(country))
        (federation.home(country).path / "dictionary.yaml").write_text(DICTIONARY)


# Tests of the search.


def test_the_search_finds_each_planted_kind_in_each_spelling(canaries: Canaries) -> None:
    noise = np.array([123_457, -98_765, 4_194_303, -77], dtype=np.int64)
    canaries.plant_vector("noise", noise)
    for kind in ("<i8", ">i8", "<i4", ">i4", "<f8", ">f8", "<f4", ">f4"):
        hidden = entropy(1)(37) + noise.astype(kind).tobytes() + entropy(2)(11)
        assert f"noise as {kind}" in canaries.found_in(hidden)
    name = name_of("DK", 3)
    for encoded in (name.encode(), name.encode("utf-16-le"), json.dumps(name).encode()):
        assert canaries.found_in(b"..." + encoded + b"...") == ["a name of DK"]
    age = repr(ages("PT")[-1]).encode()
    assert canaries.found_in(age) == ["an age of PT"]
    assert canaries.found_in(FOUND_NAMES.encode().hex().encode()) == ["a malformed field"]
    for before in range(4):
        coded = base64.b64encode(bytes(before) + FOUND_NAMES.encode() + b"tail")
        assert canaries.found_in(coded) == ["a malformed field"]


def test_the_search_finds_nothing_in_noise(canaries: Canaries) -> None:
    assert canaries.found_in(entropy()(2**20)) == []
    assert canaries.found_in(bytes(2**16)) == []


# Every reply of real nodes.


def replies_of(federation: NodeFederation) -> dict[str, list[bytes]]:
    """Record the answers of each node from now on."""
    replies: dict[str, list[bytes]] = {country: [] for country in COUNTRIES}
    for country, node in federation.nodes.items():
        inner = node.handle

        def handle(frame: bytes, country: str = country, inner: Any = inner) -> bytes:
            replies[country].append(inner(frame))
            return replies[country][-1]

        node.handle = handle  # type: ignore[method-assign]
    return replies


@pytest.fixture
def federation(tmp_path: Path, canaries: Canaries) -> Iterator[NodeFederation]:
    noise = OverheardNoise(DiscreteGaussian(), canaries)
    federation = NodeFederation(tmp_path / "federation", noise=noise)
    settle(federation)
    for country in COUNTRIES:
        federation.restart(country)
    yield federation
    federation.close()


def run_once(federation: NodeFederation) -> dict[str, list[bytes]]:
    """Run a histogram study; return the replies of every node."""
    study = federation.approved()
    replies = replies_of(federation)
    run = federation.ready(study)
    run.sum(1, "histogram")
    return replies


def test_no_reply_holds_a_record_or_a_plaintext_contribution(
    federation: NodeFederation, canaries: Canaries, listener: Listener
) -> None:
    sent_replies = run_once(federation)
    assert listener.heard == {"patients": PATIENTS * 8, "contributions": 4}
    assert [len(replies) for replies in sent_replies.values()] == [5, 5, 5, 5]
    for country, replies in sent_replies.items():
        assert all(code_of(reply) is None for reply in replies)
        assert canaries.found_in(b"".join(replies)) == [], country
    words = Reply.FromString(sent_replies["DK"][3]).words
    canaries.plant_words("what left", np.frombuffer(words, "<u8"))
    # The search covers these replies.
    assert "what left as <u8" in canaries.found_in(b"".join(sent_replies["DK"]))


@pytest.mark.usefixtures("listener")
@pytest.mark.parametrize("rows", MALFORMED.values(), ids=MALFORMED.keys())
def test_a_refusal_over_unreadable_records_quotes_none(
    federation: NodeFederation,
    canaries: Canaries,
    rows: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    study = federation.approved()
    federation.put_records("DK", f"id,name,age,sex,disease\n{rows}")
    node = federation.restart("DK")  # a running node goes on with the records that it has loaded
    reply = node.handle(federation.run(study).request("bundle", "DK"))
    assert code_of(reply) is not None
    assert canaries.found_in(reply) == []
    assert canaries.found_in(caplog.text.encode()) == []


@pytest.mark.usefixtures("listener")
def test_unreadable_or_overflowing_records_in_the_middle_of_a_run_reveal_nothing(
    federation: NodeFederation, canaries: Canaries
) -> None:
    study = federation.approved()
    replies = replies_of(federation)
    run = federation.ready(study)
    path = federation.home("DK").path / "records.csv"
    for content in (planted_records("DK") + OVERFLOWING, MALFORMED["too many fields"], ""):
        path.write_text(content, encoding="utf-8")
        node = federation.nodes["DK"]
        node.parts.record_store.refresh()
        coordinator_round = run.coordinator.begin_round(1, "histogram", b"")
        assert code_of(node.handle(coordinator_round.contribute_request("DK"))) is not None
        run.coordinator._round_number = 0
    assert canaries.found_in(b"".join(replies["DK"])) == []


# Faults made on purpose, which the search has to find.


def unmasked(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Masker, "add", lambda *_: None)
    patch.setattr(Masker, "subtract", lambda *_: None)


def test_an_unmasked_contribution_would_be_found(
    federation: NodeFederation,
    canaries: Canaries,
    listener: Listener,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One country's words may by chance be too common to search for; not those of all countries."""
    unmasked(monkeypatch)
    replies = run_once(federation)
    leaks = canaries.found_in(b"".join(frame for frames in replies.values() for frame in frames))
    assert any("noisy sum, packed" in name for name in leaks)


def test_a_record_in_a_refusal_would_be_found(
    federation: NodeFederation, canaries: Canaries, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = federation.approved()
    rows = MALFORMED["an unknown code"]
    federation.put_records("DK", f"id,name,age,sex,disease\n{rows}")
    node = federation.restart("DK")
    monkeypatch.setattr(
        client.border.request_handler.RequestHandler,
        "_refuse",
        lambda *_: str(node.parts.record_store.fault).encode(),
    )
    reply = node.handle(federation.run(study).request("bundle", "DK"))
    assert canaries.found_in(reply) == ["a malformed field"]


# A whole federation: every call before it is encrypted, every byte that the coordinator keeps.


class Tap(grpc.StreamUnaryClientInterceptor):  # type: ignore[type-arg]  # generic in stubs only
    """Records each call of a channel as it is passed to gRPC: name, metadata, bytes."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, bytes]] = []

    def intercept_stream_unary(self, go_on: Any, details: Any, messages: Any) -> Any:
        sent = list(messages)
        head = repr((details.method, details.metadata)).encode()
        self.calls.append((details.method.rsplit("/", 1)[-1], head + _request(sent)))
        return go_on(details, iter(sent))

    def tapped(self, *arguments: Any, **options: Any) -> Any:
        """Open a channel whose calls are recorded."""
        return grpc.intercept_channel(self.opened(*arguments, **options), self)

    opened = staticmethod(grpc.secure_channel)


@pytest.fixture(scope="module")
def short_folder() -> Iterator[Path]:
    """Return the folder for temporary files of this process and of those that it starts."""
    with (
        tempfile.TemporaryDirectory(prefix="c", dir="/tmp") as folder,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("TMPDIR", folder)
        patch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


class ObservedFederation:
    """Studies and a refusal in a whole federation, with every call and file."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder, self.canaries, self.tap = folder, Canaries(), Tap()
        plant(self.canaries, COUNTRIES)
        self.canaries.text("a malformed field", FOUND_NAMES)
        self.listener = Listener(self.canaries)
        self.listener.listen(patch)
        patch.setattr(grpc, "secure_channel", self.tap.tapped)
        self.noise = OverheardNoise(DiscreteGaussian(), self.canaries)
        self.wiring = LiveParts.start(noise=self.noise)
        settle(self.wiring.federation)
        self.wiring.settle_all()

    def carried(self, name: str, **study: Any) -> dict[str, Any]:
        """Run a study to its end and return how it ended."""
        allowed = self.wiring.federation.allowed(name, noise_std=NOISE_STD, **study)
        self.wiring.launch(allowed)
        outcome: dict[str, Any] = wait_until(lambda: self.wiring.over(allowed), 240)
        return outcome

    def break_records(self, country: str, content: str) -> None:
        """Write other records into a node's folder, and let the node notice."""
        self.wiring.federation.put_records(country, content)
        self.wiring.federation.nodes[country].parts.record_store.refresh()

    def break_dictionary(self, country: str, content: str) -> None:
        """Write another dictionary into a node's folder, and let the node notice."""
        (self.wiring.federation.home(country).path / "dictionary.yaml").write_text(content)
        self.wiring.federation.nodes[country].parts.record_store.refresh()

    def files(self) -> Iterator[Path]:
        """Return every file outside the nodes: the coordinator's, Flower's and temporary ones."""
        federation = self.wiring.federation
        own = {federation.home(country).path for country in COUNTRIES}
        for top in (self.folder, self.wiring.superlink._secrets):
            for path in sorted(top.rglob("*")):
                if path.is_file() and not own & set(path.parents):
                    yield path


@pytest.fixture(scope="module")
def watched(short_folder: Path) -> Iterator[ObservedFederation]:
    with pytest.MonkeyPatch.context() as patch:
        watched = ObservedFederation(short_folder, patch)
        try:
            yield watched
        finally:
            watched.wiring.close()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore:GitWildMatchPattern")
def test_nothing_planted_leaves_a_node_or_reaches_the_coordinator(
    watched: ObservedFederation,
) -> None:
    assert watched.carried("canary-table")["state"] == "finished"
    fields = training_fields(3, evaluation={"held_out": 0.25, "bins": 10, "share": 0.2})
    fields["privacy"] = {"epsilon": 5.0, "delta": 1e-5}
    assert watched.carried("canary-model", **fields)["state"] == "finished"
    header = "id,name,age,sex,disease\n"
    watched.break_records("DK", header + MALFORMED["a patient twice"])
    watched.break_records("EE", planted_records("EE") + OVERFLOWING)
    assert watched.carried("canary-loaded-before")["state"] == "finished"
    watched.break_dictionary("EE", f"{DICTIONARY}  - {{name: {FOUND_NAMES}, type: text}}\n")
    assert watched.carried("canary-refused")["state"] == "void"

    contents = watched.listener.heard
    assert contents["contributions"] == 4 * (1 + (3 + 1) + 1)
    assert contents["patients"] > 4 * PATIENTS
    assert watched.noise.drawn >= contents["contributions"] + 4 * 2
    calls = [name for name, _ in watched.tap.calls]
    assert {"Relay", "Fetch"} == set(calls)
    sent = b"".join(content for _, content in watched.tap.calls)
    assert watched.canaries.found_in(sent) == []

    paths = list(watched.files())
    names = {path.name for path in paths}
    assert {"state.db", "superlink.log", "superexec.log", MODEL_FILE, "key.pem"} <= names
    leaks = {path: sources for path in paths if (sources := watched.canaries.found_in(_read(path)))}
    assert leaks == {}

    # The search covers these files: values that may be there are found.
    model = watched.wiring.coordinator.home.results / "canary-model" / MODEL_FILE
    watched.canaries.real("the model", np.frombuffer(model.read_bytes()[-32:], "<f8"))
    assert "the model as <f8" in watched.canaries.found_in(_read(model))
    assert b"PullMessages" in sent


def _request(messages: list[Any]) -> bytes:
    """Return a request as one piece: a value may lie across two of its parts."""
    whole = isinstance(messages[0], RequestPart)
    return b"".join(m.content if whole else m.SerializeToString() for m in messages)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:  # a lock or log that was removed meanwhile
        return b""
