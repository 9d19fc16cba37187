"""How the SuperLink is started and controlled; integration tests use a real one."""

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from server.errors import CoordinatorFault
from server.flower import superlink
from server.flower.launcher import LAUNCHER, command
from server.flower.superlink import NOWHERE, SuperLink

GRPC_SWITCHES = {"FLWR_INTERNAL_GRPC_CONTROL_API", "FLWR_INTERNAL_GRPC_FLEET_API"}
"""With one of these set to 1 the SuperLink opens another port, which speaks gRPC."""


@pytest.fixture
def link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SuperLink]:
    monkeypatch.setenv("PRATIQUE_PASSPHRASE", "canary")
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    monkeypatch.setenv("LD_PRELOAD", "")
    monkeypatch.setenv("FLWR_TELEMETRY_ENABLED", "1")
    for name in GRPC_SWITCHES:
        monkeypatch.setenv(name, "1")
    (tmp_path / "home").mkdir()
    superlink = SuperLink(tmp_path / "home", environment={"PRATIQUE_COORDINATOR_HOME": "/x"})
    yield superlink
    superlink.close()


def answers(monkeypatch: pytest.MonkeyPatch, stdout: str, code: int = 0) -> list[Any]:
    """Let `flwr` print this answer; return the list of its calls."""
    commands: list[Any] = []

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        commands.append((command, options))
        return subprocess.CompletedProcess(command, code, stdout, "trouble")

    monkeypatch.setattr(subprocess, "run", run)
    return commands


def test_the_environment_of_flower_contains_only_the_needed_variables(link: SuperLink) -> None:
    environment = link._environment
    assert environment["FLWR_TELEMETRY_ENABLED"] == "0"
    assert environment["FLWR_DISABLE_UPDATE_CHECK"] == "1"
    assert environment["PYTHONSAFEPATH"] == "1"
    assert environment["PRATIQUE_COORDINATOR_HOME"] == "/x"
    assert not {"PRATIQUE_PASSPHRASE", "PYTHONPATH", "LD_PRELOAD"} & set(environment)
    assert not GRPC_SWITCHES & set(environment)
    assert "canary" not in str(environment)


def test_flower_gets_the_absolute_path_of_a_relative_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    superlink = SuperLink(Path("near"), environment={})
    calls = answers(monkeypatch, '{"success": true, "node-id": "7"}')
    superlink.register("ecdsa-sha2-nistp384 AAAA")
    superlink.close()
    options = calls[0][1]
    assert options["cwd"] == tmp_path / "near"
    assert options["env"]["FLWR_HOME"] == str(tmp_path / "near" / "flwr")


def test_no_variable_of_the_daemon_reaches_flower(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = SuperLink(tmp_path, environment={"A": "b"})._environment
    for name in ("PATH", "HOME", "LANG", "TMPDIR", "HTTPS_PROXY", "all_proxy", "FLWR_HOME"):
        monkeypatch.setenv(name, "/hostile")
    after = SuperLink(tmp_path, environment={"A": "b"})._environment
    assert after == before
    assert after["PATH"] == NOWHERE
    assert not Path(NOWHERE).exists()


def test_every_program_is_started_by_its_path(link: SuperLink) -> None:
    for words in (link._superlink_command(), link._superexec_command()):
        assert words[:4] == [sys.executable, "-I", str(LAUNCHER), str(os.getpid())]
        assert Path(words[2]).is_absolute()


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
def test_secrets_are_not_made_where_others_can_replace_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    shared = tmp_path / "runtime"
    shared.mkdir()
    shared.chmod(mode)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(shared))
    link = SuperLink(tmp_path / "home", environment={})
    assert link._secrets.parent != shared
    link.close()
    shared.chmod(0o700)
    link = SuperLink(tmp_path / "home", environment={})
    assert link._secrets.parent == shared
    link.close()


def test_secrets_are_in_the_home_if_there_is_no_folder_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(superlink, "_memory_folders", lambda: iter([tmp_path / "none"]))
    link = SuperLink(tmp_path / "home", environment={})
    assert link._secrets.parent == tmp_path / "home"
    link.close()
    assert not list((tmp_path / "home").iterdir())


def test_the_command_line_opens_nothing_but_loopback(link: SuperLink) -> None:
    command = link._superlink_command()
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert command[command.index("--port") + 1] == str(link.port)
    assert link.address == f"127.0.0.1:{link.port}"
    assert not {"--insecure", "--database"} & set(command)
    secret_file = command[command.index("--superexec-auth-secret-file") + 1]
    assert secret_file == link._superexec_command()[-1]


