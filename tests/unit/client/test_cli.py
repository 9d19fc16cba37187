"""`pratique-node` on the command line: its output, and every option with a bad value."""

import json
import logging
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from client import cli
from client.commands.check_result import CheckResult, CheckState
from client.state.restored import Restored
from client.status.summary import LinkStatus
from governance.runtime.local_rpc import LocalRpcServer
from keys.certificates import TransportAuthority
from keys.store import KeyStore
from protocols.proto.exchange_pb2 import EnrolReply
from protocols.wire.channel import LinkFault
from tests.support.joining_node import (
    OFFICER,
    WEEK,
    ScriptedExchange,
    files,
    invitation,
)
from tests.support.keystore import PASSPHRASE
from tests.support.node_federation import NodeFederation

Words = list[str | Path]


@pytest.fixture(autouse=True)
def quick_scrypt(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key store that opens at once: its cost is tested with the store."""
    monkeypatch.setattr(
        "client.commands.init.create_node.__kwdefaults__", {"cost": 2}, raising=False
    )


@pytest.fixture
def passphrase(tmp_path: Path) -> Path:
    file = tmp_path / "passphrase"
    file.write_bytes(PASSPHRASE)
    file.chmod(0o600)
    return file


def run(*words: str | Path, home: Path | None = None) -> Result:
    """Run a command; nothing it prints may be a traceback."""
    arguments = [str(word) for word in words] + (["--home", str(home)] if home else [])
    result = CliRunner().invoke(cli.app, arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    return result


def refused(*words: str | Path, home: Path | None = None) -> str:
    """Expect status 1 and three plain sentences on standard error, none on standard output."""
    result = run(*words, home=home)
    assert result.exit_code == 1
    assert "To do: " in result.stderr
    return result.stderr


@pytest.fixture
def init_words(tmp_path: Path, passphrase: Path) -> Words:
    paths = files(tmp_path / "files")
    words: Words = ["init", "--country", "DK", "--officer-key", OFFICER]
    words += ["--data", paths["data"], "--dictionary", paths["dictionary"]]
    return [*words, "--passphrase-file", passphrase]


@pytest.fixture
def home(tmp_path: Path, init_words: Words) -> Path:
    """The home of a node that `init` has made."""
    path = tmp_path / "node"
    assert run(*init_words, home=path).exit_code == 0
    return path


def replaced(words: Words, option: str, value: str | Path) -> Words:
    """Return the words with an option's value replaced, or with the option added."""
    changed = list(words)
    if option in changed:
        changed[changed.index(option) + 1] = value
        return changed
    return [*changed, option, value]


def test_init_prints_how_the_records_were_read(tmp_path: Path, init_words: Words) -> None:
    result = run(*init_words, home=tmp_path / "node")
    assert result.exit_code == 0
    for words in (
        "The node of DK was created",
        "80 patients read, 0 left out",
        "age: 0 of 80 missing",
        "Pinned officer key: SHA256:",
        "node-keys.json",
        "pratique-node enrol",
    ):
        assert words in result.stdout


def test_opt_outs_that_match_nobody_are_noted_shown_and_confirmed(
    tmp_path: Path, init_words: Words, passphrase: Path
) -> None:
    (tmp_path / "list").write_text("p1\nP2\n")
    home, key = tmp_path / "node", ("--passphrase-file", passphrase)
    result = run(*init_words, "--opt-out", tmp_path / "list", home=home)
    assert "Note: the opt-out list has entries that match nobody: `P2` (line 2)" in result.stdout
    shown = run("opt-out", "show", *key, home=home).stdout
    assert "1 entry of the opt-out list matches no patient, and you have not confirmed" in shown
    assert "  `P2` (line 2), but the records have `p2`" in shown
    assert "by name" in refused("opt-out", "confirm", "--number", "1", *key, home=home)
    confirmed = run("opt-out", "confirm", "P2", *key, home=home)
    assert confirmed.stdout == "Confirmed: 1 entry matches no patient here.\n"
    assert "`P2`" not in run("opt-out", "show", *key, home=home).stdout


def test_a_list_covers_a_register_or_the_nation(tmp_path: Path, init_words: Words) -> None:
    result = run(*init_words, "--opt-out-covers", "world", home=tmp_path / "node")
    assert result.exit_code == 2
    assert "--opt-out-covers" in result.stderr


def test_init_notes_that_there_is_no_patient(tmp_path: Path, init_words: Words) -> None:
    data = init_words[init_words.index("--data") + 1]
    Path(data).write_text(Path(data).read_text().splitlines()[0] + "\n")
    result = run(*init_words, home=tmp_path / "node")
    assert result.exit_code == 0
    assert "Note: the file has a header and no patient; export the records again." in result.stdout


def test_init_reads_the_records_before_it_asks_for_a_passphrase(
    tmp_path: Path, init_words: Words, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("governance.runtime.passphrases.chosen_passphrase", pytest.fail)
    words = replaced(init_words, "--data", "none.csv")
    assert "none.csv" in refused(*words, home=tmp_path / "node")


def test_init_accepts_the_file_of_the_officer_and_a_list_of_opt_outs(
    tmp_path: Path, init_words: Words
) -> None:
    key, opted_out = tmp_path / "country.pub", tmp_path / "opt-out.txt"
    key.write_text(OFFICER)
    opted_out.write_text("p1\np2\n")
    words = replaced(replaced(init_words, "--officer-key", key), "--opt-out", opted_out)
    result = run(*words, home=tmp_path / "node")
    assert "2 left out because they opted out" in result.stdout


def test_init_reads_the_passphrase_from_a_descriptor(tmp_path: Path, init_words: Words) -> None:
    reading, writing = os.pipe()
    os.write(writing, PASSPHRASE)
    os.close(writing)
    words = [*init_words[:-2], "--passphrase-fd", str(reading)]
    try:
        assert run(*words, home=tmp_path / "node").exit_code == 0
    finally:
        os.close(reading)
    assert KeyStore.open(tmp_path / "node" / "keys", PASSPHRASE).names()


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("--data", "none.csv", "none.csv"),
        ("--dictionary", "none.yaml", "none.yaml"),
        ("--opt-out", "none.txt", "none.txt"),
        ("--officer-key", "ed25519:AAAA", "officer's key"),
        ("--passphrase-file", "none", "passphrase"),
    ],
)
def test_init_with_a_bad_file_changes_nothing(
    tmp_path: Path, init_words: Words, option: str, value: str, says: str
) -> None:
    assert says in refused(*replaced(init_words, option, value), home=tmp_path / "node")
    assert not (tmp_path / "node").exists()


