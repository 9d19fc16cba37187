"""The coordinator's commands: plain errors, no traceback, files read and written with care."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from governance.documents.models import MAX_BYTES
from governance.runtime.cli_support import plain_errors
from governance.runtime.local_rpc import LocalRpcServer
from keys.errors import KeyFault, PratiqueError
from keys.identity import SigningKey
from keys.store import KeyStore
from server.answers import CoordinatorStatus, LogSummary
from server.cli import app
from server.commands.result import _unpredicted
from server.commands.study import _print_check
from server.commands.trusted_key import find_result_folder
from server.commands.watch import follow
from server.commands.wording import read_text
from server.errors import CoordinatorFault
from server.home import CoordinatorHome
from server.learning.predict import Predictions
from tests.support.enrolling import text_key
from tests.support.keystore import LOWEST_SCRYPT_COST

ENROLMENT = {"country": "AT", "role": "node", "fingerprint": "abcd-efgh", "status": "pending"}
INVITED = {
    "id": "0123456789ab",
    "country": "AT",
    "role": "node",
    "status": "open",
    "expires": "2026-12-07T10:00+00:00",
}
WHO = {"actor": "coordinator", "outcome": "done"}
INVITATION = {"authority_digest": "sha256:aa", "root_digest": None, "token": "SECRET"}


class ScriptedDaemon:
    """A coordinator's folder with an RPC server that answers from a script."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.answers: dict[str, Any] = {}
        self.asked: list[tuple[str, Mapping[str, Any]]] = []

    def answer(self, method: str, params: Mapping[str, Any]) -> Any:
        self.asked.append((method, dict(params)))
        reply = self.answers[method]
        if isinstance(reply, PratiqueError):
            raise reply
        return reply

    def run(self, *words: str) -> Result:
        return CliRunner().invoke(app, [*words, "--home", str(self.home)])


@pytest.fixture
def daemon() -> Iterator[ScriptedDaemon]:
    with tempfile.TemporaryDirectory() as folder:
        scripted = ScriptedDaemon(Path(folder))
        rpc_server = LocalRpcServer(CoordinatorHome(scripted.home).socket, scripted.answer)
        yield scripted
        rpc_server.close()


@pytest.fixture
def empty() -> Iterator[ScriptedDaemon]:
    with tempfile.TemporaryDirectory() as folder:
        yield ScriptedDaemon(Path(folder))


COMMANDS = [
    ("status",),
    ("admit", "abcd"),
    ("admit", "--list"),
    ("revoke", "AT", "--role", "node"),
    ("agreement", "status"),
    ("study", "list"),
    ("study", "launch", "x"),
    ("study", "watch", "x"),
    ("study", "stop", "x"),
    ("log", "list"),
    ("log", "verify"),
    ("result", "show", "x"),
    ("result", "verify", "x"),
]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_without_a_daemon_every_command_says_so_in_plain_words(
    empty: ScriptedDaemon, words: tuple[str, ...]
) -> None:
    ended = empty.run(*words)
    assert ended.exit_code == 1
    assert isinstance(ended.exception, SystemExit)
    assert "To do: " in ended.stderr
    assert "Traceback" not in ended.output
    assert list(empty.home.iterdir()) == []


