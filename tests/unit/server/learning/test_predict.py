import os
from pathlib import Path

import numpy as np
import pytest

from protocols.tasks import Family, TrainGlm
from protocols.tasks.baselines import CountryBaselines
from protocols.tasks.by_country import country_feature
from protocols.tasks.training import sigmoid
from server.errors import CoordinatorFault
from server.learning.predict import Predictions, predict_file
from tests.support.patients import AGE, FEATURES, ILL, columns, glm, mlp, module

HEADER = "name,age,sex,smoker,sugar"
MODEL = np.array([0.5, 1.0, 0.25, -0.25, 0.5, 0.0, 2.0])


def scored(
    folder: Path, text: str, task: TrainGlm | None = None, model: np.ndarray = MODEL
) -> tuple[tuple[str, ...], list[list[str]]]:
    path = folder / "new.csv"
    path.write_text(text, encoding="utf-8", newline="")
    predictions = predict_file(task or glm(), FEATURES, model, path)
    return predictions.header, predictions.rows


def fault(folder: Path, text: str) -> CoordinatorFault:
    with pytest.raises(CoordinatorFault) as caught:
        scored(folder, text)
    assert caught.value.fix
    return caught.value


def test_probabilities_follow_the_model(tmp_path: Path) -> None:
    header, rows = scored(tmp_path, f"{HEADER}\nAnna,60,female,true,200\nBo,40,male,?,\n")
    assert header == ("ill",)
    anna = 0.5 + 1.0 + 0.25 + 0.5 + 0.0
    bo = 0.5 - 1.0 - 0.25 + 0.0 + 2.0  # sugar is missing
    expected = sigmoid(np.array([anna, bo]))
    assert [float(row[0]) for row in rows] == pytest.approx(expected, abs=1e-6)


def test_values_beyond_the_bounds_are_clipped_like_in_training(tmp_path: Path) -> None:
    _, rows = scored(tmp_path, f"{HEADER}\n,100,male,no,400\n,5000,male,no,9e9\n")
    assert rows[0] == rows[1]


def test_a_patient_the_study_would_exclude_gets_an_empty_cell_in_place(tmp_path: Path) -> None:
    _, rows = scored(tmp_path, f"{HEADER}\n,60,male,no,1\n,,male,no,1\n,60,?,no,1\n,50,male,no,1\n")
    assert [row == [""] for row in rows] == [False, True, True, False]


def test_columns_may_be_in_any_order_and_others_are_ignored(tmp_path: Path) -> None:
    text = "sugar,x,smoker,sex,age\n200,=cmd|calc,true,female,60\n"
    first = scored(tmp_path, text)
    assert first == scored(tmp_path, f"{HEADER}\nAnna,60,female,true,200\n")


def test_a_number_is_predicted_in_its_unit(tmp_path: Path) -> None:
    header, rows = scored(tmp_path, f"{HEADER}\n,50,male,no,1\n", glm(Family.LINEAR), np.zeros(7))
    assert header == ("pressure",)
    assert rows == [["140"]]


def test_a_category_gives_the_top_level_and_every_probability(tmp_path: Path) -> None:
    model = np.zeros(21)
    model[14] = 2.0  # bias of `severe`
    header, rows = scored(tmp_path, f"{HEADER}\n,50,male,no,1\n", glm(Family.MULTINOMIAL), model)
    assert header == ("stage", "stage=none", "stage=mild", "stage=severe")
    assert rows[0][0] == "severe"
    assert sum(float(cell) for cell in rows[0][1:]) == pytest.approx(1, abs=1e-5)


def test_a_file_without_rows_gives_none(tmp_path: Path) -> None:
    assert scored(tmp_path, f"{HEADER}\n") == (("ill",), [])


@pytest.mark.parametrize(
    ("cell", "why"),
    [
        ("old,male,no,1", "column `age`"),
        ("60,M,no,1", "column `sex`"),
        ("60,male,perhaps,1", "column `smoker`"),
        ('60,male,no,"1,5"', "column `sugar`"),
    ],
)
def test_a_value_that_cannot_be_read_names_line_and_column(
    tmp_path: Path, cell: str, why: str
) -> None:
    problem = fault(tmp_path, f"{HEADER}\nAnna,60,male,no,1\nBo,{cell}\n")
    assert f"line 3, {why}" in problem.what
    assert "expected" in problem.why


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "the file is empty"),
        ("age,sex,smoker\n", "no column `sugar`; it has `age`, `sex`, `smoker`"),
        ("age,sex,smoker,Sugar\n", "no column `sugar`; it has `age`, `sex`, `smoker`, `Sugar`"),
        ('age,sex,smoker,"sugar\n(mg)"\n', "it has `age`, `sex`, `smoker`, `sugar\\u{a}(mg)`"),
        ("age,age,sex,smoker,sugar\n", "these columns more than once: age"),
        (f"{HEADER}\nAnna,60\n", "line 2: 5 columns are expected, and the line has 2"),
        (f"{HEADER}\nA,6,male,no,1\nA,6,male,no,2,5\n", "line 3: 5 columns are expected"),
        (f"{HEADER}\nA,6,male,no,1,\n", "line 2: 5 columns are expected, and the line has 6"),
        (f"{HEADER}\nA,6,male,no,1\n\nB,7,male,no,1\n", "line 3 is empty"),
        (f"{HEADER}\r\n,,,,\r\nB,7,male,no,1\r\n", "line 2 is empty"),
        (f'{HEADER}\nAnna,60,"male,no,1\n', "line 2: a quoted value has no closing quote"),
    ],
)
def test_a_file_that_cannot_be_scored_says_why(tmp_path: Path, text: str, why: str) -> None:
    assert why in fault(tmp_path, text).why


