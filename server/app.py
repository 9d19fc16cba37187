"""The Flower server app: executes one attempt of a run, from set-up to the result.

Flower's executor starts it. The environment names the coordinator's folder; the bundle names the
run and the number of the attempt. Keys stay with the daemon: the app asks for each signature over
the daemon's local socket.
"""

import base64
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from governance.runtime.local_rpc import ask
from keys.composite import Suite
from server.flower.carrier import FlowerCarrier
from server.flower.presence import PresenceUpdate
from server.home import HOME_VARIABLE, CoordinatorHome
from server.runs.attempt import run_attempt

app = ServerApp()


@app.main()  # type: ignore[untyped-decorator]
def main(grid: Grid, context: Context) -> None:
    """Execute the attempt that the bundle names."""
    home = CoordinatorHome(Path(os.environ[HOME_VARIABLE]))
    daemon = DaemonClient(home)
    carrier = FlowerCarrier(grid, daemon)
    run, attempt = str(context.run_config["run"]), int(str(context.run_config["attempt"]))
    run_attempt(home, run, attempt, carrier, daemon, seconds=home.settings().reply_seconds)


class DaemonClient:
    """The requests of the server app to the coordinator's daemon."""

    def __init__(self, home: CoordinatorHome) -> None:
        self._socket = home.socket

    def sign(self, message: bytes, suite: Suite) -> bytes:
        """Return the signature of 32 bytes by the coordinator's identity key, in this suite."""
        text = base64.b64encode(message).decode()
        return base64.b64decode(self._ask("sign", message=text, suite=suite.value))

    def presence_update(self, count: int, seconds: float) -> PresenceUpdate:
        """Return which nodes are connected, once there are more than `count` changes.

        Returns after `seconds` in any case.
        """
        return PresenceUpdate.from_json(self._ask("news", count=count, wait=seconds))

    def announce(self, countries: Sequence[str]) -> None:
        """Notify the relay that a message was pushed for each of these countries."""
        self._ask("announce", countries=list(countries))

    def release(self, study: str, run: str, outcome: dict[str, Any], model: bytes) -> None:
        """Send the run's outcome and model to the daemon, which signs and publishes them."""
        self._ask(
            "release",
            study=study,
            run=run,
            outcome=outcome,
            model=base64.b64encode(model).decode(),
        )

    def _ask(self, method: str, **params: Any) -> Any:
        return ask(self._socket, method, **params)