def test_a_relative_home_becomes_absolute(
    empty: ScriptedDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flower's processes run in another folder, and get the path of the home."""
    monkeypatch.chdir(empty.home.parent)
    ended = ScriptedDaemon(Path(empty.home.name)).run("status")
    assert str(empty.home.resolve() / "run") in ended.stderr


@pytest.mark.parametrize("words", COMMANDS[:9], ids=" ".join)
def test_a_refusal_by_the_daemon_is_printed_as_three_sentences(
    daemon: ScriptedDaemon, words: tuple[str, ...]
) -> None:
    fault = CoordinatorFault("It is closed", why="nobody is there", fix="come back")
    daemon.answers = dict.fromkeys(
        ("status", "admit", "enrolments", "revoke", "agreement_status", "study_list",
         "study_launch", "study_status", "study_stop"), fault,
    )  # fmt: skip
    ended = daemon.run(*words)
    assert ended.exit_code == 1
    assert ended.stderr.splitlines() == ["It is closed.", "Nobody is there.", "To do: come back."]
    assert ended.stdout == ""


def test_an_invitation_is_written_for_its_owner_only(
    daemon: ScriptedDaemon, tmp_path: Path
) -> None:
    daemon.answers["invite"] = INVITATION
    out = tmp_path / "at.json"
    ended = daemon.run("invite", "AT", "--role", "node", "--out", str(out))
    assert ended.exit_code == 0, ended.output
    assert out.stat().st_mode & 0o777 == 0o600
    assert json.loads(out.read_text()) == INVITATION
    assert "SECRET" not in ended.output
    assert "sha256:aa" in ended.output


def test_an_invitation_that_cannot_be_written_is_reported_in_plain_words(
    daemon: ScriptedDaemon, tmp_path: Path
) -> None:
    daemon.answers["invite"] = INVITATION
    out = tmp_path / "no" / "at.json"
    ended = daemon.run("invite", "AT", "--role", "node", "--out", str(out))
    assert ended.exit_code == 1
    assert "cannot be written" in ended.stderr
    assert "SECRET" not in ended.output


def test_an_invitation_replaces_no_file(daemon: ScriptedDaemon, tmp_path: Path) -> None:
    out = tmp_path / "precious.txt"
    out.write_text("mine")
    ended = daemon.run("invite", "AT", "--role", "node", "--out", str(out))
    assert ended.exit_code == 1
    assert "exists already" in ended.stderr
    assert out.read_text() == "mine"
    assert not daemon.asked


def test_invitations_are_listed_and_revoked(daemon: ScriptedDaemon) -> None:
    daemon.answers |= {"invitations": [INVITED], "revoke_invitation": INVITED}
    assert "0123456789ab  AT  node     open     until 2026-12-07" in (
        daemon.run("invitation", "list").stdout
    )
    assert json.loads(daemon.run("invitation", "list", "--json").stdout) == [INVITED]
    revoked = daemon.run("invitation", "revoke", "0123456789ab").stdout
    assert "Revoked: the invitation 0123456789ab for the node of AT." in revoked
    assert daemon.asked[-1] == ("revoke_invitation", {"identifier": "0123456789ab"})
    daemon.answers["invitations"] = []
    assert "Nobody was invited" in daemon.run("invitation", "list").stdout


def test_log_entries_are_listed_with_their_round(daemon: ScriptedDaemon) -> None:
    opened = {
        "index": 4,
        "at": "2026-09-01",
        "kind": "round-opened",
        "run": "ab",
        "round": 2,
        **WHO,
    }
    begun = {"index": 0, "at": "2026-09-01", "kind": "coordinator-initialised", **WHO}
    daemon.answers["log_head"] = {"checkpoint": "", "verifier": "", "size": 2}
    daemon.answers["log_entries"] = {"entries": [json.dumps({"entry": e}) for e in (begun, opened)]}
    first, second = daemon.run("log", "list").stdout.splitlines()
    assert first.split() == ["0", "2026-09-01", "coordinator-initialised"]
    assert second.split() == ["4", "2026-09-01", "round-opened", "ab,", "round", "2"]


def test_a_party_is_admitted_by_its_fingerprint(daemon: ScriptedDaemon) -> None:
    listed = [{**ENROLMENT, "disputed": ""}]
    daemon.answers |= {"admit": ENROLMENT, "enrolments": listed, "turn_away": None}
    assert "Admitted: the node of AT" in daemon.run("admit", "abcd-efgh").stdout
    assert "abcd-efgh\n" in daemon.run("admit", "--list").stdout
    assert daemon.run("admit", "abcd-efgh", "--refuse").exit_code == 0
    assert json.loads(daemon.run("admit", "--list", "--json").stdout) == listed
    assert [method for method, _ in daemon.asked] == [
        "admit",
        "enrolments",
        "turn_away",
        "enrolments",
    ]


def test_a_disputed_certificate_is_shown(daemon: ScriptedDaemon) -> None:
    daemon.answers["enrolments"] = [{**ENROLMENT, "disputed": "yes"}]
    assert "TWO HOLDERS of its certificate" in daemon.run("admit", "--list").stdout


def test_admit_without_a_fingerprint_only_lists_requests(daemon: ScriptedDaemon) -> None:
    daemon.answers["enrolments"] = []
    assert "Nobody has asked" in daemon.run("admit").stdout
    assert [method for method, _ in daemon.asked] == ["enrolments"]


@pytest.mark.parametrize("words", [("nothing",), ("invite", "AT"), ("study", "check")])
def test_wrong_arguments_end_with_status_two(empty: ScriptedDaemon, words: tuple[str, ...]) -> None:
    ended = empty.run(*words)
    assert ended.exit_code == 2
    assert "Traceback" not in ended.output


def test_status_shows_a_copied_node_and_why_documents_are_not_renewed(
    daemon: ScriptedDaemon,
) -> None:
    status = CoordinatorStatus(
        federation="nordic-heart",
        address="127.0.0.1:7443",
        authority="sha256:",
        nodes={},
        agreement=None,
        not_renewed="the disk is full",
        disputes=(),
        copies=("DK",),
        waiting=(),
        running=(),
        resumed={},
        superlink="",
        log=LogSummary(origin="nordic-heart", size=1),
        observe=None,
    )
    daemon.answers["status"] = status.model_dump(mode="json")
    shown = daemon.run("status").stdout
    assert "DOCUMENTS NOT RENEWED, tried again each minute: the disk is full" in shown
    assert "TWO MACHINES have the identity of the node of DK" in shown


@pytest.mark.parametrize(
    "words", [("study", "check"), ("study", "propose"), ("agreement", "propose")]
)
def test_a_document_that_cannot_be_read_is_reported_before_any_request(
    daemon: ScriptedDaemon, tmp_path: Path, words: tuple[str, ...]
) -> None:
    latin = tmp_path / "latin.yaml"
    latin.write_bytes(b"title: \xe4")
    large = tmp_path / "large.yaml"
    large.write_bytes(b"#" * (MAX_BYTES + 1))
    for path in (tmp_path / "missing.yaml", tmp_path, latin, large):
        ended = daemon.run(*words, str(path))
        assert ended.exit_code == 1
        assert str(path) in ended.stderr
    assert not daemon.asked


def test_a_document_of_the_largest_size_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(b"#" * MAX_BYTES)
    assert len(read_text(path)) == MAX_BYTES


def test_a_check_of_a_study_that_a_country_refuses_ends_with_status_one(
    daemon: ScriptedDaemon, tmp_path: Path
) -> None:
    file = tmp_path / "study.yaml"
    file.write_text("x: 1")
    country = {
        "country": "AT", "allowed": False, "answer": "no answer yet", "charge": None,
        "clauses": ["clause-4"],
        "findings": [{"code": "policy", "sentence": "No.", "clause": "Article 4", "fix": "ask"}],
    }  # fmt: skip
    study = {"privacy": {"epsilon": 1.0, "delta": 1e-4}, "mechanisms": []}
    daemon.answers["study_check"] = {
        "id": "x", "title": "X", "digest": "sha256:", "study": study, "countries": [country],
        "local_mode": "",
        "signatures": "Ed25519",
    }  # fmt: skip
    ended = daemon.run("study", "check", str(file))
    assert ended.exit_code == 1
    assert "would refuse" in ended.stdout
    assert "Article 4" in ended.stdout
    country["allowed"] = True
    assert daemon.run("study", "check", str(file)).exit_code == 0


# init


@pytest.fixture
def _cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    create = KeyStore.create.__func__  # type: ignore[attr-defined]
    monkeypatch.setattr(
        KeyStore,
        "create",
        classmethod(lambda cls, path, word: create(cls, path, word, cost=LOWEST_SCRYPT_COST)),
    )


@pytest.fixture
def passphrase(tmp_path: Path) -> str:
    path = tmp_path / "passphrase"
    path.write_text("four random words\n")
    path.chmod(0o600)
    return str(path)


@pytest.mark.usefixtures("_cheap")
def test_init_creates_a_coordinator_and_never_a_second_one(
    empty: ScriptedDaemon, passphrase: str
) -> None:
    words = ("init", "--federation", "danube", "--listen", "127.0.0.1:7443")
    first = empty.run(*words, "--passphrase-file", passphrase)
    assert first.exit_code == 0, first.output
    assert f"The coordinator of danube was created in {empty.home}." in first.stdout
    assert "sha256:" in first.stdout
    again = empty.run(*words, "--passphrase-file", "none")  # refused before it is read
    assert again.exit_code == 1
    assert "already" in again.stderr


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--federation", "Not A Name"),
        ("--listen", "nowhere"),
        ("--listen", "host:70000"),
        ("--address", "host"),
    ],
)
def test_init_with_a_wrong_value_says_what_is_expected(
    empty: ScriptedDaemon, passphrase: str, option: str, value: str
) -> None:
    options = {"--federation": "danube", "--listen": "127.0.0.1:7443", option: value}
    words = [word for pair in options.items() for word in pair]
    ended = empty.run("init", *words, "--passphrase-file", passphrase)
    assert ended.exit_code == 2
    assert option in ended.stderr
    assert list(empty.home.iterdir()) == []


