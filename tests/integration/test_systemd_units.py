"""The shipped service files: commands that exist, one user each, and full hardening."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from governance.runtime.descriptors import USUAL_LIMIT
from tests.integration.test_pages import command_of, options_of
from tests.support.command_help import PROGRAMS

FOLDER = Path(__file__).parents[2] / "docs" / "systemd"
UNITS = sorted(FOLDER.glob("*.service"))
RULES = sorted(FOLDER.glob("*.nft"))
INSTALLED = "/opt/pratique/bin"
HIGHEST_EXPOSURE = 2.0
"""Limit for `systemd-analyze security`: below 2.0 is OK; without hardening it is 9.6, UNSAFE."""
HARDENED = {
    "NoNewPrivileges": "yes",
    "ProtectSystem": "strict",
    "ProtectHome": "yes",
    "ProtectProc": "invisible",
    "PrivateTmp": "yes",
    "PrivateDevices": "yes",
    "CapabilityBoundingSet": "",
    "RestrictAddressFamilies": "AF_INET AF_INET6 AF_UNIX",
    "RestrictNamespaces": "yes",
    "SystemCallArchitectures": "native",
    "LimitCORE": "0",
    "LimitNOFILE": str(USUAL_LIMIT),
    "UMask": "0077",
    "StateDirectoryMode": "0700",
}
every_unit = pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)


def settings(unit: Path) -> Iterator[tuple[str, str]]:
    """Yield each setting of a unit file; a setting may occur several times."""
    for line in unit.read_text(encoding="utf-8").splitlines():
        if "=" in line and not line.startswith("#"):
            name, _, value = line.partition("=")
            yield name, value


def command_line(unit: Path) -> list[str]:
    """Return the words of ExecStart."""
    return shlex.split(dict(settings(unit))["ExecStart"])


def test_there_is_a_unit_for_each_daemon() -> None:
    names = {unit.stem for unit in UNITS}
    assert names >= {"pratique-node", "pratique-coordinator"}


@every_unit
def test_its_command_and_options_exist(unit: Path) -> None:
    path, *words = command_line(unit)
    folder, program = os.path.split(path)
    assert folder == INSTALLED
    assert program in PROGRAMS
    command, left = command_of([program, *words])
    assert {option for option in left if option.startswith("--")} <= options_of(command)
    assert not hasattr(command, "commands"), "a command is named, not a group"


@every_unit
def test_it_is_hardened(unit: Path) -> None:
    unit_settings = dict(settings(unit))
    assert {name: unit_settings.get(name) for name in HARDENED} == HARDENED
    filters = [value for name, value in settings(unit) if name == "SystemCallFilter"]
    assert filters == ["@system-service", "~@privileged @obsolete"]


@every_unit
def test_its_home_is_its_state_directory_and_its_user_its_own(unit: Path) -> None:
    unit_settings, words = dict(settings(unit)), command_line(unit)
    state = unit_settings["StateDirectory"]
    assert words[words.index("--home") + 1] == f"/var/lib/{state}"
    users = (FOLDER / "pratique.sysusers.conf").read_text(encoding="utf-8")
    assert re.search(rf"^u {unit_settings['User']} +- .*/var/lib/{state}$", users, re.MULTILINE)
    assert unit_settings["User"] != "root"


@every_unit
def test_the_passphrase_is_a_credential_and_nowhere_else(unit: Path) -> None:
    unit_settings, words = dict(settings(unit)), command_line(unit)
    name, _, source = unit_settings["LoadCredential"].partition(":")
    assert words[words.index("--passphrase-file") + 1] == f"%d/{name}"
    assert source.startswith("/etc/pratique/")
    assert "PASS" not in unit_settings.get("Environment", "")


@pytest.mark.parametrize("daemon", ["pratique-node", "pratique-coordinator"])
def test_daemons_notify_systemd_that_they_are_ready_and_alive(daemon: str) -> None:
    unit_settings = dict(settings(FOLDER / f"{daemon}.service"))
    assert (unit_settings["Type"], unit_settings["NotifyAccess"]) == ("notify", "main")
    assert unit_settings["Restart"] == "on-failure"
    assert int(unit_settings["WatchdogSec"]) >= 30
    assert unit_settings["ExecReload"] == "/bin/kill -HUP $MAINPID"


def with_installed_program(unit: Path, folder: Path) -> Path:
    """Return a copy of a unit whose program is the one that is installed here."""
    here = os.fspath(Path(sys.executable).parent)
    copy = folder / unit.name
    copy.write_text(unit.read_text(encoding="utf-8").replace(INSTALLED, here))
    return copy


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
@every_unit
def test_systemd_accepts_it_without_a_warning(unit: Path, tmp_path: Path) -> None:
    words = ["systemd-analyze", "verify", str(with_installed_program(unit, tmp_path))]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
@every_unit
def test_systemd_rates_its_exposure_as_low(unit: Path, tmp_path: Path) -> None:
    words = [
        "systemd-analyze",
        "security",
        "--offline=true",
        str(with_installed_program(unit, tmp_path)),
    ]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    level = re.search(r"exposure level for \S+: ([0-9.]+)", done.stdout)
    assert level is not None, done.stdout + done.stderr
    assert float(level[1]) < HIGHEST_EXPOSURE


CHILD_NEEDS = {
    *("vfork", "clone", "clone3", "execve", "wait4", "pipe2", "socketpair", "dup3"),
    *("prlimit64", "setrlimit", "prctl", "kill", "mmap", "set_robust_list"),
}
"""What a daemon needs to start a process with a limit on its memory, as the policy engine has."""


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
@every_unit
def test_it_may_start_a_process_with_limits(unit: Path) -> None:
    allowed: set[str] = set()
    for value in [value for name, value in settings(unit) if name == "SystemCallFilter"]:
        calls = set.union(*map(_system_calls, value.removeprefix("~").split()))
        allowed = allowed - calls if value.startswith("~") else allowed | calls
    assert allowed >= CHILD_NEEDS
    limits = dict(settings(unit))
    assert not {"TasksMax", "LimitNPROC", "LimitAS", "NoExecPaths"} & set(limits)


def _system_calls(group: str) -> set[str]:
    """Return the system calls in a group of systemd's, with those of its own groups."""
    words = ["systemd-analyze", "syscall-filter", group]
    listed = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split("\n")
    names = {line.strip() for line in listed if line.startswith("    ")}
    plain = {name for name in names if not name.startswith(("@", "#"))}
    return plain.union(*(_system_calls(name) for name in names if name.startswith("@")))


