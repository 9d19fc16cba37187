"""Compare the cost of a private sum with Flower's SecAgg+: `make bench-private-sum`.

Two things run in turns, in one process and on the same vectors: the state machines of both of our
sides (`our_sum.py`), and flwr's own workflow and mod (`secagg_plus.py`). The figures are CPU time
and wall-clock time, as medians over rounds and over the clients of a round. Our first round does
not count; flwr is warmed up with few values, since one of its rounds can take minutes.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from bench.our_sum import NOISE_STD, OurSum
from bench.secagg_plus import flower_round
from bench.stopwatch import Stopwatch
from protocols.numerics.noise import DiscreteGaussian

RESULTS = Path(__file__).with_name("results") / "private_sum.json"
ROWS = ((4, 10**3), (4, 10**6), (10, 10**6), (30, 10**6), (50, 10**5), (100, 10**5))
CURVES = {
    "by_countries": [(n, d) for d in (10**5, 10**6) for n in (10, 25, 50, 100, 150, 200)],
    "by_dimension": [(10, d) for d in (10**3, 10**4, 10**5, 3 * 10**5, 10**6, 1_300_000)],
}
BOUNDS = {
    (10, 10**6): {"client": 5.0, "server": 10.0, "upload": 0.34},
    (50, 10**5): {"server": 500.0},
}
"""How many times smaller than flwr's a figure must be; for the upload, the largest ratio to it."""
ROUNDS, CURVE_ROUNDS = 7, 2
FLOWER_SECONDS = 30.0
"""About how long flwr's rounds of one row may take together; there is always at least one."""
NOISE_ROUNDS = 5
FURTHEST, STEP = 2, 64
"""The largest value in the vectors, and the number of our integer steps per unit."""
TERMS = {
    "client": ("n·d", "d", "n", "1"),
    "server": ("n·d", "d", "n²", "n"),
}
"""The terms that are fitted to the milliseconds, with d in millions."""


@dataclass
class Measured:
    """Seconds of each round: the median client's, and the server's; CPU time and wall time."""

    clients: list[float] = field(default_factory=list)
    servers: list[float] = field(default_factory=list)
    clients_wall: list[float] = field(default_factory=list)
    servers_wall: list[float] = field(default_factory=list)
    upload: int = 0

    def add(self, watch: Stopwatch, upload: int) -> None:
        """Add the figures of a round."""
        self.clients.append(of_client(watch.seconds))
        self.servers.append(watch.seconds["server"])
        self.clients_wall.append(of_client(watch.wall))
        self.servers_wall.append(watch.wall["server"])
        self.upload = upload

    def figures(self, prefix: str = "") -> dict[str, Any]:
        """Return the medians, in milliseconds, and the bytes that a client sent."""
        return {
            f"{prefix}client_ms": milliseconds(median(self.clients)),
            f"{prefix}server_ms": milliseconds(median(self.servers)),
            f"{prefix}client_wall_ms": milliseconds(median(self.clients_wall)),
            f"{prefix}server_wall_ms": milliseconds(median(self.servers_wall)),
            f"{prefix}upload_bytes": self.upload,
        }


def of_client(seconds: Mapping[str, float], kind: str = "client ") -> float:
    """Return the seconds of the median client."""
    return median(took for name, took in seconds.items() if name.startswith(kind))


def milliseconds(seconds: float) -> float:
    """Return seconds as milliseconds, rounded to the microsecond."""
    return round(1000 * seconds, 3)


def row(n: int, d: int, *, beside_flower: bool) -> dict[str, Any]:
    """Measure both over n vectors of d values; without flwr, all n are the same vector."""
    values = _vectors(n, d, alike=not beside_flower)
    ours = OurSum.ready(values)
    set_up = ours.watch.seconds
    figures = {
        "n": n,
        "d": d,
        "t": ours.threshold,
        "setup_client_ms": milliseconds(of_client(set_up)),
        "setup_server_ms": milliseconds(set_up["server"]),
    }
    ours.round(Stopwatch())
    if not beside_flower:
        return figures | _ours(ours, CURVE_ROUNDS).figures()
    return figures | _beside_flower(ours) | {"noise_ms": _noise(d)}


def _vectors(n: int, d: int, *, alike: bool) -> NDArray[np.int64]:
    generator = np.random.default_rng(n * d)
    vectors = generator.integers(-STEP * FURTHEST, STEP * FURTHEST, (1 if alike else n, d))
    return np.broadcast_to(vectors, (n, d))


def _ours(ours: OurSum, rounds: int) -> Measured:
    measured = Measured()
    for _ in range(rounds):
        watch = Stopwatch()
        measured.add(watch, ours.round(watch))
    return measured


