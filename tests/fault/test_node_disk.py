"""Make each fdatasync of a running node fail; the node only refuses.

strace attaches to the node's process and makes one call, or every call from that one on, return
EIO.
"""

import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.crash_scenario import (
    WAYS,
    CrashScenario,
    Plan,
    ScenarioParties,
)
from tests.support.node_federation import NodeFederation, code_of
from tests.support.state_checks import Place

MISSING = {1: "NO"}
"""The country that is missing, so that the others also agree on a smaller set."""
STRACE = shutil.which("strace") or ""
MAX_CALLS, MAX_ASKED = 60, 4


@contextmanager
def failing(child: int, injection: str, report: Path) -> Iterator[None]:
    """Make system calls of a process fail as `injection` says; `report` lists those that failed."""
    options = ["-f", "-o", str(report), "-e", f"inject={injection}", "-p", str(child)]
    with subprocess.Popen(
        [STRACE, *options], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    ) as tracer:
        assert tracer.stderr is not None
        line = tracer.stderr.readline()
        if "attached" not in line:
            tracer.kill()
            pytest.skip(f"strace may not attach to a process here: {line.strip()}")
        try:
            yield
        finally:
            tracer.terminate()


pytestmark = [
    pytest.mark.fault,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not STRACE, reason="strace is not installed"),
]


class BadDisk(CrashScenario):
    """A run in which each fdatasync of the node fails in turn, at every message."""

    lasting, times = False, 1
    failures: Counter[str]

    def interrupt(self, frame: bytes, place: Place) -> None:
        """Fail the first fdatasync of a message, then the second, and so on until none is left."""
        for call in range(1, MAX_CALLS):
            (reply,), fired = self.attempt(frame, f"{call}+" if self.lasting else str(call))
            self._judge(reply, place, fired=fired)
            if not fired:
                return
        pytest.fail("every call failed")

    def attempt(self, frame: bytes, when: str) -> tuple[list[bytes | None], bool]:
        """Return the node's answer to a frame, sent once or again, and whether a call failed."""
        node = self.parties.node
        report = self.parties.federation.folder / "strace"
        report.unlink(missing_ok=True)
        node.kill()
        child = node.begin()
        # The node has to start before its disk fails: it does not start on such a disk.
        node.ask(b"")
        with failing(child, f"fdatasync,fsync:error=EIO:when={when}", report):
            replies = [node.ask(frame) for _ in range(self.times)]
            node.kill()
        return replies, "INJECTED" in report.read_text()

    def _judge(self, reply: bytes | None, place: Place, *, fired: bool) -> None:
        assert reply is not None, "a failing disk does not end a node"
        if code_of(reply) is None:
            self.parties.state_checks.took(place, reply)
        else:
            assert fired
            self.failures[place[2]] += 1
        self.parties.died(place[2], "EIO")


class BadMoment(BadDisk):
    """A run in which one fdatasync fails at every message, and the same process is asked again."""

    times, call = MAX_ASKED, 1

    def interrupt(self, frame: bytes, place: Place) -> None:
        """Fail one call; the last answer at least is as if nothing had failed."""
        replies, fired = self.attempt(frame, str(self.call))
        for reply in replies:
            self._judge(reply, place, fired=fired)
        assert replies[-1] is not None
        assert code_of(replies[-1]) is None


@pytest.mark.parametrize("call", [1, 2, 3])
def test_a_node_continues_after_its_disk_failed_once(tmp_path: Path, call: int) -> None:
    parties = ScenarioParties(NodeFederation(tmp_path / "federation"), "PT")
    journey = BadMoment(
        parties, parties.approved("heart-by-sex"), Plan(1, points=0, left=0), without=MISSING
    )
    journey.call, journey.failures = call, Counter()
    try:
        journey.run_to_end()
    finally:
        parties.node.kill()
        parties.federation.close()


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "from there on"])
def test_each_fdatasync_of_a_run_may_fail_once_or_permanently(
    tmp_path: Path, lasting: bool
) -> None:
    parties = ScenarioParties(NodeFederation(tmp_path / "federation"), "DK")
    journey = BadDisk(
        parties, parties.approved("heart-by-sex"), Plan(1, points=0, left=0), without=MISSING
    )
    journey.lasting, journey.failures = lasting, Counter()
    try:
        journey.run_to_end()
    finally:
        parties.node.kill()
        parties.federation.close()
    print(parties.deaths, journey.failures)
    assert set(journey.failures) == set(WAYS)