def test_there_are_rules_for_both_machines() -> None:
    assert [rule.stem for rule in RULES] == ["coordinator", "node"]


@pytest.mark.skipif(shutil.which("nft") is None, reason="nftables is not installed")
@pytest.mark.parametrize("rules", RULES, ids=lambda rules: rules.stem)
def test_nft_accepts_the_rules(rules: Path, tmp_path: Path) -> None:
    copy = tmp_path / rules.name
    copy.write_text(rules.read_text(encoding="utf-8").replace('"pratique-node"', "65534"))
    assert complaints(copy) == []


@pytest.mark.skipif(shutil.which("nft") is None, reason="nftables is not installed")
def test_nft_finds_a_mistake(tmp_path: Path) -> None:
    copy = tmp_path / "wrong.nft"
    text = RULES[0].read_text(encoding="utf-8")
    copy.write_text(text.replace("policy drop", "policy perhaps"))
    assert "syntax error" in complaints(copy)[0]


def complaints(rules: Path) -> list[str]:
    """Return nft's messages about rules, in a separate network if the kernel provides one.

    Without one, nft still parses the rules; only its request to the kernel fails.
    """
    check = ["nft", "-c", "-f", os.fspath(rules)]
    alone = ["unshare", "--map-root-user", "--net"]
    may = subprocess.run([*alone, "true"], capture_output=True, check=False).returncode == 0
    words = [*alone, *check] if may else check
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    lines = [line for line in done.stderr.splitlines() if "Operation not permitted" not in line]
    assert lines or done.returncode == 0 or not may, done.stderr
    return lines
