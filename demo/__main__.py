"""`python -m demo`: four countries on one machine, from a signed agreement to a released model."""

import argparse
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from demo.closing import compare, verify_logs
from demo.federation import Federation
from demo.hospitals import DataMissing, four_hospitals
from demo.opening import admit_officers, sign_agreement, start_coordinator, start_nodes
from demo.party import CommandFailed, Processes
from demo.registers import four_countries
from demo.story import Story
from demo.studies import count, refuse, train
from demo.world import World

LONGEST_FOLDER = 60
STOPPING = (signal.SIGINT, signal.SIGTERM)


def main() -> int:
    """Run the demo and return its exit status."""
    arguments = _arguments()
    for name in STOPPING:
        signal.signal(name, _stop)
    try:
        with _folder(keep=arguments.keep) as folder:
            _run(folder, arguments.data)
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return 130
    except (CommandFailed, DataMissing) as fault:
        print(f"\n{fault}", file=sys.stderr)
        return 1
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="demo", description=__doc__)
    parser.add_argument("--data", type=Path, help="folder of the four hospitals' files")
    parser.add_argument("--keep", action="store_true", help="keep all files that the demo creates")
    return parser.parse_args()


def _stop(*_signal: object) -> None:
    """Stop at the first signal; a second Ctrl-C does not interrupt the clean-up."""
    for name in STOPPING:
        signal.signal(name, signal.SIG_IGN)
    raise KeyboardInterrupt


@contextmanager
def _folder(*, keep: bool) -> Iterator[Path]:
    """Yield a folder that is deleted after success, and kept for inspection after a failure."""
    folder = Path(tempfile.mkdtemp(prefix="pratique-", dir=_short(tempfile.gettempdir())))
    for name in ("logs", "tmp"):
        (folder / name).mkdir()
    try:
        yield folder
    except BaseException as fault:
        keep = keep or not isinstance(fault, (KeyboardInterrupt, DataMissing))
        raise
    finally:
        if keep:
            print(f"\nAll files are kept in {folder}, the logs in {folder}/logs", file=sys.stderr)
        else:
            shutil.rmtree(folder)


def _short(folder: str) -> str:
    """Return a short folder: a Unix socket's path below it may have at most 107 bytes."""
    return folder if len(folder) <= LONGEST_FOLDER else "/tmp"  # noqa: S108 (mkdtemp makes a private folder in it)


def _run(folder: Path, data: Path | None) -> None:
    story = Story()
    world = _world(folder, data)
    story.say(f"Four countries learn one model. {world.about}.")
    story.say(
        "Every command below is the real one, run as its own process; --home and --passphrase-file "
        "are not shown."
    )
    processes = Processes(folder / "logs")
    try:
        _sections(Federation.gather(world, story, processes))
    finally:
        processes.end_all()
    story.say("")
    story.say(f"Done in {story.seconds:.0f} s. Every process has ended and every file is gone.")


def _world(folder: Path, data: Path | None) -> World:
    return four_countries(folder) if data is None else four_hospitals(folder, data)


def _sections(federation: Federation) -> None:
    start_coordinator(federation)
    admit_officers(federation)
    documents = sign_agreement(federation)
    start_nodes(federation)
    training = train(federation, documents)
    histogram = count(federation, documents)
    refuse(federation, documents)
    verify_logs(federation)
    compare(federation, training, histogram)


if __name__ == "__main__":
    sys.exit(main())
