"""A contribution looks uniform for any values, also to those who know some of its masks.

Real countries and a real coordinator; the words are read from the messages. Every χ² and every
count below fails wrongly with probability 1e-9 or less.
"""

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import chi2

from protocols.private_sum import ratchet
from protocols.private_sum.contribution import masked_words, seed_key
from protocols.private_sum.coordinator_round import CoordinatorRound
from protocols.private_sum.masking import WORDS_DTYPE, Masker
from protocols.proto.round_pb2 import Reply
from tests.support.protocol_world import (
    MODEL,
    TRAIN,
    ProtocolWorld,
    state_of,
)

pytestmark = pytest.mark.statistical

FALSE_ALARM = 1e-9
DEVIATIONS = 6.2
"""A normal value exceeds this with probability 6e-10."""
ROUNDS = 120
DIMENSION = 1_500
VICTIM, FRIEND, COLLUDER = "AT", "BE", "CZ"
REACH = 2**18
Words = NDArray[np.uint64]

INPUTS: dict[str, NDArray[np.int64]] = {
    "zeros": np.zeros(DIMENSION, np.int64),
    "as large as a lane holds": np.full(DIMENSION, REACH, np.int64),
    "as small as a lane holds": np.full(DIMENSION, -REACH, np.int64),
    "one after the other": np.where(np.arange(DIMENSION) % 2, REACH, -REACH).astype(np.int64),
    "a single one": np.eye(1, DIMENSION, dtype=np.int64).reshape(-1),
}


def distinguishers(words: Words) -> list[str]:
    """Return statistics that distinguish words (rounds, words) from independent uniform ones."""
    moved = words[1:] - words[:-1]
    beside = words[:, 1:] - words[:, :-1]
    views = {"words": words, "from round to round": moved, "from word to word": beside}
    return [
        f"{name}: {fault}" for name, words in views.items() for fault in faults(words.reshape(-1))
    ]


def faults(words: Words) -> Iterator[str]:
    size = words.size
    octets = words.view(np.uint8).reshape(size, 8)
    counts = np.stack([np.bincount(octets[:, octet], minlength=256) for octet in range(8)])
    statistic = ((counts - size / 256) ** 2 / (size / 256)).sum()
    if statistic > chi2.isf(FALSE_ALARM, 8 * 255):
        yield "its bytes are not even"
    ones = np.unpackbits(octets, axis=1).sum(axis=0, dtype=np.int64)
    if np.abs(ones - size / 2).max() > DEVIATIONS * np.sqrt(size) / 2:
        yield "a bit is not a fair coin"


def test_the_test_detects_words_that_are_not_uniform() -> None:
    draw = np.random.default_rng(3)
    even = draw.integers(0, 2**64, (40, 500), np.uint64)
    assert distinguishers(even) == []
    assert distinguishers(even & ~np.uint64(1 << 40))
    assert distinguishers(np.tile(even[0], (40, 1))), "the same words in every round"
    assert distinguishers(np.tile(even[:, :1], (1, 500))), "the same word again and again"
    leaning = (draw.random((40, 500)) < 0.1).astype(np.uint64)
    assert distinguishers(np.bitwise_or(even, leaning)), "one bit leans a little"


