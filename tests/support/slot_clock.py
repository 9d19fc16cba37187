"""Reply slots on a clock that a test moves: sleeping takes no real time."""

from client.border.reply_timing import ReplySlots


class Time:
    """A monotonic clock that moves only when a test sleeps or adds to it."""

    def __init__(self) -> None:
        self.now, self.slept = 100.0, [0.0]

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def seconds_until_reply(
    time: Time, slots: ReplySlots, worked: float, place: tuple[str, int] = ("r", 1)
) -> float:
    """Return how long after a request its reply leaves, if making it took `worked` seconds."""
    arrived = time.monotonic()
    time.now += worked
    slots.wait(arrived, place)
    return time.now - arrived


def new_slots() -> tuple[Time, ReplySlots]:
    time = Time()
    slots = ReplySlots(0.05, time.monotonic, time.sleep)
    slots.know("r")
    return time, slots
