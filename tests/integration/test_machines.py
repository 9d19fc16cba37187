"""Real commands on ordinary machines: no HOME, other terminals, odd folders, full disks."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from governance.runtime.local_rpc import MAX_PATH
from keys.identity import SigningKey
from tests.support.programs import PROGRAMS, run_program, words

OFFICER = SigningKey.from_bytes(b"5" * 32).public.to_text()
DICTIONARY = """\
dictionary: 1
title: Ward register
patient: id
features:
  - {name: age, type: numeric, unit: years, bounds: [0, 120]}
  - {name: sex, type: categorical, codes: {1: male, 2: female}}
"""
RECORDS = "id,age,sex\na,34,1\nb,71,2\n"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("f")
    (folder / "data.csv").write_text(RECORDS)
    (folder / "dictionary.yaml").write_text(DICTIONARY)
    secret = folder / "pass"
    secret.write_text("four random words here\n")
    secret.chmod(0o600)
    return folder


def init_node(
    files: Path, home: str | bytes | Path, **more: Any
) -> subprocess.CompletedProcess[bytes]:
    data = more.pop("data", files / "data.csv")
    return run_program(
        "pratique-node",
        *("init", "--country", "DE", "--officer-key", OFFICER, "--home", home),
        *("--data", data, "--dictionary", files / "dictionary.yaml"),
        *("--passphrase-file", files / "pass"),
        **more,
    )


def init_coordinator(
    files: Path, home: str | bytes | Path, address: str = "office.example:7443", **more: Any
) -> subprocess.CompletedProcess[bytes]:
    return run_program(
        "pratique-coordinator",
        *("init", "--federation", "t", "--listen", "127.0.0.1:7446", "--address", address),
        *("--home", home, "--passphrase-file", files / "pass"),
        **more,
    )


def keygen(
    files: Path, home: str | bytes | Path, **more: Any
) -> subprocess.CompletedProcess[bytes]:
    return run_program(
        "pratique-officer",
        *("keygen", "--country", "DE", "--authority", "Health data authority"),
        *(("--home", home) if home else ()),
        *("--passphrase-file", files / "pass"),
        **more,
    )


Init = Callable[..., subprocess.CompletedProcess[bytes]]
every_init = pytest.mark.parametrize("init", [init_node, init_coordinator, keygen])


def refused(done: subprocess.CompletedProcess[bytes], *said: str) -> str:
    """Expect a refusal in plain words, without a traceback; return them."""
    text = done.stderr.decode("utf-8", "replace")
    assert done.returncode in {1, 2}, (done.returncode, text, done.stdout)
    assert "Traceback" not in text
    flat = " ".join(text.replace("│", " ").split())
    for part in said:
        assert part in flat, flat
    return flat


def worked(done: subprocess.CompletedProcess[bytes]) -> str:
    assert done.returncode == 0, done.stderr.decode("utf-8", "replace")
    return done.stdout.decode("utf-8", "replace")


# No HOME, no entry in passwd


AS_A_STRANGER = ["setpriv", "--reuid", "54321", "--clear-groups"]
"""Runs a command as a user without an entry in passwd. Its group stays: it may read Python."""
needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("setpriv"),
    reason="only root can become a user without an entry",
)


@needs_root
@pytest.mark.parametrize("program", PROGRAMS)
def test_without_a_home_folder_help_works_and_a_command_says_what_to_set(program: str) -> None:
    help_text = worked(run_program(program, "--help", before=AS_A_STRANGER))
    assert "Usage" in help_text
    command = ["inbox"] if program == "pratique-officer" else ["status"]
    done = run_program(program, *command, before=AS_A_STRANGER)
    refused(done, "HOME is not set", "--home, or PRATIQUE_HOME")


def test_with_pratique_home_no_home_folder_is_needed(files: Path, tmp_path: Path) -> None:
    worked(init_node(files, tmp_path / "n"))
    done = run_program("pratique-node", "status", env={"PRATIQUE_HOME": str(tmp_path / "n")})
    refused(done, "Nothing answers at")


@every_init
def test_a_tilde_is_expanded_by_every_program(files: Path, tmp_path: Path, init: Init) -> None:
    """A service's Environment= and an env file are read by no shell."""
    worked(init(files, "~/off", env={"HOME": str(tmp_path)}, cwd=tmp_path))
    assert (tmp_path / "off" / "keys").is_dir()
    assert not (tmp_path / "~").exists()


