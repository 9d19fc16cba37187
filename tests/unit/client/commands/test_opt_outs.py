"""`pratique-node opt-out`: entries that match nobody are shown, and confirmed by name or number."""

from pathlib import Path
from typing import Any

import pytest

from client.commands.check_result import CheckResult, CheckState
from client.commands.doctor import Doctor
from client.commands.opt_outs import OptOutReview
from client.credentials.keyring import NodeKeyring
from client.errors import NodeFault
from client.home import NodeHome
from client.state.decision_log import log_origin
from client.state.state_check import StateCheck, open_log
from client.state.tables import MIGRATIONS
from governance.audit.events import Event, EventKind
from governance.audit.log import AuditLog
from governance.runtime.database import open_database
from keys.store import KeyStore
from tests.support.joining_node import NOW, create_joining_node
from tests.support.keystore import PASSPHRASE


@pytest.fixture
def home(tmp_path: Path) -> NodeHome:
    made = create_joining_node(tmp_path)
    (tmp_path / "list").write_text("p1\nnobody\nP2\n")
    return listed(made, opt_out=tmp_path / "list")


def listed(home: NodeHome, **changes: Any) -> NodeHome:
    home.write_settings(home.settings().model_copy(update=changes))
    return home


def review(home: NodeHome) -> OptOutReview:
    return OptOutReview(home, home.settings(), KeyStore.open(home.keys, PASSPHRASE))


def checked(home: NodeHome) -> CheckResult:
    def no_dial(*_: object, **__: object) -> Any:
        raise AssertionError

    doctor = Doctor(home, passphrase=lambda: PASSPHRASE, dial=no_dial, clock=lambda: NOW)
    return next(result for result in doctor.results() if result.name == "opt-outs")


def refusal(home: NodeHome, entries: list[str], number: int | None = None) -> NodeFault:
    with pytest.raises(NodeFault) as caught:
        review(home).confirm(entries, number, NOW)
    assert caught.value.fix
    return caught.value


def test_the_doctor_fails_until_every_entry_is_confirmed_by_name(home: NodeHome) -> None:
    failed = checked(home)
    assert failed.state is CheckState.FAILED
    assert "`nobody` (line 2), `P2` (line 3), but the records have `p2`" in failed.says
    assert "pratique-node opt-out confirm" in failed.fix
    review(home).confirm(["nobody"], None, NOW)
    assert [entry.entry for entry in review(home).unconfirmed()] == ["P2"]
    assert checked(home).state is CheckState.FAILED
    review(home).confirm(["P2"], None, NOW)
    assert checked(home).says == "1 patient is left out"


def test_a_list_that_changes_later_is_checked_again(home: NodeHome, tmp_path: Path) -> None:
    review(home).confirm(["nobody", "P2"], None, NOW)
    (tmp_path / "list").write_text("nobody\n")
    assert checked(home).state is CheckState.GOOD
    (tmp_path / "list").write_text("nobody\np01\n")
    assert "1 entry of the opt-out list matches no patient: `p01` (line 2)" in checked(home).says


def test_only_entries_that_match_nobody_are_confirmed_and_only_by_name(home: NodeHome) -> None:
    assert "'p1' is not among the entries that match nobody" in refusal(home, ["nobody", "p1"]).what
    assert "not among" in refusal(home, ["never listed"]).what
    assert "confirmed by name" in refusal(home, []).what
    assert "confirmed by name" in refusal(home, [], 2).what
    assert len(review(home).unconfirmed()) == 2


def test_a_national_list_is_confirmed_by_its_number(home: NodeHome) -> None:
    listed(home, opt_out_covers="nation")
    assert checked(home).state is CheckState.FAILED
    fault = refusal(home, ["nobody"])
    assert "2 entries match nobody, and 1 match a patient; no number was given" in fault.why
    assert "you gave 3" in refusal(home, [], 3).why
    assert review(home).confirm([], 2, NOW).startswith("Confirmed: 2 entries")
    assert checked(home).state is CheckState.GOOD


def test_a_confirmation_is_in_the_log_without_an_id(home: NodeHome) -> None:
    review(home).confirm(["nobody"], None, NOW)
    engine = open_database(home.database, MIGRATIONS)
    key = NodeKeyring.load(KeyStore.open(home.keys, PASSPHRASE)).log_key
    entries = list(AuditLog(engine, log_origin("DK"), key).entries())
    assert b"opt-outs-confirmed" in entries[-1]
    assert b"nobody" not in b"".join(entries)


@pytest.mark.parametrize("nation", [False, True])
def test_the_node_starts_after_a_confirmation(home: NodeHome, *, nation: bool) -> None:
    """The command writes to the database beside the daemon: both sign what they write."""
    if nation:
        listed(home, opt_out_covers="nation")
    keyring = NodeKeyring.load(KeyStore.open(home.keys, PASSPHRASE))
    engine = open_database(home.database, MIGRATIONS)
    daemon = open_log(engine, log_origin("DK"), keyring.log_key, former=False)
    review(home).confirm([] if nation else ["nobody"], 2 if nation else None, NOW)
    daemon.append(Event(kind=EventKind.NODE_STARTED, at=NOW, actor="DK"))
    StateCheck(engine, daemon, "DK").require_intact()


def test_without_a_list_or_records_the_check_says_so(home: NodeHome, tmp_path: Path) -> None:
    (tmp_path / "list").write_text("a,b\n")
    assert checked(home).says == "not checked: the records cannot be read"
    assert checked(listed(home, opt_out=None)).says == "no list of patients who opted out"
