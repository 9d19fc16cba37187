import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from governance.budget.composition import LARGER, SUM, calibrate_schedule, schedule_epsilon
from governance.errors import ResultFault
from governance.results import result as module
from governance.results.result import (
    INTEGRITY,
    MODEL_FILE,
    RESULT_FILE,
    CohortCost,
    Result,
    integrity_sentence,
    read_result,
    read_result_file,
    read_weights,
    verified_result,
    write_result,
)
from keys.derive import labelled_hash
from keys.identity import SigningKey
from protocols.numerics.mechanism import Mechanism
from protocols.tasks import CountPatients
from protocols.tasks.baselines import CountryBaselines
from protocols.tasks.by_country import COUNTRY, country_feature
from protocols.tasks.evaluation import Evaluation
from protocols.tasks.layout import Grouping
from protocols.wire.encoding import canonical_json, digest
from tests.support.patients import FEATURES, glm, mlp
from tests.support.results import made_result

KEY, STRANGER = SigningKey.generate(), SigningKey.generate()
WEIGHTS = np.linspace(-1, 1, 7)


def result(**changes: Any) -> Result:
    return made_result(KEY.public, **changes)


def written(folder: Path, **changes: Any) -> Result:
    return write_result(folder, result(**changes), KEY.sign, WEIGHTS)


def test_a_listed_result_may_be_signed_with_a_key_that_was_replaced(tmp_path: Path) -> None:
    written(tmp_path)
    data = read_result_file(tmp_path)
    assert verified_result(data, tmp_path, [STRANGER.public], listed=True).run == "c" * 32
    with pytest.raises(ResultFault, match="not trusted here"):
        verified_result(data, tmp_path, [STRANGER.public])
    with pytest.raises(ResultFault, match="does not verify"):
        verified_result(data.replace(b"Heart disease", b"Heart failure"), tmp_path, [], listed=True)


def refused(folder: Path) -> str:
    with pytest.raises(ResultFault) as caught:
        read_weights(folder, read_result(folder, (KEY.public,)))
    assert caught.value.fix
    return str(caught.value)


def alter(folder: Path, **changes: Any) -> None:
    path = folder / RESULT_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_result_is_read_back_complete(tmp_path: Path) -> None:
    signed = written(tmp_path / "new" / "folder")
    read_back = read_result(tmp_path / "new" / "folder", (STRANGER.public, KEY.public))
    assert read_back == signed
    assert read_back.task == glm()
    assert (read_weights(tmp_path / "new" / "folder", read_back) == WEIGHTS).all()


def test_the_model_file_is_plain_safetensors(tmp_path: Path) -> None:
    written(tmp_path)
    assert load_file(tmp_path / MODEL_FILE)["weights"].tolist() == WEIGHTS.tolist()


def test_a_table_has_no_model(tmp_path: Path) -> None:
    task = CountPatients(patients_bound=10)
    write_result(
        tmp_path, result(task=task, table={"groupings": [], "cells": []}, coordinates=()), KEY.sign
    )
    read_back = read_result(tmp_path, (KEY.public,))
    assert read_back.model is None
    assert not (tmp_path / MODEL_FILE).exists()
    assert "has no model" in refused(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"epsilon": 0.5},
        {"honest": 4},
        {"countries": ["DK"]},
        {"title": "Another"},
        {"evaluation": {"everybody": {"group": "all", "patients": None}, "subgroups": []}},
        {"signature": "00" * 64},
        {"signature": ""},
        {"signature": "not hex"},
        {"documents": {"root": 1, "targets": 2, "countries": {"DK": 4}}},
    ],
)
def test_an_altered_result_does_not_verify(tmp_path: Path, changes: dict[str, Any]) -> None:
    written(tmp_path)
    alter(tmp_path, **changes)
    assert "it was altered" in refused(tmp_path)


def test_a_result_signed_by_somebody_else_is_not_trusted(tmp_path: Path) -> None:
    write_result(tmp_path, result(signer=STRANGER.public.to_text()), STRANGER.sign, WEIGHTS)
    assert "is not trusted here" in refused(tmp_path)
    with pytest.raises(ResultFault):
        read_result(tmp_path, ())


