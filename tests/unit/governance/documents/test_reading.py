"""YAML written by people: what is read, and with which message it is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from governance.documents.agreement import Agreement
from governance.documents.models import MAX_BYTES
from governance.documents.permit import Withdrawal
from governance.documents.reading import read_document, read_file
from governance.documents.study import Study
from governance.documents.yaml_text import DEEPEST
from governance.errors import DocumentFault
from tests.support.documents import agreement, agreement_fields, study_fields

AGREED = agreement()

WITHDRAWAL = f"""\
kind: withdrawal
country: NO
study: sha256:{"a" * 64}
reason: New advice of the board.
issued: 2026-09-01T12:00:00Z
"""

STUDY = f"""\
id: heart-by-sex
title: Heart disease by sex
question: How many patients have heart disease?
agreement: {AGREED.digest}
purpose:
  ehds: 53-1-e
  purpose_of_use: DSRCH
  sentence: To plan a larger study.
legal_basis: GDPR Art. 9(2)(j)
population: {{register: patients}}
data_categories: [ehr]
countries: [NO, DK, SE]
features:
  - name: age
    type: numeric
    bounds: [0, 120]
  - name: disease
    type: boolean
task:
  kind: train/glm
  family: logistic
  target: disease
  rounds: 20
  learning_rate: 5e-1
  patients: 4000
  patients_bound: 20000