def _beside_flower(ours: OurSum) -> dict[str, Any]:
    vectors, mine, theirs, messages = ours.values / STEP, Measured(), Measured(), Measured()
    _warm_up(len(vectors), ours.threshold)
    spent = 0.0
    for turn in range(ROUNDS):
        watch = Stopwatch()
        mine.add(watch, ours.round(watch))
        if turn and spent * (turn + 1) / turn > FLOWER_SECONDS:
            continue
        watch = Stopwatch()
        grid = flower_round(vectors, ours.threshold, watch)
        theirs.add(watch, max(grid.sent.values()))
        messages.clients.append(of_client(watch.seconds, "messages of client"))
        messages.servers.append(watch.seconds["messages of server"])
        spent += sum(watch.seconds.values())
    return {
        **mine.figures(),
        **theirs.figures("flwr_"),
        "flwr_client_messages_ms": milliseconds(median(messages.clients)),
        "flwr_server_messages_ms": milliseconds(median(messages.servers)),
        "rounds": len(mine.servers),
        "flwr_rounds": len(theirs.servers),
    }


def _warm_up(n: int, threshold: int) -> None:
    """Run flwr once on few values; its most expensive part, the shares, does not depend on them."""
    few = min(n, 10)
    flower_round(np.zeros((few, 10)), min(threshold, few), Stopwatch())


def _noise(d: int) -> float:
    watches = [Stopwatch() for _ in range(NOISE_ROUNDS)]
    for watch in watches:
        with watch.on("noise"):
            DiscreteGaussian().draw(NOISE_STD, d)
    return milliseconds(median(watch.seconds["noise"] for watch in watches))


def fit(points: Sequence[Mapping[str, Any]], side: str) -> dict[str, Any]:
    """Fit the terms by least squares of relative errors, with no coefficient below zero.

    The worst error is the largest of any point, relative to what was measured.
    """
    measured = np.array([point[f"{side}_ms"] for point in points])
    terms = np.array([_terms(point["n"], point["d"] / 1e6, side) for point in points])
    weights, _ = nnls(terms / measured[:, None], np.ones(measured.size))
    worst = np.abs(terms @ weights / measured - 1).max()
    named = {term: round(float(w), 4) for term, w in zip(TERMS[side], weights, strict=True)}
    return {"ms_per": named, "worst_relative_error": round(float(worst), 3)}


def _terms(n: int, millions: float, side: str) -> list[float]:
    values = {"n·d": n * millions, "d": millions, "n²": n * n, "n": n, "1": 1}
    return [float(values[term]) for term in TERMS[side]]


def ratios(figures: Mapping[str, Any]) -> dict[str, float]:
    """Return flwr's times divided by ours, and our upload divided by flwr's."""
    return {
        "client": round(figures["flwr_client_ms"] / figures["client_ms"], 2),
        "server": round(figures["flwr_server_ms"] / figures["server_ms"], 2),
        "upload": round(figures["upload_bytes"] / figures["flwr_upload_bytes"], 4),
    }


def shortfalls(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the bounds that the rows miss, in words; empty if they miss none."""
    by_size = {(figures["n"], figures["d"]): ratios(figures) for figures in rows}
    missed = []
    for (n, d), bounds in BOUNDS.items():
        for what, bound in bounds.items():
            ratio = by_size[n, d][what]
            if what == "upload" and ratio > bound:
                missed.append(f"n={n}, d={d}: the upload is {ratio} of flwr's, more than {bound}")
            if what != "upload" and ratio < bound:
                missed.append(f"n={n}, d={d}: the {what} is {ratio} times faster, not {bound}")
    return missed


def report(results: Mapping[str, Any]) -> None:
    """Print the figures."""
    print(
        "    n        d  client ms: flwr  ours     server ms: flwr     ours  upload MB: flwr  ours"
    )
    for size in results["rows"]:
        print(
            f"{size['n']:5} {size['d']:8} {size['flwr_client_ms']:16.1f} {size['client_ms']:5.1f}"
            f" {size['flwr_server_ms']:19.1f} {size['server_ms']:8.1f}"
            f" {size['flwr_upload_bytes'] / 1e6:16.3f} {size['upload_bytes'] / 1e6:.3f}"
        )
    for side, fitted in results["fits"].items():
        print(f"{side} ms per term (n·d, d in millions): {fitted}")


def main() -> int:
    """Run from the command line; return 1 if a bound is missed."""
    parser = argparse.ArgumentParser(description="Compare our private sum with flwr's SecAgg+.")
    parser.add_argument("--rows-only", action="store_true", help="no curves, and write nothing")
    options = parser.parse_args()
    results: dict[str, Any] = {"rows": [_printed_row(*size, beside_flower=True) for size in ROWS]}
    missed = shortfalls(results["rows"])
    if not options.rows_only:
        for name, sizes in CURVES.items():
            results[name] = [_printed_row(*size, beside_flower=False) for size in sizes]
        points = [point for curve in CURVES for point in results[curve]]
        results["fits"] = {side: fit(points, side) for side in TERMS}
        text = json.dumps(results, indent=2, ensure_ascii=False)
        RESULTS.write_text(text + "\n", encoding="utf-8")
    report({"fits": {}} | results)
    print("\n".join(missed) if missed else "Every bound is met.")
    return int(bool(missed))


def _printed_row(n: int, d: int, *, beside_flower: bool) -> dict[str, Any]:
    figures = row(n, d, beside_flower=beside_flower)
    client, server = figures["client_ms"], figures["server_ms"]
    print(f"n={n}, d={d}: client {client} ms, server {server} ms", flush=True)
    return figures


if __name__ == "__main__":
    sys.exit(main())
