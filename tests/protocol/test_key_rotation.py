"""A country's key changes: when others accept the new key, and who cannot cause a change.

Four real nodes use one document store. The former key signs the new one. Documents are signed with
both until the agreement names the new one, so that no country is ever without documents.
"""

from datetime import timedelta

import pytest

from client.node import Node
from governance.audit.events import EventKind
from governance.documents.agreement import Agreement
from governance.documents.rotation import extended
from governance.documents.study import Study
from governance.errors import DocumentFault
from governance.trust.view import TrustHighWater
from keys.identity import SigningKey
from tests.support.documents import COUNTRIES, raw_key
from tests.support.narrowing import opened_sum
from tests.support.node_federation import NodeFederation, log_lines

OLD, NEW, THIRD, THIEF = (raw_key(number) for number in (100, 200, 300, 666))


@pytest.fixture
def study(federation: NodeFederation) -> Study:
    return federation.approved()


def announce(federation: NodeFederation, former: SigningKey, new: SigningKey) -> bytes:
    """Let DK's officer publish the statement, and documents under both keys."""
    folder, documents = federation.documents.folders["DK"], federation.documents
    folder.set_history(extended(folder.history(), "DK", former, new, documents.now))
    federation.hand_over("DK")
    return hand_over_next(federation, new)


def hand_over_next(federation: NodeFederation, new: SigningKey) -> bytes:
    documents = federation.documents
    later = documents.folders["DK"].sign_next(documents.now, new)
    documents.store.accept_country(later, documents.now, online_key=documents.online_key)
    federation.nodes["DK"].deliver(later)
    return later


def put_in_force(federation: NodeFederation, *signers: str, new: SigningKey | None = None) -> None:
    """Let the countries sign the agreement with the announced keys; `new` signs for DK too."""
    documents = federation.documents
    documents.store.draft_renewal(documents.now)
    documents.sign(*signers)
    if new is not None:
        former, documents.officers["DK"] = documents.officers["DK"], new
        documents.sign("DK")
        documents.officers["DK"] = former
    documents.publish()


def rotate(federation: NodeFederation, former: SigningKey, new: SigningKey) -> None:
    """Change DK's key from one to the next."""
    announce(federation, former, new)
    put_in_force(federation, "EE", "NO", "PT")
    federation.documents.folders["DK"].adopt_next()
    federation.documents.officers["DK"] = new


def kinds(node: Node) -> list[str]:
    return [line.split('"kind":"')[1].split('"')[0] for line in log_lines(node)]


def key_of(node: Node) -> str:
    return node.parts.documents.officer.key


# ---- allowed changes


def test_every_node_follows_without_a_gap(federation: NodeFederation, study: Study) -> None:
    rotate(federation, OLD, NEW)
    federation.sync()
    for country, node in federation.nodes.items():
        view = node.parts.documents.current(federation.clock()).view
        assert set(view.countries) == set(COUNTRIES), country
        assert view.countries["DK"].key == NEW.public.to_text()
        assert view.countries["DK"].permit(study.digest) is not None
    assert key_of(federation.nodes["DK"]) == NEW.public.to_text()
    assert kinds(federation.nodes["DK"]).count(EventKind.OFFICER_KEY_CHANGED) == 1


def test_the_agreement_keeps_its_digest_and_permits_stay_valid(
    federation: NodeFederation, study: Study
) -> None:
    before = federation.documents.view().agreement.digest
    rotate(federation, OLD, NEW)
    assert federation.documents.view().agreement.digest == before == study.agreement


def test_a_run_under_way_continues_during_the_change(
    federation: NodeFederation, study: Study
) -> None:
    run = federation.ready(study)
    announce(federation, OLD, NEW)
    federation.sync()
    round_ = run.contributed(1, "histogram")
    put_in_force(federation, "EE", "NO", "PT")
    federation.sync()
    for country in run.terms.roster:
        request = round_.answer_request(country)
        round_.take_answer(country, federation.nodes[country].handle(request))
    assert opened_sum(round_.open()).countries == COUNTRIES


def test_the_former_key_signs_until_the_change_is_in_force(
    federation: NodeFederation, study: Study
) -> None:
    announce(federation, OLD, NEW)
    federation.sync()
    node = federation.nodes["DK"]
    assert key_of(node) == OLD.public.to_text()
    assert node.parts.documents.officer.announced == NEW.public.to_text()
    federation.withdraw("DK", study)
    assert node.parts.documents.own(federation.clock()).withdrawal(study.digest) is not None


def test_an_officer_may_submit_the_new_documents_after_the_change(
    federation: NodeFederation, study: Study
) -> None:
    """The statement reached everyone; the documents under the new key reached nobody yet."""
    documents = federation.documents
    folder = documents.folders["DK"]
    folder.set_history(extended(None, "DK", OLD, NEW, documents.now))
    federation.hand_over("DK")
    put_in_force(federation, "EE", "NO", "PT")
    federation.sync()
    with pytest.raises(DocumentFault):
        federation.nodes["DK"].parts.documents.current(federation.clock())
    later = folder.sign(documents.now, NEW)
    documents.store.accept_country(later, documents.now, online_key=documents.online_key)
    federation.nodes["DK"].deliver(later)
    federation.sync()
    assert (
        federation.nodes["DK"].parts.documents.current(federation.clock()).own.permit(study.digest)
    )


