"""A loop is stuck once it has made no progress within the time that it announced."""

from governance.runtime.progress import Progress


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_loops_without_progress_in_time_are_named_in_order() -> None:
    clock = Clock()
    progress = Progress(clock)
    progress.moved("serve", 10)
    progress.moved("beat", 5)
    assert progress.stuck() == ()
    clock.now += 7
    assert progress.stuck() == ("beat",)
    clock.now += 7
    assert progress.stuck() == ("beat", "serve")


def test_each_step_sets_a_new_deadline() -> None:
    clock = Clock()
    progress = Progress(clock)
    progress.moved("work", 3_600)
    progress.moved("work", 1)
    clock.now += 2
    assert progress.stuck() == ("work",)
    progress.moved("work", 1)
    assert progress.stuck() == ()


def test_an_ended_loop_needs_no_progress() -> None:
    clock = Clock()
    progress = Progress(clock)
    progress.moved("serve", 1)
    progress.ended("serve")
    progress.ended("never begun")
    clock.now += 9
    assert progress.stuck() == ()
