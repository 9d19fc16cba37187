"""`pratique-coordinator log`: list and verify the coordinator's audit log."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import typer

from governance.runtime.cli_support import JsonOption, plain_errors, say, show_list
from governance.runtime.safe_text import named
from governance.runtime.wording import counted
from server.commands.options import DEFAULT_HOME, HomeOption, request

log_app = typer.Typer(no_args_is_help=True, help="The coordinator's audit log.")


@log_app.command("list")
def list_entries(home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False) -> None:  # noqa: FBT002 (a flag)
    """Print every entry, oldest first."""
    from governance.audit.exported import (  # noqa: PLC0415 (keeps --help quick)
        entries_in,
        fetch_head,
        fetch_lines,
    )

    with plain_errors():
        ask = partial(request, home)
        entries = entries_in(fetch_lines(ask, 0, fetch_head(ask).size))
        if as_json:
            show_list(entries)
        else:
            for entry in entries:
                say(_line(entry))


def _line(entry: Mapping[str, Any]) -> str:
    about = entry.get("subject") or entry.get("run") or entry.get("study")
    about = named(str(about)) if about else ""
    round_text = f", round {entry['round']}" if "round" in entry else ""
    return f"{entry['index']:5}  {entry['at']}  {entry['kind']:24} {about}{round_text}"


@log_app.command()
def verify(home: HomeOption = DEFAULT_HOME) -> None:
    """Verify every entry against the signed checkpoint."""
    from governance.audit.exported import fetch_head, fetch_lines  # noqa: PLC0415 (keeps --help quick)
    from governance.audit.note import NoteKey  # noqa: PLC0415
    from governance.audit.verify import verify_export  # noqa: PLC0415

    with plain_errors():
        ask = partial(request, home)
        ask("check_state", None)
        head = fetch_head(ask)
        key = NoteKey.from_text(head.verifier)
        whole = verify_export(fetch_lines(ask, 0, head.size), head.checkpoint.encode(), key)
        say(f"The log {key.name} is whole: {counted(whole.size, 'entry', 'entries')}.")