@pytest.mark.parametrize("listen", ["0.0.0.0:7443", "[::]:7443"])
def test_init_asks_for_an_address_that_the_parties_can_reach(
    empty: ScriptedDaemon, passphrase: str, listen: str
) -> None:
    words = ("init", "--federation", "danube", "--listen", listen, "--passphrase-file", passphrase)
    ended = empty.run(*words)
    assert ended.exit_code == 1
    assert "cannot reach" in ended.stderr
    assert "--address" in ended.stderr
    assert list(empty.home.iterdir()) == []
    named = empty.run(*words, "--address", "exchange.example.org:7443")
    assert named.exit_code == 0, named.output


def test_init_with_a_passphrase_file_that_others_may_read_creates_nothing(
    empty: ScriptedDaemon, passphrase: str
) -> None:
    Path(passphrase).chmod(0o644)
    words = ("init", "--federation", "danube", "--listen", "127.0.0.1:7443")
    ended = empty.run(*words, "--passphrase-file", passphrase)
    assert ended.exit_code == 1
    assert "chmod" in ended.stderr
    assert list(empty.home.iterdir()) == []


def test_no_command_takes_a_passphrase_as_an_argument(empty: ScriptedDaemon) -> None:
    for words in (("init",), ("up",)):
        help_text = CliRunner().invoke(app, [*words, "--help"]).stdout
        assert "--passphrase-file" in help_text
        assert "--passphrase " not in help_text.replace("--passphrase-f", "")