def test_secrets_are_new_at_each_start_and_readable_by_the_owner_only(
    link: SuperLink, tmp_path: Path
) -> None:
    link._write_secrets()
    folder = link.root_certificate.parent
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(f.stat().st_mode) for f in folder.iterdir()} == {0o600}
    assert len((folder / "superexec").read_bytes()) == 32
    other = SuperLink(tmp_path / "other", environment={})
    other._write_secrets()
    for name in ("superexec", "key.pem", "ca.pem"):
        theirs = other.root_certificate.parent / name
        assert theirs.read_bytes() != (folder / name).read_bytes()
    other.close()
    assert not other.root_certificate.parent.exists()


def test_answers_of_flower_are_returned_unchanged(
    link: SuperLink, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls = answers(monkeypatch, json.dumps({"success": True, "run-id": "77", "runs": [{"a": 1}]}))
    assert link.run(tmp_path) == 77
    assert link.runs() == [{"a": 1}]
    link.stop(77)
    own = len(command(LAUNCHER, "flwr"))
    assert [words[own - 1 : own] for words, _ in calls] == [["flwr"]] * 3
    assert [words[own:] for words, _ in calls] == [
        ["run", str(tmp_path), "local", "--format", "json"],
        ["list", "local", "--format", "json"],
        ["stop", "77", "local", "--format", "json"],
    ]
    assert all(options["env"] == link._environment for _, options in calls)
    assert all(options["timeout"] for _, options in calls)


@pytest.mark.parametrize(
    ("stdout", "code", "why"),
    [
        ('{"success": false, "error-message": "no such run"}', 1, "no such run"),
        ('{"success": false, "error-message": "no such run"}', 0, "no such run"),
        ("not json", 0, "trouble"),
        ("", 2, "trouble"),
        ('{"run-id": "7"}', 0, ""),
        ('{"success": true}', 3, ""),
    ],
)
def test_a_refusal_by_flower_is_reported_in_plain_words(
    link: SuperLink, monkeypatch: pytest.MonkeyPatch, stdout: str, code: int, why: str
) -> None:
    answers(monkeypatch, stdout, code)
    with pytest.raises(CoordinatorFault) as caught:
        link.stop(7)
    assert caught.value.what == "Flower refused `flwr stop`"
    assert why in caught.value.why
    assert "superlink.log" in caught.value.fix


def test_a_flower_command_that_hangs_is_reported_in_plain_words(
    link: SuperLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hang(command: list[str], **_: Any) -> None:
        raise subprocess.TimeoutExpired(command, 60)

    monkeypatch.setattr(subprocess, "run", hang)
    with pytest.raises(CoordinatorFault, match="did not answer `flwr list`") as caught:
        link.runs()
    assert caught.value.fix


def test_a_key_file_does_not_outlive_its_registration(
    link: SuperLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = link.root_certificate.parent
    answers(monkeypatch, json.dumps({"success": True, "node-id": "12"}))
    assert link.register("ecdsa-sha2-nistp384 AAAA") == 12
    answers(monkeypatch, "", 1)
    with pytest.raises(CoordinatorFault):
        link.register("ecdsa-sha2-nistp384 AAAA")
    assert list(folder.iterdir()) == []


def test_a_superlink_that_does_not_start_says_why(
    link: SuperLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        link, "_superlink_command", lambda: ["/bin/sh", "-c", "echo port taken; exit 3"]
    )
    monkeypatch.setattr(superlink, "_listens", lambda _: False)
    with pytest.raises(CoordinatorFault) as caught:
        link.start()
    assert "did not start" in caught.value.what
    assert "port taken" in caught.value.why
    assert not link.root_certificate.parent.exists()


def test_a_process_that_ended_by_itself_is_named(link: SuperLink) -> None:
    assert link.failed_process() is None
    link._spawn("superlink", ["/bin/sleep", "60"])
    link._spawn("superexec", ["/bin/true"])
    link._processes[1].wait(10)
    assert link.failed_process() == "superexec"
    survivor = link._processes[0]
    link.close()
    assert survivor.returncode is not None
    assert link.failed_process() is None


def test_a_restart_ends_the_other_process_and_uses_new_secrets_and_another_port(
    link: SuperLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    link._spawn("superlink", ["/bin/sleep", "60"])
    left, folder, port = link._processes[0], link._secrets, link.port
    started: list[int] = []
    monkeypatch.setattr(link, "start", lambda: started.append(link.port))
    monkeypatch.setattr(superlink, "_free_port", lambda: port + 1)
    link.restart()
    assert left.returncode is not None
    assert not folder.exists()
    assert link._secrets.is_dir()
    assert started == [link.port] == [port + 1]


def test_a_process_that_ignores_the_signal_to_end_is_killed(
    link: SuperLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(superlink, "STOP_SECONDS", 0.3)
    stubborn = "trap '' TERM; echo up; while true; do sleep 0.1; done"
    link._spawn("superlink", ["/bin/sh", "-c", stubborn])
    log = link._home / "superlink.log"
    while "up" not in log.read_text():
        pass
    process = link._processes[0]
    link.close()
    assert process.returncode == -9
