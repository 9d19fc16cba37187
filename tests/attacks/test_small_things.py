"""Small doors: a second budget at a period's end, slow arithmetic, a result that is not one."""

import json
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from typer.testing import CliRunner

from client.status.summary import LinkStatus
from client.tasks.glm import gradients
from governance.documents.study import Study
from governance.results.result import LABEL, RESULT_FILE, write_result
from keys.derive import labelled_hash
from keys.identity import SigningKey
from protocols.errors import ReasonCode
from protocols.numerics.rowwise_products import row_products
from protocols.private_sum.coordinator_round import OpenedSum
from protocols.tasks import Training
from protocols.tasks.layout import vector_to_bytes
from protocols.wire.encoding import canonical_json
from server.cli import app
from server.commands.result import _print
from tests.support.documents import DAY, training_fields, with_schedule
from tests.support.node_federation import NodeFederation, Run, code_of
from tests.unit.governance.results.test_result import result

# The end of a budget period

LAST_DAY = 244
"""Periods of this many days: the first one ends half a day after the federation's clock."""
CAP = {"register": "patients", "period_days": LAST_DAY, "epsilon": 2.0, "delta": 1e-4, "order": 8}
"""A budget for the count of the cohort and one study of two rounds, and not for two studies."""
NOISE_STD = 400
"""So little noise that a study costs more than the count."""


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[NodeFederation]:
    made = NodeFederation(tmp_path / "f", changes={"budget": [CAP]})
    yield made
    made.close()


def two_rounds(federation: NodeFederation, name: str) -> Study:
    fields = training_fields(2, evaluation=None) | {"privacy": {"epsilon": 5.0, "delta": 1e-5}}
    study = federation.study(id=name, **fields)
    return federation.approve(with_schedule(study, NOISE_STD))


def opened(run: Run, study: Study, number: int) -> bool:
    """Return whether a round of a training opened a sum over all countries."""
    assert isinstance(study.task, Training)
    model = vector_to_bytes(study.task.initial(study.features))
    return isinstance(run.sum(number, "train", model), OpenedSum)


def refused_for_budget(federation: NodeFederation, study: Study) -> bool:
    reply = federation.nodes["DK"].handle(federation.run(study).request("bundle", "DK"))
    assert code_of(reply) in (None, ReasonCode.BUDGET)
    return code_of(reply) is not None


def spent(federation: NodeFederation) -> int:
    """Return what DK's status shows as spent in this period."""
    ledger = federation.nodes["DK"].status(LinkStatus()).ledger
    assert ledger is not None
    return ledger.spent_micro


def test_a_run_that_lives_on_leaves_no_second_cap_in_the_next_period(
    federation: NodeFederation,
) -> None:
    """Its next sums are about the same people as the sums that another study would release."""
    study = two_rounds(federation, "lives-on")
    run = federation.ready(study)
    assert opened(run, study, 1)
    federation.later(DAY)
    other = two_rounds(federation, "next-period")
    assert refused_for_budget(federation, other)
    assert opened(run, study, 2), "what is paid for goes on"
    assert refused_for_budget(federation, other), "the run released in this period"
    federation.later(timedelta(days=LAST_DAY))
    federation.sync()
    assert spent(federation) == 0


def test_a_run_that_ended_before_the_period_counts_in_its_own_only(
    federation: NodeFederation,
) -> None:
    study = two_rounds(federation, "ends-before")
    run = federation.ready(study)
    assert opened(run, study, 1)
    assert opened(run, study, 2)
    federation.later(DAY)
    other = two_rounds(federation, "next-period")
    assert opened(federation.ready(other), other, 1)


def test_what_a_run_brings_into_a_period_is_shown_to_the_operator(
    federation: NodeFederation,
) -> None:
    study = two_rounds(federation, "shown")
    assert opened(federation.ready(study), study, 1)
    before = spent(federation)
    federation.later(DAY)
    federation.sync()
    # the count was released in the former period, and does not come along
    assert 0 < spent(federation) < before


# Numbers so small that the processor needs longer for them

TINY = 1e-310
"""A subnormal number: arithmetic with it takes up to a hundred times as long."""


def flushes() -> bool:
    """Return whether this thread treats subnormal numbers as zero, as inputs and as results."""
    results = np.full(9, TINY) * 0.5, np.full(9, 1e-300) * 1e-9, np.exp(np.full(9, -720.0))
    return not any(result.any() for result in results)


@pytest.mark.parametrize("model", [TINY, 1e-200, -TINY])
def test_the_thread_in_which_a_node_computes_flushes_denormals(
    federation: NodeFederation, monkeypatch: pytest.MonkeyPatch, model: float
) -> None:
    """The daemon answers in one thread and prepares in another; both compute through the task."""
    study = two_rounds(federation, "tiny")
    run = federation.ready(study)
    seen: list[bool] = []

    def noting(*given: Any, **named: Any) -> Any:
        seen.append(flushes())
        return gradients(*given, **named)

    monkeypatch.setattr("client.tasks.trainers.gradients", noting)
    assert isinstance(study.task, Training)
    weights = np.full(study.task.dimension(study.features), model)
    asked = run.coordinator.begin_round(1, "train", vector_to_bytes(weights))
    frame = asked.contribute_request("DK")
    replies: list[bytes] = []
    worker = threading.Thread(target=lambda: replies.append(federation.nodes["DK"].handle(frame)))
    worker.start()
    worker.join()
    assert code_of(replies[0]) is None
    assert seen
    assert all(seen)
    assert not flushes(), "outside the task, arithmetic is as it was"


