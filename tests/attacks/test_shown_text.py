"""Text of others, on every surface: it shows no unseen character and never looks like our words.

Each text of the attacker consists of words that begin with ATTACK. So a line of output that begins
with one, in a column where a label or a command of ours could begin, is a success of the attack.
"""

import json
import logging
import re
from collections.abc import Callable, Iterator
from functools import cache, partial
from types import SimpleNamespace
from typing import Any, TypeVar

import grpc
import pytest
from pydantic import BaseModel

from client.commands.check_result import CheckResult, CheckState
from client.commands.enrol import Introduction
from client.commands.output import print_introduction, print_result
from client.status.model import NodeStatus
from client.status.text import status_lines
from governance.audit.exported import LogHead
from governance.documents.agreement import Agreement
from governance.documents.permit import Withdrawal
from governance.documents.study import Study
from governance.officer.commands_decide import _show_permit
from governance.officer.commands_read import _list
from governance.officer.commands_sign import show_draft
from governance.officer.decision_rules import decision_on
from governance.officer.enrolment import _introduce
from governance.officer.inbox import Waiting, items
from governance.officer.logs import Source, list_log
from governance.officer.terminal import Terminal
from governance.policy.assessment import Act, Assessment, assess
from governance.policy.explain import explain_study
from governance.results.result import Result
from governance.runtime.cli_support import print_error, say, show
from governance.runtime.logs import LineFormatter
from governance.runtime.safe_text import escaped
from governance.runtime.text_layout import display_width
from governance.trust.ceremony import Draft
from keys.errors import PratiqueError
from protocols.tasks import TASK_KINDS
from protocols.wire.channel import ExchangeLink
from protocols.wire.invitation import Invitation
from server.answers import StudyStatus
from server.commands.log import _line
from server.commands.result import _print as print_result_of_study
from server.commands.watch import _Lines, _print_above
from tests.support.document_fields import places
from tests.support.documents import NOW, agreement, permit, study
from tests.support.officers import invitation
from tests.unit.governance.results.test_result import result as released_result

WIDTHS = (40, 80, 200)
LABELS_END = 8
"""No label and no command of ours begins in this column or further right."""
QUOTATION = re.compile(r'"(?:\\.|[^"\\])*"', re.DOTALL)
ATTACK = "evil"
NAME = re.compile(rf"{ATTACK}(?:[-_]{ATTACK})+")
"""Ids and names of features: they have no capitals, no spaces and no other signs."""
FAKE_LINES = f"{ATTACK}Privacy  {ATTACK}ε=0.01  {ATTACK}pratique-officer {ATTACK}--yes "
TEXTS = {
    "long words": f"{ATTACK}-a {ATTACK}-bc {ATTACK}-def " * 8 + f"{ATTACK}-end",
    "one long word": ATTACK * 48,
    "a name": "-".join([ATTACK] * 12),
    "a feature": "_".join([ATTACK] * 12),
    "wide letters": f"{ATTACK}健康 " * 20 + ATTACK,
    "aligned": f"{ATTACK}{' ' * 70}{FAKE_LINES}{' ' * 60}{ATTACK}To-do:",
    "out of the quotation": f'{ATTACK}" {FAKE_LINES} {ATTACK}\\" {ATTACK}',
    "markup": f"{ATTACK}[red]{ATTACK}[/red][link=http://x.example]{ATTACK}[/link]",
    "unseen": f"{ATTACK}\u061c\xad\U000e0041\u3164\ufe0f\u2800\u115f\u180e\xa0\u034f\ue000{ATTACK}",
    "piled up": f"{ATTACK}{chr(0x0336) * 40}{ATTACK}",
    "control": f"{ATTACK}\x1b[2J\x9b31m\r\n{ATTACK}To-do:\u202e\u2066\u200b\u2028{ATTACK}\x00\x07",
}
AGREED = agreement()
ASKED = study(AGREED)
pytestmark = pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
AnyModel = TypeVar("AnyModel", bound=BaseModel)


@cache
def poisoned_study() -> list[Study]:
    return list(poisoned(ASKED))


@cache
def poisoned_agreement() -> list[Agreement]:
    return list(poisoned(AGREED))


def poisoned(document: AnyModel) -> Iterator[AnyModel]:
    """Yield the document with each text in each of its fields, as far as it may be there."""
    for _, value, put in places(document):
        for text in TEXTS.values() if isinstance(value, str) else ():
            try:
                yield type(document).model_validate(put(text).model_dump(mode="json"))
            except ValueError:
                continue  # refused: nobody can write it there


def assert_is_ours(output: str, width: int) -> None:
    """Assert that every character is seen, and that no line begins with the attacker's words."""
    for line in output.split("\n"):
        assert escaped(line) == line
        assert display_width(line) <= width
        indent = len(line) - len(line.lstrip(" "))
        assert not line.strip(' "').startswith(ATTACK) or indent >= LABELS_END, line


