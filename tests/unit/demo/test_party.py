"""Commands as processes: what they print, how they fail, and that none outlives the demo."""

import os
import signal
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo import party as room
from demo.party import CommandFailed, Party, Processes

PROGRAM = """#!{python}
import os, signal, sys, time
words = sys.argv[1:]
if words[0] == "say":
    print("said", words[1]); print("aside", file=sys.stderr)
elif words[0] == "json":
    print('{{"home": "%s", "HOME": "%s", "TMPDIR": "%s"}}' % (
        words[words.index("--home") + 1], os.environ["HOME"], os.environ["TMPDIR"]))
elif words[0] == "fail":
    print("it broke", file=sys.stderr); sys.exit(1)
elif words[0] == "misuse":
    sys.exit(2)
elif words[0] == "up":
    if "stubborn" in words:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("ready"); sys.stdout.flush(); time.sleep(60)
elif words[0] == "unlock":
    print(open(words[words.index("--passphrase-file") + 1]).read())
"""


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    for name in ("logs", "tmp"):
        (tmp_path / name).mkdir()
    processes = Processes(tmp_path / "logs")
    yield processes
    processes.end_all()


@pytest.fixture
def party(tmp_path: Path, processes: Processes, monkeypatch: pytest.MonkeyPatch) -> Party:
    program = tmp_path / "program"
    program.write_text(PROGRAM.format(python=sys.executable))
    program.chmod(0o700)
    monkeypatch.setattr(room, "PROGRAMS", tmp_path)
    party = Party("officer XA", "program", tmp_path / "homes" / "xa", processes)
    party.create_passphrase()
    return party


def process_ended(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_a_command_gets_its_arguments_and_returns_its_output(party: Party) -> None:
    assert party.run("say", "hello") == "said hello\n"


def test_each_party_has_a_separate_folder_and_writes_nothing_elsewhere(
    party: Party, tmp_path: Path
) -> None:
    answer = party.ask("json")
    home, scratch = str(party.home), str(tmp_path / "tmp")
    assert answer == {"home": home, "HOME": home, "TMPDIR": scratch}


def test_the_passphrase_is_in_a_file_that_only_its_owner_reads(party: Party) -> None:
    assert stat.S_IMODE(party.passphrase.stat().st_mode) == 0o600
    assert party.run("unlock", unlock=True).strip() == party.passphrase.read_text()
    assert len(party.passphrase.read_text()) >= 20


def test_a_failing_command_shows_what_it_printed(party: Party) -> None:
    with pytest.raises(CommandFailed, match="program fail\nended with status 1:\nit broke"):
        party.run("fail")


def test_a_refusal_gives_its_reason(party: Party) -> None:
    assert party.refused("fail") == "it broke\n"


@pytest.mark.parametrize("words", [("say", "yes"), ("misuse",)])
def test_a_command_that_should_be_refused_and_is_not_is_a_failure(
    party: Party, words: tuple[str, ...]
) -> None:
    with pytest.raises(CommandFailed, match="should have been refused"):
        party.refused(*words)


def test_lines_come_one_by_one_and_a_failure_is_reported(party: Party) -> None:
    with party.lines("say", "hello") as lines:
        assert list(lines) == ["said hello"]
    with pytest.raises(CommandFailed, match="it broke"), party.lines("fail") as lines:
        assert list(lines) == []


def test_the_demo_waits_for_a_daemon_and_stops_it_at_the_end(
    party: Party, processes: Processes
) -> None:
    party.start("up", ready=lambda: party.log_says("ready"), seconds=20)
    (pid,) = [process.pid for process in processes._running]
    assert not process_ended(pid)
    processes.end_all()
    assert process_ended(pid)


def test_a_daemon_that_does_not_end_is_killed(
    party: Party, processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "STOP_SECONDS", 0.3)
    party.start("up", "stubborn", ready=lambda: party.log_says("ready"), seconds=20)
    (process,) = processes._running
    processes.end_all()
    assert process.returncode == -signal.SIGKILL


def test_a_daemon_is_killed_as_by_a_power_cut_and_started_again(
    party: Party, processes: Processes
) -> None:
    party.start("up", "stubborn", ready=lambda: party.log_says("ready"), seconds=20)
    (first,) = processes._running
    party.kill()
    assert first.returncode == -signal.SIGKILL
    party.start("up", ready=lambda: True, seconds=20)
    (second,) = processes._running
    assert second.pid != first.pid
    processes.end_all()
    assert process_ended(second.pid)


def test_a_daemon_that_dies_before_it_is_ready_is_reported_with_its_log(party: Party) -> None:
    with pytest.raises(CommandFailed, match="is not ready:\nit broke"):
        party.start("fail", ready=lambda: False, seconds=20)


def test_a_daemon_that_is_never_ready_is_a_failure(party: Party) -> None:
    began = time.monotonic()
    with pytest.raises(CommandFailed, match="is not ready"):
        party.start("up", ready=lambda: False, seconds=0.5)
    assert time.monotonic() - began < 5


def test_a_command_is_shown_as_a_person_would_type_it(party: Party) -> None:
    typed = party.as_typed(("keygen", "--authority", "Health Authority", Path("/a/b/file.json")))
    assert typed == "program keygen --authority 'Health Authority' file.json"