@pytest.mark.parametrize("country", ["de", "DEU", "D1", "", "UK", "ÅÅ"])
def test_init_with_an_unknown_country_is_a_usage_error(
    tmp_path: Path, init_words: Words, country: str
) -> None:
    result = run(*replaced(init_words, "--country", country), home=tmp_path / "node")
    assert result.exit_code == 2
    assert "--country" in result.stderr
    assert "is no country code of ISO 3166-1" in " ".join(result.stderr.split())
    assert not (tmp_path / "node").exists()


def test_init_with_a_bad_register_is_a_usage_error(tmp_path: Path, init_words: Words) -> None:
    words = replaced(init_words, "--register", "Two Words")
    result = run(*words, home=tmp_path / "node")
    assert result.exit_code == 2
    assert "--register" in result.stderr


def test_init_with_a_malformed_dictionary_names_the_place(
    tmp_path: Path, init_words: Words
) -> None:
    (tmp_path / "files" / "dictionary.yaml").write_text("dictionary: 1\nfeatures: {a: [}\n")
    output = refused(*init_words, home=tmp_path / "node")
    assert "dictionary.yaml" in output
    assert "Line 2, column 16: the YAML is not well formed: while parsing a flow node" in output


def test_init_with_a_feature_without_bounds_names_it(tmp_path: Path, init_words: Words) -> None:
    (tmp_path / "files" / "dictionary.yaml").write_text(
        "dictionary: 1\ntitle: t\npatient: id\nfeatures: [{name: age, type: numeric}]\n"
    )
    assert "age" in refused(*init_words, home=tmp_path / "node")


def test_init_twice_is_refused(home: Path, init_words: Words) -> None:
    before = (home / "node-keys.json").read_bytes()
    assert "already" in refused(*init_words, home=home)
    assert (home / "node-keys.json").read_bytes() == before


def test_a_passphrase_file_that_others_may_read_is_refused(
    tmp_path: Path, init_words: Words, passphrase: Path
) -> None:
    passphrase.chmod(0o644)
    assert "chmod" in refused(*init_words, home=tmp_path / "node")


@pytest.mark.parametrize("command", ["up", "status", "pause", "resume"])
def test_commands_without_a_node_say_what_to_do(
    tmp_path: Path, command: str, passphrase: Path
) -> None:
    unlock: list[str | Path] = ["--passphrase-file", passphrase] if command == "up" else []
    os.environ["PYTHONSAFEPATH"] = "1"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "_isolate", lambda: None)
        assert "pratique-node init" in refused(command, *unlock, home=tmp_path / "none")


