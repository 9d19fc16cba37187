"""Targets: results, their models, and rows that a model scores."""

import json
import math
from functools import cache, partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
from safetensors.numpy import save

from governance.results.result import (
    MODEL_FILE,
    RESULT_FILE,
    Result,
    _weights,
    read_result,
    write_result,
)
from governance.runtime.text_layout import broken
from protocols.tasks import CountPatients, Family
from protocols.tasks.baselines import CountryBaselines
from protocols.tasks.by_country import country_feature
from server.commands import result as result_commands
from server.learning.optimiser import OptimiserState
from server.learning.predict import predict_file
from tests.fuzz.target import (
    WIDTH,
    Seeds,
    Target,
    file,
    require_seen,
    scratch,
)
from tests.support.documents import raw_key
from tests.support.patients import FEATURES, glm
from tests.support.results import made_result

KEY = raw_key(5)
WEIGHTS = {Family.LOGISTIC: 7, Family.LINEAR: 7, Family.MULTINOMIAL: 21}


def _predictions(family: Family, path: Path) -> None:
    """Score rows: one line for each row that is not empty, and every figure is finite."""
    weights = np.linspace(-1, 1, WEIGHTS[family])
    predicted = predict_file(glm(family), FEATURES, weights, path)
    require_seen(*(line for note in predicted.notes for line in broken(note, WIDTH)))
    for row in predicted.rows:
        assert len(row) == len(predicted.header)
        figures = row[1:] if family is Family.MULTINOMIAL else row
        assert all(figure == "" or math.isfinite(float(figure)) for figure in figures)


BASELINES = CountryBaselines(countries=("DK", "NO"))
BY_COUNTRY = glm(inputs=("age", "country"), by_country=True)
DECLARED = (*FEATURES, country_feature(("DK", "EE", "NO")))


def _predictions_by_country(path: Path) -> None:
    """Score rows of any country: every figure is finite, and each note can be shown."""
    weights = np.linspace(-1, 1, 5)
    predicted = predict_file(BY_COUNTRY, DECLARED, weights, path, baselines=BASELINES)
    require_seen(*(line for note in predicted.notes for line in broken(note, WIDTH)))
    assert all(cell == "" or math.isfinite(float(cell)) for (cell,) in predicted.rows)


ROWS_BY_COUNTRY = (b"age,country\n60,DK\n40,\n,EE\n50,?\n", b"country,age\r\nFR,60\r\n")
ROWS = (
    b"name,age,sex,smoker,sugar\nAnna,60,female,true,200\nBo,40,male,?,\n",
    b'\xef\xbb\xbfsugar,x,smoker,sex,age\r\n200,"a\r\n""b""",true,female,60\r\n,,no,male,5e1\r\n',
)


def _result_fields(**changes: object) -> Result:
    three: dict[str, object] = {
        "countries": ("DK", "EE", "NO"),
        "rounds_opened": {3: 9, 2: 1},
        "left_out": {"NO": 1},
        "roster_size": 3,
        "honest": 2,
        "cohort_count": {"epsilon": 1.0, "delta": 1e-5},
    }
    return made_result(KEY.public, **(three | changes))


@cache
def _signed_results() -> Seeds:
    interval = {"value": 0.8, "low": 0.7, "high": 0.9}
    group = {"group": "all", "patients": interval, "auc": interval, "accuracy": None}
    evaluation = {"everybody": group, "subgroups": [{**group, "group": "sex=female"}]}
    shown = {"labels": ["female"], "count": 4, "low": 1, "high": 7, "suppressed": False}
    absent: dict[str, object] = {
        "labels": [],
        "count": None,
        "low": None,
        "high": None,
        "suppressed": True,
    }
    counted = {
        "task": CountPatients(patients_bound=10),
        "table": {"groupings": ["sex"], "cells": [shown, absent]},
        "coordinates": (),
    }
    by_country = {"task": BY_COUNTRY, "features": DECLARED, "baselines": BASELINES}
    folder = scratch() / "written"
    signed = (
        write_result(folder, _result_fields(**each), KEY.sign)
        for each in ({"evaluation": evaluation}, counted, by_country)
    )
    return tuple(
        json.dumps(each.model_dump(mode="json"), ensure_ascii=False).encode() for each in signed
    )


def _result(data: bytes) -> None:
    """Read a result: one that is accepted was signed, and can be shown."""
    folder = _result_folder(data)
    shown = read_result(folder, (KEY.public,))
    assert shown.signing_hash() in {
        Result.model_validate_json(s).signing_hash() for s in _signed_results()
    }
    _show(shown)


def _signed_result(data: bytes) -> None:
    """Read a result that the coordinator signed, whatever is in it: it can be shown, or is refused.

    A signature says who wrote the result, and not that its figures are figures.
    """
    try:
        written = json.loads(data)
        written["signer"], written["signature"] = KEY.public.to_text(), ""
        parsed = Result.model_validate(written)
    except (ValueError, TypeError, KeyError, RecursionError):
        _result_folder(data)
        read_result(scratch() / "result", (KEY.public,))
        return
    signed = {**written, "signature": KEY.sign(parsed.signing_hash()).hex()}
    _show(read_result(_result_folder(json.dumps(signed).encode()), (KEY.public,)))


def _result_folder(data: bytes) -> Path:
    folder = scratch() / "result"
    folder.mkdir(exist_ok=True)
    (folder / RESULT_FILE).write_bytes(data)
    return folder


def _show(shown: Result) -> None:
    """Print a result as `result show` does; each line has characters that a reader sees."""
    lines: list[str] = []
    with patch.object(result_commands, "say", lambda line: lines.extend(broken(line, WIDTH))):
        result_commands._print(shown)
    require_seen(*lines)


def _model(data: bytes) -> None:
    """Read a model's file: it has the parts of the study's model, and no other."""
    weights = _weights(data, glm().tensors(FEATURES), scratch())
    assert weights.shape == (7,)


def _models() -> Seeds:
    folder = scratch() / "model"
    write_result(folder, _result_fields(), KEY.sign, np.linspace(-1, 1, 7))
    return (folder / MODEL_FILE).read_bytes(), save({"weights": np.zeros(3)})


def _optimiser(data: bytes) -> None:
    state = OptimiserState.from_bytes(data)
    assert state.to_bytes() == data


RESULT_TARGETS: dict[str, Target] = {
    **{
        f"rows to predict, {family.value}": Target(
            file(partial(_predictions, family)),
            ROWS,
            ("server/learning/predict.py", "protocols/tasks/features.py"),
        )
        for family in Family
    },
    "rows to predict, by country": Target(
        file(_predictions_by_country),
        ROWS_BY_COUNTRY,
        ("server/learning/predict.py", "server/learning/unseen_countries.py"),
    ),
    "result": Target(_result, _signed_results, ("governance/results/result.py",)),
    "signed result": Target(
        _signed_result,
        _signed_results,
        ("governance/results/result.py", "governance/results/figures_format.py"),
    ),
    "model of a result": Target(_model, _models, ("governance/results/result.py",)),
    "state of the optimiser": Target(
        _optimiser,
        lambda: (OptimiserState.start(np.zeros(2)).to_bytes(),),
        ("server/learning/optimiser.py",),
    ),
}
