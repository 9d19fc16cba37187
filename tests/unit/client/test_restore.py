"""State restored from an older copy: everything is charged, and no noise is drawn again."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import client.commands
from client.errors import NodeFault
from client.node import Node
from client.restore import (
    LONG_AGO,
    WRITTEN_BY_COMMANDS,
    MissedRun,
    missed_runs,
)
from client.state.restored import Restored
from client.status.summary import LinkStatus
from client.status.text import restored_lines, status_lines
from governance.audit.events import Event, EventKind
from governance.audit.log import LogWriter
from governance.budget.ledger import LedgerEntry
from governance.documents.permit import Permit, PermitConditions
from governance.documents.study import Study
from governance.errors import DocumentFault
from governance.policy.assessment import ledger_terms
from protocols.errors import ReasonCode
from protocols.numerics.mechanism import Mechanism, Scope
from protocols.tasks.schedule import COHORT_FLOOR
from protocols.wire.channel import LinkFault
from tests.support.backups import Backup
from tests.support.documents import NOW, agreement, permit, study, with_schedule
from tests.support.node_federation import (
    STEPS,
    NodeFederation,
    Run,
    code_of,
    last_refusal,
)
from tests.support.prepared import PreparationResult
from tests.support.zero_noise import CountedZeroNoise

LATER = timedelta(minutes=5)
COMMANDS = Path(client.commands.__file__).parent


def spent(node: Node, federation: NodeFederation) -> int:
    agreed = federation.documents.agreed
    return node.parts.ledger.view(ledger_terms(agreed, "patients", federation.clock())).spent_micro


def phases(node: Node) -> Counter[str]:
    return Counter(entry.phase for entry in node.parts.ledger.entries())


def signed_later(federation: NodeFederation) -> None:
    """Let the officer sign again, and leave the file for the node, which is not running."""
    federation.documents.now += LATER
    bundle = federation.documents.sign_and_submit("DK")
    (federation.home("DK").officer / "country-DK.json").write_bytes(bundle)


def restored(federation: NodeFederation, **changes: Any) -> tuple[Node, Restored]:
    """Restore the node as operator and officer do; return the restarted node."""
    unstarted = federation.made("DK", **changes)
    with pytest.raises(NodeFault, match="must sign new documents"):
        unstarted.restore()
    signed_later(federation)
    done = unstarted.restore()
    unstarted.parts.engine.dispose()
    federation.nodes["DK"] = federation.start("DK", **changes)
    federation.sync()
    return federation.nodes["DK"], done


def reached(federation: NodeFederation, asked: Study, until: str) -> tuple[Run, Backup]:
    """Return a run after its set-up, and the backup of its node made at `until`."""
    work = f"{asked.digest} copied at {until}"
    run_id, *replies = federation.prepare_once(work, lambda: _reached(federation, asked, until))
    run = federation.run(asked, run_id)
    run.replay(replies)
    return run, Backup(federation, "DK", made=True)


def _reached(federation: NodeFederation, asked: Study, until: str) -> PreparationResult:
    run, replies = federation.run(asked), []
    for step in STEPS:
        if step == until:
            Backup(federation, "DK")
        for country in run.terms.roster:
            replies.append(federation.nodes[country].handle(run.request(step, country)))
            run.take(step, country, replies[-1])
    if until == "contribution":
        Backup(federation, "DK")
    return (run.terms.run_id, *replies)


STEPS_TO_STOP_AT = ["bundle", "encapsulation", "confirmation", "contribution"]


@pytest.mark.parametrize("until", STEPS_TO_STOP_AT)
@pytest.mark.parametrize("head", [True, False], ids=["file there", "file gone"])
def test_a_restored_ledger_has_at_least_what_was_spent(
    federation: NodeFederation, study: Study, until: str, head: bool
) -> None:
    run, backup = reached(federation, study, until)
    run.contributed(1, "histogram")
    truly = spent(federation.nodes["DK"], federation)
    backup.restore(head=head)
    with pytest.raises(NodeFault, match=r"older than what this node has"):
        federation.start("DK")
    node, done = restored(federation)
    assert spent(node, federation) == truly, "one count and one run, known or not"
    assert done.assumed == ("heart-by-sex",)
    assert done.ended == (0 if until == "bundle" else 1)
    assert (done.before is None) == (not head)


@pytest.mark.parametrize("until", STEPS_TO_STOP_AT)
def test_no_noise_is_drawn_again_for_a_reply_that_was_sent(
    federation: NodeFederation, study: Study, until: str
) -> None:
    run, backup = reached(federation, study, until)
    coordinator_round = run.contributed(1, "histogram")
    backup.restore()
    noise = CountedZeroNoise()
    node, _ = restored(federation, noise=noise)
    frames = [run.request(step, "DK") for step in STEPS] + [
        coordinator_round.contribute_request("DK")
    ]
    assert ReasonCode.STALE in [code_of(node.handle(frame)) for frame in frames]
    assert None not in [code_of(node.handle(frame)) for frame in frames]
    assert noise.draws == 0
    assert node.parts.runs.summaries(live=True) == []


COMMAND_ENTRIES = [
    (),
    *[(kind,) * count for kind in sorted(WRITTEN_BY_COMMANDS) for count in (1, 3)],
]


@pytest.mark.parametrize("kinds", COMMAND_ENTRIES, ids=lambda kinds: f"{len(kinds)} {kinds[:1]}")
def test_what_a_command_logs_before_the_restoration_hides_no_charge(
    federation: NodeFederation, kinds: tuple[EventKind, ...]
) -> None:
    """Such as `enrol`: its entry is newer than the permit's end, and the copy is older."""
    short = federation.study(id="short-lived")
    federation.propose(short)
    conditions = PermitConditions(expires=federation.clock() + timedelta(hours=2))
    for country in federation.nodes:
        federation.permit(country, short, conditions=conditions)
    federation.sync()
    backup = Backup(federation, "DK")
    federation.ready(short).contributed(1, "histogram")
    truly = spent(federation.nodes["DK"], federation)
    backup.restore()
    federation.documents.now += timedelta(hours=3)
    federation.documents.refresh()
    unstarted = federation.made("DK")
    for kind in kinds:
        event = Event(kind=kind, at=federation.clock(), actor="DK")
        LogWriter(unstarted.parts.engine, unstarted.parts.log._origin).append(event)
    unstarted.parts.engine.dispose()
    node, done = restored(federation)
    assert "short-lived" in done.assumed
    assert spent(node, federation) >= truly