def test_up_in_an_empty_folder_says_what_to_do(empty: ScriptedDaemon, passphrase: str) -> None:
    ended = empty.run("up", "--passphrase-file", passphrase)
    assert ended.exit_code == 1
    assert "Traceback" not in ended.output
    assert ended.stderr.strip()


def test_a_check_says_whose_noise_each_release_has(capsys: pytest.CaptureFixture[str]) -> None:
    one = {"rounds": 1, "dimension": 8}
    scopes = {"cohort-floor": "local", "local-step": "local", "train": "derived"}
    releases = [one | {"phase": phase, "scope": scope} for phase, scope in scopes.items()]
    study = EMPTY_STUDY | {"mechanisms": releases}
    answer = {"title": "T", "id": "t", "digest": "sha256:", "study": study, "countries": []}
    answer |= {"signatures": "Ed25519"}
    _print_check(answer | {"local_mode": "Each country by itself."})
    output = capsys.readouterr().out
    assert output.count("each country's own noise") == 2
    assert (
        "train         8 values, computed from the noisy values above, at no further cost" in output
    )
    assert "  local mode: Each country by itself." in output
    _print_check(answer | {"local_mode": "", "chosen": ["learning rate 2, chosen from the noise"]})
    output = capsys.readouterr().out
    assert "local mode" not in output
    assert "  learning rate 2, chosen from the noise" in output


