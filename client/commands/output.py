"""Prints the results of `pratique-node enrol` and `doctor` as plain lines."""

import sys
from typing import TYPE_CHECKING

from governance.runtime.cli_support import say
from governance.runtime.safe_text import named

if TYPE_CHECKING:
    from client.commands.check_result import CheckResult
    from client.commands.enrol import Introduction
    from client.home import NodeHome

SIGNS = {"good": "ok  ", "soon": "soon", "failed": "FAIL", "skipped": "--  "}


def print_introduction(introduction: "Introduction", *, as_json: bool) -> None:
    """Print what the operator compares by voice; with `as_json`, on standard error."""
    lines = (
        f"Federation: {named(introduction.federation)}, exchange at {named(introduction.exchange)}",
        f"Fingerprint of this request: {introduction.fingerprint}",
        f"Transport authority: {introduction.authority_digest}",
        f"Root of the documents: {introduction.root_digest}",
        (
            "Read the fingerprint out to the coordinator. Then ask the coordinator to read the two "
            "digests out to you, and check that they are the same."
        ),
    )
    for line in lines:
        say(line, err=as_json)
    sys.stdout.flush()


def print_enrolment(admitted: bool, home: "NodeHome") -> None:  # noqa: FBT001 (an answer, yes or no)
    """Print the result of the request for admission, and the next step."""
    if admitted:
        say("The node is admitted.")
        say(
            f"Next: your officer signs {home.node_keys}, unless it is signed already. Then run "
            "`pratique-node up`, or restart the daemon if it runs."
        )
    else:
        say("The request waits for approval; after that, run the same command again.")


def print_result(result: "CheckResult") -> None:
    """Print the result of one check of the doctor."""
    say(f"{SIGNS[result.state]}  {result.name}: {result.says}")
    if result.fix:
        say(f"      to do: {result.fix}")
