"""`make bench-private-sum`: what it measures and how it reports the figures."""

import time

import numpy as np
import pytest

from bench import private_sum, stopwatch
from bench.our_sum import OurSum, colluding, mechanism
from bench.private_sum import BOUNDS, CURVES, ROWS, fit, of_client, ratios, row, shortfalls
from bench.secagg_plus import flower_round
from bench.stopwatch import Stopwatch


class Clock:
    """Both clocks of a stopwatch, which a test moves."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.used = self.passed = 0.0
        patch.setattr(stopwatch, "_now", lambda: (self.used, self.passed))

    def work(self, seconds: float, *, waiting: float = 0.0) -> None:
        self.used += seconds
        self.passed += seconds + waiting


def test_a_stopwatch_counts_a_nested_block_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watch, clock = Stopwatch(), Clock(monkeypatch)
    with watch.on("server"):
        clock.work(2)
        with watch.on("transport"):
            clock.work(5, waiting=1)
            with watch.on("client"):
                clock.work(3)
            with watch.on("client"):
                clock.work(4)
    with watch.on("server"):
        clock.work(6)
    assert watch.seconds == {"server": 8, "transport": 5, "client": 7}
    assert watch.wall == {"server": 8, "transport": 6, "client": 7}


def test_waiting_is_no_cpu_time_but_wall_time_of_the_block_that_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watch, clock = Stopwatch(), Clock(monkeypatch)
    with watch.on("server"), watch.on("client"):
        clock.work(0, waiting=5)
    assert watch.seconds == {"server": 0, "client": 0}
    assert watch.wall == {"server": 0, "client": 5}


def test_a_stopwatch_reads_the_clock_of_the_process_and_that_of_the_machine() -> None:
    watch = Stopwatch()
    with watch.on("client"):
        time.sleep(0.05)
    assert watch.wall["client"] >= 0.05
    assert 0 < watch.seconds["client"] < watch.wall["client"]


def test_both_sides_sum_the_same_vectors_and_every_part_is_charged() -> None:
    values = np.random.default_rng(1).integers(-100, 100, (4, 50))
    ours, watch = OurSum.ready(values), Stopwatch()
    sent = ours.round(watch) + ours.round(watch)
    theirs = Stopwatch()
    grid = flower_round(values / 64, ours.threshold, theirs)
    clients = [name for name in theirs.seconds if name.startswith("client ")]
    assert len(clients) == len(grid.sent) == 4
    assert sent > 2 * 8 * len(range(0, 54, 3))
    assert min(grid.sent.values()) > 8 * 50
    for seconds in (watch.seconds, theirs.seconds):
        assert seconds["server"] > 0
        assert of_client(seconds) > 0


def test_a_wrong_sum_gives_no_figure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours = OurSum.ready(np.ones((3, 5), np.int64))
    begin = ours.world.coordinator.begin_round
    monkeypatch.setattr(
        ours.world.coordinator, "begin_round", lambda *arguments: _Wrong(begin(*arguments))
    )
    with pytest.raises(RuntimeError, match="another sum"):
        ours.round(Stopwatch())


class _Wrong:
    """A round whose opened sum is too large by one."""

    def __init__(self, opened: object) -> None:
        self._opened = opened

    def __getattr__(self, name: str) -> object:
        return getattr(self._opened, name)

    def open(self) -> object:
        result = self._opened.open()  # type: ignore[attr-defined]
        result.values[0] += 1
        return result


def test_three_coordinates_share_a_word_at_every_size_that_is_measured() -> None:
    for n, d in [*ROWS, *(size for sizes in CURVES.values() for size in sizes)]:
        assert mechanism(d).lane_bits(n) == 21


def test_one_third_of_the_countries_may_collude() -> None:
    assert [colluding(n) for n in (3, 4, 10, 30, 100)] == [1, 1, 3, 10, 33]


def test_a_row_has_the_figures_of_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(private_sum, "ROUNDS", 2)
    row_of_figures = row(4, 100, beside_flower=True)
    assert row_of_figures["t"] == 3
    assert row_of_figures["rounds"] == row_of_figures["flwr_rounds"] == 2
    figures = ("client_ms", "server_ms", "client_wall_ms", "server_wall_ms", "upload_bytes")
    for name in (*figures, *(f"flwr_{name}" for name in figures), "noise_ms"):
        assert row_of_figures[name] > 0


def test_flwr_runs_once_if_it_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(private_sum, "ROUNDS", 3)
    monkeypatch.setattr(private_sum, "FLOWER_SECONDS", 0.0)
    assert row(3, 10, beside_flower=True)["flwr_rounds"] == 1


def test_a_point_of_a_curve_does_not_run_flwr() -> None:
    figures = row(3, 10, beside_flower=False)
    assert not [name for name in figures if name.startswith("flwr")]


def figures(n: int, d: int, **times: float) -> dict[str, float]:
    """Return a row in which our cost is so many times lower than flwr's."""
    return {
        "n": n,
        "d": d,
        "client_ms": 10.0,
        "flwr_client_ms": 10.0 * times["client"],
        "server_ms": 10.0,
        "flwr_server_ms": 10.0 * times["server"],
        "upload_bytes": 1000 * times["upload"],
        "flwr_upload_bytes": 1000,
    }


ENOUGH = {"client": 5.0, "server": 500.0, "upload": 0.34}


def rows(**changes: float) -> list[dict[str, float]]:
    return [figures(n, d, **{**ENOUGH, **changes}) for n, d in BOUNDS]


def test_ratios_are_the_cost_of_flwr_over_ours_and_our_upload_over_that_of_flwr() -> None:
    assert ratios(figures(4, 10, client=7, server=8, upload=0.3)) == {
        "client": 7.0,
        "server": 8.0,
        "upload": 0.3,
    }


def test_each_bound_that_is_missed_is_named() -> None:
    assert shortfalls(rows()) == []
    (slow,) = shortfalls(rows(client=4.9))
    assert "n=10, d=1000000: the client is 4.9 times faster, not 5.0" in slow
    (wide,) = shortfalls(rows(upload=0.35))
    assert "the upload is 0.35 of flwr's" in wide
    (many,) = shortfalls(rows(server=499.0))
    assert many.startswith("n=50")
    assert len(shortfalls(rows(server=9.0))) == 2


def test_a_fit_finds_the_coefficients_of_the_points() -> None:
    sizes = [(n, d) for n in (4, 10, 100) for d in (10**3, 10**5, 10**6)]
    points = [
        {"n": n, "d": d, "client_ms": 2 * n * d / 1e6 + 0.5 * n + 1, "server_ms": n * n / 100}
        for n, d in sizes
    ]
    client, server = fit(points, "client"), fit(points, "server")
    assert client["ms_per"] == pytest.approx({"n·d": 2, "d": 0, "n": 0.5, "1": 1}, abs=0.01)
    assert server["ms_per"] == pytest.approx({"n·d": 0, "d": 0, "n²": 0.01, "n": 0}, abs=0.01)
    assert client["worst_relative_error"] < 0.01
    points[0]["client_ms"] *= 2
    assert fit(points, "client")["worst_relative_error"] > 0.1