def test_a_tilde_in_pratique_home_is_expanded(files: Path, tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path), "PRATIQUE_HOME": "~/off"}
    worked(keygen(files, "", env=environment, cwd=tmp_path))
    assert (tmp_path / "off" / "officer.yaml").is_file()
    assert not (tmp_path / "~").exists()


# Terminals


@pytest.mark.parametrize("encoding", ["iso8859-1", "ascii", "cp1252", "utf-8"])
def test_text_comes_on_any_terminal(files: Path, tmp_path: Path, encoding: str) -> None:
    environment = {"PYTHONIOENCODING": encoding, "COLUMNS": "400"}
    done = run_program(
        "pratique-officer",
        *("keygen", "--country", "GR", "--authority", "Υπουργείο \u03b5"),
        *("--home", tmp_path / "o", "--passphrase-file", files / "pass"),
        env=environment,
    )
    text = worked(done).encode().decode() if encoding == "utf-8" else done.stdout.decode(encoding)
    assert done.returncode == 0, done.stderr
    assert ("ε" if encoding == "utf-8" else "\\u03b5") in text
    done = run_program("pratique-officer", "approve", "--help", env=environment)
    assert ("ε" if encoding == "utf-8" else "\\u03b5") in done.stdout.decode(encoding)


def test_an_iso_8859_1_locale_shows_a_code_for_what_it_lacks(tmp_path: Path) -> None:
    source = ["localedef", "-i", "de_DE", "-f", "ISO-8859-1", str(tmp_path / "de_DE.ISO-8859-1")]
    if shutil.which("localedef") is None:
        pytest.skip("no localedef")
    if subprocess.run(source, capture_output=True, check=False).returncode != 0:
        pytest.skip("no sources of locales")
    environment = {"LOCPATH": str(tmp_path), "LC_ALL": "de_DE.ISO-8859-1"}
    done = run_program("pratique-officer", "approve", "--help", env=environment)
    assert "\\u03b5" in worked(done)


