"""Kill a node in the middle of a run and start it again; the run continues."""

from dataclasses import dataclass

from demo.federation import Federation
from demo.party import CommandFailed

RESTART_SECONDS = 60.0
ROUND_LINE = "  round "


@dataclass
class NodeCrash:
    """Kills the node of a country once, when the watched run reports round `after`."""

    federation: Federation
    country: str
    after: int
    happened: bool = False
    void: int = 0

    def read_line(self, line: str) -> None:
        """Kill the node if the line reports round `after`; count void rounds."""
        self.void += line.startswith(ROUND_LINE) and "  void  " in line
        if not self.happened and line.startswith(f"{ROUND_LINE}{self.after:3}/"):
            self.happened = True
            self._kill_and_restart()

    def _kill_and_restart(self) -> None:
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
        """Explain how the run continued. Raises CommandFailed if the run ended too early."""
        if not self.happened:
            raise CommandFailed(f"The run ended before round {self.after}; no node was killed.")
        self.federation.story.say(
            f"{self.country}'s node found its charge, its keys of the run and its journal on disk. "
            "A message that might already have left was sent again, byte for byte; a message that "
            "had not left was computed once. The run kept its id; rounds void: "
            f"{self.void or 'none'}. The ledgers in the last section show that every country was "
            "charged the same amount, once."
        )
