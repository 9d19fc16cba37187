"""No value computed from records decides whether, when or how a country answers.

One country's node runs whole studies, with refusals and a drop-out, on cohorts that differ in one
patient: ordinary, missing, far outside the bounds, or such that a model made by the coordinator
overflows for this patient only. Everything that the coordinator, an observer of the network or the
operator's metrics can see must be the same, message by message.
"""

import inspect
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client.border.reply_timing import SLOT_SECONDS, ReplySlots
from client.border.request_handler import RequestHandler
from client.records.store import RecordStore
from client.tasks import trainers
from client.tasks.prepared import PreparedTasks
from governance.documents.study import Study
from protocols.errors import ReasonCode, Refusal
from protocols.numerics import rounding
from protocols.private_sum.coordinator_round import OpenedSum
from protocols.tasks import TrainGlm, Training, TrainMlp
from protocols.tasks.layout import vector_to_bytes
from tests.support.documents import study_fields, with_schedule
from tests.support.node_federation import NodeFederation, code_of
from tests.support.observed_node import Shapes, observe, observe_at_rest

HOST, ABSENT = "DK", "PT"
HEADER = "id,age,sex,disease\n"
HUGE = 1.7e308
KINDS = ("train/glm", "train/mlp", "stats/histogram")
NOISE = 2**30
"""A budget so large that every study fits; the drawn noise is zero."""


def identical_patients(patients: int) -> str:
    """Return patients whose encoding is zero everywhere: men of 60 without the disease."""
    return HEADER + "".join(f"p{n},60,M,0\n" for n in range(patients))


USUAL = identical_patients(80)
OVERFLOWING = "p999,120,F,1\n"
"""The only patient with a nonzero value at the models' weights of 1.7e308."""
NEIGHBOURS = {
    "one patient more": identical_patients(81),
    "one patient fewer": identical_patients(79),
    "an overflowing patient": USUAL + OVERFLOWING,
    "a patient with nothing recorded": USUAL + "p999,,,\n",
    "a patient far above the bounds": USUAL + "p999,1e308,F,1\n",
    "a patient far below the bounds": USUAL + "p999,-1e308,F,1\n",
    "a patient on the bound": USUAL + "p999,40,F,0\n",
    "everybody overflows": HEADER + "".join(f"p{n},120,F,1\n" for n in range(80)),
}

COMMON: dict[str, Any] = {
    "family": "logistic",
    "target": "disease",
    "rounds": 4,
    "sampling_rate": 0.5,
    "learning_rate": 0.5,
    "average_last": 0.0,
    "patients": 320,
    "patients_bound": 1_000,
    "evaluation": {"bins": 4},
}
GLM = COMMON | {"kind": "train/glm"}
TASKS: dict[str, dict[str, Any]] = {
    "logistic": GLM,
    "linear": GLM | {"family": "linear", "target": "age"},
    "local": GLM | {"family": "linear", "target": "age", "local": {"steps": 3}},
    "network": COMMON | {"kind": "train/mlp", "hidden": [4, 3], "seed": 7},
}


def overflowing_model(study: Study) -> bytes:
    """Return a finite model: huge weights for what only `OVERFLOWING` has, small ones elsewhere.

    The first layer's inputs are, in order, age, sex (female, male) and disease, without the target;
    `train/glm` has the bias before them.
    """
    task = study.task
    assert isinstance(task, Training)
    first = {"disease": [HUGE, HUGE, 0.1], "age": [HUGE, 0.1, HUGE]}[task.target]
    if isinstance(task, TrainGlm):
        return vector_to_bytes(np.array([0.1, *first]))
    assert isinstance(task, TrainMlp)
    model = np.full(task.dimension(study.features), 0.1)
    model[: 4 * 3] = np.tile(first, 4)
    return vector_to_bytes(model)


def whole_traffic(folder: Path, data: str, names: tuple[str, ...] = tuple(TASKS)) -> list[Any]:
    """Return all that can be seen while the host's node runs these studies."""
    roomy = [{"register": "patients", "period_days": 365, "epsilon": 30.0, "delta": 1e-4}]
    budget = [entry | {"order": 8} for entry in roomy]
    federation = NodeFederation(folder, changes={"task_kinds": KINDS, "budget": budget})
    federation.put_records(HOST, data)
    events: list[Any] = []
    shapes = Shapes(events)
    logger = logging.getLogger("pratique")
    logger.addHandler(shapes)
    try:
        host = observe(federation, HOST, events)
        for number, name in enumerate(names):
            _trained(federation, _study(federation, name), number)
        _counted(federation, len(names))
        events += observe_at_rest(host)
    finally:
        logger.removeHandler(shapes)
        federation.nodes.pop(HOST)
        federation.close()
    return events


def _fields(name: str) -> dict[str, Any]:
    return {
        "id": f"study-{name}",
        "task": TASKS[name],
        "release": {"what": "model", "keep_days": 365, "audience": "the public"},
        "population": {"register": "patients"},
    }


