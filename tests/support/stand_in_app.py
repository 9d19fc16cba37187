"""Replace the work of a server app's process in tests of the carrier.

A launcher of the test's own takes the place of `server.flower.launcher`. In a server app's process,
and nowhere else, `rehearse` then replaces `server.runs.attempt.run_attempt`.
"""

import hashlib
import sys
import time
from pathlib import Path
from typing import Any

from flwr.app import ConfigRecord, Message, RecordDict

import server.runs.attempt
from protocols.wire.flower_frame import FRAME, MESSAGE_TYPE, RECORD
from server.flower.carrier import FlowerCarrier

LARGE = bytes(range(256)) * 2**15
"""The size of a model or a contribution of 10^6 values in 64-bit words."""
CALL_STAND_IN = "from tests.support.stand_in_app import stand_in; stand_in()"
REPLY_SECONDS = 20.0
SHORT_SECONDS = 1.0


def write_launcher(folder: Path, server_app: str = CALL_STAND_IN) -> Path:
    """Write a launcher that first executes `server_app` in the process of a server app."""
    file = folder / "launcher.py"
    file.write_text(
        "import sys\n"
        f"sys.path.insert(0, {str(Path(__file__).parents[2])!r})\n"
        "from pathlib import Path\n"
        "from server.flower import launcher\n"
        "if sys.argv[2] == launcher.SERVER_APP:\n"
        f"    {server_app}\n"
        "launcher.main(Path(__file__).resolve())\n"
    )
    return file


def stand_in() -> None:
    server.runs.attempt.run_attempt = rehearse  # type: ignore[assignment]


def rehearse(
    home: Any, run_id: str, attempt: int, carrier: FlowerCarrier, services: Any, *, seconds: float
) -> None:
    """Send frames of every kind and report the replies."""
    present = services.presence_update(-1, 0).present
    nodes = {country: presence.node for country, presence in present.items()}
    everybody = sorted(nodes)
    report: dict[str, Any] = {
        "run": run_id,
        "home": str(home.path),
        "nodes": everybody,
        "attempt": attempt,
    }

    def ask(frame: bytes, seconds: float = REPLY_SECONDS) -> dict[str, str]:
        replies = carrier.exchange(dict.fromkeys(everybody, frame), seconds)
        return {country: reply.decode("latin-1") for country, reply in sorted(replies.items())}

    report["hello"] = ask(b"hello")
    started = time.monotonic()
    report["again"] = ask(b"again")
    report["seconds"] = time.monotonic() - started
    report["own"] = {c: r.decode() for c, r in carrier.exchange({"FR": b"own"}, 20.0).items()}
    report["late"] = ask(b"late-FR", SHORT_SECONDS)
    report["after late"] = ask(b"after late")
    _send_what_is_no_frame(carrier, nodes)
    report["after odd"] = ask(b"after odd")
    report["fault"] = ask(b"fault-DE", SHORT_SECONDS)
    report["after fault"] = ask(b"after fault")
    large = carrier.exchange(dict.fromkeys(everybody, LARGE), REPLY_SECONDS)
    report["large"] = {c: hashlib.sha256(r).hexdigest() for c, r in large.items()}
    report["argv"] = sys.argv
    report["command line"] = Path("/proc/self/cmdline").read_text().split("\0")
    services.release("study", run_id, report, b"")


def _send_what_is_no_frame(carrier: FlowerCarrier, nodes: dict[str, int]) -> None:
    odd = [
        (RecordDict(), MESSAGE_TYPE),
        (RecordDict({RECORD: ConfigRecord({"other": b"x"})}), MESSAGE_TYPE),
        (RecordDict({RECORD: ConfigRecord({FRAME: "text"})}), MESSAGE_TYPE),
        (RecordDict({RECORD: ConfigRecord({FRAME: b"x"})}), "train"),
        (RecordDict({RECORD: ConfigRecord({FRAME: b"x"})}), "query.other"),
    ]
    for content, kind in odd:
        carrier._queue._grid.push_messages(
            [Message(content, node, kind, ttl=60.0) for node in nodes.values()]
        )
        carrier._relay.announce(list(nodes))