def test_a_node_that_was_away_follows_two_changes_at_once(
    federation: NodeFederation, study: Study
) -> None:
    away, own = federation.nodes["EE"], federation.nodes["DK"]
    known, pinned = (
        away.parts.documents.view(federation.clock()).high_water,
        own.parts.documents.officer,
    )
    assert known.keys["DK"] == pinned.key == OLD.public.to_text()
    documents = federation.documents
    folder = documents.folders["DK"]
    for former, new in ((OLD, NEW), (NEW, THIRD)):
        folder.set_history(extended(folder.history(), "DK", former, new, documents.now))
        documents.officers["DK"] = former
        documents.sign_and_submit("DK")
        later = folder.sign_next(documents.now, new)
        documents.store.accept_country(later, documents.now, online_key=documents.online_key)
        put_in_force(federation, "EE", "NO", "PT")
        folder.adopt_next()
    federation.sync()
    own.deliver(later)
    federation.sync()
    assert key_of(own) == THIRD.public.to_text()
    for node in (away, own):
        assert node.parts.documents.view(federation.clock()).country("DK") is not None


def test_the_high_water_mark_survives_a_restart_between_any_two_steps(
    federation: NodeFederation, study: Study
) -> None:
    announce(federation, OLD, NEW)
    federation.restart("DK")
    assert federation.nodes["DK"].parts.documents.officer.announced == NEW.public.to_text()
    put_in_force(federation, "EE", "NO", "PT")
    federation.restart("DK").sync()
    assert key_of(federation.restart("DK")) == NEW.public.to_text()
    assert (
        federation.nodes["DK"].parts.documents.current(federation.clock()).own.permit(study.digest)
    )


def test_the_statement_alone_is_enough_for_the_others(
    federation: NodeFederation, study: Study
) -> None:
    """DK's officer did not sign the root; its former key signed the statement."""
    high_water = federation.documents.view().high_water
    rotate(federation, OLD, NEW)
    root = federation.documents.store.read("metadata/2.root.json")
    assert root is not None
    view = federation.documents.view(high_water)
    assert view.high_water.keys["DK"] == NEW.public.to_text()


# ---- refused changes --------


def amended(federation: NodeFederation, key: SigningKey) -> Agreement:
    return federation.documents.agreed.with_officer_keys({"DK": key.public.to_text()})


def test_a_new_key_without_the_former_one_s_signature_stops_that_country(
    federation: NodeFederation, study: Study
) -> None:
    """A quorum replaces DK's key: nodes elsewhere wait for the approval of their operators."""
    documents = federation.documents
    documents.store.draft(amended(federation, THIEF), documents.now)
    documents.sign("EE", "NO", "PT")
    documents.publish()
    documents.officers["DK"] = THIEF
    documents.sign_and_submit("DK")
    federation.sync()
    view = federation.nodes["EE"].parts.documents.view(federation.clock())
    assert "key of DK has changed" in view.absent["DK"]
    assert set(view.countries) == {"EE", "NO", "PT"}
    with pytest.raises(DocumentFault, match="another document key for DK"):
        federation.nodes["DK"].parts.documents.current(federation.clock())


def test_a_key_without_a_statement_is_accepted_once_the_operator_approves_it(
    federation: NodeFederation, study: Study
) -> None:
    documents = federation.documents
    documents.store.draft(amended(federation, NEW), documents.now)
    documents.sign("EE", "NO", "PT")
    documents.publish()
    documents.officers["DK"] = NEW
    bundle = documents.sign_and_submit("DK")
    federation.sync()
    node, own = federation.nodes["EE"], federation.nodes["DK"]
    with pytest.raises(DocumentFault, match="does not name a key with this fingerprint for DK"):
        node.approve_key("DK", THIEF.public.fingerprint)
    assert node.approve_key("DK", NEW.public.fingerprint) == NEW.public
    node.sync()
    assert node.parts.documents.view(federation.clock()).country("DK") is not None
    with pytest.raises(DocumentFault, match="not signed by the key that is pinned"):
        own.deliver(bundle)
    own.pin_officer(NEW.public)
    own.deliver(bundle)
    own.sync()
    assert own.parts.documents.current(federation.clock()).own.key == NEW.public.to_text()
    settings = federation.home("DK").settings()
    assert settings.officer_key == NEW.public.to_text()
    again = federation.restart("DK", settings=settings)
    assert again.parts.documents.current(federation.clock()).own.key == NEW.public.to_text()
    assert kinds(node)[-1] == EventKind.KEY_APPROVED


