"""What `enrol` and `doctor` print: plain lines, with control characters escaped."""

from pathlib import Path

import pytest

from client.commands.check_result import CheckResult, CheckState
from client.commands.enrol import Introduction
from client.commands.output import print_enrolment, print_introduction, print_result
from client.home import NodeHome

INTRODUCTION = Introduction("nordic-heart", "h:1", "SHA256:a", "sha256:b", "sha256:c")


@pytest.mark.parametrize("as_json", [False, True])
def test_an_introduction_leaves_standard_output_to_json(
    capsys: pytest.CaptureFixture[str], as_json: bool
) -> None:
    print_introduction(INTRODUCTION, as_json=as_json)
    printed = capsys.readouterr()
    text, other = (printed.err, printed.out) if as_json else (printed.out, printed.err)
    assert "Fingerprint of this request: SHA256:a" in text
    assert "Root of the documents: sha256:c" in text
    assert other == ""


@pytest.mark.parametrize(
    ("admitted", "words"), [(True, "The node is admitted."), (False, "waits for approval")]
)
def test_the_result_of_an_enrolment_is_printed(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, admitted: bool, words: str
) -> None:
    print_enrolment(admitted, NodeHome(tmp_path))
    assert words in capsys.readouterr().out


def test_a_check_is_printed_with_its_fix(capsys: pytest.CaptureFixture[str]) -> None:
    print_result(CheckResult("link", CheckState.FAILED, "down \x1b[2J", "call"))
    printed = capsys.readouterr().out
    assert printed.startswith("FAIL  link: down ")
    assert "      to do: call" in printed
    assert "\x1b" not in printed


def test_a_check_without_a_fix_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_result(CheckResult("link", CheckState.GOOD, "answers"))
    assert capsys.readouterr().out == "ok    link: answers\n"
