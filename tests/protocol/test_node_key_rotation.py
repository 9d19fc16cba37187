"""A node's identity key changes: when the new key signs, and who cannot cause a change.

Four real nodes use one document store. The former key signs the new one, and the officer signs
both. Runs that began with the former key end with it.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from client.commands.rotate_keys import rotate_keys
from client.credentials.identity_keys import FORMER, NEXT, IdentityKeys
from client.node import Node
from governance.audit.events import EventKind
from governance.documents.permit import NodeKeys
from governance.documents.study import Study
from governance.errors import DocumentFault
from keys.composite import read_identity
from keys.errors import KeyFault
from keys.store import KeyStore
from protocols.errors import ReasonCode
from tests.support.documents import COUNTRIES, node_keys, raw_key
from tests.support.keystore import PASSPHRASE, fast_store
from tests.support.narrowing import opened_sum
from tests.support.node_federation import (
    NodeFederation,
    Run,
    code_of,
    last_refusal,
    log_lines,
)
from tests.support.prepared import PreparationResult

OLD = raw_key(1_000)


@pytest.fixture
def federation(tmp_path: Path) -> NodeFederation:
    federation = NodeFederation(tmp_path / "federation")
    federation.prepare_once("with its keys beside it", lambda: _with_keys(federation))
    return federation


def _with_keys(federation: NodeFederation) -> PreparationResult:
    federation.sync()
    federation.home("DK").node_keys.write_bytes(node_keys("DK").canonical())
    return ()


@pytest.fixture
def study(federation: NodeFederation) -> Study:
    return federation.approved()


def new_keys(federation: NodeFederation) -> NodeKeys:
    """Let DK's operator create new keys while the node runs."""
    assert federation.nodes["DK"]
    return rotate_keys(federation.home("DK"), federation.store("DK"), federation.clock())


def rotated(federation: NodeFederation) -> NodeKeys:
    """Change the key of DK's node to the next one."""
    keys = new_keys(federation)
    federation.documents.folders["DK"].set_node(keys)
    federation.hand_over("DK")
    federation.sync()
    return keys


def run_with_published_keys(federation: NodeFederation, study: Study) -> Run:
    """Return a run whose coordinator uses the published keys."""
    view = federation.documents.view()
    keys = {country: view.node_keys(country) for country in study.countries}
    suite = view.agreement.signatures
    identity_keys = {country: node.identity_key for country, node in keys.items() if node}
    peers = {country: suite.public(read_identity(key)) for country, key in identity_keys.items()}
    return federation.run(study, peers=peers)


def in_use(federation: NodeFederation) -> str:
    return federation.nodes["DK"].parts.identities.current.public.to_text()


def former_keys(federation: NodeFederation) -> list[str]:
    return [name for name in federation.store("DK").names() if name.startswith(FORMER)]


def changes(node: Node) -> int:
    return sum(EventKind.NODE_KEY_CHANGED in line for line in log_lines(node))


# ---- allowed changes


def test_the_new_key_signs_once_it_is_published(federation: NodeFederation, study: Study) -> None:
    keys = rotated(federation)
    assert in_use(federation) == keys.identity_key != OLD.public.to_text()
    run = run_with_published_keys(federation, study)
    run.set_up()
    assert opened_sum(run.sum(1, "histogram")).countries == COUNTRIES
    assert changes(federation.nodes["DK"]) == 1


def test_until_the_officer_has_signed_nothing_changes(
    federation: NodeFederation, study: Study
) -> None:
    new_keys(federation)
    federation.sync()
    federation.restart("DK")
    federation.sync()
    assert in_use(federation) == OLD.public.to_text()
    assert opened_sum(federation.ready(study).sum(1, "histogram")).countries == COUNTRIES


