"""Drafts: what a person may leave open becomes a number, and everything else a clear error."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from governance.documents.study import Study
from governance.errors import DocumentFault
from protocols.tasks import Training
from protocols.tasks.step_size import RULE, choose_rate, rounds_sentence
from server.errors import CoordinatorFault
from server.services.drafts import CompletedDraft, open_settings, preliminary, read_draft
from server.services.study_checks import complete
from tests.support.documents import agreement, study_fields, training_fields

AGREED = agreement()
ABSENT = object()


def draft(*, mechanisms: Any = (), **task: Any) -> dict[str, Any]:
    """Return the fields of a training study; a setting that is ABSENT is left out."""
    fields = study_fields(AGREED, **training_fields(**{"rounds": 12, **task}))
    fields["task"] = {name: value for name, value in fields["task"].items() if value is not ABSENT}
    return {**fields, "mechanisms": list(mechanisms)}


def read(fields: Mapping[str, Any]) -> CompletedDraft:
    text = json.dumps(fields, default=lambda model: model.model_dump(mode="json"))
    return read_draft(text, "study.yaml", {}, lambda study: complete(study, AGREED))


def rate_of(study: Study) -> float:
    assert isinstance(study.task, Training)
    return study.task.learning_rate


@pytest.mark.parametrize("written", ["auto", ABSENT])
def test_a_learning_rate_that_is_left_open_is_chosen_from_the_noise(written: object) -> None:
    done = read(draft(learning_rate=written))
    study = done.study
    assert isinstance(study.task, Training)
    train = next(m for m in study.mechanisms if m.phase == "train")
    size = choose_rate(study.task, study.features, train, len(study.countries))
    assert rate_of(study) == size.rate < RULE.largest_rate
    assert done.chosen == (size.sentence(),)
    assert f"learning rate {size.rate:g}, chosen from the noise" in done.chosen[0]


def test_a_number_is_kept_and_nothing_is_said() -> None:
    done = read(draft(learning_rate=0.25))
    assert rate_of(done.study) == 0.25
    assert done.chosen == ()


def test_the_completed_study_is_an_ordinary_one_without_a_word_about_the_choice() -> None:
    study = read(draft(learning_rate="auto", rounds="auto")).study
    assert Study.from_canonical(study.canonical()) == study
    assert b"auto" not in study.canonical()
    again = draft(learning_rate=rate_of(study), rounds=study.task.rounds)  # type: ignore[union-attr]
    assert read(again).study.digest == study.digest


def test_less_privacy_gives_larger_steps_or_more_rounds() -> None:
    rates, rounds = [], []
    for epsilon in (0.1, 5.0):
        fields = draft(learning_rate="auto") | {"privacy": {"epsilon": epsilon, "delta": 1e-5}}
        rates.append(rate_of(read(fields).study))
        fields["task"]["rounds"] = "auto"
        rounds.append(read(fields).study.mechanisms[1].rounds)
    assert rates == sorted(rates)
    assert rounds == sorted(rounds)
    assert rounds[0] == RULE.fewest_rounds < rounds[-1]


def test_rounds_that_are_chosen_are_those_of_the_schedule_and_are_stated() -> None:
    done = read(draft(rounds="auto"))
    study = done.study
    assert isinstance(study.task, Training)
    assert study.schedule_matches_task
    assert done.chosen == (rounds_sentence(study.task.rounds),)
    assert rate_of(study) == 1.0


def test_mechanisms_of_the_draft_are_used_as_they_are() -> None:
    given = read(draft(learning_rate=0.5)).study.mechanisms
    louder = [m.model_copy(update={"noise_std": 2 * m.noise_std}) for m in given]
    quiet, loud = (read(draft(mechanisms=m, learning_rate="auto")).study for m in (given, louder))
    assert loud.mechanisms == tuple(louder)
    assert rate_of(loud) == pytest.approx(rate_of(quiet) / 2, rel=0.01)


def test_in_local_mode_the_noise_of_each_step_counts() -> None:
    shared = read(draft(learning_rate="auto", rounds=12)).study
    local = read(draft(learning_rate="auto", rounds=4, local={"steps": 3})).study
    assert rate_of(local) < rate_of(shared), "each country adds all of the noise"
    assert local.schedule_matches_task


def test_rounds_beside_mechanisms_are_refused() -> None:
    given = read(draft(learning_rate=0.5)).study.mechanisms
    with pytest.raises(CoordinatorFault, match="`rounds: auto` and states `mechanisms`") as fault:
        read(draft(mechanisms=given, rounds="auto"))
    assert "write that number" in fault.value.fix


def test_rounds_in_local_mode_are_refused() -> None:
    with pytest.raises(CoordinatorFault, match="trains in local mode") as fault:
        read(draft(rounds="auto", local={"steps": 3}))
    assert "such as 8" in fault.value.fix


def test_mechanisms_without_a_training_release_are_refused() -> None:
    given = read(draft(learning_rate=0.5)).study.mechanisms
    names = {"train": "count"}
    other = [m.model_copy(update={"phase": names.get(m.phase, m.phase)}) for m in given]
    with pytest.raises(CoordinatorFault, match="have no release 'train'") as fault:
        read(draft(mechanisms=other, learning_rate="auto"))
    assert "write a number" in fault.value.fix


@pytest.mark.parametrize("value", ["Auto", "automatic", "", [], {}, None, True, ["auto"]])
@pytest.mark.parametrize(
    ("name", "expected"),
    [("learning_rate", "a number, or auto"), ("rounds", "a whole number, or auto")],
)
def test_any_other_value_is_refused_with_what_is_expected(
    name: str, expected: str, value: Any
) -> None:
    with pytest.raises(DocumentFault, match="cannot be used") as fault:
        read(draft(**{name: value}))
    assert f"task.{name}: expected {expected}, found" in fault.value.why


@pytest.mark.parametrize(("name", "value"), [("learning_rate", 0), ("rounds", 10_001)])
def test_a_number_out_of_range_is_refused(name: str, value: float) -> None:
    with pytest.raises(DocumentFault, match="cannot be used") as fault:
        read(draft(**{name: value}))
    assert f"task.{name}: expected a number" in fault.value.why


def test_rounds_that_are_left_out_stay_an_error() -> None:
    with pytest.raises(DocumentFault) as fault:
        read(draft(rounds=ABSENT))
    assert "task.rounds: this field is missing; add it" in fault.value.why


def test_a_table_has_no_learning_rate() -> None:
    fields = study_fields(AGREED)
    assert read(fields).chosen == ()
    fields["task"] = {**fields["task"], "learning_rate": "auto"}
    with pytest.raises(DocumentFault) as fault:
        read(fields)
    assert "task.learning_rate: there is no such field here" in fault.value.why


@pytest.mark.parametrize("task", ["auto", None, ["auto"], 3])
def test_a_task_that_is_no_group_of_fields_is_refused(task: Any) -> None:
    with pytest.raises(DocumentFault, match="cannot be used"):
        read(draft() | {"task": task})


def test_preliminary_numbers_are_for_open_settings_only() -> None:
    task = {"kind": "train/glm", "rounds": "auto", "learning_rate": 2.0}
    assert open_settings(task) == {"rounds"}
    assert preliminary(task) == task | {"rounds": RULE.fewest_rounds}
    assert open_settings({"kind": "stats/count"}) == set()


EVALUATED = {"learning_rate": 0.5, "evaluation": {"held_out": 0.3, "prevalence": 0.3}}


def test_a_new_draft_gets_the_accounting_in_which_each_part_has_the_whole_budget() -> None:
    new = read(draft(**EVALUATED)).study
    added = read({**draft(**EVALUATED), "accounting": 1}).study
    assert (new.accounting, added.accounting) == (2, 1)
    assert b'"accounting":2' in new.canonical()
    assert b"accounting" not in added.canonical()
    noise = [{m.phase: m.noise_std for m in each.mechanisms} for each in (new, added)]
    for phase in ("train", "evaluate"):
        assert noise[0][phase] < noise[1][phase]


def test_a_schedule_without_a_word_on_the_accounting_adds_its_costs_as_before() -> None:
    added = read({**draft(**EVALUATED), "accounting": 1}).study
    fields = json.loads(added.canonical())
    assert "accounting" not in fields
    assert read(fields).study.digest == added.digest


def test_a_share_of_the_budget_needs_the_accounting_that_it_divides() -> None:
    shared = {**EVALUATED, "evaluation": {"held_out": 0.3, "share": 0.5}}
    with pytest.raises(DocumentFault, match="accounting: 1"):
        read(draft(**shared))
    assert read({**draft(**shared), "accounting": 1}).study.accounting == 1


def test_what_the_edges_replace_is_said() -> None:
    evaluation = {"edges": [0.1, 0.5], "bins": 4, "prevalence": 0.02}
    done = read(draft(evaluation=evaluation))
    assert done.chosen == (
        "bins of the evaluation: by the draft's `edges`; `bins` and `prevalence` do not count",
    )
    assert read(draft(evaluation={"edges": [0.1, 0.5]})).chosen == ()
    again = done.study.model_dump(mode="json")
    assert read(again).chosen == (), "the program wrote the edges beside the other fields"
