import io
import json

import pytest

from governance.officer.errors import OfficerFault
from governance.officer.terminal import Terminal
from governance.runtime.cli_support import print_error
from governance.runtime.safe_text import HIDDEN
from keys.errors import PratiqueError


def test_sentences_have_no_markup_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    terminal = Terminal()
    terminal.heading("A heading")
    terminal.say("[bold]not markup[/bold] :smile: " + "long " * 50)
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "[bold]not markup[/bold] :smile: " + ("long " * 50).rstrip() in out


def test_facts_are_in_columns(capsys: pytest.CaptureFixture[str]) -> None:
    Terminal().facts({"one": "first", "longer name": "second"})
    assert capsys.readouterr().out == "  one          first\n  longer name  second\n"


def test_tables_have_headings(capsys: pytest.CaptureFixture[str]) -> None:
    Terminal().table(("entry", "time"), [("0", "noon"), ("12", "")])
    assert capsys.readouterr().out == "entry  time\n0      noon\n12\n"


def test_a_table_without_rows_shows_its_headings(capsys: pytest.CaptureFixture[str]) -> None:
    Terminal().table(("entry", "time"), [])
    assert capsys.readouterr().out == "entry  time\n"


def test_json_output_has_nothing_but_the_answer(capsys: pytest.CaptureFixture[str]) -> None:
    terminal = Terminal(as_json=True)
    terminal.heading("A heading")
    terminal.facts({"one": "first"})
    terminal.warn("careful")
    terminal.answer({"answer": "ε"})
    streams = capsys.readouterr()
    assert json.loads(streams.out) == {"answer": "ε"}
    assert "first" in streams.err


def test_text_output_has_no_json(capsys: pytest.CaptureFixture[str]) -> None:
    Terminal().answer({"answer": 1})
    assert capsys.readouterr().out == ""


def test_notes_go_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    Terminal().warn("look here")
    assert capsys.readouterr() == ("", "Note: look here\n")


def test_the_yes_option_asks_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    Terminal().confirm("Sign?", yes=True)
    assert capsys.readouterr() == ("", "")


def test_an_unanswered_question_counts_as_no(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    with pytest.raises(OfficerFault) as fault:
        Terminal().confirm("Sign?", yes=False)
    assert fault.value.what == "Nothing was signed"
    assert "--yes" in fault.value.fix


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (PratiqueError("It failed"), "It failed.\n"),
        (
            PratiqueError("It failed", why="the reason.", fix="do this"),
            "It failed.\nThe reason.\nTo do: do this.\n",
        ),
        (PratiqueError("Is it?", why="no!"), "Is it?\nNo!\n"),
        (PratiqueError("No", why="dk/none is a permit"), "No.\ndk/none is a permit.\n"),
    ],
)
def test_an_error_is_three_sentences_on_standard_error(
    fault: PratiqueError, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    print_error(fault)
    assert capsys.readouterr() == ("", expected)


def test_text_of_others_cannot_control_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    hostile = "safe\x1b[2K\x1b[1A\r\u202edeliaf"
    terminal = Terminal()
    terminal.say(f"first\n{hostile}")
    terminal.heading(hostile)
    terminal.facts({hostile: f"{hostile}\nsecond"})
    terminal.table((hostile,), [(hostile,)])
    terminal.labelled([("Label", f"{hostile}\nsecond")])
    terminal.verbatim(f"one\n{hostile}")
    terminal.warn(hostile)
    print_error(PratiqueError(hostile, why=f"one\n{hostile}", fix=hostile))
    out, err = capsys.readouterr()
    assert not HIDDEN.search((out + err).replace("\n", ""))
    assert "first\\u{a}safe" in out
    assert "  | one\n  | safe" in out
    assert "One\n        safe" in err