def test_a_check_does_not_count_the_cohort_among_what_the_study_costs(
    capsys: pytest.CaptureFixture[str],
) -> None:
    one = {"rounds": 1, "dimension": 1, "scope": "local"}
    study = EMPTY_STUDY | {"mechanisms": [one | {"phase": p} for p in ("cohort-floor", "count")]}
    answer = {"title": "T", "id": "t", "digest": "sha256:", "study": study, "countries": []}
    answer |= {"signatures": "Ed25519", "local_mode": ""}
    _print_check(answer | {"cohort_count": {"epsilon": 0.355, "delta": 1e-6}})
    total, counted, beside, cohort, _, both, _, _ = capsys.readouterr().out.splitlines()[1:]
    assert total == "  for each patient ε = 1, δ = 1e-05, in total:"
    assert "    count " in counted
    assert beside == "  the count of the cohort costs ε = 0.355, δ = 1e-06 more:"
    assert "    cohort-floor " in cohort
    assert both == "  with this count at most ε = 1.355, δ = 1.1e-05 for each patient"
    _print_check(answer)
    output = capsys.readouterr().out
    assert "more" not in output, "an earlier agreement pays for it with the study's ε"
    assert "cohort-floor" in output


# plain errors


def test_the_same_refusal_is_printed_once_with_its_countries(
    capsys: pytest.CaptureFixture[str],
) -> None:
    finding = {"code": "policy", "sentence": "No.", "clause": "Article 4", "fix": "ask"}
    other = finding | {"sentence": "Too dear.", "clause": "Article 9", "fix": "spend less"}
    one = {"allowed": False, "answer": "no answer yet", "clauses": [], "charge": None}
    countries = [
        one | {"country": "AT", "findings": [finding]},
        one | {"country": "BE", "findings": [finding, other]},
    ]
    answer: dict[str, Any] = {
        "title": "T",
        "id": "t",
        "digest": "sha256:",
        "study": EMPTY_STUDY,
        "countries": countries,
        "local_mode": "",
        "signatures": "Ed25519",
    }
    _print_check(answer)
    output = capsys.readouterr().out
    assert output.count('No. ["Article 4"]') == 1
    assert '  AT, BE: No. ["Article 4"]' in output
    assert '  BE: Too dear. ["Article 9"]' in output


EMPTY_STUDY = {"privacy": {"epsilon": 1.0, "delta": 1e-5}, "mechanisms": []}


def test_an_unexpected_fault_of_the_file_system_is_printed_as_a_sentence(
    capsys: pytest.CaptureFixture[str],
) -> None:
    import typer  # noqa: PLC0415 (used here only)

    with pytest.raises(typer.Exit) as caught, plain_errors():
        Path("/no/such/file").read_text()
    assert caught.value.exit_code == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[1] == "No such file or directory at /no/such/file."
    assert lines[2].startswith("To do: ")


def test_a_known_fault_is_printed_as_its_sentences(capsys: pytest.CaptureFixture[str]) -> None:
    import typer  # noqa: PLC0415 (used here only)

    with pytest.raises(typer.Exit), plain_errors():
        raise KeyFault("It is locked", fix="unlock it")
    assert capsys.readouterr().err.splitlines() == ["It is locked.", "To do: unlock it."]


def test_a_programming_error_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError), plain_errors():
        _ = 1 // 0


# results


def test_a_result_is_found_by_study_or_folder_and_nowhere_else(tmp_path: Path) -> None:
    folder = tmp_path / "results" / "heart"
    folder.mkdir(parents=True)
    (folder / "result.json").write_text("{}")
    assert find_result_folder(tmp_path, "heart") == folder
    assert find_result_folder(tmp_path, str(folder)) == folder
    for name in ("other", "", "../results"):
        with pytest.raises(CoordinatorFault) as caught:
            find_result_folder(tmp_path, name)
        assert "heart" in caught.value.why


