"""Studies of a few kilobytes that name sizes of any length: of tables, models, rounds and lists.

Each is refused at every place that reads a study: as a draft, as a signed document, by the
coordinator's check, an officer's `show` and a node's gate. Refusing takes neither the time nor the
memory of what the study names.
"""

import json
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from governance.budget.accounting import calibrate
from governance.documents.agreement import Agreement
from governance.documents.models import Document
from governance.documents.reading import read_document
from governance.documents.study import Study
from governance.errors import DocumentFault, LedgerFault
from protocols.errors import ReasonCode, Refusal
from protocols.numerics.mechanism import MAX_COORDINATES, MAX_ROUNDS
from protocols.tasks.schedule import LOCAL_STEP, TRAIN
from protocols.tasks.sizes import MAX_CELLS
from protocols.wire.encoding import canonical_json, digest
from tests.support.coordinator_services import Coordinator
from tests.support.documents import agreement, agreement_fields, study_fields, training_fields
from tests.support.node_federation import NodeFederation

AGREED = agreement()
MOST_SECONDS = 0.05
MOST_BYTES = 8 * 2**20
"""A study of 256 kB, parsed, needs several times its size; the tables here would need gigabytes."""

Fields = dict[str, Any]


def categories(count: int, levels: int) -> list[Fields]:
    """Return categorical features f0, f1, …, each with this many levels."""
    names = [f"{level:x}" for level in range(levels)]
    return [{"name": f"f{n}", "type": "categorical", "levels": names} for n in range(count)]


def asked(task: Fields, *features: Fields, **changes: Any) -> Fields:
    """Return a study's fields with this task and further features."""
    fields = study_fields(AGREED, **changes)
    fields |= {"created": "2026-08-20T00:00:00Z", "expires": "2026-12-31T00:00:00Z"}
    trains = task["kind"].startswith("train/")
    fields["release"] = {**fields["release"], "what": "model" if trains else "table"}
    return fields | {"features": [*fields["features"], *features], "task": task}


def table(count: int, levels: int, kind: str = "stats/histogram") -> Fields:
    """Return a study that counts patients in levels^count strata."""
    strata = [{"feature": f"f{n}"} for n in range(count)]
    of = {"of": {"feature": "disease"}} if kind == "stats/histogram" else {}
    task = {"kind": kind, "strata": strata, "patients_bound": 10_000, **of}
    return asked(task, *categories(count, levels))


def training(*features: Fields, **task: Any) -> Fields:
    """Return a study that trains a model."""
    return asked(training_fields(10)["task"] | task, *features)


def wide(classes: int) -> Fields:
    return {**categories(1, classes)[0], "name": "wide"}


MULTINOMIAL: Fields = {"family": "multinomial", "target": "wide"}
BILLION = 10**9
HUGE: dict[str, Fields] = {
    "60^4 cells": table(4, 60),
    "200^8 cells": table(8, 200),
    "200^8 strata of a count": table(8, 200, "stats/count"),
    "edges": asked(
        {
            "kind": "stats/count",
            "strata": [{"feature": "age", "edges": list(range(500))}] * 8,
            "patients_bound": 10_000,
        }
    ),
    "evaluation bins": training(
        wide(1_000), **MULTINOMIAL, evaluation={"bins": 100, "subgroup": {"feature": "wide"}}
    ),
    "classes and inputs": training(
        wide(1_000), *categories(40, 50), **MULTINOMIAL, evaluation=None
    ),
    "layers": training(kind="train/mlp", hidden=[65_536] * 16),
    "one layer": training(wide(500), kind="train/mlp", hidden=[65_536]),
    "module parts": training(
        kind="train/module",
        module="series-conv",
        version=1,
        parts=[{"name": f"p{n}", "shape": [MAX_COORDINATES] * 4} for n in range(500)],
    ),
    "local steps": training(rounds=10_000, local={"steps": 1_000}),
    "10^9 rounds": training(rounds=BILLION),
    "10^9 rounds in the schedule": table(1, 2)
    | {
        "mechanisms": [
            {
                "phase": "histogram",
                "rounds": BILLION,
                "dimension": 2,
                "clip_norm": 1.0,
                "scale": 128,
                "noise_std": 3_000,
                "patients_bound": 10_000,
            }
        ]
    },
    "10^4000 rounds": training(rounds=10**4_000),
    "10^9 steps": training(local={"steps": BILLION}),
    "10^9 bins": training(evaluation={"bins": BILLION}),
    "10^9 units": training(kind="train/mlp", hidden=[BILLION]),
    "10^12 patients": training(patients_bound=10**12),
    "repeated codes": asked(
        table(1, 2)["task"],
        *categories(1, 2),
        purpose=study_fields(AGREED)["purpose"] | {"duo": ["DUO:0000007"] * 15_000},
    ),
    "wrong codes": asked(
        table(1, 2)["task"], *categories(1, 2), data_categories=["registry"] * 15_000
    ),
    "countries": asked(table(1, 2)["task"], *categories(1, 2), countries=["DK"] * 30_000),
}