def test_every_event_of_a_command_is_known_to_the_restoration() -> None:
    source = "".join(path.read_text() for path in COMMANDS.glob("*.py"))
    kinds = {EventKind[name] for name in re.findall(r"EventKind\.([A-Z_]+)", source)}
    assert kinds == WRITTEN_BY_COMMANDS


def test_a_relaunch_is_refused_until_the_officer_approves_again(
    federation: NodeFederation, study: Study
) -> None:
    run, backup = reached(federation, study, "bundle")
    run.contributed(1, "histogram")
    backup.restore()
    node, _ = restored(federation)
    again = federation.run(study)
    assert code_of(node.handle(again.request("bundle", "DK"))) is ReasonCode.NO_PERMIT
    assert last_refusal(node)["clause"] == "node/permit-used"
    federation.documents.now += LATER
    federation.permit("DK", study, earlier=1)
    federation.sync()
    anew = federation.run(study)
    assert code_of(node.handle(anew.request("bundle", "DK"))) is None


def test_a_run_that_the_copy_knows_is_not_charged_again(
    federation: NodeFederation, study: Study
) -> None:
    run = federation.ready(study)
    coordinator_round = run.contributed(1, "histogram")
    backup, truly = Backup(federation, "DK"), spent(federation.nodes["DK"], federation)
    federation.nodes["DK"].handle(coordinator_round.answer_request("DK"))
    backup.restore()
    node, done = restored(federation)
    assert (done.ended, done.assumed) == (1, ())
    assert spent(node, federation) == truly
    for frame in (
        coordinator_round.contribute_request("DK"),
        coordinator_round.answer_request("DK"),
    ):
        assert code_of(node.handle(frame)) is ReasonCode.STALE