def test_the_delimiter_of_the_file_is_named(tmp_path: Path) -> None:
    assert "this file seems to use `;`" in fault(tmp_path, HEADER.replace(",", ";") + "\n").fix


@pytest.mark.parametrize("ending", ["\n\n", "\n,,,,\n , ,,,\n", "\r\n\r\n", "\r\r", ""])
def test_empty_lines_at_the_end_are_nobody(tmp_path: Path, ending: str) -> None:
    _, rows = scored(tmp_path, f"\ufeff{HEADER}\nA,60,male,no,1{ending}")
    assert len(rows) == 1


def test_values_beyond_the_bounds_are_named_by_line(tmp_path: Path) -> None:
    path = tmp_path / "new.csv"
    path.write_text(f'{HEADER}\n"two\nlines",-1,male,no,1\nA,5,male,no,9e9\nB,500,male,?,9e9\n')
    notes = predict_file(glm(), FEATURES, MODEL, path).notes
    assert [note.partition(":")[0] for note in notes] == ["column `age`", "column `sugar`"]
    assert notes[0].endswith("(lines 3, 5)")
    assert "2 values are beyond the study's bounds" in notes[1]
    path.write_text(f"{HEADER}\n")
    assert "no rows" in predict_file(glm(), FEATURES, MODEL, path).notes[0]


def test_files_that_cannot_be_opened_or_decoded_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CoordinatorFault, match="No such file"):
        predict_file(glm(), FEATURES, MODEL, tmp_path / "absent.csv")
    (tmp_path / "latin.csv").write_bytes(HEADER.encode() + b"\n\xff,1,male,no,1\n")
    with pytest.raises(CoordinatorFault, match="Line 2, byte 1: the byte 0xFF is not UTF-8"):
        predict_file(glm(), FEATURES, MODEL, tmp_path / "latin.csv")


def test_scoring_agrees_with_the_encoding_of_training(tmp_path: Path) -> None:
    data = columns(50, seed=4)
    levels = ("female", "male")
    lines = [
        ",".join(
            (
                "x",
                repr(float(data["age"][n])),
                levels[int(data["sex"][n])],
                "" if np.isnan(data["smoker"][n]) else str(int(data["smoker"][n])),
                "" if np.isnan(data["sugar"][n]) else repr(float(data["sugar"][n])),
            )
        )
        for n in range(50)
    ]
    _, rows = scored(tmp_path, os.linesep.join((HEADER, *lines)))
    expected = glm().predict(FEATURES, MODEL, glm().rows(FEATURES, data))[:, 0]
    assert [float(row[0]) for row in rows] == pytest.approx(expected, abs=1e-5)


def test_a_perceptron_scores_without_torch(tmp_path: Path) -> None:
    task = mlp(hidden=(2,))
    model = np.zeros(task.dimension(FEATURES))
    (first, _), (last, shift) = task.layers(FEATURES, model)
    first[0, 0], last[0, 0], shift[0] = 1.0, 3.0, -1.0
    path = tmp_path / "new.csv"
    path.write_text(f"{HEADER}\nAnna,60,female,true,200\nBo,40,male,?,\n", encoding="utf-8")
    predictions = predict_file(task, FEATURES, model, path)
    assert predictions.header == ("ill",)
    assert [float(row[0]) for row in predictions.rows] == pytest.approx(
        sigmoid(np.array([2.0, -1.0])), abs=1e-6
    )


def test_a_registered_module_is_applied_where_it_is_installed(tmp_path: Path) -> None:
    task = module()
    path = tmp_path / "new.csv"
    path.write_text(f"{HEADER}\n", encoding="utf-8")
    with pytest.raises(CoordinatorFault, match="cannot be applied here") as caught:
        predict_file(task, FEATURES, task.initial(FEATURES), path)
    assert "load model.safetensors into the module" in caught.value.fix


class TestByCountry:
    """The model: a bias, age, and an intercept of DK, EE and NO; EE took part in no round."""

    FEATURES = (AGE, ILL, country_feature(("DK", "EE", "NO")))
    TASK = glm(inputs=("age", "country"), by_country=True)
    MODEL = np.array([0.5, 1.0, 2.0, 9.0, -1.0])
    BASELINES = CountryBaselines(countries=("DK", "NO"))

    def predicted(self, folder: Path, text: str) -> Predictions:
        path = folder / "new.csv"
        path.write_text(text, encoding="utf-8")
        return predict_file(self.TASK, self.FEATURES, self.MODEL, path, baselines=self.BASELINES)

    def test_each_country_has_its_own_and_others_the_mean(self, tmp_path: Path) -> None:
        text = "age,country\n50,DK\n50,NO\n50,\n50,FR\n50,EE\n,FR\n"
        predictions = self.predicted(tmp_path, text)
        *rows, excluded = predictions.rows
        expected = sigmoid(np.array([2.5, -0.5, 1.0, 1.0, 1.0]))
        assert [float(row[0]) for row in rows] == pytest.approx(expected, abs=1e-6)
        assert excluded == [""]
        empty, france, estonia = predictions.notes
        assert "it is empty, so the model uses the mean of the intercepts of DK, NO" in empty
        assert "not trained in `FR`" in france
        assert "2 rows, lines 5, 7" in france
        assert "not trained in `EE`" in estonia

    def test_a_text_that_is_no_country_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(CoordinatorFault, match="line 3, column `country`: 'denmark'"):
            self.predicted(tmp_path, "age,country\n50,DK\n50,denmark\n")

    def test_a_file_without_the_column_or_without_rows(self, tmp_path: Path) -> None:
        with pytest.raises(CoordinatorFault, match="no column `country`"):
            self.predicted(tmp_path, "age\n50\n")
        assert self.predicted(tmp_path, "age,country\n").rows == []