def test_the_name_of_another_signer_does_not_make_a_signature_valid(tmp_path: Path) -> None:
    write_result(tmp_path, result(), STRANGER.sign, WEIGHTS)
    assert "it was altered" in refused(tmp_path)


def test_a_replaced_model_is_detected(tmp_path: Path) -> None:
    written(tmp_path)
    save_file({"weights": WEIGHTS + 1e-12}, tmp_path / MODEL_FILE)
    assert "is not the model" in refused(tmp_path)


@pytest.mark.parametrize("weights", [np.zeros(8), np.zeros((7, 1)), np.zeros(7, dtype=np.float32)])
def test_a_model_of_another_shape_is_refused(tmp_path: Path, weights: np.ndarray) -> None:
    written(tmp_path)
    save_file({"weights": weights}, tmp_path / MODEL_FILE)
    stored = digest((tmp_path / MODEL_FILE).read_bytes())
    signed = result(model=stored).signed(KEY.sign)
    (tmp_path / RESULT_FILE).write_text(json.dumps(signed.model_dump(mode="json")))
    assert "other parts" in refused(tmp_path)


@pytest.mark.parametrize("data", [b"", b"junk" * 100])
def test_a_model_file_of_arbitrary_bytes_is_refused(tmp_path: Path, data: bytes) -> None:
    written(tmp_path)
    (tmp_path / MODEL_FILE).write_bytes(data)
    signed = result(model=digest(data)).signed(KEY.sign)
    (tmp_path / RESULT_FILE).write_text(json.dumps(signed.model_dump(mode="json")))
    assert "contains no weights" in refused(tmp_path)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"kind": "result"}', "\x00"])
def test_a_file_that_is_no_result_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / RESULT_FILE).write_text(text)
    assert "not in the form of a result" in refused(tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert "result.json cannot be read" in refused(tmp_path)
    written(tmp_path)
    (tmp_path / MODEL_FILE).unlink()
    assert "model.safetensors cannot be read" in refused(tmp_path)


def test_a_huge_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path)
    monkeypatch.setattr(module, "LARGEST_FILE", 10)
    assert "larger than 10 bytes" in refused(tmp_path)


def test_the_statement_says_n_h_c_epsilon_and_delta() -> None:
    statement = result().statement
    for part in ("ε = 0.998", "δ = 0.0001", "n = 4", "h = 3", "c = 1", "evaluation included"):
        assert part in statement


def test_only_a_result_with_an_evaluation_says_that_its_cost_is_included() -> None:
    for task in (CountPatients(patients_bound=10), glm(evaluation=None)):
        statement = result(task=task, coordinates=()).statement
        assert "over this run of the study, against the coordinator" in statement


def by_country_task(**changes: Any) -> dict[str, Any]:
    """Return the fields of a result of a training with `by_country`, and of its features."""
    features = (*FEATURES, country_feature(("DK", "EE", "NO")))
    baselines = CountryBaselines(countries=("DK", "EE", "NO"))
    task = glm(by_country=True, inputs=("age", COUNTRY), **changes)
    return {"task": task, "features": features, "baselines": baselines}


def test_figures_by_country_are_not_called_sums_over_countries() -> None:
    over = {"figures_over": ("DK", "EE", "NO"), "coordinates": ()}
    table = CountPatients(patients_bound=10, by_country=True, strata=(Grouping(feature=COUNTRY),))
    subgroup = Evaluation(subgroup=Grouping(feature=COUNTRY))
    fields = by_country_task()
    of_table = result(**over | {"task": table, "features": fields["features"]})
    of_subgroups = result(**over, **by_country_task(evaluation=subgroup))
    for each in (of_table, of_subgroups):
        assert "The figures are from DK, EE, NO: those by country are each from one country" in (
            each.statement
        )
        assert "figures are sums" not in each.statement
    assert "The figures are sums over DK, EE, NO." in result(**over, **fields).statement


