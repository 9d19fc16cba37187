"""`make bench-dpsgd`: what it measures and how it reports the figures."""

import time

import numpy as np
import pytest
import torch

from bench import dpsgd
from bench.dpsgd import (
    CLIP_NORM,
    MODELS,
    SIDES,
    Batch,
    Torch,
    batch_of,
    clipped_sum,
    in_turns,
    ours_plain,
    ours_separate,
    ours_with_contribution,
    plain_factors,
    require_agreement,
    row_of,
    shortfalls,
)
from protocols.numerics.factored_rounding import squared_norms

SMALL = [(14, 1), (5, 7, 3, 1)]


def looped(batch: Batch) -> dpsgd.Vector:
    """Return the clipped sum by a loop over patients, in float64."""
    torched, loss = Torch(batch, torch.float64), torch.nn.BCEWithLogitsLoss(reduction="sum")
    total = torch.zeros(
        sum(parameter.numel() for parameter in torched.net.parameters()), dtype=torch.float64
    )
    for row, target in zip(torched.rows, torched.target, strict=True):
        torched.net.zero_grad()
        loss(torched.net(row[None]), target[None]).backward()
        gradient = torch.from_numpy(torched.gradient())
        total += gradient * min(1.0, CLIP_NORM / float(gradient.norm()))
    return total.numpy()


@pytest.mark.parametrize("widths", SMALL)
@pytest.mark.filterwarnings("ignore:Full backward hook")
def test_every_side_computes_the_clipped_sum_of_a_plain_loop(widths: tuple[int, ...]) -> None:
    batch = batch_of(widths)
    expected = looped(batch)
    for name, side in SIDES.items():
        clipped_sum = side(batch)()
        if name.startswith("sgd"):
            assert clipped_sum is None
        else:
            near = 0.03 if name == "ours_with_contribution_us" else 1e-5
            apart = np.linalg.norm(clipped_sum - expected) / np.linalg.norm(expected)  # type: ignore[operator]
            assert apart < near, name


@pytest.mark.parametrize("widths", SMALL)
def test_some_patients_are_clipped_and_some_are_not(widths: tuple[int, ...]) -> None:
    batch = batch_of(widths)
    norms = np.sqrt(squared_norms(plain_factors(batch.layers, batch.rows, batch.target)))
    assert (norms > CLIP_NORM).any()
    assert len(norms) == 256


def test_our_side_uses_the_code_of_the_node_and_leaves_the_batch_unchanged() -> None:
    batch = batch_of((5, 7, 3, 1))
    before = batch.rows.copy(), batch.model.copy()
    first = ours_separate(batch)()
    for side in (ours_plain(batch), ours_with_contribution(batch), ours_separate(batch)):
        side()
    assert np.array_equal(batch.rows, before[0])
    assert np.array_equal(batch.model, before[1])
    assert np.array_equal(ours_separate(batch)(), first)  # type: ignore[arg-type]


def test_a_side_that_computes_another_sum_is_reported() -> None:
    sums = {"ours_us": np.ones(4), "opacus_hooks_us": np.array([1.0, 1.0, 1.0, 1.1])}
    with pytest.raises(RuntimeError, match="opacus_hooks_us computes another sum"):
        require_agreement(sums)
    require_agreement(sums | {"opacus_hooks_us": np.full(4, 1.001), "sgd_us": None})


def test_sides_alternate_after_a_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dpsgd, "MIN_TURNS", 3)
    monkeypatch.setattr(dpsgd, "SECONDS", 0.0)
    done: list[str] = []

    def side(name: str, seconds: float) -> dpsgd.Side:
        def work() -> None:
            done.append(name)
            time.sleep(seconds)

        return work

    took = in_turns({"a": side("a", 0.002), "b": side("b", 0.0)}, time.perf_counter)
    assert "".join(done) == "aabb" + "bbaa" + "aabb"
    assert len(took["a"]) == len(took["b"]) == 3
    assert min(took["a"]) >= 2000


TOOK = {
    "sgd_us": 100.0,
    "sgd_float64_us": 150.0,
    "ours_us": 150.0,
    "ours_separate_us": 225.0,
    "ours_with_contribution_us": 400.0,
    "opacus_hooks_us": 900.0,
    "opacus_ghost_us": 300.0,
}


def test_a_row_has_every_side_in_microseconds_and_in_steps() -> None:
    row = row_of("39-64-32-1", TOOK)
    assert set(TOOK) == set(SIDES) < set(row)
    assert row["clipped_sum_in_steps"] == 1.5
    assert row["separate_sum_in_steps"] == 2.25
    assert row["contribution_in_steps"] == 4
    assert not shortfalls([row])


@pytest.mark.parametrize(
    ("name", "of"),
    [
        ("ours_us", "clipped_sum_in_steps is 1.6"),
        ("ours_separate_us", "separate_sum_in_float64_steps is 1.6"),
        ("ours_with_contribution_us", "contribution_in_steps is 4.27"),
    ],
)
def test_a_missed_bound_is_reported(name: str, of: str) -> None:
    missed = shortfalls([row_of("logistic", TOOK | {name: TOOK[name] * 16 / 15})])
    assert len(missed) == 1
    assert missed[0].startswith(f"logistic: {of}")


def test_a_figure_that_is_no_number_misses_its_bound() -> None:
    assert shortfalls([row_of("logistic", TOOK | {"ours_us": float("nan")})])


def test_the_models_are_the_requested_ones() -> None:
    assert list(MODELS) == ["logistic", "39-64-32-1", "64-256-256-1", "128-1024-1024-1"]
    sizes = [batch_of(widths).mechanism.dimension for widths in MODELS.values()]
    assert sizes == [15, 4673, 82_689, 1_182_721]
    clipped = clipped_sum(
        plain_factors(batch_of((14, 1)).layers, np.zeros((0, 14)), np.zeros((0, 1)))
    )
    assert clipped.tolist() == [0.0] * 15
