"""How the costs of a study's releases add up for one patient.

In a study with `accounting: 1` they are added. With `accounting: 2` a patient pays for the releases
from everybody, and for those from one part of the cohort only: training, or evaluation.

*Why.* Neighbours differ by one patient, added or removed in one country. A keyed hash puts each
patient in one part, whatever other patients there are. Given the parts, consider the joint outcome
of a run, in which each release may depend on all outcomes before it:

- If the patient trains, the evaluation is of the same patients in both neighbours. So given the
  outcomes before it, it has the same law: it is post-processing. The patient pays for training.
- If the patient is held out, every training release is of the same patients in both neighbours and
  so has the same law; and for each of its outcomes the evaluation costs what it costs. The patient
  pays for the evaluation.

The releases from everybody are composed with either. So at each order the Rényi divergence is at
most that of everybody's releases plus the larger of the two parts', and δ at each ε is at most the
larger of two: of everybody's and training's releases, and of everybody's and evaluation's. The
parts are drawn independently of the records. Rényi divergences are jointly quasi-convex, and δ at a
given ε is jointly convex (van Erven, Harremoës 2014, Theorem 13; Balle, Barthe, Gaboardi 2018), so
both hold for the mixture over all ways to draw the parts, too.

*What it relies on.* A patient must stay in one part for the whole run: one who trains in a round
and is held out in a later one pays for both. So a run keeps a digest of the key of the hash and of
how patients are identified, and the node takes no further part if either has changed
(`client.border.door`). If patients have ids of their own, nothing else is needed: the argument
holds for each split, so it may even be known, and be the same for all runs of a study. It needs an
id to stay with its person in every export: ids that change with every export are row numbers.

If the patients have no ids but their row numbers, removing one gives the following patients the ids
of others. For a split that is known, this could move everybody who follows to the other part. But
for a split f drawn at random, independent of the records, let f'(i) = f(i) for i < j and f(i + 1)
for i >= j: it has the same law as f, and gives each remaining patient the same part. So the
argument above holds for the pair (f, f'). It needs f to be secret, and to be drawn again for each
run: in a second run, on other records, the same patient is another row, and no f' would fit both.
Then each run is a mechanism with randomness of its own, as composition over runs needs, also of
runs at the same time (Haney et al. 2023). HMAC-SHA256 is used as the random function, so for row
numbers the statement is computational.

A person who is registered in m countries is covered at m times the cost, as for every release. In
local mode the steps are training, and the sum of updates is derived from them.
"""

from collections.abc import Iterable, Mapping, Sequence

from governance.budget.accounting import calibrate, epsilon, rdp_micro
from protocols.numerics.mechanism import Mechanism
from protocols.tasks.schedule import PART_OF, Part

SUM, LARGER = 1, 2
"""The versions of the accounting: add everything up, or the larger of two parts."""


def part_of(phase: str, accounting: int) -> Part | None:
    """Return the part of the cohort that alone pays for a release; None if everybody does."""
    return PART_OF.get(phase) if accounting == LARGER else None


def accounting_sentence(phases: Iterable[str], accounting: int) -> str:
    """Return how the costs of releases add up for one patient, in one sentence."""
    if len({part_of(phase, LARGER) for phase in phases} - {None}) < len(Part):
        return f"a patient pays for every release (accounting {accounting})"
    if accounting == SUM:
        return f"a patient pays for training and for evaluation, added up (accounting {SUM})"
    return (
        "each patient either trains or is held out, as a secret of the node decides: so a patient "
        f"pays the larger of training and evaluation, not their sum (accounting {LARGER})"
    )


def branches(mechanisms: Sequence[Mechanism], accounting: int) -> tuple[tuple[Mechanism, ...], ...]:
    """Return what one patient can be charged for: one schedule, or one for each part.

    Each holds the releases from everybody. They keep their order.
    """
    parts = {part_of(mechanism.phase, accounting) for mechanism in mechanisms} - {None}
    return tuple(
        tuple(m for m in mechanisms if part_of(m.phase, accounting) in (None, part))
        for part in sorted(parts, key=str) or [None]
    )


def schedule_epsilon(
    mechanisms: Sequence[Mechanism], accounting: int, honest: int, delta: float
) -> float:
    """Return ε at δ of a schedule, for a patient of either part; see `epsilon`."""
    paid = [each for each in branches(mechanisms, accounting) if any(m.costs for m in each)]
    return max(epsilon(branch, honest, delta) for branch in paid or [tuple(mechanisms)])


def schedule_rdp_micro(
    mechanisms: Sequence[Mechanism], accounting: int, honest: int, order: int
) -> int:
    """Return the RDP of a schedule at `order`, in micro-units, for a patient of either part."""
    return max(
        sum(rdp_micro(mechanism, honest, order) for mechanism in branch)
        for branch in branches(mechanisms, accounting)
    )


def larger_parts(by_part: Mapping[tuple[str, str | None], int]) -> int:
    """Add up costs by run and part, of each run only those of the costlier part."""
    everybody, largest = 0, dict[str, int]()
    for (run, part), micro in by_part.items():
        if part is None:
            everybody += micro
        else:
            largest[run] = max(micro, largest.get(run, 0))
    return everybody + sum(largest.values())


def calibrate_schedule(
    templates: Sequence[Mechanism],
    fractions: Sequence[float],
    accounting: int,
    honest: int,
    target: float,
    delta: float,
) -> tuple[Mechanism, ...]:
    """Return the schedule with noise so that no patient pays more than ε = `target` at δ.

    `fractions` divide the budget if costs are added, as `calibrate` says. Else each part gets the
    whole of it, but for the fraction of everybody's releases, which get the larger of the two
    noises that the parts ask of them.
    """
    share_of = dict(zip((template.phase for template in templates), fractions, strict=True))
    for_everybody = [t.phase for t in templates if part_of(t.phase, accounting) is None]
    common = sum(share_of[phase] for phase in for_everybody)
    calibrated: dict[str, Mechanism] = {}
    for branch in branches(templates, accounting):
        own = sum(share_of[t.phase] for t in branch if t.phase not in for_everybody)
        shares = [
            share_of[t.phase] * (1.0 if t.phase in for_everybody else (1 - common) / own)
            for t in branch
        ]
        for mechanism in calibrate(branch, shares, honest, target, delta):
            known = calibrated.get(mechanism.phase)
            if known is None or mechanism.noise_std > known.noise_std:
                calibrated[mechanism.phase] = mechanism
    return tuple(calibrated[template.phase] for template in templates)
