"""The demo's output fits a narrow terminal and keeps its columns."""

import pytest

from demo.story import WIDTH, Story


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


def test_everything_stays_within_the_width(capsys: pytest.CaptureFixture[str]) -> None:
    story = Story()
    story.section("An act with a title")
    story.say("word " * 60)
    story.command("each officer", "pratique-officer " + "argument " * 30)
    story.quote("  name of a fact    " + "value " * 40 + "\n" + "x" * 300)
    printed = lines(capsys)
    assert len(printed) > 12
    assert max(map(len, printed)) <= WIDTH


def test_a_long_value_is_folded_under_its_column(capsys: pytest.CaptureFixture[str]) -> None:
    Story().quote("Features      " + "feature " * 20)
    first, *rest = (line.removeprefix("    │ ") for line in lines(capsys))
    assert first.startswith("Features      feature")
    assert rest
    assert all(line.startswith(" " * 14 + "feature") for line in rest)


def test_acts_are_numbered(capsys: pytest.CaptureFixture[str]) -> None:
    story = Story()
    story.section("One")
    story.section("Another")
    heads = [line for line in lines(capsys) if line]
    assert heads[0].startswith("1. One ─")
    assert heads[1].startswith("2. Another ─")


def test_a_long_answer_is_marked_as_cut(capsys: pytest.CaptureFixture[str]) -> None:
    Story().quote("\n".join(map(str, range(10))), most=4)
    assert lines(capsys)[-1].strip() == "│ … 6 more lines"


def test_columns_of_a_table_are_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    Story().table(("model", "AUC"), [("pooled records", "0.826"), ("released", "0.8")])
    head, rule, *body = lines(capsys)
    assert len({len(line) for line in (head, rule, *body)}) == 1
    assert body[1].endswith("  0.8")


def test_nothing_is_coloured_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    Story().section("Plain")
    assert "\x1b" not in capsys.readouterr().out