def test_the_integrity_sentence_is_true_of_a_study_by_country() -> None:
    assert integrity_sentence(glm()) == INTEGRITY
    by_country = integrity_sentence(by_country_task()["task"])
    assert "A dishonest country can spoil this result" in by_country
    assert "masks hide" not in by_country
    assert "nobody can find wrong numbers" not in by_country
    assert "noticed only in the parts by country" in by_country


def test_the_statement_of_local_mode_says_whose_noise_training_relies_on() -> None:
    statement = result(task=glm(local={"steps": 5})).statement
    for part in (
        "ε = 0.998",
        "n = 4",
        "h = 3",
        "c = 1",
        "Local mode: ",
        "its own noise alone",
        "(h=1)",
    ):
        assert part in statement
    assert "1.73 times less noise" in statement
    assert "ocal mode" not in result().statement


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ({}, ""),
        ({"figures_over": ("DK", "EE", "NO")}, "The figures are sums over DK, EE, NO."),
        ({"rounds_opened": {4: 9}}, "Rounds of training: 9 over 4 countries."),
        (
            {"rounds_opened": {4: 9, 3: 2}, "left_out": {"EE": 7, "PT": 1}},
            "9 over 4 countries and 2 over 3 countries. Left out: EE in 7 rounds, PT in 1 round.",
        ),
    ],
)
def test_the_statement_says_which_countries_are_in_each_figure(
    tmp_path: Path, part: dict[str, Any], said: str
) -> None:
    written(tmp_path, **part)
    statement = read_result(tmp_path, (KEY.public,)).statement
    assert statement.endswith(said or "honest contributions.")
    assert statement.count(said) == 1 or not said


def test_a_result_that_an_earlier_release_signed_still_verifies(tmp_path: Path) -> None:
    """It did not state, and so did not sign, which countries are in which figure."""
    written(tmp_path)
    body = json.loads((tmp_path / RESULT_FILE).read_text())
    for unknown in ("figures_over", "rounds_opened", "left_out", "signature"):
        del body[unknown]
    body["signature"] = KEY.sign(labelled_hash(module.LABEL, canonical_json(body))).hex()
    (tmp_path / RESULT_FILE).write_text(json.dumps(body))
    assert read_result(tmp_path, (KEY.public,)).countries == ("DK", "EE", "NO", "PT")
    alter(tmp_path, left_out={"PT": 3})
    assert "altered" in refused(tmp_path)


def test_a_network_is_written_with_the_names_of_its_parts(tmp_path: Path) -> None:
    task = mlp(hidden=(4,))
    weights = task.initial(FEATURES) + 0.25
    network_result = result(task=task, coordinates=())
    write_result(tmp_path, network_result, KEY.sign, weights)
    parts = load_file(tmp_path / MODEL_FILE)
    assert {name: part.shape for name, part in parts.items()} == {
        "layer0.weight": (4, 6),
        "layer0.bias": (4,),
        "layer1.weight": (1, 4),
        "layer1.bias": (1,),
    }
    weights_read = read_weights(tmp_path, read_result(tmp_path, (KEY.public,)))
    assert np.array_equal(weights_read, weights)


def test_a_network_without_one_of_its_parts_is_refused(tmp_path: Path) -> None:
    task = mlp(hidden=(4,))
    write_result(tmp_path, result(task=task), KEY.sign, task.initial(FEATURES))
    parts = load_file(tmp_path / MODEL_FILE)
    del parts["layer0.bias"]
    save_file(parts, tmp_path / MODEL_FILE)
    stored = digest((tmp_path / MODEL_FILE).read_bytes())
    signed = result(task=task, model=stored).signed(KEY.sign)
    (tmp_path / RESULT_FILE).write_text(json.dumps(signed.model_dump(mode="json")))
    assert "other parts" in refused(tmp_path)


BY_COUNTRY: dict[str, Any] = {
    "task": glm(inputs=("age", "country"), by_country=True),
    "features": (*FEATURES, country_feature(("DK", "EE"))),
}


