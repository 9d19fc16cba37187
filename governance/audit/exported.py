"""Export a log for verification: its lines, and the signed checkpoint over them."""

from typing import Any

from governance.audit.checkpoint import open_checkpoint
from governance.audit.log import AuditLog


def export_log(log: AuditLog, start: int = 0, end: int | None = None) -> dict[str, Any]:
    """Return exported lines start ≤ index < end, the signed checkpoint, and the key for it."""
    checkpoint = log.checkpoint()
    size = open_checkpoint(checkpoint, log.verifier).size
    lines = [line.decode() for line in log.export(size)]
    return {
        "entries": lines[start:end],
        "checkpoint": checkpoint.decode(),
        "verifier": log.verifier.to_text(),
    }