def test_a_second_restoration_of_the_same_state_charges_nothing_more(
    federation: NodeFederation, study: Study
) -> None:
    run, backup = reached(federation, study, "bundle")
    run.contributed(1, "histogram")
    backup.restore()
    node, _ = restored(federation)
    once = phases(node)
    node.parts.engine.dispose()
    node, done = restored(federation)
    assert done.assumed == ()
    assert phases(node) == once


def test_a_study_permitted_after_the_copy_is_charged(federation: NodeFederation) -> None:
    backup = Backup(federation, "DK")
    later = federation.approved(id="later-study")
    run = federation.ready(later)
    run.contributed(1, "histogram")
    federation.withdraw("DK", later)
    backup.restore()
    _, done = restored(federation)
    assert set(done.assumed) == {"heart-by-sex", "later-study"}, "a withdrawal takes nothing back"


def test_a_study_approved_twice_since_the_copy_is_charged_twice(
    federation: NodeFederation, study: Study
) -> None:
    backup = Backup(federation, "DK")
    federation.ready(study).contributed(1, "histogram")
    federation.documents.now += LATER
    for country in federation.nodes:
        federation.permit(country, study, earlier=1)
    federation.sync()
    federation.ready(study).contributed(1, "histogram")
    truly = spent(federation.nodes["DK"], federation)
    backup.restore()
    node, done = restored(federation)
    assert done.assumed == ("heart-by-sex", "heart-by-sex")
    count = next(e for e in node.parts.ledger.entries() if e.phase == COHORT_FLOOR)
    assert spent(node, federation) == truly + count.rdp_micro, "each permit may have paid for one"


def test_the_cap_is_exceeded_if_that_much_may_have_been_spent(tmp_path: Any) -> None:
    federation = NodeFederation(tmp_path / "federation")
    privacy = {"epsilon": 3.0, "delta": 1e-5}
    backup = Backup(federation, "DK")
    for number in range(5):
        expensive = with_schedule(federation.study(id=f"dear-{number}", privacy=privacy), 400)
        federation.propose(expensive)
        for country in federation.nodes:
            federation.permit(country, expensive)
    federation.sync()
    backup.restore()
    node, done = restored(federation)
    view = node.parts.ledger.view(
        ledger_terms(federation.documents.agreed, "patients", federation.clock())
    )
    assert len(done.assumed) == 5
    assert view.spent_micro > view.cap_micro
    assert view.left_micro == 0
    federation.close()


def test_documents_signed_before_the_restoration_are_not_enough(
    federation: NodeFederation, study: Study
) -> None:
    """A copy of the newest bundle may lack a permit of the last minute."""
    backup = Backup(federation, "DK")
    federation.ready(study).contributed(1, "histogram")
    backup.restore()
    unstarted = federation.made("DK")
    before = unstarted.parts.ledger.entries(), unstarted.parts.runs.summaries(live=True)
    for _ in range(2):
        with pytest.raises(NodeFault) as refusal:
            unstarted.restore()
        assert "pratique-officer renew" in refusal.value.fix
    assert (unstarted.parts.ledger.entries(), unstarted.parts.runs.summaries(live=True)) == before
    unstarted.parts.engine.dispose()
    with pytest.raises(NodeFault, match="has not finished"):
        federation.start("DK")