def test_the_statement_of_a_study_by_country_says_what_was_visible() -> None:
    baselines = CountryBaselines(countries=("DK", "EE"))
    statement = result(**BY_COUNTRY, baselines=baselines).statement
    assert "Each country's own sum was visible to the coordinator, with noise only" in statement
    assert "own sum" not in result().statement


def test_baselines_are_part_of_what_is_signed(tmp_path: Path) -> None:
    written(tmp_path)
    assert "baselines" not in json.loads((tmp_path / RESULT_FILE).read_text())
    baselines = CountryBaselines(countries=("DK", "EE"))
    signed = result(**BY_COUNTRY, baselines=baselines).signed(KEY.sign)
    (tmp_path / RESULT_FILE).write_text(signed.model_dump_json())
    assert read_result(tmp_path, (KEY.public,)).baselines == baselines
    alter(tmp_path, baselines={"countries": ["DK"], "otherwise": "mean-of-countries"})
    assert "altered" in refused(tmp_path)
    alter(tmp_path, baselines={"countries": ["FR"], "otherwise": "mean-of-countries"})
    assert "the feature country has no level FR" in refused(tmp_path)


def priced(accounting: int = LARGER, *, counted: bool = True) -> dict[str, Any]:
    """Return the fields of a result that say what it costs; `counted`: its count is in its ε."""
    templates, fractions = glm().schedule(FEATURES), glm().cost_fractions()
    first = 0 if counted else 1
    terms = accounting, 3, 1.0, 1e-4
    mechanisms = calibrate_schedule(templates[first:], fractions[first:], *terms)
    return {
        "mechanisms": mechanisms,
        "accounting": accounting,
        "epsilon": schedule_epsilon(mechanisms, accounting, 3, 1e-4),
        "cohort_count": None if counted else CohortCost(epsilon=0.5, delta=1e-6),
    }


@pytest.mark.parametrize("accounting", [SUM, LARGER])
@pytest.mark.parametrize("counted", [True, False])
def test_epsilon_can_be_computed_again_from_a_result(
    tmp_path: Path, accounting: int, counted: bool
) -> None:
    written(tmp_path, **priced(accounting, counted=counted))
    assert read_result(tmp_path, (KEY.public,)).require_cost()


def test_a_result_that_relies_on_more_countries_than_were_asked_is_refused() -> None:
    with pytest.raises(ResultFault, match="more countries than there were"):
        result(**priced() | {"honest": 4}).require_cost()


def test_a_result_that_states_less_than_it_costs_is_refused() -> None:
    fields = priced()
    with pytest.raises(ResultFault, match="less than its releases cost"):
        result(**fields | {"epsilon": fields["epsilon"] * 0.999}).require_cost()
    with pytest.raises(ResultFault, match="less than its releases cost"):
        result(**fields | {"accounting": SUM}).require_cost()
    with pytest.raises(ResultFault, match="less than its releases cost"):
        result(**fields | {"honest": 2}).require_cost()


def dropped(mechanisms: tuple[Mechanism, ...]) -> tuple[Mechanism, ...]:
    return mechanisms[:-1]


def fewer_rounds(mechanisms: tuple[Mechanism, ...]) -> tuple[Mechanism, ...]:
    return tuple(m.model_copy(update={"rounds": 1}) for m in mechanisms)


@pytest.mark.parametrize("change", [dropped, fewer_rounds])
def test_a_schedule_of_another_task_is_refused(change: Any) -> None:
    fields = priced()
    with pytest.raises(ResultFault, match="not that of its task"):
        result(**fields | {"mechanisms": change(fields["mechanisms"])}).require_cost()


def test_a_result_of_an_earlier_version_has_no_schedule_to_compare(tmp_path: Path) -> None:
    assert not written(tmp_path, epsilon=1e-9).require_cost()
    path = tmp_path / RESULT_FILE
    body = json.loads(path.read_text())
    for name in ("mechanisms", "accounting", "signature"):
        del body[name]
    signature = KEY.sign(labelled_hash(module.LABEL, canonical_json(body))).hex()
    path.write_text(json.dumps(body | {"signature": signature}))
    assert not read_result(tmp_path, (KEY.public,)).require_cost()
