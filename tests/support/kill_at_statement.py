"""Kill a child process at its n-th statement or commit, as a power cut would."""

import os
import signal
from collections.abc import Callable

from sqlalchemy import Engine, event


def killed_at(step: int, work: Callable[[], None]) -> bool:
    """Fork, run `work` in the child, and return whether it was killed; `work` calls `arm`."""
    child = os.fork()
    if child == 0:
        os._exit(_status(work))
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status not in (0, -signal.SIGKILL):
        raise AssertionError(f"The child ended with {status} at step {step}")
    return status != 0


def arm(engine: Engine, step: int) -> None:
    """Kill this process at the engine's event number `step`, from 1.

    An event is the start or the end of a statement, or a commit.
    """
    left = [step]

    def count(*_: object) -> None:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    event.listen(engine, "before_cursor_execute", count)
    event.listen(engine, "after_cursor_execute", count)
    event.listen(engine, "commit", count)


def _status(work: Callable[[], None]) -> int:
    try:
        work()
    except BaseException:  # noqa: BLE001  a forked child must not return into pytest
        return 99
    return 0