def test_the_officer_s_documents_alone_change_nothing(
    federation: NodeFederation, study: Study
) -> None:
    """Other countries use the published keys; until then no run begins, and old runs continue."""
    under_way = federation.ready(study)
    documents, keys = federation.documents, new_keys(federation)
    documents.folders["DK"].set_node(keys)
    bundle = documents.folders["DK"].sign(documents.now, documents.officers["DK"])
    federation.nodes["DK"].deliver(bundle)
    federation.sync()
    assert in_use(federation) == OLD.public.to_text()
    reply = federation.nodes["DK"].handle(
        run_with_published_keys(federation, study).request("bundle", "DK")
    )
    assert code_of(reply) is ReasonCode.ROSTER
    documents.store.accept_country(bundle, documents.now, online_key=documents.online_key)
    federation.sync()
    assert in_use(federation) == keys.identity_key
    assert opened_sum(under_way.sum(1, "histogram")).countries == COUNTRIES


def test_the_published_documents_alone_change_nothing(
    federation: NodeFederation, study: Study
) -> None:
    documents, keys = federation.documents, new_keys(federation)
    documents.folders["DK"].set_node(keys)
    documents.sign_and_submit("DK")
    federation.sync()
    assert in_use(federation) == OLD.public.to_text()
    reply = federation.nodes["DK"].handle(
        run_with_published_keys(federation, study).request("bundle", "DK")
    )
    assert code_of(reply) is ReasonCode.DOCUMENTS_BEHIND


def test_repeating_the_command_gives_the_same_statement(federation: NodeFederation) -> None:
    assert new_keys(federation) == new_keys(federation)
    first = in_use(federation)
    keys = rotated(federation)
    again = new_keys(federation)
    assert keys.succession is not None
    assert again.succession is not None
    assert (keys.succession.former, again.succession.former) == (first, keys.identity_key)


# ---- runs under way


def test_a_run_under_way_ends_with_the_key_that_it_began_with(
    federation: NodeFederation, study: Study
) -> None:
    run = federation.ready(study)
    round_ = run.contributed(1, "histogram")
    rotated(federation)
    federation.restart("DK").do_upkeep()
    for country in run.terms.roster:
        request = round_.answer_request(country)
        round_.take_answer(country, federation.nodes[country].handle(request))
    assert opened_sum(round_.open()).countries == COUNTRIES


@pytest.mark.parametrize("step", ["encapsulation", "confirmation"])
def test_a_run_in_set_up_ends_with_the_key_that_it_began_with(
    federation: NodeFederation, study: Study, step: str
) -> None:
    run = federation.run(study)
    run.set_up(until=step)
    rotated(federation)
    for later in ("encapsulation", "confirmation"):
        if step in {later, "encapsulation"}:
            for country in run.terms.roster:
                reply = federation.nodes[country].handle(run.request(later, country))
                run.take(later, country, reply)
    assert opened_sum(run.sum(1, "histogram")).countries == COUNTRIES


def test_the_former_key_is_destroyed_with_the_last_run_that_began_with_it(
    federation: NodeFederation, study: Study
) -> None:
    run = federation.ready(study)
    rotated(federation)
    federation.nodes["DK"].do_upkeep()
    assert len(former_keys(federation)) == 1
    assert opened_sum(run.sum(1, "histogram")).countries == COUNTRIES
    federation.withdraw("DK", study)
    federation.nodes["DK"].do_upkeep()
    federation.nodes["DK"].do_upkeep()
    assert former_keys(federation) == []


def test_two_changes_during_one_run(federation: NodeFederation, study: Study) -> None:
    run = federation.ready(study)
    rotated(federation)
    rotated(federation)
    federation.nodes["DK"].do_upkeep()
    assert len(former_keys(federation)) == 1
    assert opened_sum(run.sum(1, "histogram")).countries == COUNTRIES


def test_a_run_whose_former_key_is_gone_is_refused(
    federation: NodeFederation, study: Study
) -> None:
    run = federation.ready(study)
    rotated(federation)
    federation.nodes["DK"].parts.identities.destroy_former_keys_except(set())
    round_ = run.coordinator.begin_round(1, "histogram", b"")
    reply = federation.nodes["DK"].handle(round_.contribute_request("DK"))
    assert code_of(reply) is ReasonCode.ROSTER
    assert "identity key" in str(last_refusal(federation.nodes["DK"]))


