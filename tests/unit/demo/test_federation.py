"""A party enrols: the coordinator admits its request by fingerprint once the request is there."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from demo import federation as room
from demo.federation import Federation
from demo.party import CommandFailed, Party
from demo.story import Story
from demo.world import World

FINGERPRINT = "abcd-efgh-ijkl-mnop-qrst-uvwx"
OTHER = "2222-3333-4444-5555-6666-7777"


class Coordinator:
    """A coordinator that lists a request only after some queries, and admits only listed ones."""

    def __init__(self, late: int) -> None:
        self.late, self.looks, self.acts = late, 0, list[str]()

    def run(self, command: str, *words: Any) -> str:
        if command == "admit" and self.looks <= self.late:
            raise CommandFailed("No request with this fingerprint waits for approval")
        self.acts.append(" ".join([command, str(words[0])]))
        return ""

    def ask(self, *words: str) -> list[dict[str, str]]:
        assert words == ("admit", "--list")
        self.looks += 1
        known = [{"fingerprint": OTHER, "status": "pending"}]
        status = "pending" if self.looks > self.late else "refused"
        return [*known, {"fingerprint": FINGERPRINT, "status": status}]


class Node:
    """A node that prints its fingerprint, as `enrol` does."""

    def __init__(self) -> None:
        self.read: list[str] = []

    @contextmanager
    def lines(self, *words: Any, unlock: bool) -> Iterator[Iterator[str]]:
        assert words[0] == "enrol"
        assert unlock
        printed = ["Federation: demo", f"Fingerprint of this request: {FINGERPRINT}", "Enrolled."]
        yield self._noted(printed)

    def _noted(self, printed: list[str]) -> Iterator[str]:
        for line in printed:
            self.read.append(line)
            yield line


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "POLL_SECONDS", 0.0)


def federation(coordinator: Coordinator, folder: Path) -> Federation:
    world, story = SimpleNamespace(folder=folder), SimpleNamespace()
    return Federation(
        cast("World", world), cast("Story", story), cast("Party", coordinator), {}, {}
    )


@pytest.mark.parametrize("late", [0, 1, 5])
def test_a_party_is_admitted_once_its_request_is_there(tmp_path: Path, late: int) -> None:
    coordinator, node = Coordinator(late), Node()
    parties = federation(coordinator, tmp_path)
    assert parties.enrol(cast("Party", node), "PT", "node") == FINGERPRINT
    assert coordinator.acts == ["invite PT", f"admit {FINGERPRINT}"]
    assert coordinator.looks == late + 1
    assert node.read[-1] == "Enrolled.", "the command is followed to its end"


def test_a_request_that_never_comes_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "REQUEST_SECONDS", 0.05)
    coordinator = Coordinator(late=10**9)
    with pytest.raises(CommandFailed, match=f"No request with the fingerprint {FINGERPRINT}"):
        federation(coordinator, tmp_path).enrol(cast("Party", Node()), "PT", "node")
    assert coordinator.acts == ["invite PT"]
