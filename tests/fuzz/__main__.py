"""Coverage-guided fuzzing of every parser of bytes from outside, with atheris.

    make fuzz                      # each target for a few seconds
    make fuzz SECONDS=1800         # half an hour in all
    .venv/bin/python -m tests.fuzz --seconds 60 "Cedar text"

Each target runs in a process of its own. What it found is written to build/fuzz, where its inputs
are kept as the beginning of the next run.
"""

import argparse
import json
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "build" / "fuzz"
LONGEST_CALL = 10
"""Seconds that one call may take; Cedar's process starts in half a second."""
MOST_MEMORY = 2_048
"""MiB of a target's process."""
LARGEST_INPUT = 65_536
DONE = re.compile(rb"Done (\d+) runs in (\d+) second")
COVERED = re.compile(rb"cov: (\d+) ft: (\d+)")


def fuzz(name: str) -> None:
    """Fuzz one target in this process; the remaining arguments are libFuzzer's."""
    import atheris  # noqa: PLC0415 (installed by `make fuzz` only)

    rooms = ["client", "server", "governance", "protocols", "keys"]
    with atheris.instrument_imports(include=rooms):
        from keys.errors import PratiqueError  # noqa: PLC0415
        from tests.fuzz.targets import TARGETS  # noqa: PLC0415

    parse = TARGETS[name].parse

    def one_input(data: bytes) -> None:
        try:
            parse(data)
        except PratiqueError:
            return

    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


def run(name: str, seconds: int) -> dict[str, object]:
    """Fuzz one target in another process, and return its result."""
    from tests.fuzz.targets import TARGETS  # noqa: PLC0415 (the fuzzed process instruments it)

    folder = FOLDER / re.sub(r"\W+", "-", name)
    corpus = folder / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(TARGETS[name].seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    limits = {
        "max_total_time": seconds,
        "timeout": LONGEST_CALL,
        "rss_limit_mb": MOST_MEMORY,
        "max_len": LARGEST_INPUT,
        "print_final_stats": 1,
    }
    command = [sys.executable, "-m", "tests.fuzz", "--target", name, str(corpus)]
    command += [f"-{key}={value}" for key, value in limits.items()]
    began = time.monotonic()
    ended = subprocess.run(
        [*command, f"-artifact_prefix={folder}/"], cwd=ROOT, capture_output=True, check=False
    )
    (folder / "output.txt").write_bytes(ended.stdout + ended.stderr)
    return {
        "target": name,
        "seconds": round(time.monotonic() - began),
        "inputs": _last(DONE, ended.stderr),
        "covered": _last(COVERED, ended.stderr),
        "fault": "" if ended.returncode == 0 else str(folder / "output.txt"),
    }


def _last(pattern: re.Pattern[bytes], text: bytes) -> int:
    matches = pattern.findall(text)
    return int(matches[-1][0]) if matches else 0


def main(arguments: Sequence[str]) -> int:
    """Fuzz the targets one after the other; return 1 if a fault was found."""
    from tests.fuzz.targets import TARGETS  # noqa: PLC0415

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
        print("{target}: {inputs} inputs, {covered} edges covered {fault}".format(**results[-1]))
    (FOLDER / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    return 1 if any(result["fault"] for result in results) else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--target"]:
        target = sys.argv.pop(2)
        del sys.argv[1]
        fuzz(target)
    else:
        sys.exit(main(sys.argv[1:]))