@pytest.mark.parametrize("command", ["status", "pause", "resume"])
def test_commands_without_a_daemon_say_what_to_do(home: Path, command: str) -> None:
    assert "start it with `pratique-node up`" in refused(command, home=home)


def test_up_before_enrolment_says_what_to_do(
    home: Path, passphrase: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "_isolate", lambda: None)
    monkeypatch.setattr("governance.runtime.logs.configure", lambda *_: logging.NullHandler())
    monkeypatch.setattr("governance.runtime.logs.reopen_on_hangup", lambda _: None)
    assert "pratique-node enrol" in refused("up", "--passphrase-file", passphrase, home=home)


def test_up_with_a_wrong_passphrase_is_refused(
    home: Path, passphrase: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "_isolate", lambda: None)
    passphrase.write_text("another one")
    output = refused("up", "--passphrase-file", passphrase, home=home)
    assert "passphrase does not open" in output


@pytest.fixture
def enrolled(home: Path, passphrase: Path, letter: Path, exchange: ScriptedExchange) -> Path:
    """The home of a node that a federation has admitted."""
    run("enrol", letter, "--passphrase-file", passphrase, home=home)
    return home


def test_restored_asks_first(
    enrolled: Path,
    passphrase: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without an answer, or with the answer no, nothing is opened."""
    monkeypatch.setattr("client.startup.restore_node", pytest.fail)
    result = run("restored", "--passphrase-file", passphrase, home=enrolled)
    assert result.exit_code == 1
    assert "restore that, and do not continue" in result.stdout


def test_restored_before_enrolment_says_what_to_do(home: Path, passphrase: Path) -> None:
    output = refused("restored", "--yes", "--passphrase-file", passphrase, home=home)
    assert "pratique-node enrol" in output
    assert "restore that, and do not continue" not in output


def test_restored_with_a_certificate_that_looks_stolen_says_what_to_do(
    enrolled: Path,
    passphrase: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_: object) -> None:
        raise LinkFault("The exchange refuses this certificate")

    monkeypatch.setattr("client.node.Node.restore", refuse)
    output = refused("restored", "--yes", "--passphrase-file", passphrase, home=enrolled)
    assert "looks stolen" in output
    assert "pratique-node enrol" in output


def test_restored_prints_the_outcome(
    enrolled: Path,
    passphrase: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done = Restored("2026-09-01T12:00:00+00:00", 7, 40, 1, ("heart-by-sex",))
    monkeypatch.setattr("client.startup.restore_node", lambda *_: done)
    result = run("restored", "--yes", "--passphrase-file", passphrase, home=enrolled)
    assert result.exit_code == 0
    assert "a copy of 7 log entries; the log had at least 40 before" in result.stdout
    assert "heart-by-sex: charged 1 time" in result.stdout
    assert "pratique-officer approve STUDY --reconsider" in result.stdout


@pytest.fixture
def authority() -> TransportAuthority:
    return TransportAuthority.create("nordic-heart", datetime.now(UTC))


@pytest.fixture
def letter(tmp_path: Path, authority: TransportAuthority) -> Path:
    """An invitation that is valid today."""
    letter_of_today = invitation(authority, expires=datetime.now(UTC) + WEEK)
    file = tmp_path / "invitation.json"
    file.write_text(letter_of_today.model_dump_json())
    return file


@pytest.fixture
def exchange(authority: TransportAuthority, monkeypatch: pytest.MonkeyPatch) -> ScriptedExchange:
    scripted = ScriptedExchange(authority)
    monkeypatch.setattr("tests.support.joining_node.NOW", datetime.now(UTC))
    monkeypatch.setattr(cli, "_dial", scripted.dial)
    return scripted


def test_enrol_prints_what_is_compared_by_voice(
    home: Path, passphrase: Path, letter: Path, exchange: ScriptedExchange
) -> None:
    result = run("enrol", letter, "--passphrase-file", passphrase, home=home)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert any(line.startswith("Fingerprint of this request: ") for line in lines)
    assert any(line.startswith("Root of the documents: sha256:") for line in lines)
    assert "The node is admitted." in lines


def test_enrol_prints_json_for_a_machine(
    home: Path, passphrase: Path, letter: Path, exchange: ScriptedExchange
) -> None:
    exchange.statuses = [EnrolReply.PENDING]
    result = run("enrol", letter, "--json", "--passphrase-file", passphrase, home=home)
    answer = json.loads(result.stdout)
    assert answer["status"] == "pending"
    assert answer["fingerprint"] in result.stderr


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"country": "EE"}, "node of EE"),
        ({"expires": datetime(2026, 1, 1, tzinfo=UTC)}, "expired"),
        ({"root_digest": None}, "not signed yet"),
        ({"role": "officer"}, "officer of DK"),
    ],
)
def test_an_invalid_invitation_is_refused_by_the_command(
    home: Path,
    passphrase: Path,
    letter: Path,
    authority: TransportAuthority,
    exchange: ScriptedExchange,
    changes: dict[str, Any],
    says: str,
) -> None:
    plain = {"expires": datetime.now(UTC) + WEEK}
    letter.write_text(invitation(authority, **plain | changes).model_dump_json())
    assert says in refused("enrol", letter, "--passphrase-file", passphrase, home=home)
    assert exchange.requests == []


def test_a_missing_invitation_is_refused(home: Path, passphrase: Path, tmp_path: Path) -> None:
    words = ("enrol", tmp_path / "none.json", "--passphrase-file", passphrase)
    assert "none.json" in refused(*words, home=home)


def test_an_exchange_that_does_not_answer_is_shown(
    home: Path, passphrase: Path, letter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(*_: object) -> None:
        raise LinkFault("The exchange does not answer", why="refused", fix="check the network")

    monkeypatch.setattr(cli, "_dial", down)
    assert "check the network" in refused(
        "enrol", letter, "--passphrase-file", passphrase, home=home
    )


def test_a_negative_wait_is_a_usage_error(home: Path, letter: Path) -> None:
    assert run("enrol", letter, "--wait", "-1", home=home).exit_code == 2


def test_accept_names_a_bad_file(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "bundle.json"
    file.write_text("{}")
    for given in (file, tmp_path / "none.json"):
        result = run("accept", given, home=home)
        assert result.exit_code == 1
        assert result.stderr


def test_doctor_exits_with_one_if_a_check_fails(home: Path, passphrase: Path) -> None:
    result = run("doctor", "--passphrase-file", passphrase, home=home)
    assert result.exit_code == 1
    assert "FAIL  officer: " in result.stdout
    assert "      to do: " in result.stdout


def test_doctor_prints_json_for_a_machine(home: Path, passphrase: Path) -> None:
    result = run("doctor", "--json", "--passphrase-file", passphrase, home=home)
    assert result.exit_code == 1
    states = {one["name"]: one["state"] for one in json.loads(result.stdout)}
    assert (states["keys"], states["officer"]) == ("good", "failed")


def test_status_pause_and_resume_call_the_daemon(
    federation: NodeFederation,
) -> None:
    node, home = federation.nodes["DK"], federation.home("DK")
    home.write_settings(federation.settings("DK"))

    def answer(method: str, params: Any) -> Any:
        if method == "pause":
            node.pause(**params)
        if method == "resume":
            node.resume()
        return node.status(LinkStatus(connected=True)).to_json()

    rpc_server = LocalRpcServer(home.socket, answer)
    try:
        assert "Now: idle, connected" in run("status", home=home.path).stdout
        assert json.loads(run("status", "--json", home=home.path).stdout)["country"] == "DK"
        paused = run("pause", "--reason", "audit", home=home.path)
        assert paused.stdout == "paused: audit\n"
        assert run("resume", home=home.path).stdout == "idle, connected\n"
    finally:
        rpc_server.close()


def test_the_home_comes_from_the_environment(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRATIQUE_HOME", str(home))
    assert "start it with `pratique-node up`" in refused("status")


@pytest.mark.parametrize(
    "command", ["init", "enrol", "accept", "doctor", "up", "status", "pause", "resume"]
)
def test_every_command_has_a_help_text(command: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    assert "--home" in result.stdout


def test_help_imports_nothing_heavy() -> None:
    """Simple commands start at once: large packages are imported only when needed."""
    program = (
        "import sys; sys.argv = ['pratique-node', '--help']\n"
        "from client.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'flwr', 'duckdb', 'numpy', 'opendp', 'scipy', 'sqlalchemy', 'grpc', 'tuf'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[3],
    )
    assert done.stderr.strip() == "[]"


def test_doctor_escapes_control_characters_in_texts_of_others(
    home: Path, passphrase: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finding = CheckResult(
        "documents", CheckState.FAILED, "refused: \x1b[2Jall is well", "ask \x1b[1Athem"
    )
    monkeypatch.setattr("client.commands.doctor.Doctor.results", lambda self: iter([finding]))
    result = run("doctor", "--passphrase-file", passphrase, home=home)
    assert "all is well" in result.output
    assert "\x1b" not in result.output
