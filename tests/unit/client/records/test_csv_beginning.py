from pathlib import Path

import pytest

from client.errors import ContentFault
from client.records.csv_beginning import Beginning, read_beginning
from client.records.dictionary import DataDictionary


def dictionary(**changes: object) -> DataDictionary:
    feature = {"name": "age", "type": "numeric", "bounds": [0, 120]}
    fields = {"dictionary": 1, "title": "t", "patient": "id", "features": [feature]}
    return DataDictionary.model_validate(fields | changes)


def begins(*lines: str, **changes: object) -> Beginning:
    return read_beginning(Path("f.csv"), [f"{line}\n" for line in lines], dictionary(**changes))


def fault(*lines: str, **changes: object) -> ContentFault:
    with pytest.raises(ContentFault) as caught:
        begins(*lines, **changes)
    assert caught.value.fix
    return caught.value


def test_columns_are_found_by_name_and_the_others_may_be_anything() -> None:
    assert begins(",id,,AGE,age,\udcff", "x") == Beginning(
        6, {"age": 4, "id": 1}, ",id,,AGE,age,\udcff\n"
    )


def test_a_header_may_have_several_lines() -> None:
    assert begins('id,"a', 'b",age', "1,2,3").text == 'id,"a\nb",age\n'


def test_names_are_compared_in_one_unicode_form() -> None:
    feature = {"name": "height", "column": "Gr\u00f6\u00dfe", "type": "boolean"}
    assert begins("id,Gro\u0308\u00dfe", features=[feature]).positions["Gr\u00f6\u00dfe"] == 1


def test_without_a_header_the_dictionary_names_the_columns() -> None:
    headless = {"header": False, "columns": ["age", "id"]}
    assert begins("34,a", **headless) == Beginning(2, {"age": 0, "id": 1}, "")
    assert begins("x", "34,a", skip=1, **headless).text == "x\n"


@pytest.mark.parametrize(
    ("lines", "changes", "why", "fix"),
    [
        ((), {}, "the file is empty", "export"),
        (("x",), {"skip": 2}, "it ends before line 3", "export"),
        (("",), {}, "its first line is empty", "correct `column`"),
        (('id,"age',), {}, "line 1, the header, is not CSV", "correct the header"),
        (("id\tage",), {}, "it has `id\\u{9}age`", '`delimiter: "\\t"`'),
        (("sep=;", "id;age"), {}, "its first line says that the delimiter is `;`", "delimiter"),
        (("id,Age",), {}, "no column `age`", "`Age` differs"),
        (("id,\u200bage",), {}, "it has `id`, `\\u{200b}age`", "correct `column`"),
        (("id,\udce4ge",), {}, "no column `age`", "`encoding: windows-1252`"),
        (("x", "", "id,age"), {}, "no column `age`, `id`", "set `skip: 2`"),
        (("id,age,id",), {}, "the column `id` more than once: columns 1, 3", "rename"),
    ],
)
def test_another_header_is_refused_with_what_would_help(
    lines: tuple[str, ...], changes: dict[str, object], why: str, fix: str
) -> None:
    problem = fault(*lines, **changes)
    assert why in problem.why
    assert fix in problem.fix
