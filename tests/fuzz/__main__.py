"""Coverage-guided fuzzing of every parser of bytes from outside, with atheris.

    make fuzz                      # each target for a few seconds
    make fuzz SECONDS=1800         # half an hour in all
    .venv/bin/python -m tests.fuzz --seconds 60 "Cedar text"

Each target runs in a process of its own, one after the other. What it found is written to
build/fuzz, where its inputs are kept as the beginning of the next run. A run begins from the
target's seeds and from the files of ../shared, if they are there.
"""

import argparse
import ctypes
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import NoReturn

import atheris

ROOMS = ["client", "server", "governance", "protocols", "keys"]
with redirect_stderr(StringIO()), atheris.instrument_imports(include=ROOMS):
    from tests.fuzz.shared_seeds import shared_seeds
    from tests.fuzz.target import Target
    from tests.fuzz.targets import TARGETS
    from tests.support.speed import share_duckdb

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "build" / "fuzz"
LARGEST_INPUT = 65_536
LIMITS = {
    "timeout": 10,  # seconds of one call; Cedar's process starts in half a second
    "rss_limit_mb": 2_048,
    "max_len": LARGEST_INPUT,
    "print_final_stats": 1,
}
DONE = re.compile(r"Done (\d+) runs in (\d+) second")
COVERED = re.compile(r"cov: (\d+) ft: \d+ corp: (\d+)")
LINE = "{target}: {inputs} inputs, {edges_of_seeds} to {edges} edges, corpus {corpus} {fault}"


def fuzz(target: Target, corpus: Path, seconds: int) -> NoReturn:
    """Fuzz one target; libFuzzer ends the process."""
    share_duckdb()
    _end_at_once_at_exit()
    limits = {"max_total_time": seconds, "artifact_prefix": f"{corpus.parent}/", **LIMITS}
    options = [f"-{name}={value}" for name, value in limits.items()]
    atheris.Setup([sys.argv[0], str(corpus), *options], target.check)
    atheris.Fuzz()
    os._exit(0)


def _end_at_once_at_exit() -> None:
    """Run no destructor at exit: that of a thread which only the parent has would abort."""
    libc = ctypes.CDLL(None)
    libc.on_exit(ctypes.cast(libc._exit, ctypes.c_void_p), None)


def run(name: str, seconds: int) -> dict[str, object]:
    """Fuzz one target in another process, and return its figures."""
    folder = FOLDER / re.sub(r"\W+", "-", name)
    corpus = folder / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    output, began = folder / "output.txt", time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fuzz") as scratch:
        child = os.fork()
        if not child:
            os.environ["TMPDIR"] = scratch
            _write_to(output)
            _write_seeds(name, corpus)
            fuzz(TARGETS[name], corpus, seconds)
        _, status = os.waitpid(child, 0)
    return {
        "target": name,
        "seconds": round(time.monotonic() - began),
        **_figures(output.read_text(errors="replace")),
        "fault": str(output) if status else "",
    }


def _write_to(output: Path) -> None:
    """Write everything that this process prints to a file."""
    with output.open("wb") as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)


def _write_seeds(name: str, corpus: Path) -> None:
    for number, seed in enumerate((*TARGETS[name].seeds, *shared_seeds(name))):
        (corpus / f"seed-{number}").write_bytes(seed[:LARGEST_INPUT])


def _figures(output: str) -> Mapping[str, int]:
    covered, done = COVERED.findall(output), DONE.findall(output)
    first, last = (covered[0], covered[-1]) if covered else (("0", "0"), ("0", "0"))
    return {
        "inputs": int(done[-1][0]) if done else 0,
        "edges_of_seeds": int(first[0]),
        "edges": int(last[0]),
        "corpus": int(last[1]),
    }


def main(arguments: Sequence[str]) -> int:
    """Fuzz the targets one after the other; return 1 if a fault was found."""
    parser = argparse.ArgumentParser(description="Fuzz the parsers of bytes from outside.")
    parser.add_argument("--seconds", type=int, default=120, help="in all (default: 120)")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="default: all of them")
    options = parser.parse_args(arguments)
    if unknown := sorted(set(options.targets) - set(TARGETS)):
        parser.error(f"there is no target {unknown[0]!r}; there are: {', '.join(TARGETS)}")
    names = options.targets or list(TARGETS)
    results = []
    for name in names:
        results.append(run(name, max(1, options.seconds // len(names))))
        print(LINE.format(**results[-1]), flush=True)
        (FOLDER / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    return 1 if any(result["fault"] for result in results) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
