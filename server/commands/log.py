"""`pratique-coordinator log`: list and verify the coordinator's audit log."""

import json
from typing import Any

import typer

from governance.runtime.cli_support import JsonOption, plain_errors, say, show
from governance.runtime.safe_text import named
from governance.runtime.wording import counted
from server.commands.options import DEFAULT_HOME, HomeOption, request

log_app = typer.Typer(no_args_is_help=True, help="The coordinator's audit log.")


@log_app.command("list")
def list_entries(home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False) -> None:  # noqa: FBT002 (a flag)
    """Print every entry, oldest first."""
    with plain_errors():
        export = request(home, "log_entries")
        entries = [json.loads(line)["entry"] for line in export["entries"]]
        show(entries, as_json=as_json, plain=_print_entries)


def _print_entries(entries: list[dict[str, Any]]) -> None:
    for entry in entries:
        about = entry.get("subject") or entry.get("run") or entry.get("study")
        about = named(about) if about else ""
        round_text = f", round {entry['round']}" if "round" in entry else ""
        say(f"{entry['index']:5}  {entry['at']}  {entry['kind']:24} {about}{round_text}")


@log_app.command()
def verify(home: HomeOption = DEFAULT_HOME) -> None:
    """Verify every entry against the signed checkpoint."""
    from governance.audit.note import NoteKey  # noqa: PLC0415 (keeps --help quick)
    from governance.audit.verify import verify_export  # noqa: PLC0415

    with plain_errors():
        export = request(home, "log_entries")
        key = NoteKey.from_text(export["verifier"])
        lines = [line.encode() for line in export["entries"]]
        verify_export(lines, export["checkpoint"].encode(), key)
        say(f"The log {key.name} is whole: {counted(len(lines), 'entry', 'entries')}.")
