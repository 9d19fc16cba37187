"""Bad network links: whatever happens to bytes and calls, the run ends with the same model.

Nodes add no noise here, and what they draw repeats in each study. A contribution that is computed
twice, lost, or counted twice therefore changes the bits of the model.
"""

import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from governance.results.result import MODEL_FILE
from protocols.proto.exchange_pb2 import RelayReply, RelayRequest
from protocols.wire.channel import ExchangeLink, LinkFault
from tests.support.documents import COUNTRIES, training_fields
from tests.support.live_federation import LiveParts
from tests.support.proxy import FAIR, Weather
from tests.support.waiting import wait_until

pytestmark = [
    pytest.mark.fault,
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore:GitWildMatchPattern"),
]
ROUNDS = 6
RUN_SECONDS = 300.0


class FaultyLink:
    """A link on which a test can repeat, lose or reorder whole calls."""

    def __init__(self, link: ExchangeLink) -> None:
        self._link, self.how = link, ""
        self.done = 0
        self._random = random.Random(7)  # noqa: S311 (a test has to be repeatable)
        self._late = threading.Lock()
        self._held: list[RelayRequest] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._link, name)

    def relay(self, request: RelayRequest, seconds: float, *more: Any, **named: Any) -> RelayReply:
        """Pass a call on, with the fault that the test asked for."""
        act: Callable[..., RelayReply] | None = getattr(self, f"_{self.how}", None)
        if act is None or self._random.random() > CHANCE[self.how]:
            return self._link.relay(request, seconds, *more, **named)
        self.done += 1
        return act(lambda: self._link.relay(request, seconds, *more, **named), request)

    def _twice(self, call: Callable[[], RelayReply], _: RelayRequest) -> RelayReply:
        """Deliver the call twice; the second answer counts."""
        call()
        return call()

    def _lost(self, call: Callable[[], RelayReply], _: RelayRequest) -> RelayReply:
        """Deliver the call and lose its answer."""
        call()
        raise LinkFault("the answer was lost")

    def _never(self, call: Callable[[], RelayReply], _: RelayRequest) -> RelayReply:
        """Lose the call."""
        raise LinkFault("the call was lost")

    def _again(self, call: Callable[[], RelayReply], request: RelayRequest) -> RelayReply:
        """Deliver some earlier calls again, out of order, before this one."""
        with self._late:
            old, self._held = self._held[:-8], [*self._held[-8:], request]
        for earlier in self._random.sample(old, min(2, len(old))):
            try:
                self._link.relay(earlier, 5)
            except LinkFault:
                continue  # an old call may be refused
        return call()

    def _slow(self, call: Callable[[], RelayReply], _: RelayRequest) -> RelayReply:
        """Deliver the call after others that were made later."""
        time.sleep(self._random.uniform(0.1, 1.0))
        return call()


CHANCE = {"twice": 0.3, "lost": 0.1, "never": 0.1, "again": 1.0, "slow": 0.3}


@pytest.fixture(scope="module")
def wiring() -> Iterator[LiveParts]:
    parts = LiveParts.start()
    try:
        for country in COUNTRIES:
            parts.settle(country, FaultyLink)
        wait_until(lambda: all(parts.coordinator.context.sessions.online().values()))
        yield parts
    finally:
        parts.close()


