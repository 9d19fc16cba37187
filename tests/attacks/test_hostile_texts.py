"""Text that is made to kill its reader: deep, long, large or not text at all.

A country that colludes with the coordinator can sign and publish anything, and the coordinator can
offer any draft. Whoever reads it goes on: the country is absent, by name, and nobody else is.
"""

import json
import shutil
import tempfile
from collections.abc import Iterator
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from governance.errors import DocumentFault
from governance.runtime.local_rpc import ask
from governance.trust.layout import (
    history_path,
    node_path,
    permit_path,
    policy_path,
    withdrawal_path,
)
from governance.trust.view import TrustedView
from protocols.wire.encoding import canonical_json
from tests.support.documents import (
    COUNTRIES,
    NOW,
    FederationDocuments,
    LyingCoordinator,
    country_metadata,
    node_keys,
    permit,
    study,
    withdrawal,
)
from tests.support.flood import flood, goes_on, latency
from tests.support.hostile_officer import HostileOfficer
from tests.support.narrowing import present
from tests.support.officers import OfficerCommands, new_officer
from tests.support.process_federation import ProcessFederation, Role

LEVELS = 5_000
RULE = '@id("ee/rule") forbid (principal, action, resource) when {{ {} }};'


def nested(opening: str, middle: str, closing: str, levels: int = LEVELS) -> str:
    return opening * levels + middle + closing * levels


CEDAR = {
    "parentheses": RULE.format(nested("(", "true", ")")),
    "sets": RULE.format(nested("[", "1", "]") + " == 1"),
    "records": RULE.format(nested("{a: ", "1", "}") + " == 1"),
    "calls": RULE.format(nested("decimal(", '"1.0"', ")") + " == 1"),
    "if": RULE.format(nested("if true then ", "true", " else true")),
    "else": RULE.format(nested("if true then true else ", "true", "")),
    "indexes": RULE.format(nested("context[", '"a"', "]")),
    "negations": RULE.format("!" * LEVELS + "true"),
    "minus signs": RULE.format("-" * LEVELS + "1 == 1"),
    "a long and": RULE.format(" && ".join(["true"] * LEVELS)),
    "an and of some hundred": RULE.format(" && ".join(["true"] * 700)),
    "a long or": RULE.format(" || ".join(["true"] * LEVELS)),
    "a long sum": RULE.format("+".join(["1"] * LEVELS) + " == 1"),
    "a long path": RULE.format("context" + ".a" * LEVELS),
    "many conditions": '@id("ee/rule") forbid (principal, action, resource)'
    + " when { true }" * LEVELS
    + ";",
    "many annotations": '@a("b")' * LEVELS + RULE.format("true"),
    "open brackets": "(" * LEVELS,
    "an open string": RULE.format('"' + "a" * LEVELS),
    "an open comment": RULE.format("true") + "//" + "(" * LEVELS,
    "a large text": RULE.format("true") + "//" + "x" * 100_000,
    "no text": "\0" * LEVELS,
    "templates": '@id("ee/rule") forbid (principal == ?principal, action, resource);',
    "permits": '@id("ee/rule") permit (principal, action, resource);',
}
DOCUMENTS = {
    "arrays": nested("[", "1", "]").encode(),
    "objects": nested('{"a":', "1", "}").encode(),
    "open arrays": b"[" * LEVELS,
    "open strings": b'"' + b"\\" * LEVELS,
    "a long number": b"9" * LEVELS,
    "not UTF-8": b"\xff" * LEVELS,
    "surrogates": b'{"kind":"\\ud800"}',
    "nothing": b"",
    "null": b"null",
    "infinity": b"-Infinity",
}


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> FederationDocuments:
    documents = FederationDocuments(tmp_path_factory.mktemp("documents")).publish_agreement()
    documents.propose(study(documents.agreed))
    for country in COUNTRIES:
        documents.folders[country].set_node(node_keys(country))
        documents.folders[country].approve(
            permit(documents.agreed, study(documents.agreed), country)
        )
        documents.sign_and_submit(country)
    return documents


def seen_by_the_others(documents: FederationDocuments, hostile: dict[str, bytes]) -> TrustedView:
    """Return what everybody reads after EE has published its documents with hostile ones."""
    asked = study(documents.agreed)
    honest = {
        node_path("EE"): node_keys("EE").canonical(),
        permit_path("EE", asked.digest): permit(documents.agreed, asked, "EE").canonical(),
        withdrawal_path("EE", asked.digest): withdrawal(asked, "EE").canonical(),
    }
    liar = LyingCoordinator(documents)
    metadata, files = country_metadata(documents.officers["EE"], honest | hostile, version=9)
    liar.put("country-EE", metadata, files)
    return liar.view()


def check_that_ee_alone_is_absent(view: TrustedView, documents: FederationDocuments) -> None:
    asked = study(documents.agreed)
    assert set(view.absent) == {"EE"}
    assert "EE" in view.absent["EE"]
    for country in sorted(set(COUNTRIES) - {"EE"}):
        assert present(view.country(country)).permit(asked.digest)
    estonia = view.country("EE")
    assert estonia is None or not estonia.permits


@pytest.mark.parametrize("text", CEDAR.values(), ids=CEDAR)
def test_a_country_with_a_hostile_policy_is_absent_by_name_and_its_no_still_counts(
    documents: FederationDocuments, text: str
) -> None:
    view = seen_by_the_others(documents, {policy_path("EE"): text.encode()})
    if "EE" in view.absent:
        check_that_ee_alone_is_absent(view, documents)
    else:  # long, but not too long to read
        assert present(view.country("EE")).policy == text
    assert present(view.country("EE")).withdrawal(study(documents.agreed).digest)