@pytest.mark.parametrize("width", [3, 20_000])
def test_no_product_of_rows_is_subnormal_in_any_thread(width: int) -> None:
    """Wide products use threads of the library, which were started before any setting."""
    rows, matrix = np.full((3, width), TINY), np.full((width, 4), 0.5)
    assert not row_products(rows, matrix).any()
    assert not row_products(matrix[:, 0][None, :], np.full((width, 4), TINY)).any()
    small = np.full((3, width), 2.0**-399)
    assert (row_products(small, np.full((width, 4), 2.0**-399)) >= 2.0**-798).all()


# A result that the coordinator signed, and whose figures are not figures

INTERVAL = {"value": 0.8, "low": 0.7, "high": 0.9}
GROUP = {"group": "everybody", "patients": INTERVAL, "auc": INTERVAL}
GOOD = {"everybody": GROUP, "subgroups": [GROUP | {"auc": None}]}
CELL = {"labels": ["F"], "count": 30, "low": 20, "high": 40, "suppressed": False}
EVALUATIONS: dict[str, object] = {
    "empty": {},
    "no subgroups": {"everybody": GROUP},
    "a group that is a list": GOOD | {"everybody": []},
    "a group without a name": GOOD | {"everybody": {"patients": None}},
    "a name that is a number": GOOD | {"everybody": GROUP | {"group": 5}},
    "a figure without a bound": GOOD | {"everybody": GROUP | {"auc": {"value": 0.8, "low": 0.7}}},
    "a figure that is a text": GOOD | {"everybody": GROUP | {"auc": INTERVAL | {"value": "0.8"}}},
    "a figure that is a list": GOOD | {"everybody": GROUP | {"auc": [0.8]}},
    "a figure that is true": GOOD | {"everybody": GROUP | {"auc": INTERVAL | {"low": True}}},
    "a figure beyond all measure": GOOD | {"everybody": GROUP | {"auc": INTERVAL | {"low": 1e300}}},
    "subgroups that are a text": GOOD | {"subgroups": "everybody"},
    "a subgroup that is none": GOOD | {"subgroups": [None]},
}
TABLES: dict[str, object] = {
    "empty": {},
    "cells that are numbers": {"groupings": [], "cells": [1]},
    "a cell without a count": {"groupings": [], "cells": [{"labels": [], "suppressed": True}]},
    "a count that is none": {"groupings": [], "cells": [CELL | {"count": None}]},
    "a count that is suppressed": {"groupings": [], "cells": [CELL | {"suppressed": True}]},
    "labels that are numbers": {"groupings": [], "cells": [CELL | {"labels": [1]}]},
    "a count that is a fraction": {"groupings": [], "cells": [CELL | {"count": 1.5}]},
}
KEY = SigningKey.generate()


def signed(folder: Path, **fields: object) -> Path:
    """Write a result with these fields, signed by the coordinator's document key."""
    good = write_result(folder, result(signer=KEY.public.to_text()), KEY.sign)
    body = good.model_dump(mode="json") | fields
    del body["signature"]
    signature = KEY.sign(labelled_hash(LABEL, canonical_json(body))).hex()
    (folder / RESULT_FILE).write_text(json.dumps(body | {"signature": signature}))
    return folder


def shown(folder: Path, *options: str) -> Any:
    arguments = ["result", "show", str(folder), "--key", KEY.public.to_text(), *options]
    return CliRunner().invoke(app, arguments)


@pytest.mark.parametrize("options", [(), ("--json",)])
@pytest.mark.parametrize(
    ("field", "value"),
    [("evaluation", value) for value in EVALUATIONS.values()]
    + [("table", value) for value in TABLES.values()],
    ids=[f"evaluation: {name}" for name in EVALUATIONS] + [f"table: {name}" for name in TABLES],
)
def test_a_signed_result_without_figures_is_refused_in_plain_words(
    tmp_path: Path, field: str, value: object, options: tuple[str, ...]
) -> None:
    answer = shown(signed(tmp_path, **{field: value}), *options)
    assert answer.exit_code == 1
    assert "cannot be trusted" in answer.output
    assert "not in the form of a result" in answer.output
    assert "Traceback" not in answer.output
    assert isinstance(answer.exception, SystemExit)


def test_a_signed_result_with_figures_is_shown(tmp_path: Path) -> None:
    table = {"groupings": ["sex"], "cells": [CELL], "noise_std": 3.0, "smallest_cell": 10}
    answer = shown(signed(tmp_path, evaluation=GOOD, table=table))
    assert answer.exit_code == 0, answer.output
    assert "0.800  [0.700, 0.900]" in answer.output
    assert "suppressed (too few patients)" in answer.output
    assert "30  [20, 40]" in answer.output
    assert shown(tmp_path, "--json").exit_code == 0


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["everybody", "subgroups", "group", "patients", "value", "low", "high"])
            | st.text(max_size=3),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(value=json_values, field=st.sampled_from(["evaluation", "table"]))
def test_no_figures_of_any_form_end_in_a_traceback(value: object, field: str) -> None:
    """The check alone, over many values: what it lets pass can be printed."""
    try:
        checked = result(signer=KEY.public.to_text(), **{field: value})
    except ValidationError:
        return
    _print(checked)