def assert_is_quoted(output: str) -> None:
    """Assert that the attacker's words are in quotation marks, and have no columns there."""
    quotations = re.findall(QUOTATION, output)
    rest = re.sub(r"\s+", "", re.sub(QUOTATION, "", output))
    assert ATTACK not in re.sub(NAME, "", rest)
    assert not any(re.search("[^ \n]  +[^ ]", quotation) for quotation in quotations)


Check = Callable[..., str]
"""Calls a function that prints, with arguments, looks at what it printed, and returns that."""


@pytest.fixture(params=WIDTHS)
def check(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Check:
    monkeypatch.setenv("COLUMNS", str(request.param))

    def checked(shows: Callable[..., object], *arguments: Any) -> str:
        shows(*arguments)
        out, err = capsys.readouterr()
        assert ATTACK in out + err
        assert_is_ours(out + err, request.param)
        return out + err

    return checked


def session(**fields: Any) -> Any:
    settings = SimpleNamespace(authority="Health data authority", federation=None)
    return SimpleNamespace(terminal=Terminal(), country="DK", settings=settings, **fields)


def assessed(**how: Any) -> Assessment:
    usual: dict[str, Any] = {"country": "DK", "now": NOW, "installed_tasks": TASK_KINDS}
    return assess(ASKED, AGREED, **{"act": Act.PROPOSE, **usual, **how})


ALLOWED = assessed()


def explained(asked: Study, assessment: Assessment = ALLOWED) -> None:
    Terminal().labelled(explain_study(asked, AGREED, assessment))


def listed(asked: Study) -> None:
    waiting = Waiting(country="DK", now=NOW, studies=(asked,))
    _list(session(), items(waiting))


def test_a_study(check: Check) -> None:
    for asked in poisoned_study():
        assert_is_quoted(check(study_and_inbox, asked))


def study_and_inbox(asked: Study) -> None:
    explained(asked)
    listed(asked)
    _show_permit(session(), asked, permit(AGREED, asked), "sentence")


def test_an_agreement_and_what_it_changes(check: Check) -> None:
    view: Any = SimpleNamespace(agreement=AGREED)
    for agreed in poisoned_agreement():
        draft = Draft(version=2, drafted=NOW, agreement=agreed)
        assert_is_quoted(check(show_draft, session(), draft, view))


def test_a_permit_and_a_refusal(check: Check) -> None:
    for given in poisoned(permit(AGREED, ASKED)):
        assert_is_quoted(check(_show_permit, session(), ASKED, given, "sentence"))
    refusal = Withdrawal(country="DK", study=ASKED.digest, reason="Stop.", issued=NOW)
    for no in poisoned(refusal):
        assert_is_quoted(check(explained, ASKED, assessed(withdrawal=no, act=Act.CONTRIBUTE)))
        own: Any = SimpleNamespace(withdrawal=lambda _, no=no: no, permit=lambda _: None)
        assert_is_quoted(check(say, f"so far: {decision_on(ASKED.digest, own)}"))


def test_a_policy_of_the_parties(check: Check) -> None:
    for name, text in TEXTS.items():
        words = text.replace("\\", "\\\\").replace('"', '\\"')
        notes = f'@id("{words}") @sentence("{words}") @fix("{words}")'
        rule = f"{notes} forbid(principal, action, resource);"
        if name == "control":
            continue  # no policy: tests/attacks/test_hostile_texts.py
        assert_is_quoted(check(explained, ASKED, assessed(national=rule)))
        check(Terminal().verbatim, f"// {text}\n{text.strip()}")


def test_an_invitation(check: Check) -> None:
    for letter in poisoned(invitation()):
        if ATTACK not in letter.federation + letter.exchange:
            continue
        assert_is_quoted(check(_introduce, session(), letter, "SHA256:abcd"))
        assert_is_quoted(check(partial(print_introduction, as_json=False), introduction(letter)))


def introduction(letter: Invitation) -> Introduction:
    return Introduction(
        federation=letter.federation,
        exchange=letter.exchange,
        fingerprint="SHA256:abcd",
        authority_digest="sha256:1",
        root_digest="sha256:2",
    )


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_a_log_of_others(
    text: str, check: Check, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    names = ("at", "kind", "actor", "outcome", "subject", "reason", "clause", "study", "run")
    entry: dict[str, Any] = {"index": 1, "round": text} | dict.fromkeys(names, text)
    head = LogHead(checkpoint="", verifier="", size=1)
    monkeypatch.setattr(Source, "head", lambda _: head)
    monkeypatch.setattr(Source, "lines", lambda *_: iter([json.dumps({"entry": entry}).encode()]))
    check(partial(list_log, last=None), Source(tmp_path, coordinator=False), Terminal())
    check(lambda entry: say(_line(entry)), entry | {"round": 2})


def test_a_result(check: Check) -> None:
    cell = {"labels": ["sex=female"], "suppressed": False, "count": 12, "low": 1, "high": 20}
    table = {"groupings": [], "cells": [cell]}
    for shape in ({"table": table}, {"left_out": {"EE": 1}, "rounds_opened": {3: 1}}):
        for given in poisoned(released_result(**shape)):
            if ATTACK in shown_part(given):
                output = check(print_result_of_study, given)
                assert_is_quoted(output.replace("evilevilev", ""))  # a word for a date


def shown_part(result: Result) -> str:
    hidden = {"task", "features", "signer", "signature", "coordinates", "documents", "evaluation"}
    ours = {"integrity"}  # the command prints its own sentence
    return result.model_dump_json(exclude=hidden | ours)


STATUS = {
    "study": "heart", "title": "t", "run": "ab", "flower_run": None, "state": "running",
    "reason": "r", "over": True, "round": 1, "rounds": 2, "epsilon": 1.0, "delta": 1e-5,
    "ledgers": {}, "online": {"DK": True}, "resumed": {"times": 0, "seconds_ago": None},
    "history": [{"round": 1, "phase": "train", "outcome": "void", "seconds": 1.0, "opened": [],
                 "causes": {"DK": "it left"}, "reason": "r"}],
}  # fmt: skip


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_a_run_s_reasons(text: str, check: Check) -> None:
    from rich.console import Console  # noqa: PLC0415 (used here only)

    status = StudyStatus.model_validate(STATUS | {"reason": text})
    round_ = status.history[0].model_copy(update={"reason": text, "causes": {"DK": text}})
    status = status.model_copy(update={"history": (round_,)})
    check(_Lines().show, status, {})
    check(_print_above, Console(), f"  round 1 {text}")


NODE = NodeStatus.model_validate({
    "country": "DK", "federation": "f", "waiting_for": "w", "connected": False,
    "disputed": True, "paused": None,
    "documents": {"agreement": "a", "expires": "e", "ends": "e", "signatures": "s",
                  "countries": {}, "versions": {}, "own": {"version": 1, "expires": "e"},
                  "absent": {"EE": "why"}, "ignored": ["path is ignored"], "fault": "f",
                  "officer": {"key": "k", "announced": "n"}},
    "data": {"file": "f.csv", "version": None, "patients": None, "fault": "it is gone"},
    "ledger": None, "runs": [], "restored": None, "log": {"origin": "o", "size": 1},
    "studies": [{"id": "heart", "title": "t", "digest": "d", "standing": "permitted"}],
    "refusals": [{"at": "t", "code": "stale", "what": "w", "why": "y", "fix": "f", "clause": "c",
                  "study": None, "run": None, "round": None, "phase": None}],
})  # fmt: skip


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_a_node_s_status(text: str, check: Check) -> None:
    for path, value, put in places(NODE):
        status = put(text) if isinstance(value, str) else NODE
        lines = list(status_lines(status))
        if any(ATTACK in line for line in lines) and path[-1] not in {"country", "at"}:
            check(say_all, lines)


def say_all(lines: list[str]) -> None:
    for line in lines:
        say(line)


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_errors_warnings_and_checks_that_quote_others(text: str, check: Check) -> None:
    error: Any = SimpleNamespace(
        code=lambda: grpc.StatusCode.PERMISSION_DENIED, details=lambda: text
    )
    link: Any = SimpleNamespace(_address="exchange.example:7443")
    check(print_error, ExchangeLink._fault(link, error))
    check(print_error, PratiqueError("It failed", why=f"it says: {text}", fix="wait"))
    check(Terminal().warn, text)
    check(print_result, CheckResult("link", CheckState.FAILED, text, text))


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_log_lines(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for width in WIDTHS:
        monkeypatch.setenv("COLUMNS", str(width))
        record = logging.makeLogRecord({"name": "pratique.test", "msg": "an event", "why": text})
        assert_is_ours(LineFormatter(terminal=True).format(record), width)
    line = LineFormatter().format(record)
    assert escaped(line) == line
    assert json.loads(line)["event"] == "an event"


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_json_is_pure_and_complete(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    show({"title": text}, as_json=True, plain=print)
    Terminal(as_json=True).answer([text])
    out = capsys.readouterr().out
    assert all(escaped(line) == line for line in out.split("\n"))
    first, second = out.split("}\n")
    assert json.loads(first + "}") == {"title": text}
    assert json.loads(second) == [text]


def test_the_attack_is_noticed() -> None:
    """What the test looks for is there if text is printed as it is, or broken by the terminal."""
    raw = f"{'Question':40}{ATTACK}Privacy"
    wrapped = "\n".join(raw[start : start + 40] for start in range(0, len(raw), 40))
    for output, width in ((TEXTS["unseen"], 999), (TEXTS["control"], 999), (wrapped, 40)):
        with pytest.raises(AssertionError):
            assert_is_ours(output, width)
