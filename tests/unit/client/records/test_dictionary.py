import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from client.errors import RecordFault
from client.records.dictionary import (
    LARGEST_DICTIONARY,
    DataDictionary,
    Entry,
    normal_code,
    read_dictionary,
)

GOOD = """
dictionary: 1
title: A clinic
missing: ["", "?"]
patient: id
features:
  - {name: age, type: numeric, unit: years, bounds: [0, 120], missing: [999]}
  - {name: sex, type: categorical, codes: {1: male, 2: female}}
  - {name: smoker, type: boolean}
  - {name: ill, column: grade, type: boolean, true_above: 0}
  - {name: silent, column: pain, type: boolean, codes: {4: true, 2: false, 1: false}}
  - {name: treated, type: boolean, codes: {J: true, N: false}}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "dictionary.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def good(tmp_path: Path) -> DataDictionary:
    return read_dictionary(write(tmp_path, GOOD))


def entry(dictionary: DataDictionary, name: str) -> Entry:
    return next(each for each in dictionary.features if each.name == name)


def fault(tmp_path: Path, text: str) -> RecordFault:
    with pytest.raises(RecordFault) as caught:
        read_dictionary(write(tmp_path, text))
    assert caught.value.fix
    return caught.value


def good_with(path: tuple[Any, ...], value: Any) -> str:
    document = yaml.safe_load(GOOD)
    parent = document
    for step in path[:-1]:
        parent = parent[step]
    if value is None:
        del parent[path[-1]]
    else:
        parent[path[-1]] = value
    return yaml.safe_dump(document)


def test_a_dictionary_lists_the_features_that_the_node_offers(tmp_path: Path) -> None:
    offered = good(tmp_path).recorded()
    assert list(offered) == ["age", "sex", "smoker", "ill", "silent", "treated"]
    assert offered["age"].bounds == (0, 120)
    assert offered["age"].unit == "years"
    assert offered["sex"].levels == ("male", "female")


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("age", "63", 63.0),
        ("age", " 63.5 ", 63.5),
        ("age", "999", math.nan),
        ("age", "999.0", math.nan),
        ("age", "?", math.nan),
        ("sex", "1", 0.0),
        ("sex", "2.0", 1.0),
        ("smoker", "yes", 1.0),
        ("smoker", "0.0", 0.0),
        ("smoker", "", math.nan),
        ("ill", "0", 0.0),
        ("ill", "3", 1.0),
        ("silent", "4.0", 1.0),
        ("silent", "2", 0.0),
        ("treated", "J", 1.0),
        ("treated", "N", 0.0),
    ],
)
def test_values_are_read_as_declared(tmp_path: Path, name: str, text: str, value: float) -> None:
    dictionary = good(tmp_path)
    number = dictionary.value(entry(dictionary, name), text)
    assert number == value or (math.isnan(number) and math.isnan(value))


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("age", "old", "expected a number"),
        ("age", "6,5", "with a point and not a comma"),
        ("sex", "3", "expected one of the codes 1, 2"),
        ("smoker", "maybe", "expected true or false"),
        ("ill", "x", "expected a number"),
        ("treated", "j", "expected one of the codes J, N"),
    ],
)
def test_a_value_that_the_dictionary_does_not_explain_is_an_error(
    tmp_path: Path, name: str, text: str, expected: str
) -> None:
    dictionary = good(tmp_path)
    with pytest.raises(ValueError, match=expected):
        dictionary.value(entry(dictionary, name), text)


@pytest.mark.parametrize(
    ("code", "normal"),
    [("1.0", "1"), ("01", "01"), (" 7 ", "7"), ("1.50", "1.50"), ("-9.", "-9"), ("A.0", "A.0")],
)
def test_whole_numbers_are_one_code_however_written(code: str, normal: str) -> None:
    assert normal_code(code) == normal


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (("features", 0, "bounds"), None, "feature `age`: a numeric feature needs public bounds"),
        (
            ("features", 0, "bounds"),
            [9, 1],
            "feature `age`: bounds [9, 1]: the smaller comes first",
        ),
        (("features", 0, "bounds"), [5, 5], "feature `age`: bounds [5, 5]: the two must differ"),
        (
            ("features", 0, "codes"),
            {"1": "a"},
            "feature `age`: a numeric feature cannot have codes",
        ),
        (("features", 0, "true_above"), 3, "feature `age`: only a boolean feature can have"),
        (("features", 1, "codes"), None, "feature `sex`: a categorical feature needs codes"),
        (("features", 1, "codes"), {"1": "m", "2": "m"}, "needs codes for at least two levels"),
        (
            ("features", 1, "codes"),
            {"1": True, "2": "m"},
            "codes of a categorical feature must mean",
        ),
        (
            ("features", 1, "bounds"),
            [0, 1],
            "feature `sex`: only a numeric feature can have bounds",
        ),
        (
            ("features", 5, "codes"),
            {"J": "yes", "N": "no"},
            "boolean feature must mean true or false",
        ),
        (("features", 3, "codes"), {"1": True}, "use only one of codes, true_above"),
        (("features", 2, "name"), "age", "the feature name age is used twice"),
        (("features", 2, "colour"), "red", "features[2].colour: there is no such field here"),
        (("columns",), ["id"], "use `columns` if `header: false`"),
        (("header",), False, "use `columns` if `header: false`"),
        (("patient",), None, "patient: this field is missing; add it"),
        (("features",), [], "features: expected at least 1 of them, found 0"),
        (("dictionary",), 2, "dictionary: expected 1, found 2"),
        (("delimiter",), "::", "delimiter: expected ',', ';', '\\t' or '|', found '::'"),
        (("missing",), [True], "write this code in quotes"),
    ],
)
def test_an_inconsistent_dictionary_names_the_place(
    tmp_path: Path, path: tuple[Any, ...], value: Any, says: str
) -> None:
    problem = fault(tmp_path, good_with(path, value))
    assert "cannot be used" in problem.what
    assert says in problem.why


def test_columns_must_name_every_column_that_is_read() -> None:
    document = yaml.safe_load(GOOD) | {"header": False, "columns": ["id", "age", "sex"]}
    with pytest.raises(
        ValidationError, match="`columns` does not contain grade, pain, smoker, treated"
    ):
        DataDictionary.model_validate(document)
    document["columns"] = ["id", "id"]
    with pytest.raises(ValidationError, match="contains a name twice"):
        DataDictionary.model_validate(document)


@pytest.mark.parametrize("key", ["null", "~", "true", "False"])
def test_a_code_that_yaml_reads_as_something_else_is_reported(tmp_path: Path, key: str) -> None:
    text = GOOD.replace("{1: male, 2: female}", f"{{{key}: male, 2: female}}")
    assert "write it in quotes" in fault(tmp_path, text).why


def test_a_problem_in_the_dictionary_names_its_line(tmp_path: Path) -> None:
    text = GOOD.replace("title:", "titel:")
    why = fault(tmp_path, text).why
    line = 1 + text[: text.index("titel:")].count("\n")
    assert "title: this field is missing; add it" in why
    assert f"line {line}, column 1, titel: there is no such field here; did you mean title?" in why


def test_a_dictionary_that_is_no_mapping_is_described_without_python_terms(tmp_path: Path) -> None:
    assert (
        fault(tmp_path, "[1, 2]").why == "expected fields, each written `name: value`, found a list"
    )


def test_an_alias_to_itself_is_reported_in_finite_time(tmp_path: Path) -> None:
    assert fault(tmp_path, "title: &a [*a]\ncolour: red\n").why


def test_broken_yaml_names_line_and_column(tmp_path: Path) -> None:
    problem = fault(tmp_path, "dictionary: 1\ntitle: [unclosed\npatient: id\n")
    assert "cannot be used" in problem.what
    assert "line 3, column 8: the YAML is not well formed: while parsing" in problem.why


@pytest.mark.parametrize(
    "text", ["", "just words", "[1, 2]", "!!python/object/apply:os.system [ls]", "\x00"]
)
def test_yaml_that_is_no_dictionary_is_refused_and_never_executed(
    tmp_path: Path, text: str
) -> None:
    fault(tmp_path, text)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecordFault) as caught:
        read_dictionary(tmp_path / "absent.yaml")
    assert "absent.yaml" in caught.value.what
    assert caught.value.why == "No such file or directory"
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecordFault, match="not UTF-8"):
        read_dictionary(tmp_path / "binary")


def test_a_huge_or_deep_file_is_refused(tmp_path: Path) -> None:
    assert "larger than" in fault(tmp_path, "#" * (LARGEST_DICTIONARY + 1)).why
    fault(tmp_path, "[" * 100_000)


def test_the_digest_depends_on_the_meaning_and_not_the_spelling(tmp_path: Path) -> None:
    first = good(tmp_path).digest()
    assert read_dictionary(write(tmp_path, "# note\n" + GOOD)).digest() == first
    other = read_dictionary(write(tmp_path, GOOD.replace("999", "998")))
    assert other.digest() != first