def test_a_new_run_is_never_signed_with_the_former_key(
    federation: NodeFederation, study: Study
) -> None:
    """This holds even if the officer's documents name the former key again, from an old file."""
    federation.ready(study)
    rotated(federation)
    federation.documents.folders["DK"].set_node(node_keys("DK"))
    federation.hand_over("DK")
    other = federation.approved(id="second-look")
    reply = federation.nodes["DK"].handle(
        run_with_published_keys(federation, other).request("bundle", "DK")
    )
    assert code_of(reply) is ReasonCode.ROSTER


# ---- refused changes


def test_keys_that_the_node_did_not_create_are_refused(
    federation: NodeFederation, study: Study
) -> None:
    """An officer who was tricked into signing a stranger's keys stops the node, and no more."""
    theirs = node_keys("DK").model_copy(update={"identity_key": raw_key(666).public.to_text()})
    new_keys(federation)
    federation.documents.folders["DK"].set_node(theirs)
    federation.hand_over("DK")
    federation.sync()
    assert in_use(federation) == OLD.public.to_text()
    reply = federation.nodes["DK"].handle(
        run_with_published_keys(federation, study).request("bundle", "DK")
    )
    assert code_of(reply) is ReasonCode.ROSTER


def test_a_stolen_former_key_is_refused_in_new_runs(
    federation: NodeFederation, study: Study
) -> None:
    """The thief runs a node with DK's former key and everything else of DK; others refuse it."""
    rotated(federation)
    thief = federation.folder / "thief"
    store = fast_store(thief)
    store.put("identity", OLD.to_bytes())
    federation.restart("DK", identities=IdentityKeys(store))
    federation.nodes["DK"]._request_handler._gate._keys = lambda *_: (  # type: ignore[method-assign]
        OLD,
        {c: node_keys(c).identity_key for c in COUNTRIES},
    )
    run = federation.run(study)
    run.set_up(until="encapsulation")
    reply = federation.nodes["EE"].handle(run.request("encapsulation", "EE"))
    assert code_of(reply) is ReasonCode.NOT_AUTHENTIC


def test_a_statement_is_valid_for_one_set_of_keys(federation: NodeFederation) -> None:
    words_printed = new_keys(federation)
    moved = words_printed.model_copy(update={"log_key": raw_key(5).public.to_text()})
    with pytest.raises(DocumentFault, match="succession is not signed"):
        NodeKeys.from_canonical(moved.canonical())


# ---- a crash at any step


class Dying(KeyStore):
    """A key store whose process dies before or after its change of this number."""

    left = 0
    after = False

    def put(self, name: str, secret: bytes) -> None:
        self._change(lambda: KeyStore.put(self, name, secret))

    def delete(self, name: str) -> None:
        self._change(lambda: KeyStore.delete(self, name))

    def _change(self, act: Callable[[], None]) -> None:
        self.left -= 1
        if self.left == 0 and not self.after:
            raise KeyFault("dead")
        act()
        if self.left == 0:
            raise KeyFault("dead")


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("change", [1, 2, 3])
def test_a_crash_while_the_key_changes_leaves_one_key_in_use(
    federation: NodeFederation, study: Study, change: int, *, after: bool
) -> None:
    run = federation.ready(study)
    keys = new_keys(federation)
    store = Dying.open(federation.home("DK").keys, PASSPHRASE)
    store.left, store.after = change, after
    federation.restart("DK", identities=IdentityKeys(store))
    federation.documents.folders["DK"].set_node(keys)
    bundle = federation.documents.sign_and_submit("DK")
    federation.nodes["DK"].parts.documents.deliver(bundle, federation.clock())
    with pytest.raises(KeyFault, match="dead"):
        federation.nodes["DK"].sync()
    federation.restart("DK")
    federation.sync()
    federation.nodes["DK"].do_upkeep()
    assert in_use(federation) == keys.identity_key
    assert NEXT not in federation.store("DK").names()
    assert changes(federation.nodes["DK"]) >= 1
    assert opened_sum(run.sum(1, "histogram")).countries == COUNTRIES


def test_a_crash_before_the_file_is_written_is_repaired(federation: NodeFederation) -> None:
    assert federation.nodes["DK"]
    waiting = IdentityKeys(federation.store("DK")).prepare_successor()
    assert new_keys(federation).identity_key == waiting.public.to_text()
