"""The lines that `status` prints about a real node."""

import pytest

from client.state.decision_log import Subject
from client.status.summary import LinkStatus
from client.status.text import status_lines
from governance.documents.study import Study
from governance.runtime.cli_support import say
from governance.runtime.safe_text import is_plain
from protocols.errors import ReasonCode, Refusal
from tests.support.documents import DAY, raw_key
from tests.support.node_federation import NodeFederation

UP = LinkStatus(connected=True)


def test_the_status_is_printed_in_plain_lines(federation: NodeFederation, study: Study) -> None:
    federation.ready(study).sum(1, "histogram")
    run = federation.run(study, sign=raw_key(9).sign)
    federation.nodes["DK"].handle(run.request("bundle", "DK"))
    text = "\n".join(status_lines(federation.nodes["DK"].status(UP)))
    for words in (
        "Node of DK in nordic-heart",
        "Now: idle, connected",
        'Agreement: "Heart disease across four countries"',
        "Your officer's documents: version",
        "Records: 80 patients",
        "Budget of patients until 2027-01-01: 11.7 % of the budget spent, 88.3 % left",
        "heart-by-sex: permitted",
        "not-authentic: ",
        "Log: pratique/dk/node, ",
    ):
        assert words in text


def test_unknown_facts_are_printed_as_not_known(federation: NodeFederation) -> None:
    node = federation.restart("DK", pinned_root=None)
    text = "\n".join(status_lines(node.status(LinkStatus())))
    assert "Budget: not known until the agreement is here" in text
    assert "Now: waiting for the coordinator: connecting" in text


def test_absent_countries_are_printed(federation: NodeFederation) -> None:
    federation.documents.now += 6 * DAY
    for country in ("DK", "NO", "PT"):
        federation.hand_over(country)
    federation.documents.now += 2 * DAY
    federation.documents.refresh()
    federation.nodes["DK"].sync()
    text = "\n".join(status_lines(federation.nodes["DK"].status(UP)))
    assert "  EE: " in text


def test_control_characters_in_texts_of_others_are_escaped(
    federation: NodeFederation, capsys: pytest.CaptureFixture[str]
) -> None:
    node = federation.nodes["DK"]
    why = "Newer there: country-\x1b[2J\x9b31m\u202e"
    node.parts.decisions.refused(Refusal(ReasonCode.DOCUMENTS_BEHIND, "Behind", why=why), Subject())
    for line in status_lines(node.status(LinkStatus(fault="It said \x1b]0;all is well\x07"))):
        say(line)
    output = capsys.readouterr().out
    assert "Newer there" in output
    assert "all is well" in output
    assert all(is_plain(line) for line in output.split("\n"))


def test_a_refusal_is_printed_as_sentences_with_capitals(federation: NodeFederation) -> None:
    node = federation.nodes["DK"]
    refusal = Refusal(ReasonCode.STALE, "The request is old", why="it was sent", fix="do nothing")
    node.parts.decisions.refused(refusal, Subject())
    (line,) = [line for line in status_lines(node.status(UP)) if "stale" in line]
    assert line.endswith("stale: The request is old. It was sent. To do: do nothing.")