@pytest.mark.parametrize("key", [text_key(), "ed25519:AAAA", ""], ids=["another", "short", "none"])
def test_a_folder_without_a_valid_result_is_refused(
    empty: ScriptedDaemon, tmp_path: Path, key: str
) -> None:
    (tmp_path / "result.json").write_text('{"kind": "result"}')
    ended = empty.run("result", "verify", str(tmp_path), "--key", key)
    assert ended.exit_code == 1
    assert "Traceback" not in ended.output
    assert ended.stderr.strip()


@pytest.mark.parametrize(
    ("computed", "sentence"),
    [(True, "its ε was computed again: the releases"), (False, "its ε cannot be computed again")],
)
def test_a_verified_result_names_its_key_and_says_whether_its_cost_was_computed(
    empty: ScriptedDaemon, monkeypatch: pytest.MonkeyPatch, *, computed: bool, sentence: str
) -> None:
    key = SigningKey.generate().public
    named = {"study_id": "heart", "signer": key.to_text()}
    result = SimpleNamespace(model=None, require_cost=lambda: computed, **named)
    monkeypatch.setattr("server.commands.result._verified", lambda *_: (empty.home, result))
    ended = empty.run("result", "verify", "heart")
    assert f"signed by {key.to_text()}" in ended.stdout
    assert f"fingerprint of this key: {key.fingerprint}" in ended.stdout
    assert sentence in ended.stdout


@pytest.mark.parametrize(
    ("cells", "note"),
    [
        ([["0.5"]], ""),
        ([["0.5"], [""]], "1 row has no prediction: (line 3 of the predictions)"),
        (
            [["", ""]] * 11,
            "11 rows have no prediction: (lines 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, … of",
        ),
    ],
)
def test_rows_without_a_prediction_are_named(cells: list[list[str]], note: str) -> None:
    notes = list(_unpredicted(Predictions(("ill",), cells)))
    assert len(notes) == bool(note)
    for said, part in zip(notes * 2, note.split(": "), strict=False):
        assert part in said


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("localhost:7443", "localhost:7443"),
        ("exchange.example.org:443", "exchange.example.org:443, port 7443 of this machine"),
    ],
)
def test_the_exchange_s_port_is_said_once(address: str, said: str) -> None:
    from server.daemon import _reached  # noqa: PLC0415 (loads Flower)

    assert _reached(address, 7443) == said


HEAVY = ("cedarpy", "duckdb", "flwr", "grpc", "scipy", "sqlalchemy", "torch", "tuf")
ASK_FOR_HELP = f"""
import contextlib, sys
sys.argv = ["pratique-coordinator", "--help"]
from server.cli import main
with contextlib.suppress(SystemExit):
    main()
print([name for name in {HEAVY} if name in sys.modules])
"""


def test_help_loads_nothing_heavy() -> None:
    command = [sys.executable, "-c", ASK_FOR_HELP]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "regional coordinator" in output
    assert output.strip().endswith("[]")


# watching


def looks(*states: dict[str, Any]) -> Callable[[], dict[str, Any]]:
    waiting = list(states)
    return lambda: waiting.pop(0)


def seen(state: str, *, over: bool = False, **more: Any) -> dict[str, Any]:
    plain = {
        "study": "heart", "title": "Heart", "run": "0f" * 16, "flower_run": "7001",
        "state": state, "over": over, "round": 0, "rounds": 2, "reason": "",
        "online": {"AT": True}, "history": [], "epsilon": 1.0, "delta": 1e-5, "ledgers": {},
        "resumed": {"times": 0, "seconds_ago": None},
    }  # fmt: skip
    return {**plain, **more}


def test_watch_ends_with_the_run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    look = looks(
        seen("launched"), seen("setting-up"), seen("void", over=True, reason="AT is away.")
    )
    assert follow(look, as_json=False) == "void"
    assert "AT is away." in capsys.readouterr().out


def test_watch_with_json_prints_one_object_for_each_change(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    look = looks(seen("launched"), seen("launched"), seen("finished", over=True))
    assert follow(look, as_json=True) == "finished"
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["state"] for line in lines] == ["launched", "finished"]
