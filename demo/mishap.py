"""A mishap in mid-run: a node is killed and started again, and the run goes on."""

from dataclasses import dataclass

from demo.federation import Federation
from demo.party import CommandFailed

RESTART_SECONDS = 60.0
ROUND_LINE = "  round "


@dataclass
class Mishap:
    """Kills the node of a country when the watched run reports a round, once."""

    federation: Federation
    country: str
    after: int
    happened: bool = False
    void: int = 0

    def look_at(self, line: str) -> None:
        """Strike when the line tells of round `after`; count void rounds."""
        self.void += line.startswith(ROUND_LINE) and "  void  " in line
        if not self.happened and line.startswith(f"{ROUND_LINE}{self.after:3}/"):
            self.happened = True
            self._strike()

    def _strike(self) -> None:
        story, node = self.federation.story, self.federation.nodes[self.country]
        story.say(
            f"Now {self.country}'s node is killed in the middle of a round (SIGKILL: it can "
            "neither finish nor save anything), and its operator starts it again:"
        )
        node.kill()
        story.command(f"node {self.country}", "pratique-node up")
        node.start("up", ready=self._connected, seconds=RESTART_SECONDS)

    def _connected(self) -> bool:
        try:
            return bool(self.federation.nodes[self.country].ask("status")["connected"])
        except CommandFailed:
            return False

    def explain(self) -> None:
        """Say what became of it. Raises CommandFailed where the run ended before the mishap."""
        if not self.happened:
            raise CommandFailed(f"The run ended before round {self.after}; nothing was killed.")
        self.federation.story.say(
            f"{self.country}'s node found its charge, its keys of the run and its journal on disk. "
            "What may have left was sent again as it was, byte for byte; what had not left was "
            f"made once. The run kept its id; rounds void: {self.void or 'none'}. The ledgers in "
            "the last act show that every country was charged the same, once."
        )
