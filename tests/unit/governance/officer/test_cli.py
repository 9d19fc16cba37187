import json
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from governance.officer.cli import app
from governance.officer.home import Identity, OfficerHome
from keys.identity import VerifyKey
from tests.support.officers import PASSPHRASE, OfficerCommands, use_fast_key_stores

HEAVY = (
    "cedarpy",
    "cryptography",
    "dp_accounting",
    "duckdb",
    "flwr",
    "grpc",
    "numpy",
    "opendp",
    "pydantic",
    "scipy",
    "sqlalchemy",
    "tuf",
)
COMMANDS = (
    ("inbox",),
    ("sign", "--yes"),
    ("show", "any"),
    ("approve", "any", "--yes"),
    ("refuse", "any", "--reason", "No.", "--yes"),
    ("withdraw", "any", "--reason", "No.", "--yes"),
    ("renew",),
)


def python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout


def test_help_imports_nothing_slow() -> None:
    """The limit is half a second; imports would take the time."""
    code = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from governance.officer.cli import app\n"
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0\n"
        "print(*sys.modules)"
    )
    loaded = {name.partition(".")[0] for name in python(code).split()}
    assert loaded.isdisjoint(HEAVY)


def test_reading_the_inbox_needs_no_accountant_and_no_records() -> None:
    """Importing those takes seconds, which only commands that weigh a study may need."""
    modules = "governance.officer.commands_sign, governance.officer.commands_read"
    code = f"import sys, {modules}\nprint(*sys.modules)"
    loaded = {name.partition(".")[0] for name in python(code).split()}
    assert loaded.isdisjoint({"duckdb", "opendp", "flwr", "torch"})


def test_every_command_exists() -> None:
    output = CliRunner().invoke(app, ["--help"]).output
    for command in (
        "keygen", "enrol", "inbox", "sign", "show", "approve", "refuse", "withdraw", "renew", "log",
    ):  # fmt: skip
        assert command in output


@pytest.mark.parametrize("arguments", COMMANDS, ids=lambda arguments: arguments[0])
class TestEveryCommand:
    def test_every_command_refuses_a_wrong_passphrase(
        self, enrolled: OfficerCommands, arguments: tuple[str, ...]
    ) -> None:
        enrolled.passphrase_file.write_text("another passphrase")
        assert "passphrase does not open the key store" in enrolled.refused(*arguments)

    def test_every_command_refuses_a_passphrase_that_others_can_read(
        self, enrolled: OfficerCommands, arguments: tuple[str, ...]
    ) -> None:
        enrolled.passphrase_file.chmod(0o644)
        assert "open to other users" in enrolled.refused(*arguments)

    def test_every_command_refuses_to_run_without_a_passphrase(
        self, enrolled: OfficerCommands, arguments: tuple[str, ...]
    ) -> None:
        assert "There is no terminal to type it at" in enrolled.refused(*arguments, unlock=False)

    def test_every_command_needs_a_folder(self, tmp_path: Path, arguments: tuple[str, ...]) -> None:
        result = CliRunner().invoke(app, [*arguments, "--home", str(tmp_path / "none")])
        assert result.exit_code == 1
        assert "There is no officer in" in result.stderr
        assert "keygen" in result.stderr
        assert not (tmp_path / "none").exists()

    def test_every_command_closes_its_channel(
        self, enrolled: OfficerCommands, arguments: tuple[str, ...]
    ) -> None:
        before = enrolled.exchange.closed
        enrolled.exchange.down = True
        enrolled.run(*arguments)
        assert enrolled.exchange.closed == before + (0 if arguments[0] == "renew" else 1)


@pytest.mark.parametrize("arguments", COMMANDS[:5], ids=lambda arguments: arguments[0])
def test_an_officer_who_is_not_enrolled_reads_how_to_enrol(
    officer: OfficerCommands, arguments: tuple[str, ...]
) -> None:
    output = officer.refused(*arguments)
    assert "not enrolled" in output
    assert "pratique-officer enrol" in output


@pytest.mark.parametrize(
    "arguments",
    [
        ("approve",),
        ("refuse", "any"),
        ("keygen", "--country", "DK"),
        ("enrol",),
        ("no-such-command",),
        ("inbox", "--no-such-option"),
        ("log", "list", "--last", "0"),
        ("approve", "any", "--epsilon-at-most", "much"),
    ],
    ids=" ".join,
)
def test_a_mistyped_command_exits_with_status_2(
    officer: OfficerCommands, arguments: tuple[str, ...]
) -> None:
    assert officer.run(*arguments, unlock=False).exit_code == 2


class TestKeygen:
    @pytest.fixture(autouse=True)
    def _cheap(self, monkeypatch: pytest.MonkeyPatch) -> None:
        use_fast_key_stores(monkeypatch)

    @pytest.fixture
    def arguments(self, tmp_path: Path) -> list[str]:
        secret = tmp_path / "passphrase"
        secret.write_text(PASSPHRASE)
        secret.chmod(0o600)
        arguments = ["keygen", "--home", str(tmp_path / "home"), "--passphrase-file", str(secret)]
        return [*arguments, "--country", "DK", "--authority", "Health data authority"]

    def home(self, tmp_path: Path) -> OfficerHome:
        return OfficerHome(tmp_path / "home")

    def test_keygen_prints_the_key_and_its_fingerprint(
        self, tmp_path: Path, arguments: list[str]
    ) -> None:
        output = CliRunner().invoke(app, arguments).stdout
        text = self.home(tmp_path).key_file.read_text().strip()
        assert text in output
        assert VerifyKey.from_text(text).fingerprint in output
        assert "pratique-officer enrol" in output

    def test_keygen_creates_a_folder_for_its_owner_only(
        self, tmp_path: Path, arguments: list[str]
    ) -> None:
        CliRunner().invoke(app, arguments)
        home = self.home(tmp_path)
        assert stat.S_IMODE(home.path.stat().st_mode) == 0o700
        assert Identity.open(home, home.settings(), PASSPHRASE.encode())

    def test_keygen_prints_json_on_request(self, tmp_path: Path, arguments: list[str]) -> None:
        answer = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
        assert answer["key"] == self.home(tmp_path).settings().document_key
        assert answer["country"] == "DK"

    def test_keygen_runs_once_in_a_folder(self, tmp_path: Path, arguments: list[str]) -> None:
        CliRunner().invoke(app, arguments)
        before = self.home(tmp_path).settings()
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 1
        assert "There is an officer in" in result.stderr
        assert self.home(tmp_path).settings() == before
        assert Identity.open(self.home(tmp_path), before, PASSPHRASE.encode())

    @pytest.mark.parametrize("country", ["UK", "Denmark", "dk", ""])
    def test_keygen_requires_a_country_code(
        self, tmp_path: Path, arguments: list[str], country: str
    ) -> None:
        result = CliRunner().invoke(app, [*arguments, "--country", country])
        assert result.exit_code == 1
        assert "country cannot be used" in result.stderr
        assert not (tmp_path / "home").exists()

    def test_keygen_requires_a_passphrase(self, tmp_path: Path, arguments: list[str]) -> None:
        (tmp_path / "passphrase").write_text("\n")
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 1
        assert "It is empty" in result.stderr
        assert not (tmp_path / "home").exists()

    def test_keygen_reports_a_folder_that_cannot_be_created(
        self, tmp_path: Path, arguments: list[str]
    ) -> None:
        (tmp_path / "home").write_text("a file is in the way")
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 1
        assert "Traceback" not in result.output
        assert "home" in result.stderr