def cost(work: Callable[[], object]) -> tuple[float, int]:
    """Return the CPU seconds (the best of three) and the peak bytes of some work."""
    seconds = []
    for _ in range(3):
        began = time.thread_time()
        work()
        seconds.append(time.thread_time() - began)
    tracemalloc.start()
    try:
        work()
        return min(seconds), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def refused(kind: type[Document], data: bytes) -> str:
    """Return why signed bytes are no document; none of them may be one."""
    with pytest.raises(DocumentFault) as fault:
        kind.from_canonical(data)
    return str(fault.value)


@pytest.mark.parametrize("fields", HUGE.values(), ids=HUGE)
def test_a_signed_study_of_any_size_is_refused_at_once(fields: Fields) -> None:
    data = json.dumps(fields).encode()
    assert "canonical form" not in refused(Study, data)  # its sizes are what is wrong with it
    seconds, peak = cost(lambda: refused(Study, data))
    assert seconds < MOST_SECONDS
    assert peak < MOST_BYTES


@pytest.mark.parametrize("name", ["60^4 cells", "200^8 cells", "layers", "module parts"])
def test_a_draft_of_any_size_is_refused_in_words(name: str) -> None:
    with pytest.raises(DocumentFault, match=r"The (table|model) has more than \d+ (cells|weights)"):
        read_document(Study, json.dumps(HUGE[name]).encode(), "study.yaml")


@dataclass(frozen=True)
class Forged:
    """A study as a program of another make signs it: nothing in it was checked."""

    fields: Fields

    @property
    def id(self) -> str:
        return str(self.fields["id"])

    @property
    def agreement(self) -> str:
        return str(self.fields["agreement"])

    @property
    def digest(self) -> str:
        return digest(self.canonical())

    def canonical(self) -> bytes:
        return canonical_json(self.fields)


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeFederation]:
    nodes = NodeFederation(tmp_path_factory.mktemp("sizes") / "federation")
    nodes.approved()
    yield nodes
    nodes.close()


def test_the_coordinator_checks_and_proposes_no_such_study(
    federation: NodeFederation, tmp_path: Path
) -> None:
    coordinator = Coordinator(federation, tmp_path / "coordinator")
    text = json.dumps(HUGE["200^8 cells"])
    for method in ("study_check", "study_propose"):
        with pytest.raises(DocumentFault, match="more than 100000 cells"):
            coordinator.ask(method, text=text, source="study.yaml")


def test_nodes_and_officers_refuse_a_published_one_and_read_the_others(
    federation: NodeFederation,
) -> None:
    agreed = federation.documents.agreed.digest
    forged = Forged({**HUGE["200^8 cells"], "id": "too-large", "agreement": agreed})
    federation.documents.propose(forged)  # type: ignore[arg-type]
    federation.sync()
    view = federation.documents.view()
    assert forged.digest in view.study_files
    assert [study.id for study in view.studies.values()] == [federation.study().id]
    with pytest.raises(DocumentFault, match="more than 100000 cells"):
        view.study(forged.digest)
    terms = replace(federation.terms(federation.study()), study=forged.digest)
    run = federation.run(federation.study(), terms=terms)
    request = run.coordinator.bundle_request("DK")
    seconds, _ = cost(lambda: federation.nodes["DK"].handle(request))
    assert seconds < 10 * MOST_SECONDS  # with the documents, the log and the signature
    reply = federation.nodes["DK"].handle(request)
    with pytest.raises(Refusal) as refusal:
        run.take("bundle", "DK", reply)
    assert refusal.value.code is ReasonCode.UNKNOWN_STUDY


