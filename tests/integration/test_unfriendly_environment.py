"""A federation of real processes among proxies and with clocks that differ: its runs open sums.

Every process has variables that name proxies at which nobody listens. Some nodes' clocks are ahead,
if a C compiler is here: a library moves what their processes read.
"""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo import party
from tests.support.process_federation import ProcessFederation

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
NOBODY = "http://127.0.0.1:9"
PROXIES = {
    **dict.fromkeys(("http_proxy", "https_proxy", "HTTPS_PROXY", "grpc_proxy"), NOBODY),
    **dict.fromkeys(("ALL_PROXY", "all_proxy"), "socks5://127.0.0.1:9"),
}
AHEAD = (10, 240)
"""Seconds by which the clocks of the first nodes are ahead."""
LIBRARY = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
int clock_gettime(clockid_t clock, struct timespec *time) {
  int (*real)(clockid_t, struct timespec *) = dlsym(RTLD_NEXT, "clock_gettime");
  int status = real(clock, time);
  if (status == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
    time->tv_sec += atol(getenv("SECONDS_AHEAD"));
  return status;
}
int gettimeofday(struct timeval *now, void *zone) {
  struct timespec time;
  clock_gettime(CLOCK_REALTIME, &time);
  now->tv_sec = time.tv_sec;
  now->tv_usec = time.tv_nsec / 1000;
  return 0;
}
time_t time(time_t *now) {
  struct timespec time;
  clock_gettime(CLOCK_REALTIME, &time);
  if (now) *now = time.tv_sec;
  return time.tv_sec;
}
"""


@pytest.fixture(scope="module")
def federation() -> Iterator[ProcessFederation]:
    plain = party._environment
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        folder = Path(name)
        patch.setattr(party, "_environment", lambda *given: plain(*given) | PROXIES)
        running = ProcessFederation.started(folder / "f")
        library = _library(folder)
        ahead = dict(zip(running.countries, AHEAD if library else (), strict=False))
        homes = {running.node(country).home: seconds for country, seconds in ahead.items()}

        def moved(home: Path, scratch: Path) -> dict[str, str]:
            seconds = str(homes.get(home, 0))
            clock = {"LD_PRELOAD": str(library), "SECONDS_AHEAD": seconds}
            return plain(home, scratch) | PROXIES | (clock if home in homes else {})

        patch.setattr(party, "_environment", moved)
        for country in ahead:
            running.node(country).kill()
        running.start_missing()
        yield running
        running.end()


def _library(folder: Path) -> Path | None:
    """Return a library that moves the clock of a process; None if it cannot be compiled."""
    if shutil.which("cc") is None:
        return None
    (folder / "clock.c").write_text(LIBRARY)
    words = ["cc", "-shared", "-fPIC", "-o", str(folder / "clock.so"), str(folder / "clock.c")]
    done = subprocess.run([*words, "-ldl"], capture_output=True, check=False)
    return folder / "clock.so" if done.returncode == 0 else None


def test_a_run_opens_its_sums(federation: ProcessFederation) -> None:
    federation.propose_and_permit("among-proxies", rounds=2)
    run = federation.launch("among-proxies")
    status = federation.wait_until_over("among-proxies", 200)
    assert status["state"] == "finished", status
    federation.check(run)


def test_a_node_says_how_its_clock_differs(federation: ProcessFederation) -> None:
    if shutil.which("cc") is None:
        pytest.skip("no compiler")
    for country, words in zip(
        federation.countries, ("10 seconds", "about 4 minutes"), strict=False
    ):
        node = federation.node(country)
        said = f"this machine's clock is {words} ahead of the exchange's"
        assert node.ask("status")["clock"] == said
        (check,) = [c for c in node.ask("doctor", unlock=True) if c["name"] == "clock"]
        assert check["state"] == "soon"
        assert said in check["says"]
    assert federation.node(federation.countries[-1]).ask("status")["clock"] is None