def _study(federation: NodeFederation, name: str) -> Study:
    proposed = Study.model_validate(study_fields(federation.documents.agreed, **_fields(name)))
    return _permitted(federation, with_schedule(proposed, noise_std=NOISE))


def _permitted(federation: NodeFederation, study: Study) -> Study:
    federation.propose(study)
    host, federation.nodes[HOST] = federation.nodes[HOST], federation.nodes[HOST].node  # type: ignore[attr-defined]
    for country in study.countries:
        federation.permit(country, study)
    federation.sync()
    federation.nodes[HOST] = host
    return study


def _trained(federation: NodeFederation, study: Study, number: int) -> None:
    """Run a study: rounds, a drop-out, replays, refusals, an evaluation, one more round."""
    run, host = federation.run(study, bytes([number]) * 16), federation.nodes[HOST]
    host.handle(b"no message at all")
    run.set_up()
    host.handle(run.request("bundle", HOST))
    assert isinstance(study.task, Training)
    plain = vector_to_bytes(study.task.initial(study.features))
    assert isinstance(run.sum(1, "train", plain), OpenedSum)
    assert isinstance(run.sum(2, "train", overflowing_model(study)), OpenedSum)
    _dropped(federation, run, overflowing_model(study))
    void = run.coordinator.begin_round(4, "train", plain).contribute_request(HOST)
    assert host.handle(void) == host.handle(void)
    assert isinstance(run.sum(5, "evaluate", overflowing_model(study)), OpenedSum)
    for phase, model in (("train", plain), ("evaluate", plain[:-8]), ("cohort-floor", b"")):
        run.coordinator._round_number = 5
        request = run.coordinator.begin_round(6, phase, model).contribute_request(HOST)
        assert code_of(host.handle(request)) is not None


def _dropped(federation: NodeFederation, run: Any, model: bytes) -> None:
    """Let one country drop out: the others agree on the remaining set, and answer."""
    round_ = run.coordinator.begin_round(3, "train", model)
    among = [country for country in run.terms.roster if country != ABSENT]
    for step in ("contribution", "assent", "answer"):
        if step == "assent":
            assert round_.close() == tuple(among)
        asks = {
            "contribution": round_.contribute_request,
            "assent": round_.agree_request,
            "answer": round_.answer_request,
        }
        for country in among:
            reply = federation.nodes[country].handle(asks[step](country))
            getattr(round_, f"take_{step}")(country, reply)
    assert isinstance(round_.open(), OpenedSum)


def _counted(federation: NodeFederation, number: int) -> None:
    study = _permitted(federation, federation.study(population={"register": "patients"}))
    run = federation.run(study, bytes([number]) * 16)
    run.set_up()
    assert isinstance(run.sum(1, "histogram"), OpenedSum)


QUICK = ("linear",)


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """Return what is seen of one study on a cohort of eighty identical patients."""
    return whole_traffic(tmp_path_factory.mktemp("usual") / "federation", USUAL, QUICK)


