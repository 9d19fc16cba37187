"""Whether a country's node is there, as the relay knows it and the server app asks."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Presence:
    """A seated node: its Flower id, how often it signed in, and for how many seconds it was silent.

    A node that signs in again has forgotten what it was asked, unless it had answered.
    """

    node: int
    sign_ins: int
    silent: float

    @property
    def session(self) -> tuple[int, int]:
        """What differs after each sign-in, and each time the SuperLink was started again."""
        return self.node, self.sign_ins
