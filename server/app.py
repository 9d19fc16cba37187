"""The Flower server app: carries one run of ours, from set-up to its result.

Started by Flower's executor with the coordinator's folder in the environment, and the run's id and
the number of the attempt in the bundle. Keys stay with the daemon: whatever is signed is signed
over its local desk.
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
from server.runs.attempt import carry_run

app = ServerApp()


@app.main()  # type: ignore[untyped-decorator]
def main(grid: Grid, context: Context) -> None:
    """Carry the run that the bundle names."""
    home = CoordinatorHome(Path(os.environ[HOME_VARIABLE]))
    daemon = DaemonClient(home)
    carrier = FlowerCarrier(grid, daemon)
    run, attempt = str(context.run_config["run"]), int(str(context.run_config["attempt"]))
    carry_run(home, run, attempt, carrier, daemon, seconds=home.settings().reply_seconds)


class DaemonClient:
    """What the server app asks of the coordinator's daemon."""

    def __init__(self, home: CoordinatorHome) -> None:
        self._socket = home.socket

    def sign(self, message: bytes, suite: Suite) -> bytes:
        """Sign 32 bytes with the coordinator's identity key, as the agreement asks."""
        text = base64.b64encode(message).decode()
        return base64.b64decode(self._ask("sign", message=text, suite=suite.value))

    def news(self, count: int, seconds: float) -> PresenceUpdate:
        """Return who is there once more than `count` things happened, or after `seconds`."""
        return PresenceUpdate.from_json(self._ask("news", count=count, wait=seconds))

    def announce(self, countries: Sequence[str]) -> None:
        """Tell the relay that a message was pushed for each of these countries."""
        self._ask("announce", countries=list(countries))

    def release(self, study: str, run: str, outcome: dict[str, Any], model: bytes) -> None:
        """Hand over what the run made, to be signed and released."""
        self._ask(
            "release",
            study=study,
            run=run,
            outcome=outcome,
            model=base64.b64encode(model).decode(),
        )

    def _ask(self, method: str, **params: Any) -> Any:
        return ask(self._socket, method, **params)