@pytest.fixture(scope="module")
def usual_of_all(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """Return the same for every kind of study."""
    return whole_traffic(tmp_path_factory.mktemp("usual") / "federation", USUAL)


def test_an_overflowing_patient_looks_like_any_other(tmp_path: Path, usual: list[Any]) -> None:
    assert whole_traffic(tmp_path / "federation", USUAL + OVERFLOWING, QUICK) == usual


@pytest.mark.slow
@pytest.mark.parametrize("data", NEIGHBOURS.values(), ids=NEIGHBOURS.keys())
def test_neighbouring_cohorts_look_the_same(
    tmp_path: Path, usual_of_all: list[Any], data: str
) -> None:
    assert whole_traffic(tmp_path / "federation", data) == usual_of_all


def test_the_observations_are_not_empty(usual: list[Any]) -> None:
    """Otherwise the lists above could be equal because they are empty."""
    sent = [(event[1], event[3]) for event in usual if event[0] == "sent"]
    phases = {phase for phase, content in sent if content.endswith("None")}
    wanted = ("BUNDLE", "ENCAPSULATE", "CONFIRM", "CONTRIBUTE", "AGREE", "ANSWER")
    assert phases == {f"PHASE_{phase}" for phase in wanted}
    codes = {content.split()[-1] for _, content in sent}
    assert codes >= {"None", "malformed", "stale"}, "refusals were tested too"
    assert [event for event in usual if event[0] == "slot"] == [("slot", SLOT_SECONDS)] * sum(
        phase in ("PHASE_BUNDLE", "PHASE_CONTRIBUTE") for phase, _ in sent
    )
    assert sum(event[0] == "log" for event in usual) == 4, "one for each refusal"
    assert len(usual[-2][1]) > 10
    assert any("pratique" in line for line in usual[-1][1])


@pytest.mark.parametrize("name", TASKS)
def test_the_models_overflow_for_this_patient_only(tmp_path: Path, name: str) -> None:
    federation = NodeFederation(tmp_path / "federation", changes={"task_kinds": KINDS})
    federation.put_records(HOST, USUAL + OVERFLOWING)
    node = federation.restart(HOST)
    study = Study.model_validate(study_fields(federation.documents.agreed, **_fields(name)))
    assignment = node.parts.tasks.prepared(study).assignment
    model = np.frombuffer(overflowing_model(study), "<f8")
    with np.errstate(all="ignore"):
        outputs = assignment.trainer.outputs(assignment.cohort, model)
    assert (~np.isfinite(outputs[:, 0])).tolist() == [False] * 80 + [True]
    federation.close()


def raising_mutant(inner: Callable[..., Any]) -> Callable[..., Any]:
    """Return a mutant that a careless check would be: refuse values that are not finite."""

    def mutant(vectors: Any, *rest: Any, **named: Any) -> Any:
        if not np.isfinite(vectors).all():
            raise ValueError("a gradient is not finite")
        return inner(vectors, *rest, **named)

    return mutant


def logging_mutant(inner: Callable[..., Any]) -> Callable[..., Any]:
    """Return a mutant that a helpful programmer could write: report it in the log."""

    def mutant(vectors: Any, *rest: Any, **named: Any) -> Any:
        if not np.isfinite(vectors).all():
            logging.getLogger("pratique.node").warning("a gradient was not finite")
        return inner(vectors, *rest, **named)

    return mutant


@pytest.mark.parametrize("careless", [raising_mutant, logging_mutant])
def test_what_a_careless_node_reveals_is_detected(
    tmp_path: Path,
    usual: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    careless: Callable[[Callable[..., Any]], Callable[..., Any]],
) -> None:
    """Every patient overflows, so that the sample holds one."""
    everybody = NEIGHBOURS["everybody overflows"]
    monkeypatch.setattr(trainers, "round_contributions", careless(rounding.round_contributions))
    with pytest.raises((AssertionError, Refusal)):
        assert whole_traffic(tmp_path / "federation", everybody, QUICK) == usual


def test_a_decline_for_few_patients_reads_like_one_for_records_that_cannot_be_read(
    tmp_path: Path,
) -> None:
    """Refusals that depend on records read `declined`, with the same delay and length."""
    events = []
    for number, data in enumerate(
        [identical_patients(3), HEADER + "p1,60,M\n", HEADER + "p1,sixty,M,0\n"]
    ):
        federation = NodeFederation(tmp_path / str(number))
        federation.put_records(HOST, data)
        lines: list[Any] = []
        host = observe(federation, HOST, lines)
        federation.nodes[HOST] = host.node
        reply = host.handle(federation.run(federation.approved()).request("bundle", HOST))
        assert code_of(reply) is ReasonCode.DECLINED
        events.append(lines)
        federation.close()
    assert events[0] == events[1] == events[2]


def test_replies_without_a_slot_read_no_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Set-up after the bundle, agreeing and answering work while the records are unreadable."""
    federation = NodeFederation(tmp_path / "federation")
    study = federation.approved()
    run, node = federation.run(study), federation.nodes[HOST]

    def handled(frame: bytes) -> bytes:
        with monkeypatch.context() as patch:
            patch.setattr(RecordStore, "records", out_of_reach)
            patch.setattr(PreparedTasks, "prepared", out_of_reach)
            return node.handle(frame)

    for country in run.terms.roster:
        reply = federation.nodes[country].handle(run.request("bundle", country))
        run.take("bundle", country, reply)
    assert code_of(handled(run.request("bundle", HOST))) is None, "the same bytes again"
    for step in ("encapsulation", "confirmation"):
        for country in run.terms.roster:
            frame = run.request(step, country)
            reply = handled(frame) if country == HOST else federation.nodes[country].handle(frame)
            run.take(step, country, reply)
    round_ = run.coordinator.begin_round(1, "histogram", b"")
    among = [country for country in run.terms.roster if country != ABSENT]
    for country in among:
        reply = federation.nodes[country].handle(round_.contribute_request(country))
        round_.take_contribution(country, reply)
    round_.close()
    for country in among:
        frame = round_.agree_request(country)
        reply = handled(frame) if country == HOST else federation.nodes[country].handle(frame)
        round_.take_assent(country, reply)
    assert code_of(handled(round_.answer_request(HOST))) is None
    federation.close()


def out_of_reach(*_: object) -> None:
    raise AssertionError("the records were read")


def test_a_slot_depends_on_the_clock_and_the_frame_only() -> None:
    """The code has no access to the reply, the cohort or the admission."""
    assert list(inspect.signature(ReplySlots.wait).parameters) == ["self", "arrived", "run_phase"]
    assert list(inspect.signature(RequestHandler._wait_for_slot).parameters) == [
        "self",
        "frame",
        "arrived",
    ]
    names = set(ReplySlots.__init__.__code__.co_names) | set(ReplySlots.wait.__code__.co_names)
    assert names == {"monotonic", "_seconds", "_sleep", "_longest", "_longest_slot", "_remember"}
    used = set(RequestHandler._wait_for_slot.__code__.co_names)
    assert used == {"_readable", "phase", "PHASE_BUNDLE", "PHASE_CONTRIBUTE"} | {
        "_slots",
        "wait",
        "body",
        "run_id",
        "hex",
    }
