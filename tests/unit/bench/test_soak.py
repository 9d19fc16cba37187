"""The soak test's figures: what is measured, and what counts as growth."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.meters import MIB, Sample, Usage, sample, trend, usage
from bench.soak import BOUNDS, MAX_AHEAD, as_json, report, shortfalls

FLAT = {"start": 10.0, "end": 10.5, "most": 11.0, "per_100": 0.1}


def soak_result(**changes: Any) -> dict[str, Any]:
    figures = dict.fromkeys(BOUNDS, FLAT) | changes.pop("process", {})
    stores = {"n-DK state.db": FLAT, "tmp": FLAT, "c write-ahead log": FLAT}
    plain = {"void_rounds": 0, "processes": {"node DK": figures}, "stores_mib": stores}
    return plain | changes


def rising(per_100: float, growth: float) -> dict[str, float]:
    return {"start": 10.0, "end": 10.0 + growth, "most": 10.0 + growth, "per_100": per_100}


def test_a_flat_series_is_no_shortfall() -> None:
    assert shortfalls(soak_result()) == []


@pytest.mark.parametrize("what", BOUNDS)
def test_a_process_that_grows_is_named(what: str) -> None:
    (missed,) = shortfalls(soak_result(process={what: rising(9.0, 40.0)}))
    assert missed.startswith(f"node DK, {what} grows by 9.0")


@pytest.mark.parametrize("figures", [rising(9.0, 1.0), rising(0.5, 40.0)])
def test_a_short_jump_or_a_slow_drift_is_no_trend(figures: dict[str, float]) -> None:
    assert shortfalls(soak_result(process={"memory_mib": figures})) == []


def test_stores_have_separate_bounds() -> None:
    stores = {
        "n-DK state.db": rising(1.5, 6.0),
        "tmp": rising(1.5, 6.0),
        "c write-ahead log": {**FLAT, "most": MAX_AHEAD + 1},
    }
    missed = shortfalls(soak_result(stores_mib=stores))
    assert [sentence.split(" ")[0] for sentence in missed] == ["tmp", "c"]
    stores["n-DK state.db"] = rising(3.0, 6.0)
    assert len(shortfalls(soak_result(stores_mib=stores))) == 3


def test_a_void_round_is_a_shortfall() -> None:
    assert shortfalls(soak_result(void_rounds=2)) == ["2 rounds were void"]


def test_a_trend_is_the_slope_of_a_line() -> None:
    rise = trend([10, 20, 30], [1.0, 2.0, 3.0])
    assert (rise.start, rise.end, rise.most) == (1.0, 3.0, 3.0)
    assert rise.per_100 == pytest.approx(10.0)
    assert trend([10], [4.0]).per_100 == 0


GROWING = """
import os, sys
print("before", flush=True)
sys.stdin.readline()
handles = [os.open(sys.executable, os.O_RDONLY) for _ in range(7)]
ballast = b"x" * (64 << 20)
print("after", flush=True)
sys.stdin.readline()
"""


def test_memory_files_and_threads_of_a_process_are_measured() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", GROWING], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        before = usage(process.pid)
        process.stdin.write(b"\n")
        process.stdin.flush()
        process.stdout.readline()
        after = usage(process.pid)
        process.communicate(b"\n")
    assert after.files - before.files == 7
    assert after.memory - before.memory > 32 * MIB
    assert after.threads == 1


def test_daemons_are_named_and_commands_are_not(tmp_path: Path) -> None:
    stay = "import sys; sys.stdin.read()"
    lines = (
        ["pratique-node", "up", "--home", "/x/n-DK"],
        ["pratique-node", "status", "--home", "/x/n-EE"],
        ["python", "-I", "launcher.py", "1", "flwr-serverapp"],
        ["something", "else"],
    )
    started = [
        subprocess.Popen([sys.executable, "-c", stay, *line], stdin=subprocess.PIPE)
        for line in lines
    ]
    try:
        names = set(sample(1, tmp_path).processes)
    finally:
        for process in started:
            process.communicate(b"")
    assert names >= {"node DK", "server app"}
    assert not [name for name in names if "EE" in name]


def test_stores_are_distinguished_by_their_owner(tmp_path: Path) -> None:
    files = {
        "homes/n-DK/state.db": 10,
        "homes/n-DK/state.db-wal": 20,
        "homes/n-DK/keys/identity": 3,
        "homes/c/superlink/superlink.log": 40,
        "homes/c/superlink/superlink.log.1": 2,
        "tmp/left-behind/file": 5,
    }
    for name, size in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(size))
    stores = dict(sample(1, tmp_path).stores)
    stores.pop("secrets in memory")
    assert stores == {
        "n-DK state.db": 10,
        "n-DK write-ahead log": 20,
        "n-DK rest": 3,
        "c logs": 42,
        "tmp": 5,
    }


def test_the_warm_up_does_not_count(capsys: pytest.CaptureFixture[str]) -> None:
    def at(rounds: int, memory: int) -> Sample:
        return Sample(rounds, {"node DK": Usage(memory * MIB, 9, 4)}, {"tmp": MIB})

    samples = [at(1, 50), at(50, 300), at(100, 300), at(200, 300), at(400, 300)]
    history = [{"seconds": 1.0, "outcome": "opened"}] * 400
    figures = as_json(samples, history)
    memory = figures["processes"]["node DK"]["memory_mib"]
    assert (memory["start"], memory["per_100"]) == (300.0, 0.0)
    assert shortfalls(figures) == []
    report(figures)
    assert "400 rounds" in capsys.readouterr().out