def test_an_unfinished_restoration_stops_a_node_whose_copy_looks_newest(
    federation: NodeFederation,
) -> None:
    """The whole disk was restored, with the log-head file: only the operator knows."""
    with pytest.raises(NodeFault):
        federation.nodes["DK"].restore()
    with pytest.raises(NodeFault, match="has not finished"):
        federation.restart("DK")
    node, done = restored_after_begin(federation)
    assert done.assumed == ("heart-by-sex",)
    assert node.parts.log_head.known_size() == node.parts.log.size()


def restored_after_begin(federation: NodeFederation) -> tuple[Node, Restored]:
    signed_later(federation)
    unstarted = federation.made("DK")
    done = unstarted.restore()
    unstarted.parts.engine.dispose()
    return federation.start("DK"), done


def test_documents_of_which_one_cannot_be_read_are_not_enough(
    federation: NodeFederation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No permit counts then, so no run would be assumed to be spent."""
    with pytest.raises(NodeFault, match="must sign new documents"):
        federation.nodes["DK"].restore()
    signed_later(federation)
    unstarted = federation.made("DK")
    current = unstarted.parts.documents.current(federation.clock())
    unclear = replace(current, own=replace(current.own, permits={}, unreadable=("a permit",)))
    monkeypatch.setattr(unstarted.parts.documents, "current", lambda _: unclear)
    with pytest.raises(NodeFault, match="cannot be read"):
        unstarted.restore()
    unstarted.parts.engine.dispose()


def test_expired_documents_are_not_enough(federation: NodeFederation) -> None:
    unstarted = federation.made("DK")
    federation.documents.now += timedelta(days=8)
    federation.documents.refresh()
    with pytest.raises(NodeFault, match="must sign new documents"):
        unstarted.restore()
    unstarted.parts.engine.dispose()


def test_without_a_link_a_restoration_changes_nothing(federation: NodeFederation) -> None:
    def lost(_: str) -> bytes:
        raise LinkFault("The exchange does not answer")

    unstarted = federation.made("DK", fetch=lost)
    with pytest.raises(NodeFault):
        unstarted.restore()
    signed_later(federation)
    with pytest.raises(LinkFault):
        unstarted.restore()
    assert unstarted.parts.ledger.entries() == []
    unstarted.parts.engine.dispose()


def test_a_newer_version_at_the_exchange_is_waited_for(
    federation: NodeFederation, study: Study
) -> None:
    """The node must have all published documents of its country before it continues."""
    unstarted = federation.made("DK")
    with pytest.raises(NodeFault):
        unstarted.restore()
    signed_later(federation)
    federation.documents.sign_and_submit("DK")
    with pytest.raises(DocumentFault, match="Your officer has signed version"):
        unstarted.restore()
    unstarted.parts.engine.dispose()


def test_a_crash_at_the_end_leaves_the_node_stopped_and_charges_nothing_twice(
    federation: NodeFederation, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, backup = reached(federation, study, "encapsulation")
    run.contributed(1, "histogram")
    truly = spent(federation.nodes["DK"], federation)
    backup.restore()
    with monkeypatch.context() as dying:
        dying.setattr("client.state.log_head.LogHeadGuard.accept", _die)
        with pytest.raises(KeyboardInterrupt):
            restored(federation)
    with pytest.raises(NodeFault, match=r"older than what this node has"):
        federation.start("DK")
    node, done = restored(federation)
    assert spent(node, federation) == truly
    assert done.assumed == ()


def _die(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_restoration_is_logged_and_shown(federation: NodeFederation, study: Study) -> None:
    run, backup = reached(federation, study, "encapsulation")
    run.contributed(1, "histogram")
    had = federation.nodes["DK"].parts.log.size()
    backup.restore()
    node, done = restored(federation)
    entries = [entry.decode() for entry in node.parts.log.entries()]
    (entry,) = (e for e in entries if f'"{EventKind.STATE_RESTORED}"' in e)
    assert f"the log had at least {had} before; 1 live run ended, 1 run" in entry
    assert sum('"budget-charged"' in e for e in entries) == len(
        {e.run for e in node.parts.ledger.entries()}
    )
    text = "\n".join(status_lines(node.status(LinkStatus())))
    assert "1 run that the copy does not know was charged" in text
    text_after = "\n".join(restored_lines(done))
    assert "heart-by-sex: charged 1 time" in text_after
    assert "--accept-restored" in text_after


def test_a_node_that_was_never_restored_shows_nothing_about_it(federation: NodeFederation) -> None:
    assert federation.nodes["DK"].status(LinkStatus()).restored is None
    text = "\n".join(status_lines(federation.nodes["DK"].status(LinkStatus())))
    assert "Restored" not in text


@pytest.mark.parametrize("newest", [True, False], ids=["passes for the newest", "does not"])
@pytest.mark.parametrize("ended", ["before the copy", "since"])
def test_an_ended_permit_is_charged_unless_it_ended_before_the_copy(
    federation: NodeFederation, study: Study, ended: str, newest: bool
) -> None:
    """The time of the copy is known only if the state did not continue after it."""
    federation.documents.now = NOW + timedelta(days=59, hours=23)
    again(federation)
    if ended == "before the copy":
        federation.documents.now += timedelta(hours=2)
        again(federation)
    backup = Backup(federation, "DK")
    federation.withdraw("DK", study)
    if newest:
        with pytest.raises(NodeFault):
            federation.nodes["DK"].restore()
        federation.nodes["DK"].parts.engine.dispose()
    else:
        backup.restore()
    federation.documents.now += timedelta(hours=3)
    again(federation, hand_over=False)
    _, done = restored(federation)
    spared = ended == "before the copy" and not newest
    assert done.assumed == (() if spared else ("heart-by-sex",))


def again(federation: NodeFederation, *, hand_over: bool = True) -> None:
    """Let everybody sign again, so that nothing has expired."""
    federation.documents.refresh()
    for country in federation.nodes:
        bundle = federation.documents.sign_and_submit(country)
        if hand_over:
            federation.nodes[country].deliver(bundle)


# Which runs may have been charged, decided without a node.

ASKED = with_schedule(study(agreement()), 30_000)
SHARED = [m for m in ASKED.mechanisms if m.scope is Scope.SHARED]


def count_name(one: Permit) -> str:
    return f"count-{one.digest[7:33]}"


COUNT = [m for m in ASKED.mechanisms if m.phase == COHORT_FLOOR]


def given_as(number: int, issued: datetime = NOW) -> Permit:
    changes: dict[str, Any] = {"earlier": number - 1} if number > 1 else {}
    return permit(agreement(), ASKED, issued=issued, **changes)


def entry(run: str, mechanism: Mechanism, created: datetime = NOW) -> LedgerEntry:
    return LedgerEntry(
        position=0,
        register="patients",
        period=0,
        study=ASKED.digest,
        run=run,
        phase=mechanism.phase,
        mechanism=mechanism,
        honest=2,
        order=8,
        rdp_micro=1,
        created=created,
    )


def missed(
    one: Permit,
    known: Sequence[LedgerEntry] = (),
    copied: datetime = LONG_AGO,
    studies: Mapping[str, Study] | None = None,
) -> list[MissedRun]:
    published = {ASKED.digest: ASKED} if studies is None else studies
    return missed_runs([one], published, known, copied=copied, size=7)


@given(
    st.lists(st.sampled_from(["superseded", "counted", "ran"]), min_size=1, max_size=5), st.data()
)
def test_a_copy_of_any_moment_is_restored_with_every_charge_that_was_made(
    history: list[str], data: st.DataObject
) -> None:
    """Each permit was unused, counted, or counted and run; the copy has a part of this."""
    ledger: list[LedgerEntry] = []
    for number, what in enumerate(history, start=1):
        issued = NOW + number * LATER
        one = given_as(number, issued)
        if what != "superseded":
            ledger += [entry(count_name(one), m, issued) for m in COUNT]
        if what == "ran":
            ledger += [entry(f"{number:032x}", m, issued) for m in SHARED]
    moments = sorted({e.created for e in ledger} | {LONG_AGO})
    copied = data.draw(st.sampled_from(moments))
    known = [e for e in ledger if e.created <= copied]
    missed_found = missed(one, known)
    after = Counter(e.phase for e in known) + Counter(
        m.phase for f in missed_found for m in f.mechanisms
    )
    assert after >= Counter(e.phase for e in ledger)
    used = [e for e in known if e.phase != COHORT_FLOOR and e.created >= one.issued]
    assert missed_found or used, "the newest permit counts as used"
    assert len({f.run for f in missed_found}) == len(missed_found)


@pytest.mark.parametrize(
    ("number", "known", "expected"),
    [
        (1, [], [ASKED.mechanisms]),
        (1, [entry(count_name(given_as(1)), m) for m in COUNT], [tuple(SHARED)]),
        (1, [entry("a" * 32, m) for m in ASKED.mechanisms], []),
        (2, [], [ASKED.mechanisms] * 2),
        (2, [entry("a" * 32, m, NOW - LATER) for m in ASKED.mechanisms], [ASKED.mechanisms]),
        (1, [entry("a" * 32, m, NOW - LATER) for m in ASKED.mechanisms], [ASKED.mechanisms]),
    ],
    ids=["nothing", "the count", "all", "two permits", "the first of two", "of an uncounted one"],
)
def test_only_charges_that_the_ledger_lacks_are_made(
    number: int, known: list[LedgerEntry], expected: list[Any]
) -> None:
    assert [one.mechanisms for one in missed(given_as(number), known)] == expected


def test_a_run_in_local_mode_was_charged_for_its_steps_and_for_no_sum_of_updates() -> None:
    task = {
        "kind": "train/glm",
        "family": "logistic",
        "target": "disease",
        "rounds": 2,
        "learning_rate": 0.5,
        "patients": 300,
        "patients_bound": 10_000,
        "local": {"steps": 3},
    }
    release = {"what": "model", "keep_days": 10, "audience": "parties"}
    local_study = with_schedule(study(agreement(), task=task, release=release), 30_000)
    one, published = permit(agreement(), local_study), {local_study.digest: local_study}
    (found,) = missed(one, studies=published)
    assert [m.phase for m in found.mechanisms] == [COHORT_FLOOR, "local-step", "evaluate"]
    count = replace(entry(count_name(one), local_study.mechanisms[0]), study=local_study.digest)
    (found,) = missed(one, [count], studies=published)
    assert [m.phase for m in found.mechanisms] == ["local-step", "evaluate"]


def test_a_permit_that_ended_before_the_copy_charges_nothing() -> None:
    one = given_as(1)
    assert missed(one, copied=one.conditions.expires) == []
    assert missed(one, copied=one.conditions.expires - timedelta(seconds=1))


def test_a_study_that_is_not_published_stops_the_restoration() -> None:
    with pytest.raises(NodeFault, match="that is not published"):
        missed(given_as(1), studies={})


def test_names_of_missed_runs_are_no_run_ids_and_fit_the_ledger() -> None:
    (one,) = missed(given_as(1))
    assert one.run.startswith("restored-")
    assert len(one.run) == 32
    (other,) = missed_runs([given_as(1)], {ASKED.digest: ASKED}, [], copied=LONG_AGO, size=8)
    assert other.run != one.run


def test_the_sentence_on_a_restoration_fits_the_log() -> None:
    done = Restored(NOW.isoformat(), 10**12, 10**12, 10**6, ("x" * 63,) * 1000)
    assert len(done.sentence()) < 600
    assert "unknown" in replace(done, before=None).sentence()
