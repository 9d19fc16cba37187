"""gRPC ignores an option that it does not know, so a wrong name would change nothing unseen."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("client", "server", "governance", "protocols", "keys", "tests", "bench", "demo")
OPTION = re.compile(r'"(grpc\.[a-z0-9_.]+)"')


def used() -> set[str]:
    files = (path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
    return {name for path in files for name in OPTION.findall(path.read_text(encoding="utf-8"))}


@pytest.fixture(scope="module")
def library() -> bytes:
    found = find_spec("grpc._cython.cygrpc")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).read_bytes()


def test_every_option_is_one_that_grpc_knows(library: bytes) -> None:
    names = used()
    assert len(names) > 10
    unknown = {name for name in names if name.encode() + b"\0" not in library}
    assert unknown == set()