def test_json_is_json_on_any_terminal(files: Path, tmp_path: Path) -> None:
    done = run_program(
        "pratique-officer",
        *("keygen", "--country", "DE", "--authority", "Büro 😀 ε", "--json"),
        *("--home", tmp_path / "o", "--passphrase-file", files / "pass"),
        env={"PYTHONIOENCODING": "ascii"},
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["country"] == "DE"


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)])
def test_closed_standard_streams_are_no_reason_for_a_traceback(
    files: Path, tmp_path: Path, closed: tuple[int, ...]
) -> None:
    """Without a stream, the next file that is opened would get its number, and what is printed."""
    redirections = " ".join(f"{number}{'<' if number == 0 else '>'}&-" for number in closed)
    command = words(
        "pratique-coordinator",
        *("init", "--federation", "t", "--listen", "127.0.0.1:7446"),
        *("--home", tmp_path / "c", "--passphrase-file", files / "pass"),
    )
    done = subprocess.run(
        ["/bin/sh", "-c", f'"$@" {redirections}', "sh", *command], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr
    assert b"was created in" not in (tmp_path / "c" / "state.db").read_bytes()
    asked = subprocess.run(
        ["/bin/sh", "-c", f'"$@" {redirections}', "sh", *words("pratique-node", "doctor")],
        capture_output=True,
        check=False,
        env={"PRATIQUE_HOME": str(tmp_path / "none")},
    )
    assert b"Traceback" not in asked.stderr


def test_a_reader_that_ends_early_is_no_error(files: Path, tmp_path: Path) -> None:
    command = words("pratique-officer", "approve", "--help")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        errors = process.stderr.read()
        assert (process.wait(60) in {1, 141}, errors) == (True, b"")


# Folders


@pytest.mark.parametrize("init", [init_node, init_coordinator])
def test_a_home_without_room_for_the_socket_is_refused_at_init(
    files: Path, tmp_path: Path, init: Init
) -> None:
    home = tmp_path / ("l" * MAX_PATH) / "n"
    refused(init(files, home), "is too long for a home", "or fewer")
    assert not home.parent.exists()


@every_init
def test_a_folder_with_a_name_that_is_not_utf_8_is_refused(
    files: Path, tmp_path: Path, init: Init
) -> None:
    folder = os.fsencode(tmp_path) + b"/B\xfcro"
    Path(os.fsdecode(folder)).mkdir()
    refused(init(files, folder + b"/home", cwd=folder), "not UTF-8", "rename this file or folder")
    assert not list(Path(os.fsdecode(folder)).iterdir())


def test_records_in_a_folder_that_is_not_utf_8_are_refused(files: Path, tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path) + b"/B\xfcro"
    Path(os.fsdecode(folder)).mkdir()
    shutil.copy(files / "data.csv", os.fsdecode(folder))
    done = init_node(files, tmp_path / "n", data="data.csv", cwd=folder)
    refused(done, "not UTF-8")
    assert not (tmp_path / "n").exists()


@pytest.mark.parametrize("name", ["O'Brien's.csv", "Register Süd 2026.csv", 'a"b;$c.csv'])
def test_records_are_read_from_a_file_of_any_name(files: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(RECORDS)
    text = worked(init_node(files, tmp_path / "n", data=name, cwd=tmp_path))
    assert "2 patients" in text
    assert "created" in text


def test_packed_records_are_refused_plainly(files: Path, tmp_path: Path) -> None:
    packed = shutil.which("gzip")
    assert packed is not None
    shutil.copy(files / "data.csv", tmp_path / "data.csv")
    subprocess.run([packed, str(tmp_path / "data.csv")], check=True)
    refused(init_node(files, tmp_path / "n", data=tmp_path / "data.csv.gz"), "data.csv.gz")
    assert not (tmp_path / "n").exists()


# A half-made folder


@pytest.mark.parametrize(
    "address", ["office.example.:7443", "office.example:0", "office.example:70000", "a_b:1", "-x:1"]
)
def test_an_address_that_cannot_be_used_is_refused_before_anything_is_made(
    files: Path, tmp_path: Path, address: str
) -> None:
    refused(init_coordinator(files, tmp_path / "c", address), "--address", "not port 0")
    assert not (tmp_path / "c").exists()
    worked(init_coordinator(files, tmp_path / "c"))


@every_init
def test_a_killed_init_does_not_stand_in_the_way_of_the_next(
    files: Path, tmp_path: Path, init: Init
) -> None:
    home = tmp_path / "h"
    home.mkdir(mode=0o700)
    (home / ".unfinished").mkdir(mode=0o700)
    (home / ".unfinished" / "keys").mkdir(mode=0o700)
    (home / ".unfinished" / "keys" / "store.header").write_text("x")
    worked(init(files, home))
    assert not (home / ".unfinished").exists()
    again = init(files, home)
    refused(again, "already")


@every_init
def test_a_full_disk_is_said_and_leaves_nothing(files: Path, tmp_path: Path, init: Init) -> None:
    """A limit on the size of files takes the place of the disk: writes fail in the same way."""

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (40, 40))

    text = refused(init(files, tmp_path / "h", preexec_fn=limit))
    assert "File too large" in text or "disk" in text
    assert not (tmp_path / "h").exists()


@every_init
@pytest.mark.parametrize("umask", [0o000, 0o777])
def test_files_are_private_whatever_the_umask(
    files: Path, tmp_path: Path, init: Init, umask: int
) -> None:
    worked(init(files, tmp_path / "h", umask=umask))
    for path in [tmp_path / "h", *(tmp_path / "h").rglob("*")]:
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path


@needs_root
@every_init
def test_a_folder_that_cannot_be_written_is_said(files: Path, tmp_path: Path, init: Init) -> None:
    parent = tmp_path / "not-yours"
    parent.mkdir(mode=0o700)
    readable = shutil.copytree(files, tmp_path / "files")
    for path in [readable, *readable.iterdir()]:
        os.chown(path, 54321, 0)
    with _entered_by_group(tmp_path):
        done = init(readable, parent / "h", before=AS_A_STRANGER)
    refused(done, "Permission denied")


@contextmanager
def _entered_by_group(folder: Path) -> Iterator[None]:
    """Let this group pass pytest's folders while the block runs."""
    above = [
        path
        for path in (folder, *folder.parents)
        if path.name.startswith(("pytest", "popen", "test"))
    ]
    modes = {path: path.stat().st_mode for path in above}
    for path in above:
        path.chmod(modes[path] | 0o010)
    yield
    for path in above:
        path.chmod(modes[path])


# Settings in another encoding


def test_settings_in_latin_1_are_refused_in_a_sentence(files: Path, tmp_path: Path) -> None:
    worked(init_coordinator(files, tmp_path / "c"))
    with (tmp_path / "c" / "coordinator.yaml").open("ab") as opened:
        opened.write("# für die Prüfung\n".encode("latin-1"))
    done = run_program(
        "pratique-coordinator",
        *("up", "--home", tmp_path / "c", "--passphrase-file", files / "pass"),
    )
    refused(done, "coordinator.yaml cannot be read", "not UTF-8 text")


# Secrets of an orchestrator


def test_a_secret_with_mode_0440_of_root_opens_the_keys(files: Path, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a secret")
    folder = tmp_path / "secrets"
    folder.mkdir(mode=0o755)
    secret = folder / "passphrase"
    shutil.copy(files / "pass", secret)
    secret.chmod(0o440)
    worked(keygen(files, tmp_path / "o"))
    done = run_program(
        "pratique-officer", "inbox", "--home", tmp_path / "o", "--passphrase-file", secret
    )
    refused(done, "not enrolled")
    secret.chmod(0o444)
    done = run_program(
        "pratique-officer", "inbox", "--home", tmp_path / "o", "--passphrase-file", secret
    )
    refused(done, "open to other users")


# Any environment


ENVIRONMENTS = st.dictionaries(
    st.sampled_from(
        ["HOME", "PATH", "TMPDIR", "LANG", "LC_ALL", "COLUMNS", "TERM", "ALL_PROXY", "https_proxy"]
    ),
    st.sampled_from(["", "/nonexistent", "~", "socks5://127.0.0.1:9", "de_DE", "C", "0", "dumb"]),
)


@pytest.fixture(scope="module")
def coordinator(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("c") / "c"
    worked(init_coordinator(files, home))
    return home


@settings(max_examples=6)
@given(environment=ENVIRONMENTS)
def test_no_environment_causes_a_traceback(coordinator: Path, environment: dict[str, str]) -> None:
    done = run_program("pratique-coordinator", "status", "--home", coordinator, env=environment)
    refused(done, "Nothing answers at")


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_a_daemon_writes_where_native_code_crashed(tmp_path: Path) -> None:
    source = (
        "from governance.runtime.logs import configure; configure();\n"
        "import os, signal; secret = 'p17'; os.kill(os.getpid(), signal.SIGSEGV)"
    )
    done = subprocess.run(
        [sys.executable, "-c", source],
        capture_output=True,
        check=False,
        cwd=Path(__file__).parents[2],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, (0, 0)),
    )
    assert done.returncode == -signal.SIGSEGV
    assert b"Segmentation fault" in done.stderr
    assert b"p17" not in done.stderr