def test_a_thief_with_the_former_key_cannot_undo_the_change(
    federation: NodeFederation, study: Study
) -> None:
    """The old key was replaced because it was stolen; the thief replays and signs again."""
    stolen = federation.documents.sign_and_submit("DK")
    node = federation.nodes["DK"]
    rotate(federation, OLD, NEW)
    federation.sync()
    folder = federation.documents.folders["DK"]
    folder.set_history(extended(None, "DK", OLD, THIEF, federation.clock()))
    forged = folder.sign(federation.clock(), THIEF, newer_than=10_000)
    plain = folder.sign(federation.clock(), OLD, newer_than=20_000)
    for bundle in (stolen, forged, plain):
        with pytest.raises(DocumentFault):
            node.deliver(bundle)
    assert key_of(node) == NEW.public.to_text()


def test_a_replayed_statement_does_not_restore_an_older_key(
    federation: NodeFederation, study: Study
) -> None:
    first = announce(federation, OLD, NEW)
    put_in_force(federation, "EE", "NO", "PT")
    federation.sync()
    federation.documents.folders["DK"].adopt_next()
    federation.documents.officers["DK"] = NEW
    rotate(federation, NEW, THIRD)
    federation.sync()
    node = federation.nodes["DK"]
    assert key_of(node) == THIRD.public.to_text()
    with pytest.raises(DocumentFault):
        node.deliver(first)
    assert key_of(node) == THIRD.public.to_text()


def test_the_exchange_cannot_restore_an_older_key(federation: NodeFederation, study: Study) -> None:
    before = federation.documents.snapshot_of_store()
    rotate(federation, OLD, NEW)
    federation.sync()
    high_water = federation.nodes["EE"].parts.documents.view(federation.clock()).high_water
    assert isinstance(high_water, TrustHighWater)
    node = federation.restart("EE", fetch=before.get)
    with pytest.raises(DocumentFault, match="older state"):
        node.sync()


def test_a_second_successor_of_a_key_is_refused(federation: NodeFederation, study: Study) -> None:
    announce(federation, OLD, NEW)
    folder = federation.documents.folders["DK"]
    folder.set_history(extended(None, "DK", OLD, THIEF, federation.clock()))
    second = folder.sign(federation.clock(), OLD)
    with pytest.raises(DocumentFault, match="second successor"):
        federation.nodes["DK"].deliver(second)
    assert federation.nodes["DK"].parts.documents.officer.announced == NEW.public.to_text()


def test_the_coordinator_s_own_key_for_a_country_is_not_announced(
    federation: NodeFederation, study: Study
) -> None:
    """A statement that the key in force did not sign has no effect."""
    documents = federation.documents
    folder = documents.folders["DK"]
    folder.set_history(extended(None, "DK", THIEF, THIRD, documents.now))
    forged = folder.sign_next(documents.now, THIRD)
    with pytest.raises(DocumentFault):
        documents.store.accept_country(forged, documents.now, online_key=documents.online_key)
    assert documents.store.announced_keys() == {}


def test_targets_cannot_hold_a_country_s_history(federation: NodeFederation) -> None:
    """The history counts in the country's own role only, and only if it ends at its key."""
    documents = federation.documents
    folder = documents.folders["DK"]
    folder.set_history(extended(None, "DK", THIEF, THIRD, documents.now))
    bundle = folder.sign(documents.now, OLD)
    own = federation.nodes["DK"].deliver(bundle)
    assert "history of its keys" in own.fault
    assert (own.history, own.next_key, dict(own.permits)) == (None, None, {})
    with pytest.raises(DocumentFault, match="history of its keys"):
        documents.store.accept_country(bundle, documents.now, online_key=documents.online_key)


def test_pending_documents_older_than_a_withdrawal_are_not_published(
    federation: NodeFederation, study: Study
) -> None:
    """The exchange got the refusal under the former key, and not under the next one."""
    announce(federation, OLD, NEW)
    federation.withdraw("DK", study)
    put_in_force(federation, "DK", "EE", "NO", "PT")
    federation.sync()
    view = federation.nodes["EE"].parts.documents.view(federation.clock())
    assert view.country("DK") is None
    with pytest.raises(DocumentFault):
        federation.nodes["DK"].parts.documents.current(federation.clock())
    federation.documents.officers["DK"] = NEW
    federation.hand_over("DK")
    federation.sync()
    state = federation.nodes["DK"].parts.documents.current(federation.clock())
    assert state.own.withdrawal(study.digest) is not None


# ---- a year


@pytest.mark.slow
def test_a_year_of_weekly_renewals_with_two_rotations(federation: NodeFederation) -> None:
    """The countries' signatures are renewed once as well, because they are valid for one year."""
    documents, keys = federation.documents, {9: (OLD, NEW), 30: (NEW, THIRD)}
    long = documents.agreed
    for week in range(1, 54):
        documents.now += timedelta(days=6, hours=12)
        documents.refresh()
        for country in COUNTRIES:
            federation.hand_over(country)
        if week in keys:
            rotate(federation, *keys[week])
        federation.sync()
        for node in federation.nodes.values():
            assert set(node.parts.documents.current(documents.now).view.countries) == set(
                COUNTRIES
            ), week
    assert documents.view().agreement.digest == long.digest
    assert key_of(federation.nodes["DK"]) == THIRD.public.to_text()