counts = st.integers(1, 10**18)
small = st.integers(2, 40)


@st.composite
def tables(draw: st.DrawFn) -> Fields:
    strata = draw(st.integers(0, 8))
    fields = table(strata, draw(small), draw(st.sampled_from(["stats/count", "stats/histogram"])))
    fields["task"]["patients_bound"] = draw(counts)
    return fields


@st.composite
def trainings(draw: st.DrawFn) -> Fields:
    evaluation = {"bins": 2 * draw(st.integers(2, 60)), "subgroup": {"feature": "wide"}}
    sizes: Fields = {
        "rounds": draw(st.one_of(st.integers(1, 10_000), counts)),
        "patients_bound": draw(counts),
        "local": draw(st.none() | st.fixed_dictionaries({"steps": st.integers(2, 2_000)})),
        "evaluation": draw(st.none() | st.just(evaluation)),
    }
    kind = draw(st.sampled_from(["train/glm", "train/mlp", "train/module"]))
    if kind == "train/mlp":
        sizes["hidden"] = draw(st.lists(st.integers(1, 70_000), min_size=1, max_size=20))
    if kind == "train/module":
        shapes = draw(st.lists(st.lists(counts, min_size=1, max_size=4), min_size=1, max_size=9))
        parts = [{"name": f"p{n}", "shape": shape} for n, shape in enumerate(shapes)]
        sizes |= {"module": "series-conv", "version": 1, "parts": parts}
    target = MULTINOMIAL if draw(st.booleans()) else {}
    features = [wide(draw(small)), *categories(draw(st.integers(0, 30)), draw(small))]
    return training(*features, kind=kind, **sizes, **target)


@given(st.one_of(tables(), trainings()))
def test_a_task_of_any_numbers_is_small_or_refused(fields: Fields) -> None:
    began = time.thread_time()
    try:
        study = Study.model_validate_json(json.dumps(fields), strict=True)
    except ValueError:
        study = None
    releases = study.schedule() if study else ()
    assert time.thread_time() - began < 5 * MOST_SECONDS
    for release in releases:
        trains = release.phase in (TRAIN, LOCAL_STEP)
        assert release.dimension <= (MAX_COORDINATES if trains else MAX_CELLS)
        assert release.rounds <= MAX_ROUNDS


LISTS: dict[str, Fields] = {
    "purposes": {
        "purposes": {
            "allowed": [{"ehds": "53-1-e", "purpose_of_use": ["HRESCH"] * 12_000}],
            "forbidden": agreement_fields()["purposes"]["forbidden"] * 500,
        }
    },
    "wrong purposes": {
        "purposes": {"allowed": [{"ehds": "53-1-e", "purpose_of_use": ["RESEARCH"] * 15_000}]}
    },
    "parties": {"parties": agreement_fields()["parties"] * 200},
    "data categories": {"data_categories": ["ehr"] * 20_000},
    "budgets": {"budget": agreement_fields()["budget"] * 1_000},
    "numbers": {"honest": 10**18, "colluding": 10**18, "smallest_countries": 10**18},
}


@pytest.mark.parametrize("changes", LISTS.values(), ids=LISTS)
def test_an_agreement_of_any_size_is_refused_at_once(changes: Fields) -> None:
    data = json.dumps(AGREED.model_dump(mode="json") | changes).encode()
    assert len(data) < Agreement.most_bytes
    assert cost(lambda: refused(Agreement, data))[0] < MOST_SECONDS


@pytest.mark.parametrize("promise", [1e-12, 1e-100, 5e-324])
def test_an_epsilon_that_no_noise_keeps_is_refused_in_words(promise: float) -> None:
    study = Study.model_validate(table(1, 2))
    with pytest.raises(LedgerFault, match="No noise protects"):
        calibrate(study.schedule(), study.task.cost_fractions(), 2, promise, 1e-20)