class Trial:
    """One run of the same study under another name, during which a test causes faults.

    The weather begins once every node has the study's documents: a fetch that fails is repeated by
    a daemon's next upkeep, but not by the set-up of a test.
    """

    def __init__(self, wiring: LiveParts, name: str, weather: Weather = FAIR) -> None:
        self.wiring = wiring
        self.study = wiring.federation.allowed(name, **training_fields(ROUNDS))
        let(wiring, weather)
        self.run = wiring.launch(self.study)

    def rounds(self) -> list[dict[str, Any]]:
        status = self.wiring.coordinator.ask("study_status", name=self.study.id)
        history: list[dict[str, Any]] = status["history"]
        return history

    def at_round(self, number: int) -> None:
        """Wait until so many rounds are done."""
        wait_until(lambda: len(self.rounds()) >= number, RUN_SECONDS)

    def end(self) -> tuple[bytes, list[float]]:
        """Return the model of a run in which every country took part in every round."""
        status = wait_until(lambda: self.wiring.over(self.study), RUN_SECONDS)
        history = status["history"]
        assert (status["state"], status["reason"]) == ("finished", "")
        assert [entry["opened"] for entry in history] == [list(COUNTRIES)] * ROUNDS
        for node in self.wiring.federation.nodes.values():
            charged = [entry.phase for entry in node.parts.ledger.entries(run=self.run)]
            assert charged == ["train"]
        seconds = [entry["seconds"] for entry in history]
        figures = "  ".join(f"{duration:.2f}" for duration in seconds)
        print(f"\n{self.study.id}: seconds a round: {figures}")
        released = self.wiring.coordinator.home.results / self.study.id
        return (released / MODEL_FILE).read_bytes(), seconds


@pytest.fixture(scope="module")
def fair(wiring: LiveParts) -> bytes:
    """Return the model that a run over a good network makes."""
    return Trial(wiring, "fair").end()[0]


@pytest.fixture(autouse=True)
def clear_up(wiring: LiveParts) -> Iterator[None]:
    yield
    for country in COUNTRIES:
        wiring.proxies[country].weather = FAIR
        wiring.links[country].how = ""


def let(wiring: LiveParts, weather: Weather) -> None:
    for proxy in wiring.proxies.values():
        proxy.weather = weather
        proxy.events.clear()


def events(wiring: LiveParts, name: str) -> int:
    return sum(proxy.events[name] for proxy in wiring.proxies.values())


def test_two_runs_over_a_good_network_make_the_same_model(wiring: LiveParts, fair: bytes) -> None:
    assert Trial(wiring, "fair-again").end()[0] == fair


def test_a_delay_of_fifty_milliseconds_each_way_changes_no_model(
    wiring: LiveParts, fair: bytes
) -> None:
    assert Trial(wiring, "delay", Weather(delay=0.05)).end()[0] == fair


# In each hundred segments; a connection has thousands. This is far harsher than one cut in
# a hundred connections.
WEATHERS = {
    "cut": Weather(cut=0.02),
    "delay-and-cut": Weather(delay=0.05, cut=0.02),
    "double": Weather(double=0.02),
    "swap": Weather(swap=0.02),
    "narrow": Weather(delay=0.02, bandwidth=32_000),
}


@pytest.mark.parametrize("name", WEATHERS)
def test_segments_cut_off_doubled_or_swapped_change_no_model(
    wiring: LiveParts, fair: bytes, name: str
) -> None:
    """TLS ends the connection if the stream was changed, and the run goes on."""
    model, _ = Trial(wiring, name, WEATHERS[name]).end()
    hit = sum(events(wiring, kind) for kind in ("cut", "double", "swap"))
    print(f"{name}: {hit} hits, {events(wiring, 'connection')} new connections")
    assert hit or name == "narrow"
    assert model == fair


@pytest.mark.parametrize("ways", [(), ("up",), ("down",)], ids=["both", "up", "down"])
def test_half_open_connections_change_no_model(
    wiring: LiveParts, fair: bytes, ways: tuple[str, ...]
) -> None:
    trial = Trial(wiring, f"half-open-{'-'.join(ways) or 'both'}")
    trial.at_round(1)
    for proxy in wiring.proxies.values():
        proxy.mute_all(*ways)
    trial.at_round(3)
    wiring.proxies["EE"].mute_all(*ways)
    assert trial.end()[0] == fair


@pytest.mark.parametrize("how", CHANCE)
def test_calls_doubled_lost_late_or_out_of_order_change_no_model(
    wiring: LiveParts, fair: bytes, how: str
) -> None:
    for link in wiring.links.values():
        link.how, link.done = how, 0
    model, _ = Trial(wiring, how).end()
    done = sum(link.done for link in wiring.links.values())
    print(f"{how}: {done} calls")
    assert done > ROUNDS
    assert model == fair