privacy: {{epsilon: 1, delta: 1e-5}}
recipients: [Regional institute]
release: {{what: model, keep_days: 30, audience: the parties}}
created: 2026-08-20
expires: 2026-12-31
"""


def read(text: str, kind: Any = Withdrawal) -> Any:
    return read_document(kind, text.encode(), "paper.yaml")


def why(text: str | bytes, kind: Any = Withdrawal) -> str:
    with pytest.raises(DocumentFault) as caught:
        read_document(kind, text if isinstance(text, bytes) else text.encode(), "paper.yaml")
    assert caught.value.what == "The file paper.yaml cannot be used"
    assert caught.value.fix
    return caught.value.why


def without(text: str, line: str) -> str:
    return "".join(f"{each}\n" for each in text.splitlines() if not each.startswith(line))


def test_norway_is_a_country_and_not_false() -> None:
    assert read(WITHDRAWAL).country == "NO"


def test_a_whole_study_is_read_with_numbers_as_people_write_them() -> None:
    parsed = read(STUDY, Study)
    assert parsed.countries == ("DK", "NO", "SE")
    assert parsed.privacy.delta == 1e-5
    assert parsed.task.learning_rate == 0.5
    assert parsed.created.isoformat() == "2026-08-20T00:00:00+00:00"


def test_json_is_read_as_well() -> None:
    fields = agreement_fields()
    assert read(json.dumps(fields), Agreement) == agreement()


def test_plain_yaml_of_the_fields_gives_the_same_document() -> None:
    fields = study_fields(AGREED)
    assert read(yaml.safe_dump(fields), Study) == Study.model_validate(fields)


def test_a_missing_field_is_named() -> None:
    assert (
        why(without(WITHDRAWAL, "reason"))
        == "line 1, column 1, reason: this field is missing; add it"
    )


def test_a_missing_inner_field_is_named_at_its_place() -> None:
    text = STUDY.replace("  target: disease\n", "")
    assert why(text, Study) == "line 19, column 1, task.target: this field is missing; add it"


def test_a_misspelt_field_gets_the_nearest_name() -> None:
    text = WITHDRAWAL.replace("reason:", "raeson:")
    lines = why(text).splitlines()
    assert "line 4, column 1, raeson: there is no such field here; did you mean reason?" in lines


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "  target:",
            "  traget:",
            "task.traget: there is no such field here; did you mean target?",
        ),
        (
            "    bounds:",
            "    bound:",
            "features[0].bound: there is no such field here; did you mean",
        ),
        (
            "epsilon:",
            "epsilom:",
            "privacy.epsilom: there is no such field here; did you mean epsilon?",
        ),
    ],
)
def test_a_misspelt_inner_field_gets_the_nearest_name(old: str, new: str, expected: str) -> None:
    assert expected in why(STUDY.replace(old, new), Study)


def test_a_list_with_problems_in_it_is_not_also_called_too_short() -> None:
    reason = why(STUDY.replace("[ehr]", "[her]"), Study)
    assert "data_categories[0]" in reason
    assert "expected at least" not in reason


def test_a_field_similar_to_no_other_gets_the_list() -> None:
    assert "known fields are country, issued, kind, reason, schema, study" in why(
        WITHDRAWAL + "zzzz: 1\n"
    )


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("epsilon: 1", "epsilon: -1", "privacy.epsilon: expected a number above 0, found -1"),
        ("epsilon: 1", "epsilon: one", "privacy.epsilon: expected a number, found 'one'"),
        ("epsilon: 1", "epsilon: .inf", "privacy.epsilon: expected a number, found '.inf'"),
        ("rounds: 20", "rounds: 2.5", "task.rounds: expected a whole number, or auto, found 2.5"),
        ("rounds: 20", "rounds: '20'", "task.rounds: expected a whole number, or auto, found '20'"),
        (
            "rounds: 20",
            "rounds: 0x14",
            "task.rounds: expected a whole number, or auto, found '0x14'",
        ),
        ("rounds: 20", "rounds: 020", "task.rounds: expected a whole number, or auto, found '020'"),
        ("id: heart-by-sex", "id: Heart", "id: expected lower-case letters, digits and hyphens"),
        ("id: heart-by-sex", "id: true", "id: expected text, found true"),
        ("id: heart-by-sex", "id:", "id: expected text, found nothing"),
        ("[ehr]", "ehr", "data_categories: expected a list, found 'ehr'"),
        ("[ehr]", "[]", "data_categories: expected at least 1 of them, found 0"),
        (
            "[ehr]",
            "[her]",
            "data_categories[0]: 'her' is not an EHDS Art. 51 category; did you mean",
        ),
        (
            "[NO, DK, SE]",
            "[NO, UK]",
            "countries[1]: 'UK' is no country code of ISO 3166-1 (two capitals, such as DK)",
        ),
        ("DSRCH", "DSRC", "purpose.purpose_of_use: 'DSRC' is not an HL7 PurposeOfUse code; did"),
        ("train/glm", "train/glmm", "task.kind: expected one of 'train/glm', 'train/mlp'"),
        ("  kind: train/glm\n", "", "task: the field `kind` is missing; add it"),
        ("2026-12-31", "31.12.2026", "expires: expected a date such as 2026-12-31T23:59:59Z"),
        ("2026-12-31", "2026-12-31T10:00:00", "expires: must have a time zone"),
        ("what: model", "what: weights", "release.what: expected 'model' or 'table'"),
        (
            "    bounds: [0, 120]\n",
            "",
            "features[0]: feature `age`: a numeric feature needs public",
        ),
        ("target: disease", "target: age", "A logistic model cannot have the numeric target"),
        ("sha256:", "sha512:", "agreement: expected a digest: sha256: and 64 hexadecimal digits"),
    ],
)
def test_each_problem_has_a_clear_message_with_its_field(old: str, new: str, expected: str) -> None:
    assert old in STUDY
    assert expected in why(STUDY.replace(old, new), Study)


def test_the_line_is_that_of_the_field() -> None:
    text = STUDY.replace("epsilon: 1", "epsilon: -1")
    line = next(n for n, each in enumerate(text.splitlines(), 1) if "epsilon" in each)
    assert why(text, Study).startswith(f"line {line}, column 11, privacy.epsilon")


def test_all_problems_are_reported_at_once() -> None:
    text = STUDY.replace("rounds: 20", "rounds: 0").replace("[ehr]", "[]").replace("NO,", "N,")
    assert len(why(text, Study).splitlines()) == 3


def test_a_long_wrong_value_is_cut() -> None:
    reason = why(WITHDRAWAL.replace("NO", "[" + ", ".join(["x"] * 200) + "]"))
    assert "country: expected text, found a list" in reason
    assert len(why(STUDY.replace("rounds: 20", f"rounds: {'z' * 500}"), Study)) < 200


def test_hidden_characters_do_not_reach_the_terminal() -> None:
    reason = why(WITHDRAWAL.replace("NO", '"\\e[2J"'))
    assert "\x1b" not in reason


def test_a_feature_with_the_word_no_as_a_level() -> None:
    text = STUDY.replace("type: boolean", "type: categorical\n    levels: [yes, no]")
    parsed = read(text.replace("logistic", "multinomial"), Study)
    assert parsed.features[1].levels == ("yes", "no")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "expected fields"),
        ("just words", "expected fields"),
        ("- a\n- b\n", "expected fields"),
        ("a: [1\n", "the YAML is not well formed"),
        ("a: b: c\n", "line 1, column 5: the YAML is not well formed"),
        ("a: 1\n\tb: 2\n", "line 2, column 1: a tab is here; write blanks instead"),
        ("a: 1\na: 2\n", "line 2, column 1: the field a is here twice"),
        ("a: {b: 1, b: 2}\n", "line 1, column 11: the field b is here twice"),
        ("1: a\n", "line 1, column 1, 1: there is no such field here"),
        ("null: a\n", "line 1, column 1: `null` is read as nothing; write it in quotes"),
        ("true: a\n", "`true` is read as true; write it in quotes"),
        ("? a: 1\n: b\n", "a field's name must be text"),
        ("%YAML 1.1\n---\na: 1\n", "directives (%) are not allowed"),
        ("a: b\u2028c: d\n", "line 1, column 5: the character U+2028 is not allowed"),
        ("[a]: b\n", "a field's name must be text"),
        ("a: &x 1\nb: *x\n", "line 1, column 4: anchors (&) and aliases (*) are not allowed"),
        ("a: &x {b: *x}\n", "anchors (&) and aliases (*) are not allowed"),
        ("a: !!python/object/apply:os.system ['true']\n", "tags (!) are not allowed"),
        ("a: !!binary aGk=\n", "tags (!) are not allowed"),
        ("a: !thing 1\n", "tags (!) are not allowed"),
        ("a: 1\n---\nb: 2\n", "only one document"),
        ("a: " + "[" * 40 + "]" * 40, "nested too deeply"),
        ("a: [" + "1," * 30_000 + "1]", "contains too many values"),
        ("kind: permit\n", "it is a permit, not a withdrawal"),
    ],
)
def test_unsupported_yaml_is_refused(text: str, expected: str) -> None:
    assert expected in why(text)


def test_merge_keys_do_not_merge() -> None:
    assert "<<" in why("<<: {country: NO}\n" + without(WITHDRAWAL, "country"))


def test_nesting_up_to_the_limit_is_read_and_refused_as_a_document() -> None:
    deep = "a: " + "[" * (DEEPEST - 1) + "]" * (DEEPEST - 1)
    assert "no such field" in why(deep)


def test_nested_aliases_are_refused_before_they_expand() -> None:
    levels = [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 9)]
    assert "anchors" in why("\n".join(["l0: &l0 [lol]", *levels]))


def test_size_and_encoding_are_checked_first() -> None:
    assert "larger than 256 kB" in why(b"a: " + b"x" * MAX_BYTES)
    assert "line 2, byte 9: the byte 0xFC is not UTF-8" in why(b"#\nreason: \xfc\n")
    assert why(b"reason: \x00\n") == "line 1, column 9: the character U+0000 is not allowed"


def test_unreasonably_large_numbers_are_refused() -> None:
    assert "found '9" in why(STUDY.replace("rounds: 20", "rounds: " + "9" * 5_000), Study)
    assert "expected" in why(STUDY.replace("epsilon: 1", "epsilon: 1e999"), Study)


def test_a_file_is_read_by_name(tmp_path: Path) -> None:
    path = tmp_path / "no.yaml"
    path.write_text(WITHDRAWAL)
    assert read_file(Withdrawal, path).country == "NO"
    path.write_text("reason: 1\n")
    with pytest.raises(DocumentFault, match=r"no\.yaml cannot be used"):
        read_file(Withdrawal, path)


def test_a_missing_or_too_large_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DocumentFault) as caught:
        read_file(Withdrawal, tmp_path / "absent.yaml")
    assert "No such file" in caught.value.why
    (tmp_path / "large.yaml").write_bytes(b"#" * (MAX_BYTES + 10))
    with pytest.raises(DocumentFault, match="larger than"):
        read_file(Withdrawal, tmp_path / "large.yaml")


def test_many_problems_are_cut_short() -> None:
    text = WITHDRAWAL + "".join(f"extra{n}: 1\n" for n in range(40))
    lines = why(text).splitlines()
    assert len(lines) == 21
    assert lines[-1] == "and 20 more"
