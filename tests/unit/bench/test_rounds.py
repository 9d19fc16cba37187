"""`make bench-rounds`: what it measures and how it reports the figures."""

import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bench import rounds
from bench.cpu import CpuMeter, cpu_seconds, descendants
from bench.rounds import Ours, Steps, as_json, shortfalls
from bench.wide import COUNTRIES, DIMENSION, PATIENTS_EACH, wide_study, wide_world
from client.records.cohort import check_fit
from client.records.csv_source import CsvSource
from client.records.dictionary import read_dictionary
from governance.documents.study import Study
from protocols.wire.encoding import digest
from tests.support.waiting import wait_until


def test_the_study_is_a_real_one_of_ten_thousand_coordinates() -> None:
    now = datetime.now(UTC)
    written, created = wide_study(20, now), f"{now:%Y-%m-%d}"
    study = Study.model_validate(written | {"agreement": digest(b"x"), "created": created})
    train = next(m for m in study.schedule() if m.phase == "train")
    assert train.dimension == DIMENSION == 10_000
    assert train.rounds == 20


def test_the_file_of_every_country_fits_its_dictionary_and_the_study(tmp_path: Path) -> None:
    world = wide_world(tmp_path, 20)
    assert world.countries == COUNTRIES
    for site in world.sites:
        dictionary = read_dictionary(site.dictionary)
        check_fit(dictionary.recorded(), world.features, ["place", "diagnosis"])
        assert len(CsvSource(site.records, dictionary).read(frozenset()).ids) == PATIENTS_EACH


def ours(period: float = 0.4, count: int = 25) -> Ours:
    starts = [100 + period * n for n in range(count)]
    steps = [Steps(start, start + 0.3) for start in starts]
    return Ours(steps, [0.3] * count, {"SuperLink": 0.2})


STOCK = {"send_and_receive": 6.0, "looked_for_sooner": 5.0}


def test_a_round_is_measured_from_one_contribution_to_the_next() -> None:
    row = as_json(ours(), STOCK)
    assert row["ours_round_s"] == pytest.approx(0.4)
    assert row["ours_rounds"] == 24
    assert row["ours_two_messages_s"] == 0.3
    assert sum(row["ours_parts_s"].values()) == pytest.approx(0.4)


def test_stock_flower_is_measured_in_its_quicker_mode() -> None:
    row = as_json(ours(), STOCK)
    assert row["stock_message_s"] == 5.0
    assert row["ratio_to_four_stock_messages"] == pytest.approx(4 * 5.0 / 0.4)


def test_each_bound_that_is_missed_is_named() -> None:
    assert shortfalls(as_json(ours(), STOCK)) == []
    (few,) = shortfalls(as_json(ours(count=20), STOCK))
    assert "too few" in few
    (slow,) = shortfalls(as_json(ours(period=rounds.LONGEST_ROUND + 0.01), STOCK))
    assert "over 0.8 s" in slow
    (near,) = shortfalls(as_json(ours(), {"one": 0.4 * rounds.MIN_RATIO / 4 - 0.01}))
    assert "less than" in near


def test_cpu_time_includes_child_processes_and_their_children() -> None:
    busy = "while True: pass"
    nested = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {busy!r}])"
    child = subprocess.Popen([sys.executable, "-c", nested], start_new_session=True)
    meter = CpuMeter({"while True": "busy"})
    try:
        with meter.running():
            wait_until(lambda: meter.samples and meter.samples[-1][1]["busy"] >= 0.2)
        assert child.pid in descendants(os.getpid())
        assert len(descendants(child.pid)) == 1
        assert cpu_seconds(child.pid) >= 0
    finally:
        os.killpg(child.pid, 9)
        child.wait()
    first, last = meter.samples[0][0], meter.samples[-1][0]
    assert meter.between(first, last)["busy"] > 0
