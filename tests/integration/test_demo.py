"""Run the whole demo: real commands as real processes, from an agreement to a result."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.selection import HOSPITALS

ROOT = Path(__file__).parents[2]
WIDEST = 100
ROW = re.compile(r"^ {2}(\S.*?) {2,}(0\.\d{3}) {2,}(0\.\d{3})$", re.MULTILINE)

EXACT = re.compile(r"^ {2}(\w[\w ]*\w) {2,}\S+ {2}\[\S+, \S+\] {2,}\S+ {2,}(yes|no)$", re.MULTILINE)
LEDGER = re.compile(r"^ {2}[A-Z]{2} {2,}cardiovascular +(\S+ %) +\S+ %$", re.MULTILINE)

FIGURES = ("accuracy", "auc", "calibration in the large", "expected calibration error")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a folder with a short name: Unix sockets lie below it."""
    folder = tmp_path_factory.getbasetemp().parent / f"d{os.getpid()}"
    folder.mkdir()
    yield folder
    folder.rmdir()


def start(scratch: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "demo", *words],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(scratch)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finished(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=580)
    return output


def running_in(folder: Path) -> list[str]:
    pids = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if any(str(folder) in argument for argument in words):
            pids.append(" ".join(words))
    return pids


def figures(output: str) -> dict[str, tuple[float, float]]:
    return {name: (float(auc), float(accuracy)) for name, auc, accuracy in ROW.findall(output)}


def test_four_countries_release_a_model_as_good_as_pooling(scratch: Path) -> None:
    process = start(scratch)
    output = finished(process)
    assert process.returncode == 0, output
    measured = figures(output)
    assert measured["pooled records, no privacy"][0] > 0.80
    assert measured["released model"][0] > measured["pooled records, no privacy"][0] - 0.02
    assert measured["released model"][1] > measured["always the more frequent answer"][1]
    assert max(map(len, output.splitlines())) <= WIDEST
    assert output.count("is whole:") == 6
    assert "PT's node is killed" in output
    assert "rounds void: none" in output
    assert [name for name, _ in EXACT.findall(output)] == list(FIGURES)
    charged = LEDGER.findall(output)
    assert len(charged) == 4
    assert len(set(charged)) == 1, "every country is charged the same"
    assert "prohibited by Article 54" in output
    assert list(scratch.iterdir()) == []
    assert running_in(scratch) == []


@pytest.mark.hospitals
def test_four_hospitals_release_a_model(scratch: Path) -> None:
    process = start(scratch, "--data", str(HOSPITALS))
    output = finished(process)
    assert process.returncode == 0, output
    assert figures(output)["released model"][0] > 0.75
    assert re.search(r"training +4 +3 +1 +0\.99\d+ +0\.0001 ", output), "n, h, c, ε and δ"
    assert list(scratch.iterdir()) == []


def test_ctrl_c_ends_every_process_and_leaves_nothing(scratch: Path) -> None:
    process = start(scratch)
    assert process.stdout is not None
    for line in process.stdout:
        if "pratique-node up" in line:
            break
    time.sleep(1)
    assert running_in(scratch)
    process.send_signal(signal.SIGINT)
    output = finished(process)
    assert process.returncode == 130, output
    assert output.rstrip().endswith("Stopped.")
    assert running_in(scratch) == []
    assert list(scratch.iterdir()) == []


def test_a_folder_without_the_hospitals_files_gives_a_clear_error(
    scratch: Path, tmp_path: Path
) -> None:
    process = start(scratch, "--data", str(tmp_path))
    output = finished(process)
    assert process.returncode == 1
    assert "processed.cleveland.data is missing" in output
    assert "Traceback" not in output
    assert list(scratch.iterdir()) == []