POSITIONS = {
    "node keys": node_path("EE"),
    "history": history_path("EE"),
    "permit": permit_path("EE", "sha256:" + "1" * 64),
    "withdrawal": withdrawal_path("EE", "sha256:" + "2" * 64),
    "policy": policy_path("EE"),
}


@pytest.mark.parametrize("content", DOCUMENTS.values(), ids=DOCUMENTS)
@pytest.mark.parametrize("path", POSITIONS.values(), ids=POSITIONS)
def test_a_country_with_a_hostile_document_is_absent_by_name_and_its_no_still_counts(
    documents: FederationDocuments, path: str, content: bytes
) -> None:
    view = seen_by_the_others(documents, {path: content})
    if path == policy_path("EE") and content == b"":
        return  # an empty policy forbids nothing
    check_that_ee_alone_is_absent(view, documents)
    assert present(view.country("EE")).withdrawal(study(documents.agreed).digest)


@pytest.mark.parametrize("content", DOCUMENTS.values(), ids=DOCUMENTS)
def test_hostile_metadata_make_their_country_absent(
    documents: FederationDocuments, content: bytes
) -> None:
    liar = LyingCoordinator(documents)
    name = next(name for name in liar.files if name.endswith(".country-EE.json"))
    liar.files[name] = content
    check_that_ee_alone_is_absent(liar.view(), documents)


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets", "2.root", "coordinator"])
@pytest.mark.parametrize("content", DOCUMENTS.values(), ids=DOCUMENTS)
def test_hostile_metadata_of_the_coordinator_are_refused_in_words(
    documents: FederationDocuments, role: str, content: bytes
) -> None:
    liar = LyingCoordinator(documents)
    names = {"metadata/2.root.json", *(n for n in liar.files if n.endswith(f"{role}.json"))}
    liar.files |= dict.fromkeys((n for n in names if n.endswith(f"{role}.json")), content)
    with pytest.raises(DocumentFault) as caught:
        liar.view()
    assert caught.value.fix


@pytest.fixture
def officer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OfficerCommands:
    """The officer of DK, to whom the coordinator offers a draft that is not signed yet."""
    officer = new_officer(tmp_path, monkeypatch).enrol()
    officer.documents.store.draft(officer.documents.agreed, NOW)
    return officer


READERS = (("inbox",), ("sign", "--yes"), ("inbox",))


@pytest.mark.parametrize("text", CEDAR.values(), ids=CEDAR)
def test_an_officer_reads_a_draft_with_a_hostile_policy_and_goes_on(
    officer: OfficerCommands, text: str
) -> None:
    draft = json.loads(present(officer.documents.store.current_draft()))
    draft["agreement"]["policy"] = text
    check_every_reader(officer, canonical_json(draft))


@pytest.mark.parametrize("content", DOCUMENTS.values(), ids=DOCUMENTS)
def test_an_officer_reads_a_hostile_draft_and_goes_on(
    officer: OfficerCommands, content: bytes
) -> None:
    check_every_reader(officer, content)


def check_every_reader(officer: OfficerCommands, draft: bytes) -> None:
    officer.exchange.tampered["draft"] = draft
    for command in READERS:
        result = officer.run(*command)
        assert result.exit_code in {0, 1}
        assert "Traceback" not in result.output


UNREADABLE = {name: text for name, text in CEDAR.items() if name != "an open comment"}


def submit_hostile_texts(ready: Event, stop: Event, folder: Path, passphrase: Path) -> None:
    """Hand in every hostile policy, again and again, as one country's officer."""
    officer = HostileOfficer.open(folder, passphrase)
    bundles = [
        officer.bundle({policy_path(officer.home.settings().country): text}, version=1_000 + number)
        for number, text in enumerate(UNREADABLE.values())
    ]
    link = officer.link()
    while not stop.is_set():
        for bundle in bundles:
            assert officer.submit(bundle, link)
        ready.set()
    link.close()


@pytest.fixture
def federation() -> Iterator[ProcessFederation]:
    """Start a federation in a folder with a short name, because socket paths are limited."""
    folder = Path(tempfile.mkdtemp(prefix="h", dir="/tmp"))
    federation = ProcessFederation.started(folder / "f")
    yield federation
    federation.end()
    shutil.rmtree(folder)


@pytest.mark.slow
def test_real_daemons_go_on_beside_a_flood_of_hostile_texts(federation: ProcessFederation) -> None:
    hostile, honest = (federation.federation.officers[code] for code in federation.countries[:2])
    link = HostileOfficer.open(honest.home, honest.passphrase).link()
    socket = federation.coordinator.home / "run" / "coordinator.sock"
    calls = (lambda: link.fetch("metadata/timestamp.json"), lambda: ask(socket, "status"))
    quiet = [latency(call, 40) for call in calls]
    with flood(submit_hostile_texts, hostile.home, hostile.passphrase):
        assert all(goes_on(call, 40, before) for call, before in zip(calls, quiet, strict=True))
        honest.run("inbox", unlock=True)
    link.close()
    assert federation.pids(Role.COORDINATOR)
    assert all(federation.pids(Role.NODE, country) for country in federation.countries)