class Overheard:
    """A run of three countries, with what coordinator and colluder know after every round."""

    def __init__(self, values: NDArray[np.int64]) -> None:
        wide = TRAIN.model_copy(update={"dimension": DIMENSION, "rounds": ROUNDS})
        self.world = ProtocolWorld.ready(3, mechanisms=(wide,))
        self.values = values
        self.sent: list[Words] = []
        self.seeds: list[Words] = []
        self.pairs: dict[str, list[Words]] = {FRIEND: [], COLLUDER: []}

    def run_all_rounds(self) -> None:
        """Run every round with the same values in each."""
        for number in range(1, ROUNDS + 1):
            self._round(self.world.coordinator.begin_round(number, "train", MODEL))

    def _round(self, coordinator_round: CoordinatorRound) -> None:
        world = self.world
        for country in world.terms.roster:
            reply = world.contribute(coordinator_round, country, self.values)
            if country == VICTIM:
                words = Reply.FromString(reply).words
                self.sent.append(np.frombuffer(words, WORDS_DTYPE))
        masker = Masker(coordinator_round.terms.words)
        for peer, streams in self.pairs.items():
            open_round = state_of(world.countries[peer]).open_round
            assert open_round is not None
            streams.append(masker.stream(open_round.masks[VICTIM]).copy())
        coordinator_round.close()
        for country in world.terms.roster:
            world.answer(coordinator_round, country)
        seed = coordinator_round._seeds((VICTIM,))[VICTIM]
        key = seed_key(coordinator_round.terms, VICTIM, seed)
        self.seeds.append(masker.stream(key).copy())

    def without(self, *known: list[Words]) -> Words:
        """Return what the victim sent, minus the known masks, all of which the victim adds."""
        left = np.stack(self.sent)
        for streams in known:
            left = left - np.stack(streams)
        return left


@pytest.fixture(scope="module", params=list(INPUTS.values()), ids=list(INPUTS))
def overheard(request: pytest.FixtureRequest) -> Overheard:
    run = Overheard(request.param)
    run.run_all_rounds()
    return run


def test_contributions_are_uniform(overheard: Overheard) -> None:
    assert distinguishers(overheard.without()) == []


def test_contributions_are_uniform_to_a_collusion_that_opened_the_sum(overheard: Overheard) -> None:
    """It knows every seed and the colluder's pair masks; the mask of two honest countries hides."""
    assert distinguishers(overheard.without(overheard.seeds, overheard.pairs[COLLUDER])) == []


def test_contributions_are_uniform_to_those_with_the_pair_masks_of_a_missing_country(
    overheard: Overheard,
) -> None:
    """It knows all of the victim's pair masks; the victim's own mask hides."""
    assert distinguishers(overheard.without(*overheard.pairs.values())) == []


def test_a_contribution_without_all_its_masks_is_plain(overheard: Overheard) -> None:
    """So the three tests above name all masks that hide it."""
    bare = overheard.without(overheard.seeds, *overheard.pairs.values())
    assert (bare == bare[0]).all()
    assert distinguishers(bare)


def overheard_with_mutant(
    monkeypatch: pytest.MonkeyPatch, target: str, mutant: Callable[..., object]
) -> Overheard:
    monkeypatch.setattr(target, mutant)
    run = Overheard(INPUTS["one after the other"])
    run.run_all_rounds()
    return run


def test_a_missing_pair_mask_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = masked_words

    def mutant(
        terms: object, owner: str, seed: bytes, masks: Mapping[str, bytes], *rest: object
    ) -> NDArray[np.uint64]:
        left = {peer: key for peer, key in masks.items() if {peer, owner} != {VICTIM, FRIEND}}
        return honest(terms, owner, seed, left, *rest)  # type: ignore[arg-type]

    run = overheard_with_mutant(
        monkeypatch, "protocols.private_sum.country_round.masked_words", mutant
    )
    assert distinguishers(run.without()) == [], "the coordinator alone would not detect it"
    assert distinguishers(run.without(run.seeds, run.pairs[COLLUDER]))


def test_a_missing_own_mask_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    def mutant(*_: object) -> bytes:
        return bytes(32)

    run = overheard_with_mutant(monkeypatch, "protocols.private_sum.contribution.seed_key", mutant)
    assert distinguishers(run.without(*run.pairs.values()))


def test_a_mask_used_in_two_rounds_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = ratchet.mask_key

    def mutant(link: bytes, context: bytes, one: str, other: str) -> bytes:
        return honest(bytes(32), bytes(32), one, other)

    run = overheard_with_mutant(monkeypatch, "protocols.private_sum.ratchet.mask_key", mutant)
    assert distinguishers(run.without(run.seeds, run.pairs[COLLUDER]))
